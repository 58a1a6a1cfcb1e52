//! A lock of any kind behind the methods of a mutex, so that one test is about all of them.

use std::fmt::{self, Display, Formatter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{
    DistributedLock, DistributedRwLock, DistributedSemaphore, FencingToken, LockError, LockGuard,
    LockMode, LockName, LockProvider, LostSignal, RwLockReadGuard, RwLockUpgradeableReadGuard,
    RwLockWriteGuard, SemaphorePermit,
};

/// Returns the mode of so many of all permits.
///
/// # Panics
///
/// If one of the numbers is zero.
pub fn permits(take: u32, limit: u32) -> LockMode {
    let number = |number| NonZeroU32::new(number).expect("at least one permit");
    LockMode::Permits {
        limit: number(limit),
        take: number(take),
    }
}

/// A mode as the lines of other processes show it: `exclusive`, `read`, `write`, `upgradeable`
/// or `TAKE/LIMIT`.
#[derive(Debug, Clone, Copy)]
pub struct ModeWord(pub LockMode);

impl ModeWord {
    /// Reads a mode.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn parse(word: &str) -> LockMode {
        let number = |digits: &str| digits.parse().expect("a number of permits");
        match word {
            "exclusive" => LockMode::Exclusive,
            "read" => LockMode::Read,
            "write" => LockMode::Write,
            "upgradeable" => LockMode::Upgradeable,
            _ => {
                let (take, limit) = word.split_once('/').expect("a mode");
                permits(number(take), number(limit))
            }
        }
    }
}

impl Display for ModeWord {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            LockMode::Exclusive => f.write_str("exclusive"),
            LockMode::Read => f.write_str("read"),
            LockMode::Write => f.write_str("write"),
            LockMode::Upgradeable => f.write_str("upgradeable"),
            LockMode::Permits { limit, take } => write!(f, "{take}/{limit}"),
            other => panic!("an unknown mode: {other:?}"),
        }
    }
}

/// A lock, and what is wanted of it.
#[derive(Debug, Clone)]
pub enum AnyLock {
    /// A mutex.
    Mutex(DistributedLock),
    /// To read.
    Read(DistributedRwLock),
    /// To read, with the right to become the writer.
    Upgradeable(DistributedRwLock),
    /// To write.
    Write(DistributedRwLock),
    /// So many permits.
    Permits(DistributedSemaphore, u32),
}

/// What is held of a lock.
#[derive(Debug)]
pub enum AnyGuard {
    /// A mutex.
    Mutex(LockGuard),
    /// To read.
    Read(RwLockReadGuard),
    /// To read, with the right to become the writer.
    Upgradeable(RwLockUpgradeableReadGuard),
    /// To write.
    Write(RwLockWriteGuard),
    /// Permits.
    Permits(SemaphorePermit),
}

macro_rules! configure {
    ($($(#[$doc:meta])* $method:ident($($value:ident: $type:ty)?);)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $method(self $(, $value: $type)?) -> Self {
                match self {
                    Self::Mutex(lock) => Self::Mutex(lock.$method($($value)?)),
                    Self::Read(lock) => Self::Read(lock.$method($($value)?)),
                    Self::Upgradeable(lock) => Self::Upgradeable(lock.$method($($value)?)),
                    Self::Write(lock) => Self::Write(lock.$method($($value)?)),
                    Self::Permits(all, take) => Self::Permits(all.$method($($value)?), take),
                }
            }
        )*
    };
}

macro_rules! each {
    ($self:ident, $guard:ident => $call:expr) => {
        match $self {
            Self::Mutex($guard) => $call,
            Self::Read($guard) => $call,
            Self::Upgradeable($guard) => $call,
            Self::Write($guard) => $call,
            Self::Permits($guard) => $call,
        }
    };
}

impl AnyLock {
    /// Makes the lock of this name, for what this mode wants of it.
    pub fn on(mode: LockMode, provider: Arc<dyn LockProvider>, name: impl Into<LockName>) -> Self {
        match mode {
            LockMode::Exclusive => Self::Mutex(DistributedLock::on(provider, name)),
            LockMode::Read => Self::Read(DistributedRwLock::on(provider, name)),
            LockMode::Upgradeable => Self::Upgradeable(DistributedRwLock::on(provider, name)),
            LockMode::Write => Self::Write(DistributedRwLock::on(provider, name)),
            LockMode::Permits { limit, take } => {
                let all = DistributedSemaphore::on(provider, name, limit.get());
                Self::Permits(all, take.get())
            }
            other => panic!("an unknown mode: {other:?}"),
        }
    }

    configure! {
        /// Sets the lease.
        lease(lease: Duration);
        /// Sets the time for which it is kept at least.
        min_hold(min_hold: Duration);
        /// Lets nobody wait for a release.
        release_in_background();
    }

    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        match self {
            Self::Mutex(lock) => lock.name(),
            Self::Read(lock) | Self::Upgradeable(lock) | Self::Write(lock) => lock.name(),
            Self::Permits(all, _) => all.name(),
        }
    }

    /// Acquires it, as [`DistributedLock::acquire`] does.
    ///
    /// # Errors
    ///
    /// As that.
    pub async fn acquire(&self) -> Result<AnyGuard, LockError> {
        match self {
            Self::Mutex(lock) => lock.acquire().await.map(AnyGuard::Mutex),
            Self::Read(lock) => lock.read().await.map(AnyGuard::Read),
            Self::Upgradeable(lock) => lock.upgradeable_read().await.map(AnyGuard::Upgradeable),
            Self::Write(lock) => lock.write().await.map(AnyGuard::Write),
            Self::Permits(all, 1) => all.acquire().await.map(AnyGuard::Permits),
            Self::Permits(all, n) => all.acquire_many(*n).await.map(AnyGuard::Permits),
        }
    }

    /// Acquires it, as [`DistributedLock::acquire_for`] does.
    ///
    /// # Errors
    ///
    /// As that.
    pub async fn acquire_for(&self, timeout: Duration) -> Result<AnyGuard, LockError> {
        match self {
            Self::Mutex(lock) => lock.acquire_for(timeout).await.map(AnyGuard::Mutex),
            Self::Read(lock) => lock.read_for(timeout).await.map(AnyGuard::Read),
            Self::Upgradeable(lock) => {
                let answer = lock.upgradeable_read_for(timeout).await;
                answer.map(AnyGuard::Upgradeable)
            }
            Self::Write(lock) => lock.write_for(timeout).await.map(AnyGuard::Write),
            Self::Permits(all, 1) => all.acquire_for(timeout).await.map(AnyGuard::Permits),
            Self::Permits(all, n) => {
                let answer = all.acquire_many_for(*n, timeout).await;
                answer.map(AnyGuard::Permits)
            }
        }
    }

    /// Tries to acquire it, as [`DistributedLock::try_acquire`] does.
    ///
    /// # Errors
    ///
    /// As that.
    pub async fn try_acquire(&self) -> Result<Option<AnyGuard>, LockError> {
        Ok(match self {
            Self::Mutex(lock) => lock.try_acquire().await?.map(AnyGuard::Mutex),
            Self::Read(lock) => lock.try_read().await?.map(AnyGuard::Read),
            Self::Upgradeable(lock) => lock
                .try_upgradeable_read()
                .await?
                .map(AnyGuard::Upgradeable),
            Self::Write(lock) => lock.try_write().await?.map(AnyGuard::Write),
            Self::Permits(all, 1) => all.try_acquire().await?.map(AnyGuard::Permits),
            Self::Permits(all, n) => all.try_acquire_many(*n).await?.map(AnyGuard::Permits),
        })
    }

    /// Tries to acquire it, as [`DistributedLock::try_acquire_for`] does.
    ///
    /// # Errors
    ///
    /// As that.
    pub async fn try_acquire_for(&self, timeout: Duration) -> Result<Option<AnyGuard>, LockError> {
        Ok(match self {
            Self::Mutex(lock) => lock.try_acquire_for(timeout).await?.map(AnyGuard::Mutex),
            Self::Read(lock) => lock.try_read_for(timeout).await?.map(AnyGuard::Read),
            Self::Upgradeable(lock) => {
                let answer = lock.try_upgradeable_read_for(timeout).await;
                answer?.map(AnyGuard::Upgradeable)
            }
            Self::Write(lock) => lock.try_write_for(timeout).await?.map(AnyGuard::Write),
            Self::Permits(all, 1) => all.try_acquire_for(timeout).await?.map(AnyGuard::Permits),
            Self::Permits(all, n) => {
                let answer = all.try_acquire_many_for(*n, timeout).await;
                answer?.map(AnyGuard::Permits)
            }
        })
    }
}

impl AnyGuard {
    /// Returns the lock's name.
    pub fn name(&self) -> &LockName {
        each!(self, guard => guard.name())
    }

    /// Tells whether it is lost.
    pub fn is_lost(&self) -> bool {
        each!(self, guard => guard.is_lost())
    }

    /// Returns the signal of its loss.
    pub fn lost(&self) -> LostSignal {
        each!(self, guard => guard.lost())
    }

    /// Returns the fencing token. Permits have none.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        match self {
            Self::Mutex(guard) => guard.fencing_token(),
            Self::Read(guard) => guard.fencing_token(),
            Self::Upgradeable(guard) => guard.fencing_token(),
            Self::Write(guard) => guard.fencing_token(),
            Self::Permits(_) => None,
        }
    }

    /// Gives it back, as [`LockGuard::release`] does.
    ///
    /// # Errors
    ///
    /// As that.
    pub async fn release(self) -> Result<(), LockError> {
        each!(self, guard => guard.release().await)
    }
}
