//! What the provider goes by; all checked.

use std::time::Duration;

use super::resolver::Resolver;
use super::token_floor::Tokens;
use crate::providers::kit::settings::Common;

pub(super) struct Settings {
    pub(super) common: Common,
    /// Which server to connect to.
    pub(super) resolver: Resolver,
    pub(super) tokens: Tokens,
    /// How long a waiter puts up with a server that is out of reach.
    pub(super) failover_timeout: Duration,
    /// How long after its start the server grants no lock.
    pub(super) restart_delay: Duration,
}
