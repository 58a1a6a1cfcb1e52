//! Locks, reader–writer locks and semaphores on one Redis or Valkey server.

// Each module uses only those above it.
mod numbers;
mod script;

mod keys;
mod residue;
mod token_floor;

mod address;
mod client;
mod error;
mod settings;
mod stream;
mod tls_mismatch;

mod notifications;
mod transport;

mod reading;

mod pipeline;

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

pub use builder::RedisProviderBuilder;
pub(crate) use builder::connect;
pub use provider::RedisProvider;
