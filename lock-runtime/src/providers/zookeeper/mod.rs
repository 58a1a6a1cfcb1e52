//! Locks on a ZooKeeper ensemble.

// Each module uses only those above it.
mod acl;
mod address;
mod error;
mod queue;

mod path;
#[cfg(feature = "zookeeper-tls")]
mod tls;
mod transactions;

mod settings;

mod connect;
mod session;
mod session_pool;

mod node;

mod create;

mod cleanup;

mod held;

mod release;
mod renew;
mod sharing;
mod waiting;

mod acquire;
mod inspect;

mod provider;

mod builder;

pub use acl::ZooKeeperAcl;
pub use builder::ZooKeeperProviderBuilder;
pub(crate) use builder::connect;
pub use provider::ZooKeeperProvider;
