//! One look at a lock's files: what of them can be locked now.

use std::time::Duration;

use super::lock_file::{Access, Opened, announce};
use super::permits::collect;
use super::shared::Shared;
use super::wanted::{Files, Found, Locked, Wanted};
use crate::provider::LockMode;
use crate::{LockError, Timestamp};

/// How long to stay on the thread for somebody who only passes by.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_micros(50);

/// How often to try the turnstile at once: others look at it for a moment.
const ENTRY_TRIES: u32 = 3;

/// The circumstances of a look.
pub(super) struct Glance {
    pub(super) is_first: bool,
    pub(super) waited: Duration,
    /// When a caller that waits will look again, for the holder to read.
    pub(super) next_look: Option<Timestamp>,
}

/// Locks what can be locked now, and adds it to what is locked already.
pub(super) fn look(
    shared: &Shared,
    wanted: &Wanted,
    locked: &mut Locked,
    glance: &Glance,
) -> Result<Found, LockError> {
    let mut found = look_once(shared, wanted, locked, glance)?;
    // Later looks need no patience: they come again anyway.
    let tries = if glance.is_first { TRIES } else { 1 };
    for _ in 1..tries {
        if !may_pass_soon(wanted, found) {
            break;
        }
        std::thread::sleep(PAUSE);
        found = look_once(shared, wanted, locked, glance)?;
    }
    if found == Found::All {
        leave(shared, wanted, locked);
    }
    Ok(found)
}

/// Tells whether this may be the work of one who only passes by: a reader that is just removing the
/// file, or somebody who finds that there are not enough permits.
fn may_pass_soon(wanted: &Wanted, found: Found) -> bool {
    match wanted.mode {
        LockMode::Read => matches!(found, Found::Held | Found::Barred),
        LockMode::Permits { .. } => found == Found::Barred,
        LockMode::Exclusive | LockMode::Write => false,
    }
}

fn look_once(
    shared: &Shared,
    wanted: &Wanted,
    locked: &mut Locked,
    glance: &Glance,
) -> Result<Found, LockError> {
    let turnstile = wanted.passes(glance.is_first, glance.waited);
    let turnstile = turnstile.filter(|_| locked.turnstile.is_none());
    match turnstile {
        Some((name, true)) => match enter(shared, name)? {
            Opened::Locked(entered) => locked.turnstile = Some(entered),
            Opened::Busy(_) => return Ok(Found::Barred),
            Opened::Replaced => return Ok(Found::Unclear),
        },
        Some((name, false)) if is_barred(shared, name)? => return Ok(Found::Barred),
        _ => {}
    }
    match &wanted.files {
        Files::One { name, access } => match shared.directory.try_lock(name, *access)? {
            Opened::Locked(file) => {
                locked.files.push(file);
                Ok(Found::All)
            }
            Opened::Busy(file) => {
                if let (Some(file), Some(next_look)) = (file, glance.next_look) {
                    announce(&file, next_look);
                }
                Ok(Found::Held)
            }
            Opened::Replaced => Ok(Found::Unclear),
        },
        Files::Slots(slots) => {
            let found = collect(shared, slots, &mut locked.files, glance.next_look)?;
            match turnstile {
                // Somebody who came meanwhile may have some that it will give back at once.
                Some((name, false)) if found == Found::Held && is_barred(shared, name)? => {
                    Ok(Found::Barred)
                }
                _ => Ok(found),
            }
        }
    }
}

/// Tells whether somebody is in the turnstile. What cannot be told counts as that: others came and
/// went while it was looked at.
pub(super) fn is_barred(shared: &Shared, turnstile: &str) -> Result<bool, LockError> {
    let probed = shared
        .directory
        .try_lock_existing(turnstile, Access::Shared)?;
    Ok(match probed {
        None => false,
        Some(Opened::Locked(probed)) => {
            probed.unlock();
            false
        }
        Some(Opened::Busy(_) | Opened::Replaced) => true,
    })
}

fn enter(shared: &Shared, turnstile: &str) -> Result<Opened, LockError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match shared.directory.try_lock(turnstile, Access::Exclusive)? {
            Opened::Busy(_) if tries < ENTRY_TRIES => {}
            entered => return Ok(entered),
        }
    }
}

/// Leaves the turnstile, now that there is nothing more to wait for.
fn leave(shared: &Shared, wanted: &Wanted, locked: &mut Locked) {
    if let Some(entered) = locked.turnstile.take() {
        let _ = entered.release();
    } else if wanted.mode == LockMode::Write
        && let Some(turnstile) = &wanted.turnstile
        && let Ok(Some(Opened::Locked(left))) = shared
            .directory
            .try_lock_existing(turnstile, Access::Exclusive)
    {
        // A writer that died while it waited has left it. To readers it seems taken for a moment,
        // which only the holder of the lock may let it.
        let _ = left.release();
    }
}
