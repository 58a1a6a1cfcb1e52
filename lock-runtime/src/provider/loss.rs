//! `LossReporter`: how a provider reports that a grant has ended by itself.

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};

use crate::error::{LockError, LockErrorKind};
use crate::signal::Signal;

/// What is told of a loss first.
pub(crate) trait LossListener: Send + Sync {
    /// Acts on the loss. Called once, on the thread that reports it.
    fn lost(&self);
}

/// Reports that a grant has ended by itself. It is cheap to clone, and may outlive the grant.
#[derive(Clone)]
pub struct LossReporter(Arc<LossState>);

struct LossState {
    signal: Signal<LockError>,
    /// Told before any task that waits for the signal.
    listener: OnceLock<Weak<dyn LossListener>>,
}

impl LossReporter {
    pub(super) fn new() -> Self {
        Self(Arc::new(LossState {
            signal: Signal::new(),
            listener: OnceLock::new(),
        }))
    }

    /// Reports that the grant is lost, and why. Only the first report counts. It becomes the detail
    /// of an error of kind [`Lost`](LockErrorKind::Lost).
    pub fn report(&self, why: impl Into<String>) {
        self.report_error(LockError::new(LockErrorKind::Lost).with_detail(why));
    }

    /// Reports that the grant is lost, with this error. Only the first report counts.
    pub(crate) fn report_error(&self, error: LockError) {
        if !self.0.signal.set(error) {
            return;
        }
        // Either this finds the listener, or `tell` finds the report.
        fence(Ordering::SeqCst);
        if let Some(listener) = self.0.listener.get().and_then(Weak::upgrade) {
            listener.lost();
        }
    }

    /// Tells this listener of the loss, from now on. True if the loss was reported before. Then the
    /// caller must tell the listener.
    pub(crate) fn tell(&self, listener: Weak<dyn LossListener>) -> bool {
        let _ = self.0.listener.set(listener);
        // Either the report finds the listener, or this finds the report.
        fence(Ordering::SeqCst);
        self.0.signal.get().is_some()
    }

    /// Returns the signal that a report sets.
    pub(crate) fn signal(&self) -> &Signal<LockError> {
        &self.0.signal
    }
}

impl fmt::Debug for LossReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossReporter")
            .field("lost", &self.0.signal.get())
            .finish()
    }
}
