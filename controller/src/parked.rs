//! What the gateways say of frozen instances: told in the status, and nothing else comes of it.

use lambent_api::{Reason, signal::Load};

use crate::{context::Context, memory::Memory};

/// What was said last about a Revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parked {
    /// How many of its instances are frozen.
    pub(crate) count: u32,
    /// Why those are not that should be.
    pub(crate) why_not: Option<Reason>,
}

/// Takes what a gateway says. The Function is looked at if it is something new.
pub(crate) fn take<F>(context: &Context<F>, load: &Load) {
    let key = load.function_key();
    let said = Parked { count: load.parked, why_not: load.not_parkable.clone() };
    if context.remember_if_known(&key, |memory| note(memory, &load.revision, said)) == Some(true) {
        context.queue.touch(key);
    }
}

/// Whether it is news.
fn note(memory: &mut Memory, revision: &str, said: Parked) -> bool {
    let Some(remembered) = memory.known_revision(revision) else { return false };
    let before = remembered.parked.as_deref().cloned().unwrap_or_default();
    let news = before != said;
    if news {
        // Most Revisions have none.
        remembered.parked = (said != Parked::default()).then(|| Box::new(said));
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_of_a_known_revision_is_news() {
        let mut memory = Memory::default();
        let two = || Parked { count: 2, why_not: None };
        assert!(!note(&mut memory, "r", two()), "it is not known");
        memory.revision("r");
        assert!(note(&mut memory, "r", two()));
        assert!(!note(&mut memory, "r", two()));
        assert!(note(&mut memory, "r", Parked::default()));
        assert!(memory.revision("r").parked.is_none());
    }
}
