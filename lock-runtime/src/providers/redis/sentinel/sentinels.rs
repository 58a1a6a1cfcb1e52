//! All sentinels of a service: asking them which server is the primary, and listening to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::super::address::HostPort;
use super::super::client::Server;
use super::knowledge::{Knowledge, Learnt};
use super::peer::{Hears, Peer};
use super::tally::Tally;
use super::told::{Answer, Other, Told};
use crate::LockError;
use crate::background;
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::providers::kit::backoff::{Pauses, jittered};
use crate::wake::survive;

/// How long to wait for a majority once one sentinel has answered.
const FOR_A_MAJORITY: Duration = Duration::from_millis(250);
/// How often each sentinel is asked again. A message may be lost together with a connection.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The pauses between attempts to reach a sentinel, doubled from one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// No more sentinels than this are listened to.
const MOST: usize = 32;

/// Says where an announced address is to be connected to.
pub(crate) type AddressMap = dyn Fn(&str, u16) -> (String, u16) + Send + Sync;

/// What is set for a service behind sentinels.
pub(crate) struct SentinelSettings {
    pub(crate) service: String,
    /// The sentinels that the user has named, and how to connect to them.
    pub(crate) listed: Vec<(HostPort, Server)>,
    /// How to connect to the servers; its address means nothing.
    pub(crate) data: Server,
    pub(crate) address_map: Option<Arc<AddressMap>>,
    /// How long a sentinel may take to answer.
    pub(crate) patience: Duration,
}

pub(crate) struct Sentinels {
    settings: SentinelSettings,
    peers: Mutex<Vec<Arc<Peer>>>,
    knowledge: Mutex<Knowledge>,
    /// Counts how often another server has become the primary.
    moves: watch::Sender<u64>,
    /// Whether each sentinel is listened to.
    is_watching: AtomicBool,
    /// Whether it was said that no sentinel can be reached.
    has_warned: AtomicBool,
}

impl Sentinels {
    pub(crate) fn new(settings: SentinelSettings) -> Self {
        let listed = settings.listed.iter();
        let peers = listed.map(|(host, server)| Peer::new(server.clone(), host.clone(), true));
        Self {
            peers: Mutex::new(peers.map(Arc::new).collect()),
            knowledge: Mutex::default(),
            moves: watch::Sender::new(0),
            is_watching: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
            settings,
        }
    }

    pub(crate) fn service(&self) -> &str {
        &self.settings.service
    }

    /// Returns the sentinels that the user has named.
    pub(crate) fn listed(&self) -> String {
        let hosts = self
            .settings
            .listed
            .iter()
            .map(|(host, _)| host.to_string());
        hosts.collect::<Vec<_>>().join(", ")
    }

    /// Says whether a server is the primary, as far as is known.
    pub(crate) fn is_primary(&self, address: &HostPort) -> bool {
        self.knowledge().is_primary(address)
    }

    /// Returns what changes whenever another server has become the primary.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Asks all sentinels for the primary, and waits for a majority of them or, once one has
    /// answered, for a moment.
    ///
    /// # Errors
    ///
    /// If none names one, or all name one older than this process has seen.
    pub(crate) async fn resolve(self: &Arc<Self>) -> Result<Server, LockError> {
        let (newest, missing) = self.ask_all().await?;
        let (settled, learnt) = self.knowledge().settle(&newest, missing)?;
        self.announce(learnt, &settled);
        let host = self.reachable(&settled.address);
        self.settings.data.at(&host, settled.address)
    }

    /// Returns the newest of what the sentinels tell, and whether any has not told.
    async fn ask_all(self: &Arc<Self>) -> Result<(Told, bool), LockError> {
        let peers = self.peers().clone();
        let counted = peers.iter().filter(|peer| peer.counts()).count();
        let mut tally = Tally::new(peers.len(), counted);
        let (answers, mut arriving) = mpsc::unbounded_channel();
        for peer in peers {
            let (this, answers) = (Arc::clone(self), answers.clone());
            // A task of its own: what comes later than a majority is heard too.
            background::spawn_beside(async move {
                // The receiver may have heard enough.
                let _ = answers.send(this.ask(&peer).await);
            });
        }
        drop(answers);
        let mut until: Option<Timestamp> = None;
        while !tally.has_majority() {
            let next = match until {
                None => arriving.recv().await,
                Some(until) => tokio::time::timeout(until.remaining(), arriving.recv())
                    .await
                    .unwrap_or(None),
            };
            let Some(answer) = next else { break };
            tally.add(answer, |told| self.knowledge().believes(told));
            if tally.names_one() {
                until.get_or_insert_with(|| Timestamp::now() + FOR_A_MAJORITY);
            }
        }
        let missing = tally.misses_any();
        Ok((tally.outcome(&self.settings.service)?, missing))
    }

    /// Asks one sentinel, and takes note of what it tells.
    async fn ask(self: &Arc<Self>, peer: &Arc<Peer>) -> Result<Answer, LockError> {
        let answer = self.question(peer).await?;
        if let Some(told) = &answer.told {
            let is_first = self.knowledge().is_empty();
            // The first is settled by several sentinels.
            if !is_first {
                let learnt = self.knowledge().learn(told);
                self.announce(learnt, told);
            }
        }
        self.add(&answer.others);
        Ok(answer)
    }

    async fn question(self: &Arc<Self>, peer: &Arc<Peer>) -> Result<Answer, LockError> {
        let SentinelSettings {
            service, patience, ..
        } = &self.settings;
        peer.ask(service, *patience, || self.hears(peer)).await
    }

    /// Returns who hears what a sentinel tells by itself.
    fn hears(self: &Arc<Self>, peer: &Arc<Peer>) -> Hears {
        let (this, peer) = (Arc::downgrade(self), Arc::downgrade(peer));
        Arc::new(move |primary| {
            if let (Some(this), Some(peer)) = (this.upgrade(), peer.upgrade()) {
                this.switched(peer, &primary);
            }
        })
    }

    /// Takes a sentinel's word that this server has become the primary, and asks it for the rest.
    fn switched(self: Arc<Self>, peer: Arc<Peer>, primary: &HostPort) {
        if !self.knowledge().switched(primary) {
            return;
        }
        self.moves.send_modify(|moves| *moves += 1);
        background::spawn_beside(async move {
            if let Ok(answer) = self.question(&peer).await
                && let Some(told) = answer.told
            {
                let learnt = self.knowledge().learn_from_sender(&told);
                self.announce(learnt, &told);
            }
        });
    }

    fn announce(&self, learnt: Learnt, told: &Told) {
        if learnt == Learnt::Moved {
            tracing::info!(
                service = self.settings.service,
                primary = %told.address,
                "another Redis server is the primary now"
            );
            self.moves.send_modify(|moves| *moves += 1);
        }
    }

    /// Adds sentinels that another one has named.
    fn add(self: &Arc<Self>, others: &[Other]) {
        for other in others {
            let mut host = None;
            // It may call code of the user, which may panic.
            survive(|| host = Some(self.reachable(&other.address)));
            let Some(host) = host else { continue };
            let mut peers = self.peers();
            let is_known = |peer: &Arc<Peer>| {
                *peer.host() == host || peer.id().is_some_and(|id| id == other.id)
            };
            if peers.iter().any(is_known) {
                continue;
            }
            if peers.len() >= MOST {
                // One that came and went, perhaps with an address for each of its starts.
                match peers.iter().position(|peer| !peer.counts()) {
                    Some(gone) => drop(peers.remove(gone)),
                    None => continue,
                }
            }
            let Some((_, like)) = self.settings.listed.first() else {
                continue;
            };
            let Ok(server) = like.at(&host, other.address.clone()) else {
                continue;
            };
            let peer = Arc::new(Peer::new(server, host, false));
            peers.push(Arc::clone(&peer));
            drop(peers);
            if self.is_watching.load(Ordering::Relaxed) {
                self.listen_to(&peer);
            }
        }
    }

    /// Listens to all sentinels from now on, for as long as this is there. To be called on the
    /// background runtime.
    pub(crate) fn watch(self: &Arc<Self>) {
        if self.is_watching.swap(true, Ordering::Relaxed) {
            return;
        }
        for peer in self.peers().clone() {
            self.listen_to(&peer);
        }
    }

    fn listen_to(self: &Arc<Self>, peer: &Arc<Peer>) {
        let listening = Self::listen(Arc::downgrade(self), Arc::downgrade(peer));
        background::spawn_beside(listening);
    }

    /// Keeps the connection to one sentinel, and asks it again and again.
    async fn listen(this: Weak<Self>, peer: Weak<Peer>) {
        let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
        while let (Some(sentinels), Some(peer)) = (this.upgrade(), peer.upgrade()) {
            let asked = sentinels.ask(&peer).await;
            if sentinels.is_another_name(&peer) {
                return sentinels.peers().retain(|it| !Arc::ptr_eq(it, &peer));
            }
            sentinels.note_reach(asked.as_ref().err());
            let ended = peer.ended().await;
            drop((sentinels, peer));
            match ended {
                Some(ended) if asked.is_ok() => {
                    let pause = tokio::time::sleep(ASKED_AGAIN_AFTER);
                    if let First::Right(()) = select(ended.wait(), pause).await {
                        pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
                        continue;
                    }
                }
                _ => {}
            }
            tokio::time::sleep(jittered(pauses.advance())).await;
        }
    }

    /// Says whether a sentinel that another one has named is one that is known by another address.
    fn is_another_name(&self, peer: &Arc<Peer>) -> bool {
        let is_same = |other: &Arc<Peer>| {
            !Arc::ptr_eq(other, peer) && other.id().is_some() && other.id() == peer.id()
        };
        !peer.is_listed() && self.peers().iter().any(is_same)
    }

    /// Warns once if no sentinel can be reached.
    fn note_reach(&self, error: Option<&LockError>) {
        let Some(error) = error else {
            if self.has_warned.swap(false, Ordering::Relaxed) {
                tracing::info!(
                    service = self.settings.service,
                    "Redis sentinels can be reached again"
                );
            }
            return;
        };
        let is_any_reached = self.peers().iter().any(|peer| peer.is_reached());
        if !is_any_reached && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                service = self.settings.service,
                %error,
                "no Redis sentinel can be reached; the locks stay on the present primary, and a \
                 failover would go unnoticed until its connection breaks"
            );
        }
    }

    /// Returns where an announced address is to be connected to.
    fn reachable(&self, announced: &HostPort) -> HostPort {
        match &self.settings.address_map {
            None => announced.clone(),
            Some(map) => {
                let (host, port) = map(announced.host(), announced.port());
                HostPort::new(&host, port)
            }
        }
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        self.knowledge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
