//! Looking after the files of the locks that are held, and telling the holder that loses one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::blocking::blocking;
use super::lock_file::LockFile;
use crate::provider::{AcquireRequest, LossReporter};
use crate::wake::survive;

/// Between two looks at all files.
const EVERY: Duration = Duration::from_millis(500);

pub(super) const NOT_IN_PLACE: &str = "somebody removed or replaced the lock's file";

/// What a grant keeps: the open file, which is the lock, or one file for each permit.
pub(super) struct Held {
    files: Mutex<Vec<LockFile>>,
    loss: LossReporter,
}

impl Held {
    /// Returns the files, or none if they were taken already.
    pub(super) fn take(&self) -> Vec<LockFile> {
        std::mem::take(&mut self.files())
    }

    /// Says whether there is nothing more to look after.
    fn is_over(&self) -> bool {
        let files = self.files();
        if files.is_empty() {
            return true;
        }
        // That nobody can tell is no loss. Several permits are one grant: without one of them it is
        // lost, and its release gives back the others.
        let lost = files
            .iter()
            .any(|file| matches!(file.is_in_place(), Ok(false)));
        drop(files);
        if lost {
            // It wakes whoever waits for it, and the others must hear of theirs all the same.
            survive(|| self.loss.report(NOT_IN_PLACE));
        }
        lost
    }

    fn files(&self) -> MutexGuard<'_, Vec<LockFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that are held by one provider.
#[derive(Default)]
pub(super) struct Watch(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    held: Vec<Weak<Held>>,
    /// Whether somebody looks after them.
    running: bool,
}

impl Watch {
    /// Makes the loss of a file the loss of the grant from here on.
    pub(super) fn hold(
        self: &Arc<Self>,
        files: Vec<LockFile>,
        request: &AcquireRequest,
    ) -> Arc<Held> {
        let held = Arc::new(Held {
            files: Mutex::new(files),
            loss: request.loss_reporter(),
        });
        let mut watched = self.lock();
        watched.held.push(Arc::downgrade(&held));
        if !std::mem::replace(&mut watched.running, true) {
            // The caller's runtime may end before the lock does.
            crate::background::spawn(look_after(Arc::clone(self)));
        }
        held
    }

    /// Looks at each once; false, and nobody looks any more, if there are none.
    fn look(&self) -> bool {
        let all = std::mem::take(&mut self.lock().held);
        let left: Vec<_> = all
            .into_iter()
            .filter(|held| held.upgrade().is_some_and(|held| !held.is_over()))
            .collect();
        let mut watched = self.lock();
        watched.held.extend(left);
        watched.running = !watched.held.is_empty();
        watched.running
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks in one pass over all files, as long as there are any.
async fn look_after(watch: Arc<Watch>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let watch = Arc::clone(&watch);
        if let Ok(false) = blocking(move || Ok(watch.look())).await {
            return;
        }
    }
}
