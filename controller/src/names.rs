//! Names of instances: `<revision>-<n>` with the lowest free n. An order that is repeated, because
//! a cache was late or another controller is about, so names the same instance again and the fleet
//! takes it once.

use std::collections::HashSet;

/// Free names for instances of a Revision, lowest first, without end.
pub(crate) fn free<'a>(revision: &'a str, taken: &'a HashSet<&'a str>) -> impl Iterator<Item = String> + 'a {
    (0_u64..).map(move |n| format!("{revision}-{n}")).filter(|name| !taken.contains(name.as_str()))
}

/// The Function that an instance's name belongs to: `shop-frontend` of `shop-frontend-0123456789-4`.
pub(crate) fn function_of(instance: &str) -> Option<&str> {
    let (revision, _slot) = instance.rsplit_once('-')?;
    let (function, _digest) = revision.rsplit_once('-')?;
    Some(function)
}

/// The name of the Revision whose template has this digest.
pub(crate) fn revision(function: &str, digest: &str) -> String {
    format!("{function}-{digest}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_free_names_are_taken_first() {
        let taken = HashSet::from(["r-0", "r-2", "other-1"]);
        assert_eq!(free("r", &taken).take(3).collect::<Vec<_>>(), ["r-1", "r-3", "r-4"]);
    }

    #[test]
    fn the_function_is_found_in_the_name_of_its_instance() {
        assert_eq!(function_of("shop-frontend-0123456789-4"), Some("shop-frontend"));
        assert_eq!(function_of("hello"), None);
    }

    #[test]
    fn the_longest_name_is_a_host_name() {
        let revision = revision(&"f".repeat(lambent_api::meta::MAX_NAME_LENGTH), "0123456789");
        let last = format!("{revision}-10000");
        assert!(last.len() <= 63, "{}", last.len());
    }

    proptest! {
        #[test]
        fn free_names_are_unique_and_not_taken(slots in proptest::collection::hash_set(0_u64..50, 0..40), count in 0_usize..60) {
            let taken: Vec<String> = slots.iter().map(|n| format!("r-{n}")).collect();
            let taken: HashSet<&str> = taken.iter().map(String::as_str).collect();
            let names: Vec<String> = free("r", &taken).take(count).collect();
            prop_assert_eq!(names.iter().collect::<HashSet<_>>().len(), count);
            prop_assert!(names.iter().all(|name| !taken.contains(name.as_str())));
        }
    }
}
