//! Locks held by sessions of a database server, whichever server that is.
//!
//! Servers with named locks that belong to a session are PostgreSQL (advisory locks), MySQL and
//! MariaDB (`GET_LOCK`), SQL Server (`sp_getapplock`) and Oracle (`DBMS_LOCK`). A provider for one
//! of them implements [`LockSession`], and is made of a [`SessionProvider`]. Everything else is
//! here:
//!
//! * Locks that are free are tried on a few shared sessions, each of which holds many.
//! * A session that waits can do nothing else, so each one that does waits for one lock, and then
//!   holds it. Whoever has no place in the server's queue waits for a notice.
//! * A session would take its own lock twice, so a provider reserves the keys that it uses.
//! * What a request may have taken that was not answered is released again.
//! * Sessions show that they live, are ended when they do not, and end when the server's name leads
//!   to another server.
//!
//! Each file uses only those that are declared before it.

mod activity;
mod bounds;
mod fault;
mod server;
mod settings;
mod traits;

mod leases;
mod reservation;
mod roster;
mod session;

mod heartbeat;
mod pool;

mod cleanup;
mod held;
mod look;

mod acquisition;
mod attempt;
mod notice;
mod queue;
mod wait;

mod acquire;
mod inspect;
mod permits;
mod release;
mod renew;
mod share;
mod upgrade;

mod provider;

pub(crate) use activity::Activity;
pub(crate) use bounds::{Capacity, SessionPermit};
pub(crate) use fault::{ClientError, Refusal};
pub(crate) use provider::SessionProvider;
pub(crate) use server::{Backend, Server};
pub(crate) use settings::Settings;
pub(crate) use traits::{
    Access, FEW_PERMITS, Granted, LockSession, Notices, Opened, Part, Party, PermitKeys, Seen,
    SessionUse, TakenPermits, Tried, Turn,
};

#[cfg(test)]
mod tests;
