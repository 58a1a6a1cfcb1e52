//! Locks that live as long as a session of the server does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::LockError;
use crate::call::caught;
use crate::clock::Timestamp;
use crate::future::join_all;
use crate::provider::{BoxFuture, Grant, LossReporter};
use crate::signal::Signal;
use crate::wake::survive;

/// Until when a session lives, and whose locks are lost by its end. `K` tells locks apart.
pub(crate) struct Liveness<K> {
    ended: Signal<End>,
    /// The locks that the session holds, each with whom its loss is reported to.
    locks: Mutex<HashMap<K, LossReporter>>,
}

struct End {
    why: Arc<str>,
    /// The server has ended the session, or a connection that worked told it to.
    known_to_server: bool,
}

impl<K: Eq + Hash> Liveness<K> {
    /// Returns that of a session which has just begun.
    pub(crate) fn new() -> Self {
        Self {
            ended: Signal::new(),
            locks: Mutex::default(),
        }
    }

    /// Makes the end of the session the loss of this lock from now on; false if it has ended.
    pub(crate) fn add_lock(&self, key: K, loss: LossReporter) -> bool {
        let mut locks = self.locks();
        // Looked at under the lock that the code which ends the session takes afterwards.
        let is_alive = !self.has_ended();
        if is_alive {
            locks.insert(key, loss);
        }
        is_alive
    }

    /// Makes the end of the session no loss of this lock any more.
    pub(crate) fn remove_lock(&self, key: &K) {
        self.locks().remove(key);
    }

    /// Tells whether the end of the session would be the loss of no lock.
    pub(crate) fn has_no_locks(&self) -> bool {
        self.locks().is_empty()
    }

    /// Gives the session up, and with it all of its locks. Only the first end counts. It is not
    /// sure that the server hears of it.
    pub(crate) fn end(&self, why: &str) {
        self.set_end(why, false);
    }

    /// Notes that the server has ended the session.
    pub(crate) fn end_by_server(&self, why: &str) {
        self.set_end(why, true);
    }

    fn set_end(&self, why: &str, known_to_server: bool) {
        let end = End {
            why: why.into(),
            known_to_server,
        };
        if !self.ended.set(end) {
            return;
        }
        let locks = std::mem::take(&mut *self.locks());
        for loss in locks.into_values() {
            // A report wakes waiting tasks, which may panic. The others must hear of the loss all
            // the same.
            survive(|| loss.report(why));
        }
    }

    /// Tells whether the session has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Returns why the session has ended, if it has.
    pub(crate) fn why_ended(&self) -> Option<&str> {
        self.ended.get().map(|end| &*end.why)
    }

    /// Waits until the session has ended, and tells whether the server knows that.
    pub(crate) async fn ended(&self) -> bool {
        self.ended.wait().await.known_to_server
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<K, LossReporter>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answer = Result<Timestamp, LockError>;

/// Confirms each session once, all at the same time, and answers for each grant, in order.
///
/// `confirm` is told which of the grants are the session's. A grant without a session is answered
/// with `None`.
pub(crate) async fn renew_by_session<'a, S: Send + Sync + 'static>(
    grants: &[&'a Grant],
    session_of: impl Fn(&'a Grant) -> Option<&'a Arc<S>>,
    confirm: impl Fn(&'a Arc<S>, Vec<&'a Grant>) -> BoxFuture<'a, Answer>,
) -> Vec<Option<Answer>> {
    let mut sessions: Vec<(&Arc<S>, Vec<&Grant>)> = Vec::new();
    let mut places = Vec::with_capacity(grants.len());
    for grant in grants {
        let place = session_of(grant).map(|session| {
            let known = sessions
                .iter()
                .position(|(known, _)| Arc::ptr_eq(known, session));
            let place = known.unwrap_or_else(|| {
                sessions.push((session, Vec::new()));
                sessions.len() - 1
            });
            sessions[place].1.push(*grant);
            place
        });
        places.push(place);
    }
    let asked = sessions.into_iter().map(|(session, own)| {
        // Each by itself: one that panics is not the others' failure.
        let confirmed = caught(confirm(session, own));
        let confirmed: BoxFuture<'_, Answer> = Box::pin(async {
            confirmed
                .await
                .unwrap_or_else(|panicked| Err(panicked.into()))
        });
        confirmed
    });
    let answers = join_all(asked.collect()).await;
    let answer = |place: Option<usize>| place.map(|place| answers[place].clone());
    places.into_iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::provider::AcquireRequest;
    use crate::{LockErrorKind, Timestamp};

    fn request() -> AcquireRequest {
        AcquireRequest::new("name", Duration::from_secs(60), false)
            .unwrap()
            .0
    }

    #[test]
    fn the_end_of_a_session_is_the_loss_of_its_locks() {
        let (one, other, late) = (request(), request(), request());
        let liveness = Liveness::new();
        assert!(
            liveness.add_lock(1, one.loss_reporter())
                && liveness.add_lock(2, other.loss_reporter())
        );
        liveness.remove_lock(&2);
        liveness.end("the first reason");
        liveness.end("another reason");
        assert_eq!(liveness.why_ended(), Some("the first reason"));
        assert!(!liveness.add_lock(3, late.loss_reporter()));
        let is_lost = |it: &AcquireRequest| it.loss_reporter().signal().get().is_some();
        assert!(is_lost(&one) && !is_lost(&other) && !is_lost(&late));
    }

    /// Wakers are code of whoever polls, which may be the program of a user.
    #[test]
    fn a_waker_that_panics_keeps_nobody_from_hearing_of_the_end() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("on purpose");
            }
        }
        struct Counts(AtomicU32);
        impl Wake for Counts {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (held, counts) = (request(), Arc::new(Counts(AtomicU32::new(0))));
        let liveness = Liveness::new();
        assert!(liveness.add_lock(1, held.loss_reporter()));
        let wakers = [
            Waker::from(Arc::new(Panics)),
            Waker::from(Arc::clone(&counts)),
        ];
        let mut waiting = [Box::pin(liveness.ended()), Box::pin(liveness.ended())];
        for (waiting, waker) in waiting.iter_mut().zip(&wakers) {
            let polled = waiting.as_mut().poll(&mut Context::from_waker(waker));
            assert!(polled.is_pending());
        }
        liveness.end("why");
        assert_eq!(counts.0.load(Ordering::Relaxed), 1);
        assert!(held.loss_reporter().signal().get().is_some());
    }

    #[tokio::test]
    async fn each_session_is_asked_once_and_answers_for_its_grants() {
        let sessions = [Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0))];
        let of = |session: Option<usize>| {
            let grant = Grant::new(&request(), Timestamp::now());
            match session {
                Some(at) => grant.with_state(Arc::clone(&sessions[at])),
                None => grant,
            }
        };
        let grants = [of(Some(0)), of(Some(1)), of(None), of(Some(0))];
        let grants: Vec<&Grant> = grants.iter().collect();
        let answers = renew_by_session(&grants, Grant::state::<Arc<AtomicU32>>, |session, own| {
            Box::pin(async move {
                assert_eq!(session.fetch_add(1, Ordering::Relaxed), 0);
                match own.len() {
                    1 => panic!("a session whose provider has a mistake"),
                    _ => Ok(Timestamp::NONE),
                }
            })
        });
        let answers = answers.await;
        let kinds = answers
            .into_iter()
            .map(|it| it.map(|it| it.map_err(|it| it.kind())));
        let kinds: Vec<_> = kinds.collect();
        let panicked = Some(Err(LockErrorKind::ProviderUnavailable));
        let renewed = Some(Ok(Timestamp::NONE));
        assert_eq!(kinds, [renewed, panicked, None, renewed]);
    }
}
