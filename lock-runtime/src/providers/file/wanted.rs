//! What a call wants, what it has of that, and when it enters the turnstile.
//!
//! The turnstile is a file that is locked by one of those who wait. Whoever comes later and finds
//! it locked stays behind that one. Writers enter it, so that readers do not starve them; whoever
//! collects several permits, so that two do not take the last ones from each other; and everybody
//! who has waited for long.

use std::num::NonZeroU32;
use std::time::Duration;

use super::lock_file::{Access, LockFile};
use super::name;
use crate::LockError;
use crate::provider::{AcquireRequest, LockMode};
use crate::providers::kit::error::{invalid, unsupported};

/// After this long even those who could be let in beside others wait in the turnstile.
const LONG: Duration = Duration::from_millis(100);

/// A call begins at one of so many permits. Others that are free could be any of four billion, and
/// the file that a crashed holder left would never be found again.
const FIRST_SLOTS: u32 = 1_024;

/// Each permit is an open file, of which a process may have so many.
const MOST_PERMITS_AT_ONCE: u32 = 10_000;

pub(super) struct Wanted {
    pub(super) mode: LockMode,
    pub(super) files: Files,
    /// The name of the turnstile, where there is one.
    pub(super) turnstile: Option<String>,
    waits: bool,
}

pub(super) enum Files {
    One { name: String, access: Access },
    Slots(Slots),
}

/// Files of which some are wanted, whichever are free.
pub(super) struct Slots {
    pub(super) key: String,
    pub(super) limit: u32,
    pub(super) take: usize,
    /// The first one to look at.
    pub(super) start: u32,
}

/// What a call has locked so far.
#[derive(Default)]
pub(super) struct Locked {
    pub(super) turnstile: Option<LockFile>,
    /// What the grant will keep.
    pub(super) files: Vec<LockFile>,
}

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// All that is wanted is locked.
    All,
    /// Somebody else has it.
    Held,
    /// Somebody else has it who may only pass by: a reader that is just removing the file, somebody
    /// in the turnstile who does not wait there, or who takes permits at this moment.
    Passing,
    /// Others took and released it all the while.
    Unclear,
}

impl Wanted {
    /// Makes out what is wanted of the lock of this key.
    pub(super) fn of(key: String, request: &AcquireRequest) -> Result<Self, LockError> {
        let one = |access| {
            let name = name::file_name(&key);
            Files::One { name, access }
        };
        let mode = request.mode();
        let files = match mode {
            LockMode::Exclusive | LockMode::Write => one(Access::Exclusive),
            LockMode::Read => one(Access::Shared),
            // To change a lock of a file drops it first, if it cannot be had.
            LockMode::Upgradeable => return Err(unsupported("files have no upgradeable reads")),
            LockMode::Permits { limit, take } if take > limit => {
                return Err(invalid(format!(
                    "expected to take at most the {limit} permits that there are, got {take}"
                )));
            }
            LockMode::Permits { take, .. } if take.get() > MOST_PERMITS_AT_ONCE => {
                return Err(invalid(format!(
                    "expected to take at most {MOST_PERMITS_AT_ONCE} permits at once, got {take}"
                )));
            }
            LockMode::Permits { limit, take } => Files::Slots(Slots {
                limit: limit.get(),
                take: take.get() as usize,
                // Without random numbers all begin at the first, and get in each other's way.
                start: getrandom::u32().unwrap_or(0) % limit.get().min(FIRST_SLOTS),
                key: key.clone(),
            }),
        };
        let turnstile = match (mode, &files) {
            (LockMode::Exclusive, _) => None,
            (_, Files::One { name, .. }) => Some(name::writer_file_name(name)),
            (_, Files::Slots(_)) => Some(name::permits_file_name(&key)),
        };
        Ok(Self {
            mode,
            files,
            turnstile,
            waits: request.waits(),
        })
    }

    /// Returns the turnstile if it matters at this look, and whether to enter it.
    pub(super) fn passes(&self, is_first: bool, waited: Duration) -> Option<(&str, bool)> {
        let enters = match self.mode {
            // Nobody comes after it whom it would have to hold back.
            LockMode::Write if !self.waits => return None,
            // Most writers do not wait, and need not make a file.
            LockMode::Write => !is_first,
            LockMode::Permits { take, .. } if take > NonZeroU32::MIN => true,
            _ => self.waits && waited >= LONG,
        };
        Some((self.turnstile.as_deref()?, enters))
    }

    /// Returns the one file that is wanted; permits have several.
    pub(super) fn file(&self) -> Option<&str> {
        match &self.files {
            Files::One { name, .. } => Some(name),
            Files::Slots(_) => None,
        }
    }

    /// Returns how many fencing tokens the grant carries. Nothing can be said by comparing those of
    /// permits.
    pub(super) fn tokens(&self, request: &AcquireRequest) -> Option<NonZeroU32> {
        match self.mode {
            LockMode::Exclusive | LockMode::Write => Some(request.tokens_wanted()),
            LockMode::Read | LockMode::Upgradeable => Some(NonZeroU32::MIN),
            LockMode::Permits { .. } => None,
        }
    }
}

impl Locked {
    /// Tells whether these are all the files that are wanted.
    pub(super) fn is_all_of(&self, wanted: &Wanted) -> bool {
        let expected = match &wanted.files {
            Files::One { .. } => 1,
            Files::Slots(slots) => slots.take,
        };
        self.files.len() == expected
    }

    /// Gives everything back. What cannot be removed stays, unlocked.
    pub(super) fn give_up(self) {
        for file in self.files.into_iter().chain(self.turnstile) {
            let _ = file.release();
        }
    }
}
