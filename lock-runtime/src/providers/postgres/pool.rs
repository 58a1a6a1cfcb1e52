//! The sessions of a provider: a few that are shared, and those that wait for one lock each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bounds::Bounds;
use super::config::Settings;
use super::error::{is_crowded, is_full};
use super::key::{Keys, advisory_key};
use super::life::Life;
use super::look::Leases;
use super::opening::{self, Opened, Use};
use super::reservation::{Reservation, Reservations};
use super::server::{Backend, Known, Server, Shows, outdated};
use super::session::Session;
use super::upkeep::upkeep;
use crate::clock::Timestamp;
use crate::providers::pause::Attempts;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind, LockName};

/// Shared sessions of a lease, at most, and of all leases.
const MOST_SHARED: usize = 4;
const MOST_SHARED_OF_ALL: usize = 6;
/// With so many requests under way on each, another one is opened.
const BUSY: u32 = 8;
/// For how long no session is opened that can be done without, after the server had no more.
const CROWDED: Duration = Duration::from_secs(10);
/// For how long no new lock is asked for, after the server's table of locks was full.
const FULL: Duration = Duration::from_secs(1);

pub(super) struct Pool {
    pub(super) settings: Settings,
    pub(super) bounds: Bounds,
    state: Mutex<State>,
    /// In the server's queues.
    places: Arc<Semaphore>,
    reservations: Arc<Reservations>,
    pub(super) leases: Arc<Leases>,
}

type Outcome = Result<Arc<Session>, LockError>;

enum Choice {
    Use(Arc<Session>),
    /// Once the server keeps it for long enough.
    KeepFor(Arc<Session>),
    Open(Arc<Signal<Outcome>>),
}

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
    /// The server that the name leads to.
    known: Option<Known>,
    /// Every session, until the server is known to have none any more.
    lives: Vec<(Backend, Arc<Life>)>,
    crowded_until: Option<Timestamp>,
    full_until: Option<(Timestamp, LockError)>,
}

impl State {
    fn is_crowded(&self) -> bool {
        self.crowded_until.is_some_and(|until| !until.has_passed())
    }
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Self {
        let places = Arc::new(Semaphore::new(settings.waiting_sessions));
        Self {
            bounds: Bounds::new(&settings),
            settings,
            state: Mutex::default(),
            places,
            reservations: Arc::default(),
            leases: Arc::default(),
        }
    }

    pub(super) fn keys(&self, name: &LockName) -> Keys {
        Keys::of(match self.settings.key_prefix.as_str() {
            "" => advisory_key(name.as_str()),
            prefix => advisory_key(&format!("{prefix}{name}")),
        })
    }

    /// The key, unless a lock of this provider has it: then what is in doubt about that one, if
    /// anything is.
    pub(super) fn reserve(&self, keys: Keys) -> Result<Reservation, Option<LockError>> {
        let refused = {
            let mut state = self.lock();
            state.full_until.take_if(|(until, _)| until.has_passed());
            state.full_until.as_ref().map(|(_, error)| error.clone())
        };
        match refused {
            Some(error) => Err(Some(error)),
            None => self.reservations.take(keys, &self.bounds),
        }
    }

    /// What an answer says of the server as a whole.
    pub(super) fn note(&self, error: &LockError) {
        let mut state = self.lock();
        if is_full(error) {
            state.full_until = Some((Timestamp::now() + FULL, error.clone()));
        }
        if is_crowded(error) {
            state.crowded_until = Some(Timestamp::now() + CROWDED);
            let spare = std::mem::take(&mut state.spare);
            drop(state);
            drop(spare);
        }
    }

    /// Notes which server a connection has shown that was begun at this time. If the name has gone on
    /// to it, the sessions of the one before end, and their locks are lost.
    ///
    /// # Errors
    ///
    /// If the name has gone on from it.
    pub(super) fn found(&self, server: Server, connected_at: Timestamp) -> Result<(), LockError> {
        let replaced = self.note_server(&mut self.lock(), server, connected_at)?;
        for (life, why) in replaced {
            life.end(why);
        }
        Ok(())
    }

    /// The same for a session that was opened: it ends with the server's turn.
    fn admit(&self, opened: &Opened) -> Result<(), LockError> {
        let server = opened.backend.server;
        self.leases.looked(opened.connected_at);
        let replaced = {
            let mut state = self.lock();
            let replaced = self.note_server(&mut state, server, opened.connected_at)?;
            state.lives.push((opened.backend, Arc::clone(&opened.life)));
            replaced
        };
        for (life, why) in replaced {
            life.end(why);
        }
        Ok(())
    }

    /// The sessions that end by it, and why.
    fn note_server(
        &self,
        state: &mut State,
        server: Server,
        connected_at: Timestamp,
    ) -> Result<Vec<(Arc<Life>, &'static str)>, LockError> {
        let Some(known) = &mut state.known else {
            state.known = Some(Known::new(server, connected_at));
            return Ok(Vec::new());
        };
        let why = match known.compare(server, connected_at) {
            Shows::TheSame => {
                known.confirm(connected_at);
                return Ok(Vec::new());
            }
            Shows::Outdated => {
                let place = format_args!("server `{}`", self.settings.server_name);
                return Err(outdated().about(place));
            }
            Shows::Another(why) => why,
        };
        *known = Known::new(server, connected_at);
        let name = &self.settings.server_name;
        tracing::warn!(server = %name, "{why}");
        let lives = std::mem::take(&mut state.lives);
        let (same, replaced): (Vec<_>, Vec<_>) = lives
            .into_iter()
            .partition(|(backend, _)| backend.server == server);
        state.lives = same;
        Ok(replaced.into_iter().map(|(_, life)| (life, why)).collect())
    }

    /// The server has this session no more, or nobody can ask it.
    pub(super) fn is_gone(&self, backend: Backend) {
        self.lock().lives.retain(|(known, _)| *known != backend);
    }

    /// Whether the server may still have this session.
    pub(super) fn may_have(&self, backend: Backend) -> bool {
        let state = self.lock();
        state.lives.iter().any(|(known, _)| *known == backend)
    }

    /// Whether one of these processes of the server serves a session of ours that was given up.
    pub(super) fn gave_up(&self, pids: &[i32]) -> bool {
        let state = self.lock();
        let mut given_up = state.lives.iter().filter(|(_, life)| life.has_ended());
        given_up.any(|(backend, _)| pids.contains(&backend.pid))
    }

    /// Whether the server may still have a session of ours that was given up.
    pub(super) fn has_given_up(&self) -> bool {
        let state = self.lock();
        state.lives.iter().any(|(_, life)| life.has_ended())
    }

    /// The length of lease that sessions are kept for: the provider's own, or that doubled or
    /// halved. So leases of any number of lengths need few sessions.
    fn class_of(&self, lease: Duration) -> Duration {
        let mut class = self.settings.lease;
        while class < lease {
            class *= 2;
        }
        while class / 2 >= lease {
            class /= 2;
        }
        class
    }

    /// The least busy shared session for this lease, or a new one.
    ///
    /// # Errors
    ///
    /// Those of the attempt that was under way or next; at once, if no attempt is due soon.
    pub(super) async fn shared(self: &Arc<Self>, lease: Duration) -> Outcome {
        let class = self.class_of(lease);
        match self.choose(class)? {
            Choice::Use(session) => Ok(session),
            Choice::KeepFor(session) => {
                let patience = self.settings.patience(lease);
                session.within(patience, session.keep_for(class)).await?;
                Ok(session)
            }
            Choice::Open(attempt) => attempt.wait().await.clone(),
        }
    }

    fn choose(self: &Arc<Self>, class: Duration) -> Result<Choice, LockError> {
        let mut state = self.lock();
        let usable = || state.shared.iter().filter(|session| session.is_usable());
        let may_open =
            usable().count() < MOST_SHARED_OF_ALL && self.bounds.have_room() && !state.is_crowded();
        let of_class = || usable().filter(|session| session.lease() == class);
        let count = of_class().count();
        if let Some(best) = of_class().min_by_key(|session| session.requests_under_way()) {
            let best = Arc::clone(best);
            let busy = best.requests_under_way() >= BUSY && count < MOST_SHARED && may_open;
            if busy && state.connecting.are_due() {
                self.start_attempt(&mut state, class, Duration::ZERO);
            }
            return Ok(Choice::Use(best));
        }
        if !may_open {
            // One that is kept for longer, or will be, serves too.
            let longer = usable().filter(|session| session.lease() > class);
            let longest = || usable().max_by_key(|session| session.lease());
            let other = longer
                .min_by_key(|session| session.lease())
                .or_else(longest);
            if let Some(other) = other {
                return Ok(Choice::KeepFor(Arc::clone(other)));
            }
        }
        let pause = state.connecting.next()?;
        if !self.bounds.have_room() {
            // It makes room.
            state.spare.pop();
        }
        Ok(Choice::Open(self.start_attempt(&mut state, class, pause)))
    }

    /// A place in the server's queues; `None` if there are as many as may be.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// A session for a lock that has to be waited for; `None` if there are as many as may be, or if
    /// none was to be had just now.
    pub(super) async fn for_one_lock(self: &Arc<Self>) -> Result<Option<Arc<Session>>, LockError> {
        {
            let mut state = self.lock();
            state.spare.retain(|session| session.is_usable());
            if let Some(spare) = state.spare.pop() {
                return Ok(Some(spare));
            }
            if state.is_crowded() || !state.connecting_own.are_due() {
                return Ok(None);
            }
        }
        let Some(place) = self.bounds.place_of_one_lock() else {
            return Ok(None);
        };
        let lease = self.settings.lease;
        let opened = opening::open(&self.settings, lease, Use::OneLock, place).await;
        let opened = opened.and_then(|opened| self.admit(&opened).map(|()| opened));
        self.lock().connecting_own.made(&opened);
        if let Err(error) = &opened {
            self.note(error);
        }
        let session = Session::new(opened?, true);
        tokio::spawn(upkeep(Arc::downgrade(self), &session));
        Ok(Some(session))
    }

    /// A session that has no lock any more is kept for the next one to be waited for.
    pub(super) fn give_back(&self, session: &Arc<Session>) {
        if session.is_of_one_lock() && session.is_usable() {
            let mut state = self.lock();
            if !state.is_crowded() {
                state.spare.push(Arc::clone(session));
            }
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
        let opening = tokio::spawn(async move {
            let limit = pool.settings.connect_timeout;
            let place = tokio::time::timeout(limit, pool.bounds.place()).await;
            let Ok(Some(place)) = place else {
                return Err(pool.bounds.no_place());
            };
            let opened = opening::open(&pool.settings, lease, Use::Shared, place).await?;
            pool.admit(&opened)?;
            pool.bounds.learn(&pool.settings, opened.capacity);
            Ok(opened)
        });
        let outcome = match opening.await {
            Ok(Ok(opened)) => Ok(Session::new(opened, false)),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail("the attempt to connect panicked")
                .with_source(error)),
        };
        if let Err(error) = &outcome {
            self.note(error);
        }
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
            && !state
                .shared
                .iter()
                .any(|other| is_other(other) && other.is_usable())
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
