//! What has become of an instance, as the pool of its Function needs it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use lambent_fleet::{Instance, Phase};
use tokio::time::Instant;

use crate::{function::Function, member::Use};

/// Tells the pool what has become of an instance. Whether a connection is to be tried.
pub(super) fn observe(function: &Arc<Function>, instance: &Instance, early: bool, starting: &AtomicU32) -> bool {
    let now = Instant::now();
    let (connect, drained) = function.change(|pool| {
        if pool.find_mut(&instance.id.uid).is_none() {
            if matches!(instance.phase, Phase::Ended(_)) {
                return (false, None);
            }
            pool.add(Arc::new(instance.id.clone()), instance.revision.as_str().into(), now);
            starting.fetch_add(1, Ordering::Relaxed);
        }
        let Some(member) = pool.find_mut(&instance.id.uid) else { return (false, None) };
        if member.node.as_deref() != instance.node.as_deref() {
            member.node = instance.node.as_deref().map(Arc::from);
        }
        if std::mem::take(&mut member.gone) {
            // Another gateway has used it before our watch showed it.
            member.usage = Use::Starting;
            starting.fetch_add(1, Ordering::Relaxed);
        }
        if instance.placed.is_some() || instance.address.is_some() {
            member.started.placed.get_or_insert(now);
        }
        let moved = instance.address.is_some_and(|address| {
            member.started.addressed.get_or_insert(now);
            if early { member.target.set_early_address(address) } else { member.target.set_address(address) }
        });
        if moved || instance.restarts > member.restarts {
            member.restarts = instance.restarts;
            member.target.clear();
            member.usage = if member.usage == Use::Stopping { Use::Stopping } else { Use::Starting };
        }
        match instance.phase {
            Phase::Stopping | Phase::Ended(_) => member.usage = Use::Stopping,
            Phase::Unready | Phase::Failing(_) if member.usage != Use::Stopping => member.usage = Use::Starting,
            _ => {}
        }
        let drained = instance.phase == Phase::Stopping && member.in_flight == 0;
        (member.usage == Use::Starting && instance.connectable().is_some(), drained.then(|| instance.id.clone()))
    });
    if let Some(id) = drained {
        function.has_drained(id);
    }
    function.tell();
    connect
}
