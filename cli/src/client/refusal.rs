//! What an API server's refusals mean for a user, and what to do next.

use super::Place;

/// Words for an error of the API server while doing something, such as "list Functions".
pub fn words(error: &kube::Error, doing: &str, place: &Place) -> String {
    let named = place.named();
    let kube::Error::Api(status) = error else {
        return unreachable(&chain(error), doing, place);
    };
    let said = status.message.trim();
    match (status.code, place) {
        (401, Place::Dev { .. }) => format!("{named} was started anew meanwhile: try again"),
        (401, Place::Cluster { .. }) => {
            format!("{named} doesn't know you, can't {doing}: log in again, as its kubeconfig user does ({said})")
        }
        (403, _) => format!(
            "you may not {doing} on {named}: {said}. Ask for a role that allows it; the chart adds Functions and \
             Revisions to the roles view, edit and admin of their namespaces"
        ),
        // Not of an object: the whole kind is not known.
        (404, Place::Cluster { .. }) if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => {
            format!(
                "{named} has no Lambent, can't {doing}: install it with `helm install lambent`, or name another \
                     cluster with --context; see the README's \"Try it on a cluster\""
            )
        }
        (429 | 500.., _) => format!("{named} can't {doing} just now: {said}; try again"),
        _ => format!("{named} refuses to {doing}: {said}"),
    }
}

fn unreachable(error: &str, doing: &str, place: &Place) -> String {
    match place {
        Place::Dev { .. } => {
            format!("`lambent dev` has ended, or is just ending, can't {doing}: start it again ({error})")
        }
        Place::Cluster { .. } => format!(
            "{} can't be reached to {doing}: {error}. See whether `kubectl version` works, or name another cluster with \
             --context",
            place.named()
        ),
    }
}

/// An error with all its causes, none said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        next = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn cluster() -> Place {
        Place::Cluster { name: "prod".to_owned(), inside: false }
    }

    fn refused(code: u16, name: &str) -> String {
        let mut status = Status::failure("the server's words", "Reason").with_code(code);
        status.details = serde_json::from_value(serde_json::json!({"name": name})).ok();
        words(&kube::Error::Api(Box::new(status)), "list Functions", &cluster())
    }

    #[test]
    fn each_refusal_says_what_to_do_next() {
        for (code, name, expected) in [
            (401, "", "log in again"),
            (403, "", "Ask for a role"),
            (404, "", "has no Lambent"),
            (404, "hello", "refuses to list Functions: the server's words"),
            (503, "", "try again"),
        ] {
            let words = refused(code, name);
            assert!(words.contains(expected) && words.contains("the cluster prod"), "{code}: {words}");
        }
    }

    #[test]
    fn who_can_not_be_reached_is_named_with_a_way_out() {
        let error = || kube::Error::Service(std::io::Error::other("connection refused").into());
        let words_of = |place: &Place| words(&error(), "list Functions", place);
        let dev = words_of(&Place::Dev { gateway: String::new() });
        assert!(dev.contains("start it again") && dev.contains("connection refused"), "{dev}");
        let cluster = words_of(&cluster());
        assert!(cluster.contains("the cluster prod can't be reached") && cluster.contains("--context"), "{cluster}");
    }
}
