//! The sessions of a provider: a few that are shared, and those that wait for one lock each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bounds::Bounds;
use super::fault::Refusal;
use super::heartbeat::{SessionOwner, heartbeat};
use super::leases::Leases;
use super::reservation::{Reservation, Reservations};
use super::roster::Roster;
use super::server::Server;
use super::session::Session;
use super::traits::{
    Access, BackendOf, LockSession, Notices, Opened, PermitKeys, SessionUse, SettingsOf,
};
use crate::background;
use crate::clock::Timestamp;
use crate::provider::BoxFuture;
use crate::providers::kit::backoff::ConnectBackoff;
use crate::signal::Signal;
use crate::{LockError, LockErrorKind, LockName};

/// How many shared sessions there are of one lease at most, and of all leases.
const MOST_SHARED: usize = 4;
const MOST_SHARED_OF_ALL: usize = 6;
/// With so many requests under way on each, another session is opened.
const BUSY: u32 = 8;
/// For how long no session is opened that is not needed, after the server had no more.
const CROWDED: Duration = Duration::from_secs(10);
/// For how long no new lock is asked for, after the server's table of locks was full.
const FULL: Duration = Duration::from_secs(1);

/// What all clones of a provider share.
pub(super) struct Pool<S: LockSession> {
    pub(super) settings: SettingsOf<S>,
    bounds: Bounds,
    state: Mutex<State<S>>,
    /// For the sessions in the server's queues.
    queue_permits: Arc<Semaphore>,
    pub(super) reservations: Arc<Reservations<S::Key>>,
    /// Those of this process who hold the turnstile of a semaphore, and the session that has it.
    turns: Mutex<HashMap<S::Key, Turns>>,
    pub(super) leases: Arc<Leases>,
    pub(super) roster: Roster<S>,
}

/// A session, and who is told of what it does not see itself.
type Turns = (usize, Arc<Notices>);
type Outcome<S> = Result<Arc<Session<S>>, LockError>;

enum Choice<S: LockSession> {
    Use(Arc<Session<S>>),
    /// Use it once the server keeps it for long enough.
    KeepFor(Arc<Session<S>>),
    Open(Arc<Signal<Outcome<S>>>),
    /// No other one is to be had.
    None,
}

struct State<S: LockSession> {
    shared: Vec<Arc<Session<S>>>,
    /// The sessions for one lock that have none now.
    idle: Vec<Arc<Session<S>>>,
    /// Shared sessions being opened, by lease: one attempt at a time serves all who ask.
    attempts: HashMap<Duration, Arc<Signal<Outcome<S>>>>,
    connecting: ConnectBackoff,
    /// To open the sessions for one lock.
    connecting_own: ConnectBackoff,
    crowded_until: Option<Timestamp>,
    full_until: Option<(Timestamp, LockError)>,
}

impl<S: LockSession> State<S> {
    fn new() -> Self {
        Self {
            shared: Vec::new(),
            idle: Vec::new(),
            attempts: HashMap::new(),
            connecting: ConnectBackoff::default(),
            connecting_own: ConnectBackoff::default(),
            crowded_until: None,
            full_until: None,
        }
    }

    fn is_crowded(&self) -> bool {
        self.crowded_until.is_some_and(|until| !until.has_passed())
    }
}

impl<S: LockSession> Pool<S> {
    pub(super) fn new(settings: SettingsOf<S>) -> Self {
        Self {
            bounds: Bounds::new(settings.max_sessions, settings.max_locks),
            state: Mutex::new(State::new()),
            queue_permits: Arc::new(Semaphore::new(settings.waiting_sessions)),
            reservations: Reservations::new(),
            turns: Mutex::default(),
            leases: Arc::default(),
            roster: Roster::new(&settings.server_name),
            settings,
        }
    }

    /// Returns the key of the lock with this name.
    pub(super) fn key(&self, name: &LockName) -> S::Key {
        match self.settings.key_prefix.as_str() {
            "" => S::key(name.as_str()),
            prefix => S::key(&format!("{prefix}{name}")),
        }
    }

    /// Takes a key, unless a lock of this provider has it alone.
    ///
    /// # Errors
    ///
    /// `None` if a lock of this provider has the key; else why it cannot be asked for now.
    pub(super) fn reserve(
        &self,
        key: S::Key,
        access: Access,
    ) -> Result<Reservation<S::Key>, Option<LockError>> {
        let refused = {
            let mut state = self.lock();
            state.full_until.take_if(|(until, _)| until.has_passed());
            state.full_until.as_ref().map(|(_, error)| error.clone())
        };
        match refused {
            Some(error) => Err(Some(error)),
            None => self.reservations.take(key, access, &self.bounds),
        }
    }

    /// Reserves a key for a session that shares it, to have it alone. Others of this provider may
    /// be waiting for it: they cannot have it.
    pub(super) fn reserve_upgrade(
        &self,
        key: S::Key,
    ) -> Result<Reservation<S::Key>, Option<LockError>> {
        self.reservations.take_upgrade(key, &self.bounds)
    }

    /// Returns the name of a lock as the server knows it.
    pub(super) fn full_name(&self, name: &LockName) -> String {
        format!("{}{name}", self.settings.key_prefix)
    }

    /// Refuses so many locks more, if there would be too many.
    pub(super) fn check_room(&self, locks: usize) -> Result<(), LockError> {
        match self.reservations.have_room(locks, &self.bounds) {
            true => Ok(()),
            false => Err(self.bounds.no_lock()),
        }
    }

    /// Notes who is to be told of released permits, while a session has the turnstile.
    pub(super) fn set_turn(&self, turnstile: S::Key, turn: Option<Turns>) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        match turn {
            Some(turn) => turns.insert(turnstile, turn),
            None => turns.remove(&turnstile),
        };
    }

    /// Tells who waits in this process, after a session has released permits that has the turnstile
    /// too: it does not see itself.
    pub(super) fn tell_waiter_of(&self, session: &Arc<Session<S>>, keys: &PermitKeys<S::Key>) {
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let waiter = turns.get(&keys.turnstile);
        if let Some((_, notices)) = waiter.filter(|(having, _)| *having == session.number()) {
            notices.arrive(false);
        }
    }

    /// Notes what an error says of the server as a whole.
    pub(super) fn note_error(&self, error: &LockError) {
        match S::refusal(error) {
            Some(Refusal::Lock) => {
                self.lock().full_until = Some((Timestamp::now() + FULL, error.clone()));
            }
            Some(Refusal::Session) => {
                let mut state = self.lock();
                state.crowded_until = Some(Timestamp::now() + CROWDED);
                let idle = std::mem::take(&mut state.idle);
                drop(state);
                drop(idle);
            }
            Some(Refusal::Other) | None => {}
        }
    }

    /// Notes which server a connection has shown that was begun at this time; see
    /// [`Roster::note_server`].
    pub(super) fn note_server(
        &self,
        server: Server,
        connected_at: Timestamp,
    ) -> Result<(), LockError> {
        self.roster.note_server(server, connected_at)
    }

    fn admit(&self, opened: &Opened<S>) -> Result<(), LockError> {
        self.leases.looked(opened.connected_at);
        self.roster.admit(opened)
    }

    /// Returns the length of lease that sessions are kept for: the provider's own, or that doubled
    /// or halved. So leases of any number of lengths need few sessions.
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

    /// Returns the least busy shared session for this lease, or opens one.
    ///
    /// # Errors
    ///
    /// The error of the attempt that was under way or next; at once, if no attempt is due soon.
    pub(super) async fn shared(self: &Arc<Self>, lease: Duration) -> Outcome<S> {
        let session = self.shared_but(lease, &[]).await?;
        session.ok_or_else(|| self.bounds.no_session())
    }

    /// Returns a shared session that has not got this key, and notes that it is asked for it.
    /// `None` if there is no such session, and none may be opened.
    pub(super) async fn shared_for(
        self: &Arc<Self>,
        lease: Duration,
        reservation: &Reservation<S::Key>,
    ) -> Result<Option<Arc<Session<S>>>, LockError> {
        let others = reservation.sessions_of_others();
        let session = self.shared_but(lease, &others).await?;
        Ok(session.filter(|session| reservation.bind(session.number())))
    }

    /// Returns the least busy shared session but these; `None` if there is no other one, and none
    /// may be opened.
    pub(super) async fn shared_but(
        self: &Arc<Self>,
        lease: Duration,
        avoided: &[usize],
    ) -> Result<Option<Arc<Session<S>>>, LockError> {
        let class = self.class_of(lease);
        match self.choose(class, avoided)? {
            Choice::Use(session) => Ok(Some(session)),
            Choice::KeepFor(session) => {
                let patience = self.settings.patience(lease);
                // Boxed, since every acquisition would make room for it, and hardly any needs it.
                let keeping = Box::pin(session.keep_for(class));
                session.within(patience, keeping).await?;
                Ok(Some(session))
            }
            Choice::Open(attempt) => attempt.wait().await.clone().map(Some),
            Choice::None => Ok(None),
        }
    }

    fn choose(
        self: &Arc<Self>,
        class: Duration,
        avoided: &[usize],
    ) -> Result<Choice<S>, LockError> {
        let mut state = self.lock();
        let all = || state.shared.iter().filter(|session| session.is_usable());
        let usable = || all().filter(|session| !avoided.contains(&session.number()));
        let may_open =
            all().count() < MOST_SHARED_OF_ALL && self.bounds.have_room() && !state.is_crowded();
        let of_class = || usable().filter(|session| session.lease() == class);
        let count = of_class().count();
        if let Some(best) = of_class().min_by_key(|session| session.requests_under_way()) {
            let best = Arc::clone(best);
            let busy = best.requests_under_way() >= BUSY && count < MOST_SHARED && may_open;
            if busy && state.connecting.is_due() {
                self.start_attempt(&mut state, class, Duration::ZERO);
            }
            return Ok(Choice::Use(best));
        }
        if !may_open {
            // A session that is kept for longer, or will be, serves too.
            let longer = usable().filter(|session| session.lease() > class);
            let longest = || usable().max_by_key(|session| session.lease());
            let other = longer
                .min_by_key(|session| session.lease())
                .or_else(longest);
            if let Some(other) = other {
                return Ok(Choice::KeepFor(Arc::clone(other)));
            }
            if !avoided.is_empty() {
                return Ok(Choice::None);
            }
        }
        let pause = state.connecting.delay()?;
        if !self.bounds.have_room() {
            // Closing a session that has no lock makes room.
            state.idle.pop();
        }
        Ok(Choice::Open(self.start_attempt(&mut state, class, pause)))
    }

    /// Returns a permit to stand in one of the server's queues; `None` if there are as many
    /// sessions there as may be.
    pub(super) fn queue_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.queue_permits).try_acquire_owned().ok()
    }

    /// Returns a session for a lock that has to be waited for; `None` if there are as many as may
    /// be, or if none was to be had just now.
    pub(super) async fn for_one_lock(
        self: &Arc<Self>,
    ) -> Result<Option<Arc<Session<S>>>, LockError> {
        {
            let mut state = self.lock();
            state.idle.retain(|session| session.is_usable());
            if let Some(idle) = state.idle.pop() {
                return Ok(Some(idle));
            }
            if state.is_crowded() || !state.connecting_own.is_due() {
                return Ok(None);
            }
        }
        let Some(permit) = self.bounds.permit_of_one_lock() else {
            return Ok(None);
        };
        let lease = self.settings.lease;
        // Boxed, since every wait would make room for it several times.
        let opening = S::open(&self.settings, lease, SessionUse::OneLock, permit);
        let opened = Box::pin(opening).await;
        let opened = opened.and_then(|opened| self.admit(&opened).map(|()| opened));
        self.lock().connecting_own.record(&opened);
        if let Err(error) = &opened {
            self.note_error(error);
        }
        let session = Session::new(opened?, SessionUse::OneLock);
        background::spawn_beside(heartbeat(Arc::downgrade(self) as _, &session));
        Ok(Some(session))
    }

    /// Keeps a session that has no lock any more for the next lock to be waited for.
    pub(super) fn return_session(&self, session: &Arc<Session<S>>) {
        if session.is_of_one_lock() && session.is_usable() {
            let mut state = self.lock();
            if !state.is_crowded() {
                state.idle.push(Arc::clone(session));
            }
        }
    }

    fn start_attempt(
        self: &Arc<Self>,
        state: &mut State<S>,
        lease: Duration,
        pause: Duration,
    ) -> Arc<Signal<Outcome<S>>> {
        let attempt = state.attempts.entry(lease).or_insert_with(|| {
            background::spawn_beside(Arc::clone(self).attempt(lease, pause));
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
        let opening = background::spawn_beside(async move {
            let limit = pool.settings.connect_timeout;
            let permit = tokio::time::timeout(limit, pool.bounds.permit()).await;
            let Ok(Some(permit)) = permit else {
                return Err(pool.bounds.no_session());
            };
            let opened = S::open(&pool.settings, lease, SessionUse::Shared, permit).await?;
            pool.admit(&opened)?;
            pool.bounds.learn(opened.capacity);
            Ok(opened)
        });
        let outcome = match opening.await {
            Ok(Ok(opened)) => Ok(Session::new(opened, SessionUse::Shared)),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(LockError::new(LockErrorKind::ProviderUnavailable)
                .with_detail("the attempt to connect panicked")
                .with_source(error)),
        };
        if let Err(error) = &outcome {
            self.note_error(error);
        }
        let attempt = {
            let mut state = self.lock();
            state.connecting.record(&outcome);
            if let Ok(session) = &outcome {
                state.shared.retain(|session| !session.has_ended());
                state.shared.push(Arc::clone(session));
                background::spawn_beside(heartbeat(Arc::downgrade(&self) as _, session));
            }
            state.attempts.remove(&lease)
        };
        if let Some(attempt) = attempt {
            attempt.set(outcome);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: LockSession> SessionOwner<S> for Pool<S> {
    /// Keeps one shared session, so that the next lock finds it open.
    fn close_unneeded(&self, session: &Arc<Session<S>>) -> bool {
        let mut state = self.lock();
        let is_other = |other: &Arc<Session<S>>| !Arc::ptr_eq(other, session);
        if !session.is_of_one_lock()
            && !state
                .shared
                .iter()
                .any(|other| is_other(other) && other.is_usable())
        {
            return false;
        }
        state.shared.retain(is_other);
        state.idle.retain(is_other);
        true
    }

    fn forget(&self, backend: BackendOf<S>) {
        self.roster.forget(backend);
    }

    fn patience(&self, lease: Duration) -> Duration {
        self.settings.patience(lease)
    }

    fn any_session(self: Arc<Self>) -> BoxFuture<'static, Outcome<S>> {
        Box::pin(async move { self.shared(self.settings.lease).await })
    }
}
