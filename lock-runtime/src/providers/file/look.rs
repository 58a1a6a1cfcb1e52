//! One look at a lock's files: what of them can be locked now.

use std::time::Duration;

use super::lock_file::{Access, LockFile, Opened, announce, is_marked};
use super::permits::collect;
use super::shared::Shared;
use super::wanted::{Files, Found, Locked, Wanted};
use crate::provider::LockMode;
use crate::{LockError, Timestamp};

/// How long to stay on the thread for somebody who only passes by.
const TRIES: u32 = 10;
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
    for _ in 1..TRIES {
        if found != Found::Passing {
            break;
        }
        std::thread::sleep(PAUSE);
        found = look_once(shared, wanted, locked, glance)?;
    }
    if found == Found::All {
        leave(shared, wanted, locked);
    } else if glance.next_look.is_some()
        && let Some(entered) = &locked.turnstile
    {
        entered.mark();
    }
    Ok(found)
}

fn look_once(
    shared: &Shared,
    wanted: &Wanted,
    locked: &mut Locked,
    glance: &Glance,
) -> Result<Found, LockError> {
    let turnstile = wanted.passes(glance.is_first, glance.waited);
    let turnstile = turnstile.filter(|_| locked.turnstile.is_none());
    let bar = match turnstile {
        Some((name, true)) => match enter(shared, name)? {
            Opened::Locked(entered) => {
                locked.turnstile = Some(entered);
                None
            }
            bar => Some(bar),
        },
        Some((name, false)) => probe(shared, name)?,
        None => None,
    };
    if let Some(bar) = bar {
        return Ok(behind(&bar));
    }
    match &wanted.files {
        Files::One { name, access } => look_at_one(shared, name, *access, locked, glance),
        Files::Slots(slots) => collect(shared, slots, &mut locked.files, glance.next_look),
    }
}

fn look_at_one(
    shared: &Shared,
    name: &str,
    access: Access,
    locked: &mut Locked,
    glance: &Glance,
) -> Result<Found, LockError> {
    let busy = match shared.directory.try_lock(name, access)? {
        Opened::Locked(file) => {
            locked.files.push(file);
            return Ok(Found::All);
        }
        Opened::Busy(file) => file,
        Opened::Replaced => return Ok(Found::Unclear),
    };
    let Some(file) = busy else {
        return Ok(Found::Held);
    };
    if let Some(next_look) = glance.next_look {
        announce(&file, next_look);
    }
    Ok(match access {
        // The last reader is about to remove it.
        Access::Shared if is_marked(&file) => Found::Passing,
        Access::Shared | Access::Exclusive => Found::Held,
    })
}

/// Says what it means that somebody else has locked the turnstile. Who waits there marks it.
fn behind(bar: &Opened) -> Found {
    match bar {
        Opened::Busy(Some(turnstile)) if !is_marked(turnstile) => Found::Passing,
        Opened::Busy(_) | Opened::Locked(_) => Found::Held,
        Opened::Replaced => Found::Unclear,
    }
}

/// Tells whether somebody is in the turnstile. What cannot be told counts as that: others came and
/// went while it was looked at.
pub(super) fn is_barred(shared: &Shared, turnstile: &str) -> Result<bool, LockError> {
    Ok(probe(shared, turnstile)?.is_some())
}

/// Looks at the turnstile from outside; `None` if nobody is in it.
fn probe(shared: &Shared, turnstile: &str) -> Result<Option<Opened>, LockError> {
    let opened = shared
        .directory
        .try_lock_existing(turnstile, Access::Shared)?;
    Ok(match opened {
        Some(Opened::Locked(probed)) => {
            probed.unlock();
            None
        }
        bar => bar,
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

/// Leaves the turnstile, now that there is nothing more to wait for, and clears away what others
/// left.
fn leave(shared: &Shared, wanted: &Wanted, locked: &mut Locked) {
    if let Some(entered) = locked.turnstile.take() {
        let _ = entered.release();
    } else if wanted.mode == LockMode::Write
        && let Some(turnstile) = &wanted.turnstile
        && let Ok(Some(Opened::Locked(left))) = shared
            .directory
            .try_lock_existing(turnstile, Access::Exclusive)
    {
        // A writer that died while it waited has left it.
        let _ = left.release();
    }
    if wanted.mode == LockMode::Write {
        // Readers that left before this writer came may have marked it.
        locked.files.iter().for_each(LockFile::unmark);
    }
}
