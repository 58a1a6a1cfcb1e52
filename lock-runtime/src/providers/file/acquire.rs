//! Taking a lock: looking until it is free, then fencing tokens.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::blocking::blocking;
use super::counter;
use super::directory::Directory;
use super::lock_file::{LockFile, Opened, announce};
use super::shared::Shared;
use super::yields::LONGEST_PAUSE;
use crate::future::{First, select};
use crate::provider::{AcquireRequest, Grant};
use crate::providers::kit::error::unavailable;
use crate::{FencingToken, LockError, LockErrorKind, Timestamp};

/// A waiter looks again after 1 ms at first, later after an eighth of the time it has waited, so
/// looking costs little. A hand-over then takes little longer than the wait was anyway.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// The counter is locked for microseconds at a time. After this long the caller hears of it, ...
const COUNTER_TROUBLE: Duration = Duration::from_millis(100);
/// ... and after this long the acquisition fails: whoever has locked it must be stopped.
const COUNTER_PATIENCE: Duration = Duration::from_millis(1_800);
/// What a call that does not wait takes at most, with one look to spare.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What one look at the file found.
enum Look {
    Granted(LockFile, FencingToken),
    /// The lock is taken, and others keep the counter locked.
    NoToken(LockFile),
    HeldElsewhere,
    /// Others took and released it all the while.
    Unclear,
}

/// Looks at the file until the lock can be taken, and takes its tokens.
pub(super) async fn acquire(
    shared: &Arc<Shared>,
    file_name: String,
    request: &AcquireRequest,
) -> Result<Grant, LockError> {
    if request.waits()
        && let Some(until) = shared.yields.take(&file_name)
    {
        let _ = tokio::time::timeout(until.remaining(), request.abandoned()).await;
    }
    let began = Timestamp::now();
    // The lock's file while it is taken but has no token yet, and since when.
    let mut taken: Option<(LockFile, Timestamp)> = None;
    loop {
        let asked_at = Timestamp::now();
        let tokens = request.tokens_wanted();
        let mut pause = pause_after(asked_at.since(began));
        let taken_at = taken.as_ref().map_or(asked_at, |(_, since)| *since);
        // More at a time would only stand in each other's way, and whoever gives up in the queue
        // has nothing to take back.
        let place = select(shared.looks.acquire(), request.abandoned()).await;
        let place = match place {
            First::Left(place) => place,
            First::Right(()) => {
                if let Some((file, _)) = taken {
                    give_up(file).await;
                }
                return Err(LockErrorKind::Contended.into());
            }
        };
        let asked_at = Timestamp::now();
        let next_look = request.waits().then(|| asked_at + pause);
        let look = {
            let (shared, file_name) = (Arc::clone(shared), file_name.clone());
            let file = taken.take().map(|(file, _)| file);
            blocking(move || look(&shared, &file_name, file, tokens, next_look)).await
        };
        drop(place);
        match look? {
            Look::Granted(file, first) => {
                request.report_trouble(None);
                return Ok(Grant::new(request, asked_at)
                    .with_tokens(first, tokens)
                    .with_state(shared.watch.hold(file_name, file, request)));
            }
            Look::NoToken(file) => {
                let stuck_for = Timestamp::now().since(taken_at);
                if stuck_for >= COUNTER_TROUBLE {
                    let trouble = counter_is_stuck(&shared.directory, &file_name, stuck_for);
                    if stuck_for >= COUNTER_PATIENCE {
                        give_up(file).await;
                        return Err(trouble);
                    }
                    request.report_trouble(Some(trouble));
                }
                taken = Some((file, taken_at));
                pause = SHORTEST_PAUSE;
            }
            Look::HeldElsewhere if !request.waits() => {
                return Err(LockErrorKind::Contended.into());
            }
            Look::HeldElsewhere => request.report_contention(),
            Look::Unclear
                if !request.waits() && Timestamp::now().since(began) >= COUNTER_PATIENCE =>
            {
                return Err(unavailable(
                    "the lock's file was replaced all the while, so nobody can tell who holds it",
                ));
            }
            Look::Unclear => {}
        }
        if tokio::time::timeout(pause, request.abandoned())
            .await
            .is_ok()
        {
            if let Some((file, _)) = taken {
                give_up(file).await;
            }
            return Err(LockErrorKind::Contended.into());
        }
    }
}

/// Tries once to take the lock, unless `taken` is it already, and its tokens. A caller that will
/// look again says when, for the holder to read.
fn look(
    shared: &Shared,
    file_name: &str,
    taken: Option<LockFile>,
    tokens: NonZeroU32,
    next_look: Option<Timestamp>,
) -> Result<Look, LockError> {
    let file = match taken {
        Some(file) => file,
        None => match shared.directory.try_lock(file_name)? {
            Opened::Locked(file) => file,
            Opened::Busy(file) => {
                if let (Some(file), Some(next_look)) = (file, next_look) {
                    announce(&file, next_look);
                }
                return Ok(Look::HeldElsewhere);
            }
            Opened::Replaced => return Ok(Look::Unclear),
        },
    };
    match shared
        .counters
        .reserve(&shared.directory, file_name, tokens)
    {
        Ok(Some(first)) => Ok(Look::Granted(file, first)),
        Ok(None) => Ok(Look::NoToken(file)),
        Err(error) => {
            let _ = file.release();
            Err(error)
        }
    }
}

/// Gives back a lock that was never granted. If that fails, the file stays, unlocked.
async fn give_up(file: LockFile) {
    let _ = blocking(move || Ok(file.release())).await;
}

fn counter_is_stuck(directory: &Directory, file_name: &str, stuck_for: Duration) -> LockError {
    unavailable(format!(
        "`{}` has been locked by another process for {} ms; is it stopped?",
        directory.path_of(&counter::file_name(file_name)).display(),
        stuck_for.as_millis(),
    ))
}

/// Returns how long to wait before looking again, with jitter so that waiters do not march in step.
fn pause_after(waited: Duration) -> Duration {
    let pause = (waited / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    // Without random numbers there is no jitter, and no harm.
    pause / 2 + (pause / 2).mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
}
