//! Locks between the processes of one machine, as files.

// Each module uses only those above it.
mod blocking;
mod listing;
mod lock_file;
mod name;
mod settings;
mod yields;

mod directory;
mod url;
mod watch;

mod counter;

mod shared;

mod wanted;

mod permits;

mod look;

#[cfg(target_os = "linux")]
mod inspect;

mod acquire;
mod release;

mod provider;

mod builder;

#[cfg(test)]
mod tests;

pub use builder::FileProviderBuilder;
pub(crate) use builder::connect;
pub use provider::FileProvider;
