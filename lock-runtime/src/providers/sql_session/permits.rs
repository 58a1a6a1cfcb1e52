//! Acquiring permits of a semaphore.
//!
//! Each permit is a lock of its own, and any of them will do. Whoever finds too few waits for the
//! turnstile, a lock in whose queue the server keeps the order. Its holder is told of every
//! release, and takes what is free; others take nothing meanwhile.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::acquisition::{Acquisition, WaitPlace};
use super::attempt::{CLEANUP_POLL, RETRY_PAUSES};
use super::cleanup::release_unconfirmed_permits;
use super::held::{Has, HeldLock};
use super::look::look_before;
use super::pool::Pool;
use super::release::{release, release_permits};
use super::reservation::Reservation;
use super::session::Session;
use super::traits::{
    Access, FEW_PERMITS, Granted, LockSession, Notices, PermitKeys, TakenPermits, Turn,
};
use crate::background;
use crate::clock::Timestamp;
use crate::future::{First, join, select};
use crate::provider::{AcquireRequest, Grant};
use crate::providers::kit::backoff::jittered;
use crate::{LockError, LockErrorKind};

/// How many permits a session is asked for at once.
const AT_ONCE: u64 = 64;
/// Whoever holds the turnstile looks this often besides: a holder that crashes tells nobody.
const LOOKS_EVERY: Duration = Duration::from_millis(100);
/// Whoever looks at the turnstile, or takes several permits, is done within this.
const SHORT: Duration = Duration::from_millis(1);
/// Nobody who only looks is in the way so often.
const MOST_LOOKS: u32 = 30;
/// After this time it is odd that the turnstile was not released.
const LONG_RELEASE: Duration = Duration::from_millis(50);

/// A semaphore, and what is wanted of it.
struct Wanted<S: LockSession> {
    /// The name as the server knows it.
    name: String,
    keys: PermitKeys<S::Key>,
    limit: NonZeroU32,
    take: usize,
    /// The permit that is tried first.
    start: u64,
}

/// Permits that a session has, until they are enough.
struct Collected<S: LockSession> {
    permits: Vec<Reservation<S::Key>>,
    /// When the last of them was asked for.
    sent_at: Timestamp,
}

/// What became of a look for permits.
enum Found {
    Enough,
    /// Others have them.
    Few,
    /// Others come first who wait.
    NotYet,
}

/// An error, and whether the request can be made again on another session.
struct Failed {
    error: LockError,
    session_has_ended: bool,
}

impl<S: LockSession> Wanted<S> {
    fn new(pool: &Pool<S>, request: &AcquireRequest, limit: NonZeroU32, take: NonZeroU32) -> Self {
        let name = pool.full_name(request.name());
        // Somewhere else each time, so that processes seldom try the same one.
        let noise = Timestamp::now()
            .as_nanos()
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 32;
        Self {
            keys: S::permit_keys(&name),
            name,
            limit,
            take: usize::try_from(take.get()).unwrap_or(usize::MAX),
            start: noise % u64::from(limit.get()),
        }
    }

    /// Returns the keys of at most so many permits, beginning with this one after the first that is
    /// tried. `None` after the last one.
    fn keys(&self, from: u64, most: u64) -> Option<Vec<S::Key>> {
        let limit = u64::from(self.limit.get());
        if from >= limit {
            return None;
        }
        let numbers = from..(from + most).min(limit);
        // Below the limit, which is a `u32`.
        let numbers = numbers.map(|number| ((self.start + number) % limit) as u32);
        Some(S::permits(&self.name, numbers))
    }
}

impl<S: LockSession> Collected<S> {
    fn new() -> Self {
        Self {
            permits: Vec::new(),
            sent_at: Timestamp::NONE,
        }
    }
}

impl<S: LockSession> Acquisition<'_, S> {
    /// Takes so many permits, and waits for them if there are too few.
    pub(super) async fn run_permits(
        mut self,
        limit: NonZeroU32,
        take: NonZeroU32,
    ) -> Result<Grant, LockError> {
        let wanted = Wanted::<S>::new(self.pool, self.request, limit, take);
        self.pool.check_room(wanted.take)?;
        loop {
            match self.pool.reserve(wanted.keys.asking, self.access) {
                Ok(asking) => {
                    if let Some(grant) = self.permits_now_or_in_turn(&wanted, asking).await? {
                        return Ok(grant);
                    }
                }
                // What an earlier request took is being released.
                Err(Some(unconfirmed)) if !self.tolerates(&unconfirmed) => return Err(unconfirmed),
                Err(_) => {}
            }
            if !self.request.waits() || self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            let pause = tokio::time::sleep(jittered(LOOKS_EVERY));
            select(self.request.abandoned(), pause).await;
        }
    }

    /// Takes the permits, or waits for its turn to do so. `None` if that came to nothing.
    async fn permits_now_or_in_turn(
        &mut self,
        wanted: &Wanted<S>,
        asking: Reservation<S::Key>,
    ) -> Result<Option<Grant>, LockError> {
        self.request.report_unanswered(true);
        let tried = self.try_permits(wanted, asking).await;
        self.request.report_unanswered(false);
        match tried? {
            Tried::Granted(grant) => Ok(Some(grant)),
            Tried::Nothing => Ok(None),
            Tried::Refused(_, _) if !self.request.waits() => Err(LockErrorKind::Contended.into()),
            Tried::Refused(session, asking) => {
                let turnstile = wanted.keys.turnstile;
                let others = Some(WaitPlace::Notice);
                let place = self.wait_place(&session, turnstile, others).await;
                drop(session);
                Box::pin(self.permits_in_turn(wanted, asking, place)).await
            }
        }
    }

    /// Tries to take the permits on a session that is shared.
    async fn try_permits(
        &mut self,
        wanted: &Wanted<S>,
        asking: Reservation<S::Key>,
    ) -> Result<Tried<S>, LockError> {
        let look = look_before(self.pool, self.request.lease());
        select(look, self.request.abandoned()).await;
        let patience = self.patience();
        let released_by = self
            .deadline
            .end()
            .unwrap_or_else(|| Timestamp::now() + patience);
        let turn = match wanted.take {
            1 => Turn::AfterOthers,
            _ if u64::from(wanted.limit.get()) <= AT_ONCE => Turn::AfterOthersAllOrNothing,
            _ => Turn::AfterOthersAlone,
        };
        let (mut pauses, mut looked_again) = (RETRY_PAUSES.into_iter(), 0);
        loop {
            let opening = self.in_time(self.pool.shared(self.request.lease()));
            let session = match select(opening, self.request.abandoned()).await {
                First::Left(Ok(session)) => session,
                First::Left(Err(error)) if self.tolerates(&error) => continue,
                First::Left(Err(error)) => return Err(error),
                First::Right(()) => return Err(LockErrorKind::Contended.into()),
            };
            let mut collected = Collected::new();
            let found = self.collect(wanted, &session, &mut collected, turn).await;
            match found {
                Ok(Found::Enough) => {
                    return match self.grant_permits(wanted, &session, collected) {
                        Ok(grant) => Ok(Tried::Granted(grant)),
                        Err(error) if self.tolerates(&error) => Ok(Tried::Nothing),
                        Err(error) => Err(error),
                    };
                }
                Ok(found) => {
                    self.recovered();
                    if !collected.permits.is_empty() {
                        let permits = collected.permits;
                        let released = release_permits(self.pool, &session, wanted.keys, permits);
                        match released.await {
                            Ok(_) => {}
                            Err(error) if self.tolerates(&error) => return Ok(Tried::Nothing),
                            Err(error) => return Err(error),
                        }
                    }
                    if self.pool.roster.has_ended_ones()
                        && self.permits_are_unconfirmed(wanted, &session).await
                    {
                        if !released_by.has_passed() {
                            tokio::time::sleep(CLEANUP_POLL).await;
                            continue;
                        }
                        let error = LockError::new(LockErrorKind::ProviderUnavailable).with_detail(
                            "a session that this process has given up may still have permits",
                        );
                        return match self.tolerates(&error) {
                            true => Ok(Tried::Nothing),
                            false => Err(error),
                        };
                    }
                    // A turn of this process that was given up is no other holder.
                    let own_turn = || {
                        let turns = &self.pool.reservations;
                        !turns.sessions_of(&wanted.keys.turnstile).is_empty()
                    };
                    if matches!(found, Found::NotYet) && !self.request.waits() && own_turn() {
                        if !released_by.has_passed() {
                            tokio::time::sleep(jittered(CLEANUP_POLL)).await;
                            continue;
                        }
                        return Err(LockError::new(LockErrorKind::ProviderUnavailable)
                            .with_detail("a wait that this process gave up is still in the way"));
                    }
                    if !self.request.waits()
                        && self.is_brief(wanted, &session, &found, looked_again).await
                    {
                        looked_again += 1;
                        tokio::time::sleep(jittered(SHORT)).await;
                        continue;
                    }
                    if !matches!(found, Found::NotYet) || !own_turn() {
                        self.request.report_contention();
                    }
                    return Ok(Tried::Refused(session, asking));
                }
                Err((failed, attempted)) => {
                    self.pool.note_error(&failed.error);
                    if !failed.session_has_ended {
                        asking.mark_unconfirmed(&failed.error);
                        self.give_back(wanted, &session, asking, attempted, collected);
                        return match self.tolerates(&failed.error) {
                            true => Ok(Tried::Nothing),
                            false => Err(failed.error),
                        };
                    }
                    // A session that was idle may be found dead only now.
                    let Some(pause) = pauses.next() else {
                        return match self.tolerates(&failed.error) {
                            true => Ok(Tried::Nothing),
                            false => Err(failed.error),
                        };
                    };
                    let pause = tokio::time::sleep(jittered(pause));
                    select(pause, self.request.abandoned()).await;
                }
            }
        }
    }

    /// Says whether what was found is worth another look: somebody may only have looked, or taken
    /// several for a moment.
    async fn is_brief(
        &self,
        wanted: &Wanted<S>,
        session: &Session<S>,
        found: &Found,
        looked_again: u32,
    ) -> bool {
        if looked_again == 0 {
            return matches!(found, Found::NotYet) || wanted.take > 1;
        }
        if looked_again > MOST_LOOKS || !matches!(found, Found::NotYet) {
            return false;
        }
        let taken = session.client.turn_is_taken(wanted.keys);
        let taken = session.within(self.patience(), taken).await;
        taken.is_ok_and(|taken| !taken)
    }

    /// Waits for the turnstile, and then for permits. `None` if that came to nothing.
    async fn permits_in_turn(
        &mut self,
        wanted: &Wanted<S>,
        asking: Reservation<S::Key>,
        place: WaitPlace,
    ) -> Result<Option<Grant>, LockError> {
        let (pool, turnstile) = (self.pool, wanted.keys.turnstile);
        // The turn before may be on its way out.
        let began = Timestamp::now();
        while !pool.reservations.sessions_of(&turnstile).is_empty()
            && !(began + LONG_RELEASE).has_passed()
        {
            tokio::time::sleep(SHORT).await;
        }
        let waiting = Acquisition::on_the_way(pool, self.request, turnstile)?.wait(place);
        let turn = Turnstile {
            pool: Arc::clone(pool),
            turnstile,
            grant: Some(waiting.await?),
        };
        let opening = select(pool.shared(self.request.lease()), self.request.abandoned());
        let session = match opening.await {
            First::Left(Ok(session)) => session,
            First::Left(Err(error)) if self.tolerates(&error) => return Ok(None),
            First::Left(Err(error)) => return Err(error),
            First::Right(()) => return Err(LockErrorKind::Contended.into()),
        };
        let hearing = Hearing::new(&session, wanted.keys.released);
        if let Some(having) = turn.session() {
            pool.set_turn(
                turnstile,
                Some((having.number(), Arc::clone(&hearing.notices))),
            );
        }
        let mut collected = Collected::new();
        let ended = self.collect_in_turn(wanted, &session, &hearing, &turn, &mut collected);
        match ended.await {
            Ok(true) => match self.grant_permits(wanted, &session, collected) {
                Ok(grant) => Ok(Some(grant)),
                Err(error) if self.tolerates(&error) => Ok(None),
                Err(error) => Err(error),
            },
            Ok(false) => {
                if !collected.permits.is_empty() && !session.has_ended() {
                    let permits = collected.permits;
                    let released = release_permits(pool, &session, wanted.keys, permits).await;
                    if let Err(error) = released
                        && !self.tolerates(&error)
                    {
                        return Err(error);
                    }
                }
                match self.request.is_abandoned() {
                    true => Err(LockErrorKind::Contended.into()),
                    false => Ok(None),
                }
            }
            Err((failed, attempted)) => {
                pool.note_error(&failed.error);
                if !failed.session_has_ended {
                    asking.mark_unconfirmed(&failed.error);
                    self.give_back(wanted, &session, asking, attempted, collected);
                }
                match self.tolerates(&failed.error) {
                    true => Ok(None),
                    false => Err(failed.error),
                }
            }
        }
    }

    /// Takes permits as they become free, until there are enough; false if that has ended before.
    async fn collect_in_turn(
        &mut self,
        wanted: &Wanted<S>,
        session: &Arc<Session<S>>,
        hearing: &Hearing<S>,
        turn: &Turnstile<S>,
        collected: &mut Collected<S>,
    ) -> Result<bool, (Failed, Vec<S::Key>)> {
        let listening = session.client.listen(wanted.keys.released);
        // Sent first, so that no release comes between it and the look.
        let mut listening = Some(Box::pin(listening));
        loop {
            self.request.report_unanswered(true);
            let looking = self.collect(wanted, session, collected, Turn::First);
            let found = match listening.take() {
                Some(listening) => {
                    let (listens, found) = join(listening, looking).await;
                    found.and_then(|found| match listens {
                        Ok(()) => Ok(found),
                        Err(error) => {
                            let error = session.explain(error);
                            session.end("notices were not to be had");
                            Err((
                                Failed {
                                    error,
                                    session_has_ended: true,
                                },
                                Vec::new(),
                            ))
                        }
                    })
                }
                None => looking.await,
            };
            self.request.report_unanswered(false);
            if let Found::Enough = found? {
                return Ok(true);
            }
            self.recovered();
            if !self.pool.roster.has_ended_ones()
                || !self.permits_are_unconfirmed(wanted, session).await
            {
                self.request.report_contention();
            }
            let pause = tokio::time::sleep(jittered(LOOKS_EVERY));
            let told = select(hearing.notices.arrived(), pause);
            let over = select(session.liveness().ended(), turn.is_lost());
            let over = select(self.request.abandoned(), over);
            if let First::Right(_) = select(told, over).await {
                return Ok(false);
            }
        }
    }

    /// Asks the session for what is missing. An error comes with the permits that it was asked for.
    async fn collect(
        &self,
        wanted: &Wanted<S>,
        session: &Arc<Session<S>>,
        collected: &mut Collected<S>,
        turn: Turn,
    ) -> Result<Found, (Failed, Vec<S::Key>)> {
        let mut from = 0;
        let mut at_once = match (wanted.take, turn) {
            (1, Turn::AfterOthers) => FEW_PERMITS as u64,
            _ => AT_ONCE,
        };
        while let Some(mut keys) = wanted.keys(from, at_once) {
            from += at_once;
            at_once = AT_ONCE;
            // The session would be given again what it has.
            self.pool.reservations.retain_unused(&mut keys);
            if keys.is_empty() {
                continue;
            }
            let missing = wanted.take - collected.permits.len();
            let patience = self.patience();
            let left = self.deadline.end().map_or(patience, Timestamp::remaining);
            let trying = session.try_permits(wanted.keys, &keys, missing, turn);
            match session.within(patience.min(left), trying).await {
                Ok(None) => return Ok(Found::NotYet),
                Ok(Some(TakenPermits { sent_at, permits })) => {
                    collected.sent_at = sent_at;
                    let reserving = permits.iter().map(|key| self.pool.reservations.add(*key));
                    collected.permits.extend(reserving.flatten());
                    for permit in &collected.permits {
                        permit.bind(session.number());
                    }
                }
                Err(error) => {
                    let session_has_ended = session.has_ended();
                    let failed = Failed {
                        error,
                        session_has_ended,
                    };
                    return Err((failed, keys));
                }
            }
            if collected.permits.len() == wanted.take {
                return Ok(Found::Enough);
            }
        }
        Ok(Found::Few)
    }

    /// Releases in the background what a session has, and what a request may have taken that was
    /// not answered.
    fn give_back(
        &self,
        wanted: &Wanted<S>,
        session: &Arc<Session<S>>,
        asking: Reservation<S::Key>,
        mut permits: Vec<S::Key>,
        collected: Collected<S>,
    ) {
        permits.extend(collected.permits.iter().map(|permit| permit.key));
        let (keys, held) = (wanted.keys, collected.permits);
        release_unconfirmed_permits(self.pool, session, asking, keys, permits, held);
    }

    /// Says whether a session has permits that this process has given up.
    async fn permits_are_unconfirmed(&self, wanted: &Wanted<S>, session: &Session<S>) -> bool {
        let Some(mut keys) = wanted.keys(0, AT_ONCE) else {
            return false;
        };
        keys.push(wanted.keys.turnstile);
        let holders = session.client.permit_holders(&keys);
        match session.within(self.patience(), holders).await {
            Ok(Some(pids)) => self.pool.roster.serve_ended_ones(&pids),
            // The server cannot tell.
            Ok(None) => false,
            // It did not tell: nobody was seen.
            Err(_) => true,
        }
    }

    /// Makes the grant of the permits.
    fn grant_permits(
        &mut self,
        wanted: &Wanted<S>,
        session: &Arc<Session<S>>,
        collected: Collected<S>,
    ) -> Result<Grant, LockError> {
        self.recovered();
        for permit in &collected.permits {
            self.add_lock(session, permit.key)?;
        }
        let granted = Granted {
            sent_at: collected.sent_at,
            token: None,
        };
        let has = Has::Permits(wanted.keys, collected.permits);
        Ok(self.grant_of(session, has, granted))
    }
}

/// What became of a try.
enum Tried<S: LockSession> {
    Granted(Grant),
    /// There are too few, or others come first. This session has seen it.
    Refused(Arc<Session<S>>, Reservation<S::Key>),
    /// Nothing is known; it is worth another try later.
    Nothing,
}

/// The turnstile, until this is dropped.
struct Turnstile<S: LockSession> {
    pool: Arc<Pool<S>>,
    turnstile: S::Key,
    grant: Option<Grant>,
}

impl<S: LockSession> Turnstile<S> {
    /// Returns the session that has it.
    fn session(&self) -> Option<&Arc<Session<S>>> {
        let held = self.grant.as_ref()?.state::<HeldLock<S>>()?;
        Some(&held.session)
    }

    /// Waits until somebody else may have it.
    async fn is_lost(&self) {
        match self.session() {
            Some(session) => {
                session.liveness().ended().await;
            }
            None => std::future::pending().await,
        }
    }
}

impl<S: LockSession> Drop for Turnstile<S> {
    fn drop(&mut self) {
        self.pool.set_turn(self.turnstile, None);
        if let Some(grant) = self.grant.take() {
            let pool = Arc::clone(&self.pool);
            background::spawn_beside(async move {
                if let Err(error) = release(&pool, &grant).await {
                    tracing::debug!(%error, "a turnstile was not released at once");
                }
            });
        }
    }
}

/// Notices of released permits, until this is dropped.
struct Hearing<S: LockSession> {
    session: Arc<Session<S>>,
    key: S::Key,
    notices: Arc<Notices>,
}

impl<S: LockSession> Hearing<S> {
    fn new(session: &Arc<Session<S>>, key: S::Key) -> Self {
        session.add_listener();
        Self {
            session: Arc::clone(session),
            key,
            notices: session.client.subscribe(key),
        }
    }
}

impl<S: LockSession> Drop for Hearing<S> {
    fn drop(&mut self) {
        let (session, key) = (Arc::clone(&self.session), self.key);
        let notices = Arc::clone(&self.notices);
        background::spawn_beside(async move {
            session.remove_listener();
            let access = Access::Exclusive;
            let leaving = session
                .client
                .unregister_waiter(key, access, &notices, false);
            if !session.has_ended()
                && let Err(error) = leaving.await
            {
                tracing::debug!(error = %session.explain(error), "still listens for permits");
            }
        });
    }
}
