//! What the calls of a provider have in common.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::counter::Counters;
use super::directory::Directory;
use super::settings::Settings;
use super::watch::Watch;
use super::yields::Yields;

/// How many looks there are at a time. A directory takes one change at once, so that more gain
/// nothing.
const LOOKS: usize = 4;

pub(super) struct Shared {
    pub(super) directory: Directory,
    pub(super) counters: Counters,
    pub(super) yields: Yields,
    pub(super) watch: Arc<Watch>,
    /// Looks at files that are under way.
    pub(super) looks: Semaphore,
}

impl Shared {
    pub(super) fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            directory: Directory::new(settings.directory.clone(), settings.mode),
            counters: Counters::new(settings.token_floor),
            yields: Yields::default(),
            watch: Arc::default(),
            looks: Semaphore::new(LOOKS),
        })
    }
}
