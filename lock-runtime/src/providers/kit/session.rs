//! Locks that live as long as a session of the server does.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;

use crate::LockError;
use crate::call::caught;
use crate::clock::Timestamp;
use crate::provider::{BoxFuture, Grant, LossReporter};
use crate::race::all_of;
use crate::wake::survive;

/// Whether a session lives, and who has to hear of its end: that is the loss of its locks.
pub(crate) struct Liveness<K> {
    /// Set when it ends, to why.
    ended: SetOnce<Arc<str>>,
    held: Mutex<HashMap<K, LossReporter>>,
}

impl<K: Eq + Hash> Liveness<K> {
    /// Returns that of a session which has just begun.
    pub(crate) fn new() -> Self {
        Self {
            ended: SetOnce::new(),
            held: Mutex::default(),
        }
    }

    /// Makes the end of the session the loss of this lock; false if it has ended already.
    pub(crate) fn hold(&self, key: K, loss: LossReporter) -> bool {
        let mut held = self.held();
        // Looked at under the lock that whoever ends it takes afterwards.
        let is_alive = !self.has_ended();
        if is_alive {
            held.insert(key, loss);
        }
        is_alive
    }

    /// Makes the end of the session nobody's loss, as far as this lock goes.
    pub(crate) fn let_go(&self, key: &K) {
        self.held().remove(key);
    }

    /// Ends the session here, and with it all of its locks. Only the first end counts.
    pub(crate) fn end(&self, why: &str) {
        if self.ended.set(why.into()).is_err() {
            return;
        }
        let held = std::mem::take(&mut *self.held());
        for loss in held.into_values() {
            // It wakes whoever waits for it, and the others must hear of it all the same.
            survive(|| loss.report(why));
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.initialized()
    }

    /// Returns why it has ended, if it has.
    pub(crate) fn why_ended(&self) -> Option<&str> {
        self.ended.get().map(|why| &**why)
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        self.ended.wait().await;
    }

    fn held(&self) -> MutexGuard<'_, HashMap<K, LossReporter>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
    let answers = all_of(asked.collect()).await;
    let answer = |place: Option<usize>| place.map(|place| answers[place].clone());
    places.into_iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
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
        assert!(liveness.hold(1, one.loss_reporter()) && liveness.hold(2, other.loss_reporter()));
        liveness.let_go(&2);
        liveness.end("the first reason");
        liveness.end("another reason");
        assert_eq!(liveness.why_ended(), Some("the first reason"));
        assert!(!liveness.hold(3, late.loss_reporter()));
        let is_lost = |it: &AcquireRequest| it.loss_reporter().signal().get().is_some();
        assert!(is_lost(&one) && !is_lost(&other) && !is_lost(&late));
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
