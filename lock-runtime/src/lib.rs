//! Declarative distributed locking for async Rust.
//!
//! An `async fn` with the attribute [`distributed_lock`] runs its body only while a named lock is
//! held. The lock lives where `main` says once: on a Redis, PostgreSQL or ZooKeeper server, in a
//! directory, or in this process.
//!
//! # Quick start
//!
//! Call [`register`] first in `main`, and [`shutdown`] last. Use [`DistributedLock`] where an
//! attribute does not fit.
//!
#![cfg_attr(feature = "macros", doc = "```")]
#![cfg_attr(not(feature = "macros"), doc = "```ignore")]
//! use lock_runtime::{LockError, distributed_lock};
//!
//! /// Two instances of the service never settle the same invoice at once.
//! #[distributed_lock(name = "invoice:{invoice_id}", timeout = "5s")]
//! async fn settle(invoice_id: u64) -> Result<String, LockError> {
//!     Ok(format!("receipt for {invoice_id}"))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // From configuration, such as `redis://127.0.0.1:6379` or `file:/var/lock/app`.
//!     lock_runtime::register(lock_runtime::connect("memory:").await?)?;
//!
//!     println!("{}", settle(7).await?);
//!
//!     lock_runtime::shutdown().await;
//!     Ok(())
//! }
#![doc = "```"]
//!
//! # Kinds of locks
//!
//! | kind | with the attribute | by hand | guard |
//! |---|---|---|---|
//! | mutex | by default | [`DistributedLock`] | [`LockGuard`] |
//! | reader–writer lock | `mode = "read"`, `mode = "write"` | [`DistributedRwLock`] | [`RwLockReadGuard`], [`RwLockWriteGuard`] |
//! | semaphore | `permits = 3`, `take = 2` | [`DistributedSemaphore`] | [`SemaphorePermit`] |
//! | several locks | `name = ["a:{x}", "b:{y}"]` | [`DistributedMultiLock`] | [`MultiLockGuard`] |
//! | several of these | `name = ["a:{x}", "b:{y}"]` | [`DistributedMultiLock`] | [`MultiLockGuard`] |
//!
//! Not every provider has all kinds. One that does not have a kind answers
//! [`Unsupported`](LockErrorKind::Unsupported).
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `macros`, on by default | the attribute [`distributed_lock`] |
//! | `file`, `postgres`, `redis`, `zookeeper` | the provider of that name |
//! | `zookeeper-tls` | `zookeeper`, with TLS |
//! | `metrics` | metrics through the [`metrics`](https://docs.rs/metrics) facade |
//! | `serde` | `Deserialize` of [`LockConfig`], `LockName` and `FencingToken`; `Serialize` of the latter two |
//! | `testing` | a provider for tests |
//!
//! # Providers
//!
//! [`connect`] makes a provider from a URL, [`LockConfig`] from a
//! [configuration](guide::configuration), and each provider has a builder. Their pages are
//! [in this process](guide::providers::in_process), [files](guide::providers::file),
//! [PostgreSQL](guide::providers::postgres), [Redis](guide::providers::redis) and
//! [ZooKeeper](guide::providers::zookeeper).
//!
//! # Guarantees
//!
//! Two grants that exclude each other are never valid at the same time, and a body is dropped before
//! its lease can end at the server. [Guarantees](guide::guarantees) states every promise, and what is not
//! promised; a [`FencingToken`] covers the rest.
//!
//! # Testing
//!
//! The feature `testing` adds
#![cfg_attr(feature = "testing", doc = "[`TestProvider`](testing::TestProvider),")]
#![cfg_attr(not(feature = "testing"), doc = "`testing::TestProvider`,")]
//! which loses, refuses, fails, delays and freezes on command. What operators see of a lock is on
//! the page [observability](guide::observability).
//!
//! # Writing a provider
//!
//! Implement [`LockProvider`], whose page has the contract, to keep locks on a server that is not
//! supported yet. [A guide](guide::writing_a_provider) has a skeleton.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod clock;
mod future;
mod host;
mod name;
mod token;
mod wake;

mod error;
mod limits;
mod signal;

mod telemetry;

mod alarm;
mod background;
mod call;
mod sending;

mod provider;

mod call_queue;
mod end;
mod shared_task;
mod source;

mod reentrancy;
mod slot_table;

mod lease;

mod gate;

mod guard;
mod shared_guard;

mod kind;

mod acquire;
mod body;
mod cached_slot;
mod inspect;
mod several;

mod lock_part;
mod shutdown;
mod upgrade;

mod providers;

mod registry;

mod config;

mod lock;
mod multi_lock;
mod outcome;
mod rw_lock;
mod semaphore;

mod attribute;

#[cfg(feature = "testing")]
pub mod testing;

// The files in `docs`, which no program needs.
#[cfg(any(doc, doctest))]
pub mod guide;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

#[cfg(feature = "macros")]
#[doc(inline)]
pub use lock_macros::distributed_lock;

pub use clock::Timestamp;
pub use config::LockConfig;
pub use end::{EndSignal, GrantEnd, LostSignal};
pub use error::{LockError, LockErrorKind};
pub use guard::LockGuard;
pub use lock::DistributedLock;
pub use lock_part::LockPart;
pub use multi_lock::DistributedMultiLock;
pub use name::LockName;
pub use outcome::Skipped;
#[doc(inline)]
pub use provider::{
    AcquireCall, AcquireRequest, BoxFuture, Call, Capabilities, Grant, Holder, Interest, LockKind,
    LockMode, LockProvider, LockSpace, LockState, LossReporter, OwnerId, ReleaseCall,
};
pub use providers::connect;
#[cfg(feature = "file")]
pub use providers::file::{self, FileProvider, FileProviderBuilder};
pub use providers::in_process::{self, InProcessProvider};
#[cfg(feature = "postgres")]
pub use providers::postgres::{self, PostgresProvider, PostgresProviderBuilder};
#[cfg(feature = "redis")]
pub use providers::redis::{
    self, RedisProvider, RedisProviderBuilder, RedisQuorumProvider, RedisQuorumProviderBuilder,
};
#[cfg(feature = "zookeeper")]
pub use providers::zookeeper::{self, ZooKeeperAcl, ZooKeeperProvider, ZooKeeperProviderBuilder};
pub use registry::{
    RegisterError, RegisterErrorKind, forbid_in_process_fallback, register, register_named,
};
pub use rw_lock::DistributedRwLock;
pub use semaphore::DistributedSemaphore;
pub use several::MultiLockGuard;
pub use shared_guard::{
    RwLockReadGuard, RwLockUpgradeableReadGuard, RwLockWriteGuard, SemaphorePermit,
};
pub use shutdown::shutdown;
pub use token::FencingToken;
pub use upgrade::UpgradeError;
