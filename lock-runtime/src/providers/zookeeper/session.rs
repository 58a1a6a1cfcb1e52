//! One session, the grants that live and end with it, and when it was last confirmed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zookeeper_client::{Client, Error, MultiWriteError, SessionState, StateWatcher};

use super::error::{Fault, fault, lock_error};
use crate::LockError;
use crate::clock::Timestamp;
use crate::provider::{LossReporter, OwnerId};
use crate::signal::Signal;

pub(super) const ENDED: &str = "its ZooKeeper session has expired or was closed";

/// A session, and the client that keeps it alive. Closed, with all its locks, when dropped.
pub(super) struct Session {
    pub(super) client: Client,
    state: Arc<State>,
}

/// What outlives the client.
struct State {
    ended: Signal<()>,
    /// Whom to tell when it ends.
    grants: Mutex<HashMap<OwnerId, LossReporter>>,
    /// Before the last request was sent that a majority of the ensemble has confirmed.
    confirmed: Mutex<Timestamp>,
}

impl Session {
    /// `sent_at` was read before the session was asked for.
    pub(super) fn new(client: Client, sent_at: Timestamp) -> Arc<Self> {
        let state = Arc::new(State {
            ended: Signal::new(),
            grants: Mutex::default(),
            confirmed: Mutex::new(sent_at),
        });
        tokio::spawn(watch(client.state_watcher(), Arc::clone(&state)));
        Arc::new(Self { client, state })
    }

    /// The session's id, as the server writes it into the nodes.
    pub(super) fn id(&self) -> i64 {
        self.client.session_id().0
    }

    /// For how long a lock is valid from the moment at which a confirmed request was sent.
    ///
    /// The leader ends a session when it has not heard of it for its timeout. A client's request
    /// reaches the leader at once only if they are connected; else the follower in between tells
    /// it with its next answer to the leader's ping, which comes every half tick
    /// (`LearnerHandler.ping`, `LearnerSessionTracker.snapshot`). If the follower is cut off
    /// just then, what the leader heard last is by as much older, and by the time between two
    /// signs of life that the client gives. A tick is at most half of the timeout
    /// (`minSessionTimeout`), and the client gives a sign every 3/20 of it at least: 2/5 in all
    /// are not to be counted on.
    pub(super) fn validity(&self) -> Duration {
        self.client.session_timeout() * 3 / 5
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

    /// Why it cannot be asked now.
    pub(super) fn trouble(&self) -> LockError {
        lock_error(Error::ConnectionLoss)
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
}

/// Notices the end of the session, whether or not anybody asks it anything.
async fn watch(mut watcher: StateWatcher, state: Arc<State>) {
    let mut now = watcher.state();
    while !now.is_terminated() {
        now = watcher.changed().await;
    }
    state.end();
}
