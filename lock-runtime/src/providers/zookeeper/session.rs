//! One session, the grants that live and end with it, and when it was last confirmed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zookeeper_client::{Client, Error, MultiWriteError, SessionState, StateWatcher};

use super::error::fault;
use crate::background;
use crate::clock::Timestamp;
use crate::future::{First, select};
use crate::provider::{LossReporter, OwnerId};
use crate::providers::kit::fault::Fault;
use crate::providers::kit::session::Liveness;

/// How long the paths may be, taken together, that a session watches. The client tells a new
/// connection of them in pieces of 128 KiB, and takes the answer to a second piece for an error.
/// Then no connection would come about any more (`WatchManager::resend_watches` in version 0.11).
pub(super) const ROOM: usize = 100 << 10;

pub(super) const ENDED: &str = "its ZooKeeper session has expired or was closed";

/// A session, and the client that keeps it alive. It is closed, with all its locks, when this is
/// dropped.
pub(super) struct Session {
    pub(super) client: Client,
    /// How long its connections may be silent.
    silence: Duration,
    state: Arc<State>,
    /// How much of its room is taken.
    taken: AtomicUsize,
}

/// A part of a session's room, enough to watch the nodes with which somebody queues.
pub(super) struct Room {
    session: Arc<Session>,
    length: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.session.taken.fetch_sub(self.length, Ordering::AcqRel);
    }
}

/// What the task that watches the session has too.
struct State {
    liveness: Liveness<OwnerId>,
    /// A moment before the last request was sent that a majority of the ensemble has confirmed.
    confirmed: AtomicU64,
    /// Since when it has no connection, if it has none.
    disconnected: Mutex<Option<Timestamp>>,
}

impl Session {
    /// Keeps a session. `sent_at` was read before it was asked for.
    pub(super) fn new(client: Client, silence: Duration, sent_at: Timestamp) -> Arc<Self> {
        let state = Arc::new(State {
            liveness: Liveness::new(),
            confirmed: AtomicU64::new(sent_at.as_nanos()),
            disconnected: Mutex::default(),
        });
        background::spawn_beside(watch(client.state_watcher(), Arc::clone(&state)));
        Arc::new(Self {
            client,
            silence,
            state,
            taken: AtomicUsize::new(0),
        })
    }

    /// Takes room for a path of this length, if there is so much; the first one always has room.
    pub(super) fn room(self: &Arc<Self>, length: usize) -> Option<Room> {
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken == 0 || taken + length <= ROOM).then_some(taken + length)
            })
            .ok()?;
        Some(Room {
            session: Arc::clone(self),
            length,
        })
    }

    /// Returns the session's id, as the server writes it into the nodes.
    pub(super) fn id(&self) -> i64 {
        self.client.session_id().0
    }

    /// Returns how long the server keeps a session of which it does not hear.
    pub(super) fn timeout(&self) -> Duration {
        self.client.session_timeout()
    }

    /// Returns how long a lock is valid from the moment at which a confirmed request was sent.
    ///
    /// The leader ends a session when it has not heard of it for its timeout. A client's request
    /// reaches the leader at once only if they are connected. Else the follower in between tells it
    /// with its next answer to the leader's ping, which comes every half tick
    /// (`LearnerHandler.ping`, `LearnerSessionTracker.snapshot`). If the follower is cut off just
    /// then, what the leader heard last is older by that time, and by the time between two signs of
    /// life of the client. A tick is at most half of the timeout (`minSessionTimeout`), so half of
    /// one is at most a quarter.
    pub(super) fn validity(&self) -> Duration {
        let timeout = self.timeout();
        let known_late = timeout / 4 + signs_of_life(self.silence, timeout);
        (timeout - known_late).min(timeout * 3 / 5)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.liveness.has_ended()
    }

    /// Says why it has ended, if it has.
    pub(super) fn why_ended(&self) -> Option<&str> {
        self.state.liveness.why_ended()
    }

    pub(super) async fn ended(&self) {
        self.state.liveness.ended().await;
    }

    /// Says whether it is connected now.
    pub(super) fn is_connected(&self) -> bool {
        self.client.state() == SessionState::SyncConnected
    }

    /// Returns since when it has had no connection; now, if it has one or has lost it just now.
    pub(super) fn disconnected_since(&self) -> Timestamp {
        let since = *self.state.disconnected();
        since.unwrap_or_else(Timestamp::now)
    }

    /// Says whether it has had no connection for so long.
    pub(super) fn is_out_for(&self, limit: Duration) -> bool {
        !self.is_connected() && (self.disconnected_since() + limit).has_passed()
    }

    /// Waits until it has had no connection for so long.
    pub(super) async fn out_for(&self, limit: Duration) {
        let mut watcher = self.client.state_watcher();
        loop {
            if self.is_connected() {
                watcher.changed().await;
                continue;
            }
            let since = self.disconnected_since();
            let waited = tokio::time::sleep((since + limit).remaining());
            if let First::Left(()) = select(waited, watcher.changed()).await
                && self.is_out_for(limit)
            {
                return;
            }
        }
    }

    /// Waits for a connection, and says whether there is one before an outage has lasted so long.
    pub(super) async fn connects_within(&self, limit: Duration) -> bool {
        if self.is_connected() {
            return true;
        }
        let mut watcher = self.client.state_watcher();
        let connecting = async {
            while !self.is_connected() {
                watcher.changed().await;
            }
        };
        let by = self.disconnected_since() + limit;
        tokio::time::timeout(by.remaining(), connecting)
            .await
            .is_ok()
    }

    /// Makes the end of the session the loss of this grant, unless it is
    /// [let go](Self::let_go) before.
    pub(super) fn hold(&self, owner: OwnerId, loss: &LossReporter) {
        if !self.state.liveness.add_lock(owner, loss.clone()) {
            loss.report(ENDED);
        }
    }

    pub(super) fn let_go(&self, owner: OwnerId) {
        self.state.liveness.remove_lock(&owner);
    }

    /// Takes note that a majority has carried out, for this session, a request sent at that moment
    /// or later.
    pub(super) fn confirmed(&self, sent_at: Timestamp) {
        let confirmed = &self.state.confirmed;
        confirmed.fetch_max(sent_at.as_nanos(), Ordering::AcqRel);
    }

    /// Returns when it was last confirmed, if that is not long ago.
    pub(super) fn just_confirmed(&self) -> Option<Timestamp> {
        let at = Timestamp::from_nanos(self.state.confirmed.load(Ordering::Acquire));
        (!(at + self.validity() / 10).has_passed()).then_some(at)
    }

    /// Has the leader and a majority confirm that the session lives and the node exists; answers
    /// false if it does not exist. A mere read could be answered by a server that is cut off.
    pub(super) async fn confirm(&self, node: &str) -> Result<bool, Error> {
        let sent_at = Timestamp::now();
        let mut check = self.client.new_multi_writer();
        check.add_check_version(node, -1)?;
        match check.commit().await {
            Ok(_) => {
                self.confirmed(sent_at);
                Ok(true)
            }
            Err(MultiWriteError::OperationFailed {
                source: Error::NoNode,
                ..
            }) => {
                self.confirmed(sent_at);
                Ok(false)
            }
            Err(MultiWriteError::OperationFailed { source, .. }) => Err(source),
            Err(MultiWriteError::RequestFailed { source }) => Err(source),
        }
    }

    /// Says what an error means. After one that says so, the session is used no more, and its locks
    /// are gone or as good as gone.
    pub(super) fn note(&self, error: &Error) -> Fault {
        let fault = fault(error);
        if fault == Fault::Ended {
            self.state.liveness.end(ENDED);
        }
        fault
    }
}

impl Room {
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl State {
    fn disconnected(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.disconnected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how far apart signs of life are at most.
///
/// The client gives one when the last is three eighths of the time ago for which a connection may
/// be silent. While it waits for an answer to the one before, it gives none; but it waits no longer
/// than the whole time. Where that time is long, the client has its own idea of it (its
/// `Session::reset_timeout`).
fn signs_of_life(silence: Duration, timeout: Duration) -> Duration {
    if silence > timeout * 3 / 5 {
        timeout * 2 / 5
    } else {
        silence
    }
}

/// Notices outages and the end of the session, whether or not anybody asks it anything.
async fn watch(mut watcher: StateWatcher, state: Arc<State>) {
    let mut now = watcher.state();
    while !now.is_terminated() {
        {
            let mut disconnected = state.disconnected();
            *disconnected = match now {
                SessionState::SyncConnected => None,
                _ => disconnected.or_else(|| Some(Timestamp::now())),
            };
        }
        now = watcher.changed().await;
    }
    state.liveness.end(ENDED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_come_in_time() {
        let timeout = Duration::from_secs(20);
        for silence in 1..100 {
            let apart = signs_of_life(Duration::from_millis(silence * 500), timeout);
            // With half a tick, there is time left to count on.
            assert!(apart <= timeout * 3 / 5, "{silence}: {apart:?}");
        }
        // While an answer is owed there is none, until the connection is given up.
        assert_eq!(signs_of_life(timeout / 5, timeout), timeout / 5);
        assert_eq!(signs_of_life(timeout, timeout), timeout * 2 / 5);
    }
}
