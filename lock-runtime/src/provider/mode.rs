//! `LockKind` and `LockMode`: which primitive a name is, and which part of it a request wants.

use std::fmt;
use std::num::NonZeroU32;

/// The primitive that a name stands for. A name is of one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockKind {
    /// A lock with one holder.
    Mutex,
    /// A lock with one writer, or any number of readers.
    RwLock,
    /// A number of permits, of which each holder has some.
    Semaphore,
}

/// What a request wants of the lock of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockMode {
    /// The mutex.
    Exclusive,
    /// The reader–writer lock, beside other readers.
    Read,
    /// The reader–writer lock, alone.
    Write,
    /// The reader–writer lock, beside other readers, as the only one who may
    /// [become a writer](crate::LockProvider::upgrade).
    Upgradeable,
    /// Permits of the semaphore.
    Permits {
        /// How many permits there are in all, as this caller says.
        limit: NonZeroU32,
        /// How many of them are wanted, at most `limit`.
        take: NonZeroU32,
    },
}

impl LockMode {
    /// Returns the kind of primitive that has this mode.
    pub const fn kind(self) -> LockKind {
        match self {
            Self::Exclusive => LockKind::Mutex,
            Self::Read | Self::Write | Self::Upgradeable => LockKind::RwLock,
            Self::Permits { .. } => LockKind::Semaphore,
        }
    }
}

impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mutex => "mutex",
            Self::RwLock => "reader–writer lock",
            Self::Semaphore => "semaphore",
        })
    }
}
