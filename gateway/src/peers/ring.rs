//! Which gateway owns a Function: rendezvous hashing, so that one that comes or goes moves only
//! its own share. Pure, and the same in every version, since versions run side by side in an update.

use std::sync::Arc;

use lambent_api::FunctionKey;
use sha2::{Digest, Sha256};

/// The owner of a Function among `members`; none if there are none.
pub fn owner<'a>(members: &'a [Arc<str>], function: &FunctionKey) -> Option<&'a Arc<str>> {
    members.iter().max_by_key(|member| (weight(member, function), *member))
}

fn weight(member: &str, function: &FunctionKey) -> u64 {
    let mut hash = Sha256::new();
    for part in [member, &function.namespace, &function.name] {
        hash.update(part);
        hash.update([0]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn an_owner_never_changes_between_versions() {
        let three = members(&["gateway-a", "gateway-b", "gateway-c"]);
        let of = |name: &str| owner(&three, &FunctionKey::new("shop", name)).map(|o| o.to_string());
        assert_eq!(of("hello").as_deref(), Some("gateway-c"));
        assert_eq!(of("resize").as_deref(), Some("gateway-a"));
        assert_eq!(owner(&[], &FunctionKey::new("shop", "hello")), None);
    }

    #[test]
    fn the_shares_are_about_equal() {
        let three = members(&["gateway-a", "gateway-b", "gateway-c"]);
        let mut shares = std::collections::HashMap::new();
        for n in 0..3000 {
            *shares.entry(owner(&three, &FunctionKey::new("shop", format!("f-{n}")))).or_insert(0) += 1;
        }
        assert!(shares.values().all(|share| (850..1150).contains(share)), "{shares:?}");
    }

    proptest! {
        #[test]
        fn who_leaves_moves_only_what_was_his(name in "[a-z]{1,20}", gone in 0_usize..4) {
            let all = members(&["a", "b", "c", "d"]);
            let function = FunctionKey::new("shop", name);
            let before = owner(&all, &function).unwrap();
            let mut left = all.clone();
            let gone = left.remove(gone);
            let after = owner(&left, &function).unwrap();
            prop_assert!(before == after || *before == gone);
        }
    }
}
