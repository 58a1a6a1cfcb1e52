//! Mutexes on a majority of independent servers.

// Each module uses only those above it.
mod round;

mod members;

mod held;
mod trace;

mod turn;

mod acquire;
mod inspect;
mod release;
mod renew;

mod provider;

mod builder;

pub use builder::RedisQuorumProviderBuilder;
pub(crate) use builder::connect;
pub use provider::RedisQuorumProvider;
