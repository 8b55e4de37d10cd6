//! Leading under a Lease: one of several replicas works, and a clean stop gives the Lease back so
//! that the next one starts at once. Whether another's Lease has run out is judged by how long it
//! has not changed on our own clock, so that clocks may differ.

use std::{future::Future, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A leader that is not heard of for so long is replaced.
const DURATION: Duration = Duration::from_secs(15);
/// A leader says so this often.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// A leader that could not say so for this long stops: before another may start.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// A candidate looks this often, so that a Lease given back is taken within a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// No call takes longer.
const CALL: Duration = Duration::from_secs(3);

/// What a candidate does about the Lease that it sees.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Renew,
    Wait,
}

/// | holder | last change | step |
/// | --- | --- | --- |
/// | nobody | | take |
/// | me | | renew |
/// | another | less than its duration ago | wait |
/// | another | longer ago | take |
fn step(lease: Option<&LeaseSpec>, me: &str, unchanged_for: Duration) -> Step {
    let Some(lease) = lease else { return Step::Take };
    match lease.holder_identity.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == me => Step::Renew,
        Some(_) => {
            let seconds = lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
            let duration = seconds.map_or(DURATION, Duration::from_secs);
            if unchanged_for > duration { Step::Take } else { Step::Wait }
        }
    }
}

/// One candidate for one Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: &'static str,
    me: String,
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// A candidate of this identity, which must be another one for each replica and start.
    pub fn new(client: Client, namespace: &str, name: &'static str, me: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name, me, seen: None }
    }

    /// Waits to lead, does the work until `shutdown` or until the Lease is lost, and gives it back.
    /// `work` gets a token that is cancelled when it must stop. Returns when `shutdown` is
    /// cancelled, or with the work's result.
    pub async fn lead<W, R>(
        mut self,
        shutdown: CancellationToken,
        work: impl FnOnce(CancellationToken) -> W,
    ) -> Option<R>
    where
        W: Future<Output = R>,
    {
        while !self.try_once().await {
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = sleep(LOOK_EVERY) => {}
            }
        }
        info!(lease = self.name, identity = self.me, "leading");
        let stop = shutdown.child_token();
        let mut work = std::pin::pin!(work(stop.clone()));
        let result = tokio::select! {
            result = work.as_mut() => result,
            () = self.keep() => {
                warn!(lease = self.name, "the lease is lost; stopping");
                stop.cancel();
                work.await
            }
        };
        self.give_back().await;
        Some(result)
    }

    /// Renews until that fails for too long or another has taken it.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(RENEW_EVERY).await;
            if self.try_once().await {
                renewed = Instant::now();
            } else if renewed.elapsed() + CALL > GIVE_UP_AFTER {
                return;
            }
        }
    }

    /// Takes or renews the Lease if that may be. Whether it is ours now.
    async fn try_once(&mut self) -> bool {
        match timeout(CALL, self.attempt()).await {
            Ok(Ok(leading)) => leading,
            // Another was faster.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => false,
            Ok(Err(error)) => {
                warn!(lease = self.name, %error, "the lease could not be read or written");
                false
            }
            Err(_) => {
                warn!(lease = self.name, "the API server did not answer in time");
                false
            }
        }
    }

    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(self.name).await?;
        let unchanged_for = self.unchanged_for(lease.as_ref());
        let step = step(lease.as_ref().and_then(|l| l.spec.as_ref()), &self.me, unchanged_for);
        debug!(lease = self.name, ?step, "lease");
        let now = MicroTime(Timestamp::now());
        match (step, lease) {
            (Step::Wait, _) => return Ok(false),
            (_, None) => {
                let metadata = ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(None, &now)) };
                self.api.create(&PostParams::default(), &lease).await?;
            }
            (_, Some(mut lease)) => {
                lease.spec = Some(self.spec(lease.spec.as_ref(), &now));
                // With the resourceVersion that was read: of two takers one gets 409.
                self.api.replace(self.name, &PostParams::default(), &lease).await?;
            }
        }
        Ok(true)
    }

    fn unchanged_for(&mut self, lease: Option<&Lease>) -> Duration {
        let version = lease.and_then(|l| l.metadata.resource_version.clone()).unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed(),
            _ => {
                self.seen = Some((version, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: &MicroTime) -> LeaseSpec {
        let mine = before.filter(|b| b.holder_identity.as_deref() == Some(&*self.me));
        let transitions = before.and_then(|b| b.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: mine.and_then(|m| m.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now.clone()),
            lease_transitions: Some(if mine.is_some() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    /// Lets the next one begin at once.
    async fn give_back(&self) {
        let give = async {
            let mut lease = self.api.get(self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&*self.me) {
                return Ok(());
            }
            spec.holder_identity = None;
            self.api.replace(self.name, &PostParams::default(), &lease).await.map(drop)
        };
        match timeout(CALL, give).await {
            Ok(Ok(())) => info!(lease = self.name, "lease given back"),
            Ok(Err(error)) => warn!(lease = self.name, %error, "could not give the lease back; it runs out by itself"),
            Err(_) => warn!(lease = self.name, "the lease could not be given back in time; it runs out by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: Option<&str>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_free_ours_or_long_unchanged() {
        let rows = [
            (None, 0, Step::Take),
            (Some(held_by(None)), 0, Step::Take),
            (Some(held_by(Some(""))), 0, Step::Take),
            (Some(held_by(Some("me"))), 0, Step::Renew),
            (Some(held_by(Some("other"))), 14, Step::Wait),
            (Some(held_by(Some("other"))), 16, Step::Take),
        ];
        for (lease, seconds, expected) in rows {
            assert_eq!(step(lease.as_ref(), "me", Duration::from_secs(seconds)), expected, "{lease:?} {seconds}");
        }
    }
}
