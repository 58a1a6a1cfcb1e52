//! The sessions of a provider: a few that are shared, and those that wait for one lock each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::config::Settings;
use super::key::{AdvisoryKey, advisory_key};
use super::opening;
use super::reservation::{Reservation, Reservations};
use super::session::Session;
use super::upkeep::upkeep;
use crate::providers::pause::Attempts;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind, LockName};

/// Shared sessions of a lease, at most.
const MOST_SHARED: usize = 4;
/// With so many requests under way on each, another one is opened.
const BUSY: u32 = 8;

pub(super) struct Pool {
    pub(super) settings: Settings,
    state: Mutex<State>,
    /// Of sessions that wait for one lock.
    places: Arc<Semaphore>,
    reservations: Arc<Reservations>,
}

type Outcome = Result<Arc<Session>, LockError>;

#[derive(Default)]
struct State {
    shared: Vec<Arc<Session>>,
    /// Of those for one lock, the ones that have none now.
    spare: Vec<Arc<Session>>,
    /// Shared ones being opened, by lease: one attempt at a time serves all who ask.
    attempts: HashMap<Duration, Arc<Signal<Outcome>>>,
    connecting: Attempts,
    /// To open those for one lock.
    connecting_own: Attempts,
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Self {
        let places = Arc::new(Semaphore::new(settings.waiting_sessions));
        Self {
            settings,
            state: Mutex::default(),
            places,
            reservations: Arc::default(),
        }
    }

    pub(super) fn key(&self, name: &LockName) -> AdvisoryKey {
        match self.settings.key_prefix.as_str() {
            "" => advisory_key(name.as_str()),
            prefix => advisory_key(&format!("{prefix}{name}")),
        }
    }

    /// The key, unless a lock of this provider has it: then what is in doubt about that one, if
    /// anything is.
    pub(super) fn reserve(&self, key: AdvisoryKey) -> Result<Reservation, Option<LockError>> {
        self.reservations.take(key)
    }

    /// The least busy shared session of this lease, or a new one.
    ///
    /// # Errors
    ///
    /// Those of the attempt that was under way or next; at once, if no attempt is due soon.
    pub(super) async fn shared(self: &Arc<Self>, lease: Duration) -> Outcome {
        let attempt = {
            let mut state = self.lock();
            let mine = |session: &&Arc<Session>| session.lease == lease && session.is_usable();
            let count = state.shared.iter().filter(mine).count();
            let best = state.shared.iter().filter(mine);
            let best = best
                .min_by_key(|session| session.requests_under_way())
                .cloned();
            if let Some(best) = best {
                let busy = best.requests_under_way() >= BUSY && count < MOST_SHARED;
                if busy && state.connecting.are_due() {
                    self.start_attempt(&mut state, lease, Duration::ZERO);
                }
                return Ok(best);
            }
            let pause = state.connecting.next()?;
            self.start_attempt(&mut state, lease, pause)
        };
        attempt.wait().await.clone()
    }

    /// A session for a lock that has to be waited for; `None` if there are as many as may be, or if
    /// none was to be had just now.
    pub(super) async fn for_one_lock(
        self: &Arc<Self>,
        lease: Duration,
    ) -> Result<Option<Arc<Session>>, LockError> {
        {
            let mut state = self.lock();
            state.spare.retain(|session| session.is_usable());
            if let Some(at) = state
                .spare
                .iter()
                .position(|session| session.lease == lease)
            {
                return Ok(Some(state.spare.swap_remove(at)));
            }
            if self.places.available_permits() == 0 {
                // One of another lease makes room.
                state.spare.pop();
            }
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Ok(None);
        };
        if !self.lock().connecting_own.are_due() {
            return Ok(None);
        }
        let opened = opening::open(&self.settings, lease).await;
        self.lock().connecting_own.made(&opened);
        let opened = opened?;
        let session = Session::new(opened, Some(place));
        tokio::spawn(upkeep(Arc::downgrade(self), &session));
        Ok(Some(session))
    }

    /// A session that has no lock any more is kept for the next one to be waited for.
    pub(super) fn give_back(&self, session: &Arc<Session>) {
        if session.is_of_one_lock() && session.is_usable() {
            self.lock().spare.push(Arc::clone(session));
        }
    }

    fn start_attempt(
        self: &Arc<Self>,
        state: &mut State,
        lease: Duration,
        pause: Duration,
    ) -> Arc<Signal<Outcome>> {
        let attempt = state.attempts.entry(lease).or_insert_with(|| {
            tokio::spawn(Arc::clone(self).attempt(lease, pause));
            Arc::new(Signal::new())
        });
        Arc::clone(attempt)
    }

    async fn attempt(self: Arc<Self>, lease: Duration, pause: Duration) {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let pool = Arc::clone(&self);
        // A task of its own, so that even a panic in it is answered.
        let opening = tokio::spawn(async move { opening::open(&pool.settings, lease).await });
        let outcome = match opening.await {
            Ok(Ok(opened)) => Ok(Session::new(opened, None)),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail("the attempt to connect panicked")
                .with_source(error)),
        };
        let attempt = {
            let mut state = self.lock();
            state.connecting.made(&outcome);
            if let Ok(session) = &outcome {
                state.shared.retain(|session| !session.life.has_ended());
                state.shared.push(Arc::clone(session));
                tokio::spawn(upkeep(Arc::downgrade(&self), session));
            }
            state.attempts.remove(&lease)
        };
        if let Some(attempt) = attempt {
            attempt.set(outcome);
        }
    }

    /// Lets go of a session that nobody needs; one is kept, so that the next lock finds it open.
    pub(super) fn spare(&self, session: &Arc<Session>) -> bool {
        let mut state = self.lock();
        let is_other = |other: &Arc<Session>| !Arc::ptr_eq(other, session);
        if !session.is_of_one_lock()
            && session.lease == self.settings.lease
            && !state
                .shared
                .iter()
                .any(|other| is_other(other) && other.lease == session.lease && other.is_usable())
        {
            return false;
        }
        state.shared.retain(is_other);
        state.spare.retain(is_other);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
