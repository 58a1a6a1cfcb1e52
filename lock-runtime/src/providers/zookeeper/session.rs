//! One session, the grants that live and end with it, and when it was last confirmed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zookeeper_client::{Client, Error, MultiWriteError, SessionState, StateWatcher};

use super::error::{Fault, fault};
use crate::clock::Timestamp;
use crate::provider::{LossReporter, OwnerId};
use crate::race::{First, first_of};
use crate::signal::Signal;

/// How long the paths may be, taken together, that a session has an eye on. The client tells a new
/// connection of them in pieces of 128 KiB, and takes the answer to a second piece for an error: no
/// connection would come about any more (`WatchManager::resend_watches` in version 0.11).
const ROOM: usize = 100 << 10;

pub(super) const ENDED: &str = "its ZooKeeper session has expired or was closed";

/// A session, and the client that keeps it alive. Closed, with all its locks, when dropped.
pub(super) struct Session {
    pub(super) client: Client,
    /// How long its connections may be silent.
    silence: Duration,
    state: Arc<State>,
    /// How much of its room is taken.
    taken: AtomicUsize,
}

/// A part of a session's room, for an eye on one path at a time.
pub(super) struct Room {
    session: Arc<Session>,
    length: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.session.taken.fetch_sub(self.length, Ordering::AcqRel);
    }
}

/// What outlives the client.
struct State {
    ended: Signal<()>,
    /// Whom to tell when it ends.
    grants: Mutex<HashMap<OwnerId, LossReporter>>,
    /// Before the last request was sent that a majority of the ensemble has confirmed.
    confirmed: Mutex<Timestamp>,
    /// Since when it has no connection, if it has none.
    disconnected: Mutex<Option<Timestamp>>,
}

impl Session {
    /// `sent_at` was read before the session was asked for.
    pub(super) fn new(client: Client, silence: Duration, sent_at: Timestamp) -> Arc<Self> {
        let state = Arc::new(State {
            ended: Signal::new(),
            grants: Mutex::default(),
            confirmed: Mutex::new(sent_at),
            disconnected: Mutex::default(),
        });
        tokio::spawn(watch(client.state_watcher(), Arc::clone(&state)));
        Arc::new(Self {
            client,
            silence,
            state,
            taken: AtomicUsize::new(0),
        })
    }

    /// Room for a path of this length, if there is so much; the first one always has room.
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

    /// The session's id, as the server writes it into the nodes.
    pub(super) fn id(&self) -> i64 {
        self.client.session_id().0
    }

    /// How long the server keeps a session of which it does not hear.
    pub(super) fn timeout(&self) -> Duration {
        self.client.session_timeout()
    }

    /// For how long a lock is valid from the moment at which a confirmed request was sent.
    ///
    /// The leader ends a session when it has not heard of it for its timeout. A client's request
    /// reaches the leader at once only if they are connected; else the follower in between tells
    /// it with its next answer to the leader's ping, which comes every half tick
    /// (`LearnerHandler.ping`, `LearnerSessionTracker.snapshot`). If the follower is cut off
    /// just then, what the leader heard last is by as much older, and by the time between two
    /// signs of life that the client gives. A tick is at most half of the timeout
    /// (`minSessionTimeout`), so half of one is at most a quarter.
    pub(super) fn validity(&self) -> Duration {
        let timeout = self.timeout();
        let known_late = timeout / 4 + signs_of_life(self.silence, timeout);
        (timeout - known_late).min(timeout * 3 / 5)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.ended.get().is_some()
    }

    pub(super) async fn ended(&self) {
        self.state.ended.wait().await;
    }

    /// Whether it is connected now.
    pub(super) fn is_connected(&self) -> bool {
        self.client.state() == SessionState::SyncConnected
    }

    /// Since when it has had no connection; now, if it has one or has lost it just now.
    pub(super) fn disconnected_since(&self) -> Timestamp {
        let since = *self.state.disconnected();
        since.unwrap_or_else(Timestamp::now)
    }

    /// Whether it has had no connection for so long.
    pub(super) fn is_out_for(&self, limit: Duration) -> bool {
        !self.is_connected() && (self.disconnected_since() + limit).has_passed()
    }

    /// Resolves when it has had no connection for so long.
    pub(super) async fn out_for(&self, limit: Duration) {
        let mut watcher = self.client.state_watcher();
        loop {
            if self.is_connected() {
                watcher.changed().await;
                continue;
            }
            let since = self.disconnected_since();
            let waited = tokio::time::sleep((since + limit).remaining());
            if let First::Left(()) = first_of(waited, watcher.changed()).await
                && self.is_out_for(limit)
            {
                return;
            }
        }
    }

    /// Whether it is connected, or comes to be before an outage has lasted so long.
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

    /// The grant ends with the session, unless it is [forgotten](Self::forget) before.
    pub(super) fn remember(&self, owner: OwnerId, loss: &LossReporter) {
        self.state.grants().insert(owner, loss.clone());
        if self.has_ended() {
            self.state.report_loss();
        }
    }

    pub(super) fn forget(&self, owner: OwnerId) {
        self.state.grants().remove(&owner);
    }

    /// A majority has carried out, for this session, a request sent at that moment or later.
    pub(super) fn confirmed(&self, sent_at: Timestamp) {
        let mut confirmed = self.state.confirmed();
        *confirmed = sent_at.max(*confirmed);
    }

    /// When it was last confirmed, if that is not long ago.
    pub(super) fn just_confirmed(&self) -> Option<Timestamp> {
        let at = *self.state.confirmed();
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

    /// After an error that says so, it is used no more, and its locks are gone or as good as gone.
    pub(super) fn note(&self, error: &Error) -> Fault {
        let fault = fault(error);
        if fault == Fault::Ended {
            self.state.end();
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
    fn end(&self) {
        if self.ended.set(()) {
            self.report_loss();
        }
    }

    fn report_loss(&self) {
        let grants = std::mem::take(&mut *self.grants());
        for loss in grants.into_values() {
            loss.report(ENDED);
        }
    }

    fn grants(&self) -> MutexGuard<'_, HashMap<OwnerId, LossReporter>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn confirmed(&self) -> MutexGuard<'_, Timestamp> {
        self.confirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn disconnected(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.disconnected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far apart they are at most. The client gives one when the last is three eighths of the time
/// ago for which a connection may be silent, but none while it waits for an answer to the one
/// before; that it does for no longer than the whole time. It has its own idea of that time where
/// it is long (its `Session::reset_timeout`).
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
    state.end();
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
