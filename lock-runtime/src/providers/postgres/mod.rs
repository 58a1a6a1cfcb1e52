//! Locks on a PostgreSQL server: advisory locks of sessions that the library keeps.
//!
//! What is not PostgreSQL's own is in `providers/sql_session`.

mod error;
mod key;
mod sql;
mod tls;

mod notices;
mod settings;

mod url;

mod connect;
mod pooler;
mod setup;

mod session;

mod provider;

mod builder;

pub use builder::PostgresProviderBuilder;
pub(crate) use builder::connect;
pub use key::{AdvisoryKey, advisory_key};
pub use provider::PostgresProvider;
