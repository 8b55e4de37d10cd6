//! Who owns what: follows which gateways there are, claims this one's share, and yields what others
//! claim. One task, one event after the other; what each event means is decided on plain values.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use lambent_api::{FunctionKey, InstanceRef};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info};

use super::{
    lent::Lent,
    link::{self, Introduction, Link},
    message::{Busy, Message},
    ring,
};
use crate::{directory::Directory, function::Function, owner::Owner, permit::Permit, pool::Origin};

/// What is claimed by two is claimed again after a random part of this, on top of the same.
const AGAIN_WITHIN: Duration = Duration::from_millis(60);
/// How often it is looked whether all Functions are claimed. What is not, twice in a row, is claimed again: claims
/// cross each other when several gateways come and go at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A gateway's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPod {
    /// Its internal port.
    pub address: SocketAddr,
    /// Whether callers are sent there.
    pub ready: bool,
}

/// What the coordinator is told.
pub enum Event {
    /// All gateways' pods, by name, this one's too.
    Pods(BTreeMap<Arc<str>, PeerPod>),
    /// There is a Function that was not there before; nobody grants its slots yet.
    Function(Arc<Function>),
    /// A connection to another gateway is there.
    LinkUp { peer: Arc<str> },
    /// It is lost, or could not be made. A dead gateway's requests are over.
    LinkDown { peer: Arc<str>, dead: bool },
    /// Another gateway said something that concerns owners.
    Said { peer: Arc<str>, message: Message },
    /// Another gateway has connected.
    Guest { peer: Arc<str>, boot: u64, session: u64, to: mpsc::UnboundedSender<Message> },
    /// It claims its share.
    Claimed { peer: Arc<str>, session: u64, seq: u64, members: Vec<Arc<str>> },
    /// Its connection has ended.
    GuestGone { peer: Arc<str>, session: u64 },
    /// This gateway stops: others may have what it owns.
    Leave,
}

/// Decides who owns what.
pub struct Coordinator {
    me: Introduction,
    directory: Arc<Directory>,
    lent: Arc<Lent>,
    events: mpsc::UnboundedSender<Event>,
    synced: CancellationToken,
    peers: BTreeMap<Arc<str>, Peer>,
    ready: bool,
    leaving: bool,
    claim: Claim,
    /// Tells which of two claims came later.
    order: u64,
    claim_again: Option<Instant>,
    /// A Function was unclaimed when it was last looked.
    unclaimed: bool,
}

/// This gateway's claim.
#[derive(Default)]
struct Claim {
    seq: u64,
    order: u64,
    members: Vec<Arc<str>>,
    /// Who has not answered yet.
    unanswered: HashSet<Arc<str>>,
    /// Functions that are taken over once everyone has.
    pending: HashSet<FunctionKey>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Connecting,
    Connected,
    Dead,
}

struct Peer {
    link: Arc<Link>,
    reach: Reach,
    pod: Option<(PeerPod, AbortOnDropHandle<()>)>,
    leaving: bool,
    guest: Option<Guest>,
    /// Slots that its callers use at instances of our Functions, as it has yielded them.
    occupied: Occupied,
    /// The same, as it is being told.
    yielding: Occupied,
}

struct Guest {
    boot: u64,
    session: u64,
    to: mpsc::UnboundedSender<Message>,
    claim: Option<(Vec<Arc<str>>, u64)>,
}

#[derive(Default)]
struct Occupied(HashMap<(FunctionKey, String), Vec<Permit>>);

impl Occupied {
    fn release(&mut self, key: &(FunctionKey, String)) {
        if let Some(permits) = self.0.get_mut(key) {
            permits.pop();
            if permits.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

impl Coordinator {
    /// `synced` is cancelled once it is known which gateways there are.
    pub fn new(
        me: Introduction,
        directory: Arc<Directory>,
        lent: Arc<Lent>,
        events: mpsc::UnboundedSender<Event>,
        synced: CancellationToken,
    ) -> Self {
        Self {
            me,
            directory,
            lent,
            events,
            synced,
            peers: BTreeMap::new(),
            ready: false,
            leaving: false,
            claim: Claim::default(),
            order: 0,
            claim_again: None,
            unclaimed: false,
        }
    }

    /// Takes events until nobody sends any.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut look = interval(LOOK_EVERY);
        loop {
            let again = self.claim_again;
            let event = tokio::select! {
                event = events.recv() => event,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.claim_again = None;
                    self.claim();
                    continue;
                }
                _ = look.tick() => {
                    self.look_for_unclaimed();
                    continue;
                }
            };
            let Some(event) = event else { return };
            self.take(event);
            if self.synced.is_cancelled() && self.members() != self.claim.members {
                self.claim();
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Pods(pods) => self.pods(&pods),
            Event::Function(function) => self.function(&function),
            Event::LinkUp { peer } => self.link_up(&peer),
            Event::LinkDown { peer, dead } => self.link_down(&peer, dead),
            Event::Said { peer, message } => self.said(&peer, message),
            Event::Guest { peer, boot, session, to } => self.guest(&peer, boot, session, to),
            Event::Claimed { peer, session, seq, members } => self.yield_to(&peer, session, seq, members),
            Event::GuestGone { peer, session } => self.guest_gone(&peer, session),
            Event::Leave => {
                self.leaving = true;
                self.peers.values().for_each(|peer| peer.link.send(Message::Leaving));
            }
        }
    }

    /// Who shares the Functions, as far as this gateway knows: those that callers are sent to; if
    /// there are none yet, those that can be reached; never nobody.
    fn members(&self) -> Vec<Arc<str>> {
        let there = |peer: &Peer| peer.reach == Reach::Connected && !peer.leaving;
        let me = (&self.me.name, self.ready, !self.leaving);
        let others = self.peers.iter().map(|(name, p)| (name, p.pod.as_ref().is_some_and(|(p, _)| p.ready), there(p)));
        let all: Vec<_> = others.chain([me]).filter(|(_, _, there)| *there).collect();
        let any_ready = all.iter().any(|(_, ready, _)| *ready);
        let mut members: Vec<_> = all.iter().filter(|m| m.1 || !any_ready).map(|m| m.0.clone()).collect();
        if members.is_empty() {
            members.push(self.me.name.clone());
        }
        members.sort();
        members
    }

    fn is_mine(&self, function: &FunctionKey) -> bool {
        ring::owner(&self.claim.members, function) == Some(&self.me.name)
    }

    /// Claims this gateway's share of the Functions.
    fn claim(&mut self) {
        self.order += 1;
        // One that has connected and is not on our list yet claims as well.
        let unanswered =
            self.peers.iter().filter(|(_, p)| p.reach != Reach::Dead && (p.pod.is_some() || p.guest.is_some()));
        self.claim = Claim {
            seq: self.claim.seq + 1,
            order: self.order,
            members: self.members(),
            unanswered: unanswered.map(|(name, _)| name.clone()).collect(),
            pending: HashSet::new(),
        };
        for function in self.directory.all() {
            if self.is_mine(&function.key) && !function.owner().is_me() {
                self.claim.pending.insert(function.key.clone());
            }
        }
        info!(members = ?self.claim.members, taking_over = self.claim.pending.len(), "gateways that share the functions");
        self.peers.values_mut().for_each(|peer| say_claim(&self.claim, peer));
        self.complete();
    }

    /// Takes over once everyone has agreed.
    fn complete(&mut self) {
        if self.claim.unanswered.is_empty() {
            for key in self.claim.pending.drain() {
                if let Some(function) = self.directory.any(&key.namespace, &key.name) {
                    function.take_over();
                }
            }
        }
    }

    fn pods(&mut self, pods: &BTreeMap<Arc<str>, PeerPod>) {
        self.ready = pods.get(&self.me.name).is_some_and(|pod| pod.ready);
        let me = self.me.clone();
        for (name, pod) in pods.iter().filter(|(name, _)| **name != me.name) {
            let me = me.clone();
            let events = self.events.clone();
            let peer = self.peer(name);
            match &mut peer.pod {
                Some((known, _)) if known.address == pod.address => *known = *pod,
                other => {
                    let task = tokio::spawn(link::keep(peer.link.clone(), pod.address, me, events));
                    *other = Some((*pod, AbortOnDropHandle::new(task)));
                    peer.link.disconnected();
                    peer.reach = Reach::Connecting;
                }
            }
        }
        // One that has connected may be newer than our list.
        let gone = self.peers.iter_mut().filter(|(name, peer)| peer.pod.is_some() && !pods.contains_key(*name));
        let gone: Vec<_> = gone.map(|(name, peer)| (name.clone(), peer.pod = None).0).collect();
        for name in gone {
            self.link_down(&name, true);
        }
        self.synced.cancel();
    }

    fn peer(&mut self, name: &Arc<str>) -> &mut Peer {
        let first_id = self.me.boot;
        self.peers.entry(name.clone()).or_insert_with(|| Peer {
            link: Arc::new(Link::new(name.clone(), first_id)),
            reach: Reach::Connecting,
            pod: None,
            leaving: false,
            guest: None,
            occupied: Occupied::default(),
            yielding: Occupied::default(),
        })
    }

    fn function(&mut self, function: &Arc<Function>) {
        let theirs = self.peers.values().filter_map(|peer| {
            let guest = peer.guest.as_ref()?;
            let (members, order) = guest.claim.as_ref()?;
            let is_theirs = ring::owner(members, &function.key) == Some(peer.link.name());
            is_theirs.then(|| (*order, peer.link.clone(), guest.to.clone()))
        });
        let theirs = theirs.max_by_key(|(order, ..)| *order);
        let is_mine = self.is_mine(&function.key);
        match theirs {
            Some((order, link, heir)) if !is_mine || order > self.claim.order => {
                function.yield_to(link, heir);
                self.contest(is_mine);
            }
            _ if is_mine => {
                self.claim.pending.insert(function.key.clone());
                self.complete();
            }
            // Whoever owns it will claim it.
            _ => {}
        }
    }

    fn link_up(&mut self, name: &Arc<str>) {
        let leaving = self.leaving;
        let Some(peer) = self.peers.get_mut(name) else { return };
        (peer.reach, peer.leaving) = (Reach::Connected, false);
        // It may not know yet, or not know any more.
        say_claim(&self.claim, peer);
        if leaving {
            peer.link.send(Message::Leaving);
        }
    }

    fn link_down(&mut self, name: &Arc<str>, dead: bool) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.reach = if dead { Reach::Dead } else { Reach::Connecting };
        // Also where the connection was given up here: whoever waits for an answer asks elsewhere.
        peer.link.disconnected();
        if dead {
            (peer.occupied, peer.yielding) = Default::default();
            self.lent.forget(name);
            self.claim.unanswered.remove(name);
            self.forget_if_gone(name);
            self.complete();
        }
    }

    fn forget_if_gone(&mut self, name: &Arc<str>) {
        if self.peers.get(name).is_some_and(|peer| peer.pod.is_none() && peer.guest.is_none()) {
            self.lent.forget(name);
            self.peers.remove(name);
        }
    }

    fn said(&mut self, name: &Arc<str>, message: Message) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        match message {
            Message::Leaving => peer.leaving = true,
            Message::Unclaimed => self.contest(true),
            Message::Yielded { namespace, function, busy, retired } => {
                let key = FunctionKey::new(namespace, function);
                if let Some(function) = self.directory.any(&key.namespace, &key.name) {
                    occupy(&mut peer.yielding, &function, busy, &retired);
                }
            }
            Message::Released { namespace, function, uid } => {
                let key = (FunctionKey::new(namespace, function), uid);
                peer.yielding.release(&key);
                peer.occupied.release(&key);
            }
            Message::Acked { seq, fence } if seq == self.claim.seq => {
                let is_mine = |key: &FunctionKey| ring::owner(&self.claim.members, key) == Some(&self.me.name);
                // What was not claimed anew is known from before.
                let before = std::mem::take(&mut peer.occupied);
                let now = std::mem::take(&mut peer.yielding);
                let (over, kept): (Vec<_>, Vec<_>) = before.0.into_iter().partition(|((key, _), _)| is_mine(key));
                peer.occupied.0 = now.0.into_iter().chain(kept).collect();
                self.lent.take_back_before(name, fence, is_mine);
                drop(over);
                self.claim.unanswered.remove(name);
                self.complete();
            }
            Message::Acked { .. } => peer.yielding = Occupied::default(),
            _ => {}
        }
    }

    fn guest(&mut self, name: &Arc<str>, boot: u64, session: u64, to: mpsc::UnboundedSender<Message>) {
        let peer = self.peer(name);
        if peer.guest.as_ref().is_some_and(|guest| guest.session > session) {
            // It has connected again meanwhile.
            return;
        }
        let restarted = peer.guest.as_ref().is_some_and(|guest| guest.boot != boot);
        peer.guest = Some(Guest { boot, session, to, claim: None });
        if restarted {
            (peer.occupied, peer.yielding) = Default::default();
            self.lent.forget(name);
        } else if let Some(peer) = self.peers.get_mut(name) {
            // What was granted or given back on a lost connection is settled by another claim.
            say_claim(&self.claim, peer);
        }
    }

    /// Another gateway claims: what is its own by its members is not granted here any more.
    fn yield_to(&mut self, name: &Arc<str>, session: u64, seq: u64, members: Vec<Arc<str>>) {
        self.order += 1;
        let order = self.order;
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some(guest) = peer.guest.as_mut().filter(|guest| guest.session == session) else { return };
        let (link, to) = (peer.link.clone(), guest.to.clone());
        let fence = link.fence();
        let mut contested = false;
        for function in self.directory.all() {
            if ring::owner(&members, &function.key) == Some(name) {
                function.yield_to(link.clone(), to.clone());
                self.claim.pending.remove(&function.key);
                contested |= ring::owner(&self.claim.members, &function.key) == Some(&self.me.name);
            }
        }
        guest.claim = Some((members, order));
        let _ = to.send(Message::Acked { seq, fence });
        self.contest(contested);
    }

    /// What two claim is claimed again after a while of random length, lest both go on at once.
    fn contest(&mut self, contested: bool) {
        if contested && self.claim_again.is_none() {
            let part = f64::from(u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0))
                / f64::from(u32::MAX);
            self.claim_again = Some(Instant::now() + AGAIN_WITHIN + AGAIN_WITHIN.mul_f64(part));
        }
    }

    /// Has what nobody owns for a while claimed again, here or by whose it is.
    fn look_for_unclaimed(&mut self) {
        let all = self.directory.all();
        let unclaimed = all.iter().filter(|f| self.is_unclaimed(f) && !self.claim.pending.contains(&f.key));
        let (mine, theirs): (Vec<_>, Vec<_>) = unclaimed.partition(|function| self.is_mine(&function.key));
        let any = !(mine.is_empty() && theirs.is_empty());
        if self.synced.is_cancelled() && std::mem::replace(&mut self.unclaimed, any) && any {
            info!(mine = mine.len(), theirs = theirs.len(), "Functions that nobody claims are claimed again");
            if !theirs.is_empty() {
                self.peers.values().for_each(|peer| peer.link.send(Message::Unclaimed));
            }
            self.contest(!mine.is_empty());
        }
    }

    /// What is taken for another gateway's counts as well, if that one does not claim it any more.
    fn is_unclaimed(&self, function: &Function) -> bool {
        let is_claimed_by = |owner: &Arc<str>| {
            let claim = self.peers.get(owner).and_then(|peer| peer.guest.as_ref()?.claim.as_ref());
            claim.is_some_and(|(members, _)| ring::owner(members, &function.key) == Some(owner))
        };
        match function.owner() {
            Owner::Me => false,
            Owner::Nobody => true,
            Owner::Peer(owner) => !is_claimed_by(owner.name()),
        }
    }

    fn guest_gone(&mut self, name: &Arc<str>, session: u64) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        if peer.guest.as_ref().is_none_or(|guest| guest.session != session) {
            return;
        }
        debug!(peer = &**name, "a gateway that may own functions is not connected");
        peer.guest = None;
        if peer.pod.is_none() {
            self.claim.unanswered.remove(name);
            self.complete();
        }
        let mut any_mine = false;
        for function in self.directory.all() {
            if matches!(function.owner(), Owner::Peer(owner) if owner.name() == name) {
                function.await_owner();
                any_mine |= self.is_mine(&function.key);
            }
        }
        self.contest(any_mine);
        self.forget_if_gone(name);
    }
}

fn say_claim(claim: &Claim, peer: &mut Peer) {
    if peer.reach == Reach::Connected && claim.seq > 0 {
        let members = claim.members.iter().map(ToString::to_string).collect();
        peer.link.send(Message::Claim { seq: claim.seq, members });
    }
}

/// Takes the slots that another gateway's callers use.
fn occupy(into: &mut Occupied, function: &Arc<Function>, busy: Vec<Busy>, retired: &[InstanceRef]) {
    let now = Instant::now();
    for Busy { instance, revision, requests } in busy {
        let (uid, instance, revision) = (instance.uid.clone(), Arc::new(instance), Arc::from(revision));
        let occupied = into.0.entry((function.key.clone(), uid)).or_default();
        occupied.extend((0..requests).map(|_| {
            let grant = function.change(|pool| pool.occupy(&instance, &revision, Origin::Peer, now));
            Permit::new(function.clone(), grant, None)
        }));
    }
    retired.iter().for_each(|instance| function.change(|pool| pool.mark_retired(&instance.uid, now)));
}
