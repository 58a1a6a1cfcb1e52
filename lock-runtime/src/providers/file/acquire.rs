//! Taking a lock: looking until it is free, then fencing tokens.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::blocking::blocking;
use super::counter;
use super::directory::Directory;
use super::look::{Glance, look};
use super::shared::Shared;
use super::wanted::{Found, Locked, Wanted};
use super::yields::LONGEST_PAUSE;
use crate::future::{First, select};
use crate::provider::{AcquireRequest, Grant, LockMode};
use crate::providers::kit::error::unavailable;
use crate::{FencingToken, LockError, LockErrorKind, Timestamp};

/// A waiter looks again after 1 ms at first, later after an eighth of the time it has waited, so
/// looking costs little. A hand-over then takes little longer than the wait was anyway.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// The counter is locked for microseconds at a time. After this long the caller hears of it, ...
const COUNTER_TROUBLE: Duration = Duration::from_millis(100);
/// ... and after this long the acquisition fails: whoever has locked it must be stopped.
const COUNTER_PATIENCE: Duration = Duration::from_millis(1_800);
/// Who has been passing by for this long, and at so many looks, is a holder. On a machine that is
/// busy there are few looks in that time.
const PASSING_TAKES: Duration = Duration::from_millis(100);
const PASSING_LOOKS: u32 = 20;
/// What a call that does not wait takes at most, with one look to spare.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What one look at the files came to.
enum Look {
    Granted(Locked, Option<(FencingToken, NonZeroU32)>),
    /// The lock is taken, and others keep the counter locked.
    NoToken(Locked),
    NotYet(Found, Locked),
}

/// Looks at the files until the lock can be taken, and takes its tokens.
pub(super) async fn acquire(
    shared: &Arc<Shared>,
    wanted: Wanted,
    request: &AcquireRequest,
) -> Result<Grant, LockError> {
    if request.waits()
        && let Some(name) = wanted.file()
        && let Some(until) = shared.yields.take(name)
    {
        let _ = tokio::time::timeout(until.remaining(), request.abandoned()).await;
    }
    let wanted = Arc::new(wanted);
    let began = Timestamp::now();
    let mut locked = Locked::default();
    // Since when the lock is taken and has no token yet.
    let mut taken_at = None;
    let mut is_first = true;
    // At how many looks others were passing by.
    let mut passing = 0;
    loop {
        let waited = Timestamp::now().since(began);
        let tokens = wanted.tokens(request);
        let mut pause = pause_after(waited, wanted.mode);
        // More at a time would only stand in each other's way, and whoever gives up in the queue
        // has nothing to take back.
        let place = select(shared.looks.acquire(), request.abandoned()).await;
        let place = match place {
            First::Left(place) => place,
            First::Right(()) => {
                give_up(locked).await;
                return Err(LockErrorKind::Contended.into());
            }
        };
        let asked_at = Timestamp::now();
        let glance = Glance {
            is_first: std::mem::take(&mut is_first),
            waited,
            next_look: request.waits().then(|| asked_at + pause),
        };
        let looked = {
            let (shared, wanted) = (Arc::clone(shared), Arc::clone(&wanted));
            blocking(move || look_and_count(&shared, &wanted, locked, &glance, tokens)).await
        };
        drop(place);
        match looked? {
            Look::Granted(locked, tokens) => {
                request.report_trouble(None);
                let mut grant = Grant::new(request, asked_at);
                if let Some((first, count)) = tokens {
                    grant = grant.with_tokens(first, count);
                }
                return Ok(grant.with_state(shared.watch.hold(locked.files, request)));
            }
            Look::NoToken(taken) => {
                locked = taken;
                let stuck_for = Timestamp::now().since(*taken_at.get_or_insert(asked_at));
                if stuck_for >= COUNTER_TROUBLE {
                    let trouble = counter_is_stuck(&shared.directory, &wanted, stuck_for);
                    if stuck_for >= COUNTER_PATIENCE {
                        give_up(locked).await;
                        return Err(trouble);
                    }
                    request.report_trouble(Some(trouble));
                }
                pause = SHORTEST_PAUSE;
            }
            Look::NotYet(found, so_far) => {
                locked = so_far;
                passing += u32::from(found == Found::Passing);
                let passes =
                    found == Found::Passing && (waited < PASSING_TAKES || passing < PASSING_LOOKS);
                let is_unclear = found == Found::Unclear || passes;
                if request.waits() {
                    if !is_unclear {
                        request.report_contention();
                    }
                } else if !is_unclear {
                    give_up(locked).await;
                    return Err(LockErrorKind::Contended.into());
                } else if Timestamp::now().since(began) >= COUNTER_PATIENCE {
                    give_up(locked).await;
                    return Err(unavailable(
                        "the lock's files were replaced all the while, so nobody can tell who \
                         holds it",
                    ));
                }
            }
        }
        if tokio::time::timeout(pause, request.abandoned())
            .await
            .is_ok()
        {
            give_up(locked).await;
            return Err(LockErrorKind::Contended.into());
        }
    }
}

/// Tries once to take what is wanted, unless it is taken already, and as many tokens.
fn look_and_count(
    shared: &Shared,
    wanted: &Wanted,
    mut locked: Locked,
    glance: &Glance,
    tokens: Option<NonZeroU32>,
) -> Result<Look, LockError> {
    let found = if locked.is_all_of(wanted) {
        Ok(Found::All)
    } else {
        look(shared, wanted, &mut locked, glance)
    };
    let counted = match (found, tokens, wanted.file()) {
        (Ok(Found::All), Some(count), Some(file_name)) => shared
            .counters
            .reserve(&shared.directory, file_name, count)
            .map(|first| first.map(|first| Some((first, count)))),
        (Ok(Found::All), ..) => Ok(Some(None)),
        (Ok(found), ..) => return Ok(Look::NotYet(found, locked)),
        (Err(error), ..) => Err(error),
    };
    match counted {
        Ok(Some(tokens)) => Ok(Look::Granted(locked, tokens)),
        Ok(None) => Ok(Look::NoToken(locked)),
        Err(error) => {
            locked.give_up();
            Err(error)
        }
    }
}

/// Gives back what was never granted. Where that fails, the file stays, unlocked.
async fn give_up(locked: Locked) {
    let given_up = blocking(move || {
        locked.give_up();
        Ok(())
    });
    let _ = given_up.await;
}

fn counter_is_stuck(directory: &Directory, wanted: &Wanted, stuck_for: Duration) -> LockError {
    let counter = wanted.file().map(counter::file_name).unwrap_or_default();
    unavailable(format!(
        "`{}` has been locked by another process for {} ms; is it stopped?",
        directory.path_of(&counter).display(),
        stuck_for.as_millis(),
    ))
}

/// Returns how long to wait before looking again, with jitter so that waiters do not march in step.
fn pause_after(waited: Duration, mode: LockMode) -> Duration {
    let longest = match mode {
        LockMode::Exclusive => LONGEST_PAUSE,
        // While one is in the turnstile, all who come later wait for it, even if the lock is free.
        _ => LONGEST_PAUSE / 5,
    };
    let pause = (waited / 8).clamp(SHORTEST_PAUSE, longest);
    // Without random numbers there is no jitter, and no harm.
    pause / 2 + (pause / 2).mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
}
