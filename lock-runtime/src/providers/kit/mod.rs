//! What several providers need. A provider of a server is written with these parts.
//!
//! `backoff`, `error`, `scheme` and `url` are always there. The feature `_server` adds the rest. A
//! provider without a server switches it on too if it wants them.
//!
//! | part | for |
//! |---|---|
//! | `settings`, `url`, `tls` | what can be set, by a builder or a URL, and how it is checked |
//! | `error`, `fault` | the library's errors, made of a client's |
//! | `holder`, `version` | how locks and their holders are named; how old a server is |
//! | `deadline`, `outage`, `backoff` | how long to wait for a server, and when to try again |
//! | `reconnect` | one attempt to connect serves all who ask |
//! | `session` | locks that end with a session, and are renewed with it |
//! | `cleanup` | taking back what a request may have done |

pub(crate) mod backoff;
pub(crate) mod error;
pub(crate) mod scheme;
pub(crate) mod url;

#[cfg(feature = "_server")]
pub(crate) mod cleanup;
#[cfg(feature = "_server")]
pub(crate) mod deadline;
#[cfg(feature = "_server")]
pub(crate) mod fault;
#[cfg(feature = "_server")]
pub(crate) mod holder;
#[cfg(feature = "_server")]
pub(crate) mod outage;
#[cfg(feature = "_server")]
pub(crate) mod reconnect;
#[cfg(feature = "_server")]
pub(crate) mod session;
#[cfg(feature = "_server")]
pub(crate) mod settings;
#[cfg(feature = "_server")]
pub(crate) mod tls;
#[cfg(feature = "_server")]
pub(crate) mod version;
