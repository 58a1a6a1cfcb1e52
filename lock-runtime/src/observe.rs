//! What a program's operators see: one span a call, an event for each thing that happens.
//!
//! Everything is labelled with the template of the name; names themselves are fields of spans and
//! events alone, since there is no end of them.

use tracing::field::Empty;
use tracing::{Level, Span, debug, warn};

use crate::clock::Timestamp;
use crate::gate::SlotRef;
use crate::guard::LockGuard;
use crate::{LockError, LockName};

/// One annotated call.
pub(crate) struct Call {
    span: Span,
    /// When it began, and when it had the lock; zero where nobody looks.
    began: Timestamp,
}

impl Call {
    pub(crate) fn new(template: &'static str, name: &LockName) -> Self {
        let span = tracing::span!(
            Level::INFO,
            "distributed_lock",
            template,
            %name,
            provider = Empty,
            outcome = Empty,
            waited_ms = Empty,
            held_ms = Empty,
            fencing_token = Empty,
        );
        let began = if span.is_disabled() {
            Timestamp::FAR_FUTURE
        } else {
            Timestamp::now()
        };
        Self { span, began }
    }

    pub(crate) fn provider(&self, slot: &SlotRef) {
        if !self.span.is_disabled() {
            self.span
                .record("provider", slot.provider.capabilities().provider);
        }
    }

    pub(crate) fn acquired(&mut self, guard: &LockGuard) {
        if self.span.is_disabled() {
            return;
        }
        let lap = self.lap();
        self.span.record("waited_ms", lap);
        if let Some(token) = guard.fencing_token() {
            self.span.record("fencing_token", token.get());
        }
        self.span.in_scope(|| debug!("acquired"));
    }

    pub(crate) fn not_acquired(&mut self, error: &LockError) {
        if self.span.is_disabled() {
            return;
        }
        let lap = self.lap();
        self.span.record("waited_ms", lap);
        self.span
            .record("outcome", tracing::field::debug(error.kind()));
        self.span.in_scope(|| debug!(%error, "not acquired"));
    }

    pub(crate) fn released(
        &mut self,
        cut_short: Option<&LockError>,
        released: Result<(), LockError>,
    ) {
        if let (None, Err(error)) = (cut_short, &released) {
            self.span.in_scope(|| release_failed(error));
        }
        if self.span.is_disabled() {
            return;
        }
        let lap = self.lap();
        self.span.record("held_ms", lap);
        match cut_short {
            None => self.span.record("outcome", "completed"),
            Some(error) => self
                .span
                .record("outcome", tracing::field::debug(error.kind())),
        };
        self.span.in_scope(|| debug!("released"));
    }

    /// Polls something as a part of the call.
    pub(crate) fn in_span<T>(&self, poll: impl FnOnce() -> T) -> T {
        if self.span.is_disabled() {
            poll()
        } else {
            self.span.in_scope(poll)
        }
    }

    /// Milliseconds since the last lap.
    fn lap(&mut self) -> f64 {
        let now = Timestamp::now();
        let lap = now.since(self.began);
        self.began = now;
        lap.as_secs_f64() * 1_000.0
    }
}

pub(crate) fn lost(error: &LockError) {
    warn!(%error, "lost a lock");
}

pub(crate) fn release_failed(error: &LockError) {
    let source = crate::error::source_text(error);
    warn!(%error, source, "could not release a lock; its lease will end it");
}

pub(crate) fn renewal_failed(error: &LockError) {
    let source = crate::error::source_text(error);
    debug!(%error, source, "could not renew a lock; trying again until its lease ends");
}
