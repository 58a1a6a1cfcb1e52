//! Until when a session lives, and who has to hear of its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::key::{AdvisoryKey, Keys};
use crate::provider::LossReporter;
use crate::signal::Signal;
use crate::wake::survive;

/// What the task that drives a connection shares with the session.
pub(super) struct Life {
    ended: Signal<End>,
    holds: Mutex<HashMap<AdvisoryKey, LossReporter>>,
    /// Who waits for a notice, by the key of that.
    hears: Mutex<HashMap<i64, Arc<Notify>>>,
}

struct End {
    why: Arc<str>,
    /// The server has ended it, or was told so by a connection that worked.
    known_to_server: bool,
}

impl Life {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            ended: Signal::new(),
            holds: Mutex::default(),
            hears: Mutex::default(),
        })
    }

    /// From here on, the end of the session is the loss of this lock; false if it has ended.
    pub(super) fn hold(&self, key: AdvisoryKey, loss: LossReporter) -> bool {
        let mut holds = self.holds();
        // Looked at under the lock that whoever ends it takes afterwards.
        let alive = !self.has_ended();
        if alive {
            holds.insert(key, loss);
        }
        alive
    }

    /// The end of the session is not the loss of this lock any more.
    pub(super) fn let_go(&self, key: AdvisoryKey) {
        self.holds().remove(&key);
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.holds().is_empty() && self.hears().is_empty()
    }

    /// Where notices of this key arrive from now on.
    pub(super) fn hear(&self, waiters: i64) -> Arc<Notify> {
        let notices = Arc::new(Notify::new());
        self.hears().insert(waiters, Arc::clone(&notices));
        notices
    }

    /// Ends that; false if somebody else hears them by now.
    pub(super) fn hear_no_more(&self, waiters: i64, notices: &Arc<Notify>) -> bool {
        let mut hears = self.hears();
        let are_mine = hears
            .get(&waiters)
            .is_some_and(|known| Arc::ptr_eq(known, notices));
        are_mine && hears.remove(&waiters).is_some()
    }

    /// A notice has come.
    pub(super) fn heard(&self, channel: &str) {
        let hears = Keys::of_channel(channel).and_then(|waiters| {
            let hears = self.hears();
            hears.get(&waiters).map(Arc::clone)
        });
        if let Some(hears) = hears {
            hears.notify_one();
        }
    }

    /// Gives the session up, and with it all of its locks. Whether the server hears of it is not
    /// sure.
    pub(super) fn end(&self, why: &str) {
        self.set_end(why, false);
    }

    /// The connection is gone.
    pub(super) fn end_by_server(&self, why: &str) {
        self.set_end(why, true);
    }

    fn set_end(&self, why: &str, known_to_server: bool) {
        let end = End {
            why: why.into(),
            known_to_server,
        };
        if self.ended.set(end) {
            let holds = std::mem::take(&mut *self.holds());
            for loss in holds.into_values() {
                // It wakes whoever waits for it, and the others must hear of it all the same.
                survive(|| loss.report(why));
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    pub(super) fn why_ended(&self) -> Option<&str> {
        self.ended.get().map(|end| &*end.why)
    }

    /// Resolves when it has ended: whether the server knows.
    pub(super) async fn ended(&self) -> bool {
        self.ended.wait().await.known_to_server
    }

    fn hears(&self) -> MutexGuard<'_, HashMap<i64, Arc<Notify>>> {
        self.hears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<AdvisoryKey, LossReporter>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
