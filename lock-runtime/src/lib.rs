//! Declarative distributed locking for async Rust.
//!
//! An `async fn` with the attribute [`distributed_lock`] runs its body only while a named lock is
//! held. The lock comes from a provider that `main` [registers](register) once; with none
//! registered, locks are held in this process.
//!
//! ```
//! # #[cfg(feature = "macros")]
//! # mod example {
//! use lock_runtime::{LockError, distributed_lock};
//!
//! /// Two instances of the service never settle the same invoice at once.
//! #[distributed_lock(name = "invoice:{invoice_id}", timeout = "5s")]
//! async fn settle(invoice_id: u64) -> Result<(), LockError> {
//!     // …
//!     Ok(())
//! }
//! # }
//! ```
//!
//! [`DistributedLock`] is the same without the attribute, [`LockProvider`] what other places for
//! locks implement.

#![forbid(unsafe_code)]

mod error;
mod name;

mod end;
mod guard;
mod lock;
mod outcome;
mod token;

mod registry;
mod shutdown;

pub mod provider;
mod providers;

mod call;
mod clock;
mod expansion;
mod gate;
mod held;
mod hold;
mod keeper;
mod meter;
mod observe;
mod race;
mod renewal;
mod run;
mod schedule;
mod signal;
mod table;
mod template;
mod wake;

#[cfg(feature = "testing")]
pub mod testing;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

#[cfg(feature = "macros")]
pub use lock_macros::distributed_lock;

pub use clock::Timestamp;
pub use end::{EndSignal, GrantEnd, LostSignal};
pub use error::{LockError, LockErrorKind};
pub use guard::LockGuard;
pub use lock::DistributedLock;
pub use name::LockName;
pub use outcome::Skipped;
pub use provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, Interest, LockProvider, LockSpace,
    LossReporter, OwnerId,
};
pub use providers::connect;
#[cfg(feature = "file")]
pub use providers::file::{FileProvider, FileProviderBuilder};
pub use providers::in_process::InProcessProvider;
#[cfg(feature = "postgres")]
pub use providers::postgres::{self, PostgresProvider, PostgresProviderBuilder};
#[cfg(feature = "redis")]
pub use providers::redis::{RedisProvider, RedisProviderBuilder};
#[cfg(feature = "zookeeper")]
pub use providers::zookeeper::{ZooKeeperAcl, ZooKeeperProvider, ZooKeeperProviderBuilder};
pub use registry::{RegisterError, forbid_in_process_fallback, register, register_named};
pub use shutdown::shutdown;
pub use token::FencingToken;
