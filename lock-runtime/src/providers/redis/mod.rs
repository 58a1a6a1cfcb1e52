//! Locks, reader–writer locks and semaphores on a Redis or Valkey server, or on the one of several
//! that sentinels name.

// Each module uses only those above it.
mod numbers;
mod script;

mod address;
mod error;
mod hello;
mod keys;
mod residue;
mod stream;
mod tls_mismatch;
mod token_floor;

mod client;
mod notifications;
mod reading;

mod transport;

mod opening;
mod pipeline;

mod sentinel;

mod resolver;
mod settings;

mod connection;
mod connection_manager;

mod acquire_reply;
mod modes;

mod cleanup;
mod reach;

mod acquisition;

mod waiting;

mod acquire;
mod inspect;
mod release;
mod renew;
mod several;
mod sharing;
mod upgrade;

mod group;

mod provider;

mod builder;

mod quorum;

mod connect;

pub use builder::RedisProviderBuilder;
pub(crate) use connect::connect;
pub use provider::RedisProvider;
pub(crate) use quorum::connect as connect_to_quorum;
pub use quorum::{RedisQuorumProvider, RedisQuorumProviderBuilder};
