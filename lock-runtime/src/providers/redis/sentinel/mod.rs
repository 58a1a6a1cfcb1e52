//! Sentinels: who say which of several servers is the primary.

mod told;
mod url;

mod knowledge;
mod peer;
mod tally;

mod sentinels;

mod options;

pub(super) use options::{PARAMETERS, SentinelOptions};
pub(super) use sentinels::{SentinelSettings, Sentinels};
pub(super) use url::{SentinelUrl, is_of_sentinels};
