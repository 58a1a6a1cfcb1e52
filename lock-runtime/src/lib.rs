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

mod clock;
mod future;
mod name;
mod token;
mod wake;

mod error;
mod limits;
mod signal;

mod telemetry;

mod background;
mod call;

mod provider;

mod end;
mod source;

mod reentrancy;
mod slot_table;

mod lease;

mod gate;

mod guard;

mod acquire;
mod body;
mod cached_slot;
mod shutdown;

mod providers;

mod registry;

mod lock;
mod outcome;

mod attribute;

use background as keeper;
use future as race;
use lease::schedule;

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
pub use registry::{
    RegisterError, RegisterErrorKind, forbid_in_process_fallback, register, register_named,
};
pub use shutdown::shutdown;
pub use token::FencingToken;
