//! Spans and events: one span for each annotated call, and one event for each thing that happens.

use std::fmt;
use std::time::Duration;

use tracing::field::Empty;
use tracing::{Level, Span, debug, warn};

use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind, source_text};
use crate::name::LockName;
use crate::token::FencingToken;

/// The span of one annotated call.
pub(crate) struct Call {
    span: Span,
    /// When the call began and, after the grant, when it had the lock. Not read if the span is
    /// disabled.
    began: Timestamp,
}

impl Call {
    /// Opens the span. `mode` is empty for a mutex, whose span has no such value.
    #[inline]
    pub(crate) fn new(template: &'static str, name: &LockName, mode: &'static str) -> Self {
        Self::open(template, name.shown(), mode)
    }

    /// Opens the span of a call that wants several locks.
    pub(crate) fn of_several(
        template: &'static str,
        names: &[LockName],
        mode: &'static str,
    ) -> Self {
        let names: Vec<_> = names.iter().map(|name| name.shown().to_string()).collect();
        Self::open(template, names.join(", "), mode)
    }

    #[inline]
    fn open(template: &'static str, lock: impl fmt::Display, mode: &'static str) -> Self {
        let span = tracing::span!(
            Level::INFO,
            "distributed_lock",
            template,
            lock = %lock,
            mode = Empty,
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
        if !mode.is_empty() && !span.is_disabled() {
            span.record("mode", mode);
        }
        Self { span, began }
    }

    /// Records the provider. Its name is asked for only if the span is enabled.
    pub(crate) fn provider(&self, name: impl FnOnce() -> &'static str) {
        if !self.span.is_disabled() {
            self.span.record("provider", name());
        }
    }

    pub(crate) fn acquired(&mut self, token: Option<FencingToken>) {
        if self.span.is_disabled() {
            return;
        }
        let lap = self.lap();
        self.span.record("waited_ms", lap);
        if let Some(token) = token {
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
        // A loss has been logged already, and leaves no lock that could fail to be released.
        if let (None, Err(error)) = (cut_short, &released)
            && error.kind() != LockErrorKind::Lost
        {
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

    /// Returns the milliseconds since the last lap, and begins a new one.
    fn lap(&mut self) -> f64 {
        let now = Timestamp::now();
        let lap = now.since(self.began);
        self.began = now;
        lap.as_secs_f64() * 1_000.0
    }
}

pub(crate) fn lost(error: &LockError, provider: &str, template: &str) {
    warn!(lock = shown(error), template, provider, %error, "lost a lock");
}

pub(crate) fn release_failed(error: &LockError) {
    let source = source_text(error);
    let lock = shown(error);
    warn!(lock, %error, source, "could not release a lock; its lease will end it");
}

/// Logs that the provider did not take over the rest of a `min_hold`.
pub(crate) fn not_kept(error: &LockError) {
    let source = source_text(error);
    warn!(lock = shown(error), %error, source,
        "could not leave a lock to the provider for the rest of its min_hold; this process keeps \
         it");
}

/// Logs a renewal that failed: at WARN if it is the `first` that failed in a row, else at DEBUG.
pub(crate) fn renewal_failed(error: &LockError, provider: &str, ends: Timestamp, first: bool) {
    let source = source_text(error);
    let (lock, left_ms) = (shown(error), millis(ends.remaining()));
    if first {
        warn!(lock, provider, left_ms, %error, source,
            "could not renew a lock; trying again until its lease ends");
    } else {
        debug!(lock, provider, left_ms, %error, source, "could not renew a lock again");
    }
}

/// Logs a grant that its caller did not take.
pub(crate) fn not_taken(name: &LockName, provider: &str, template: &str) {
    warn!(lock = %name.shown(), template, provider,
        "a lock was granted to a caller that did not take it, and goes to the next one; its future \
         is kept but not polled");
}

/// Logs grants that had ended when they arrived.
pub(crate) fn late(name: &LockName, provider: &str, error: &LockError) {
    warn!(lock = %name.shown(), provider, %error,
        "grants arrive when their lease has ended; expected a server that answers in less than a \
         lease");
}

pub(crate) fn token_not_above(name: &LockName, provider: &str, token: Option<FencingToken>) {
    warn!(lock = %name.shown(), provider,
        token = token.map(FencingToken::get),
        "a fencing token is not above the one before; the guard has none");
}

/// Logs that callers of this process do not agree on how many permits a semaphore has.
pub(crate) fn limits_differ(name: &LockName, provider: &str) {
    warn!(lock = %name.shown(), provider,
        "callers of a semaphore do not agree on how many permits there are; each one's own number \
         counts for it");
}

pub(crate) fn abandoned_ended(error: &LockError) {
    debug!(lock = shown(error), %error, "an abandoned acquisition ended");
}

/// Logs a poll of a provider's future that blocked the background thread.
pub(crate) fn blocked(provider: &str, operation: &str, took: Duration) {
    warn!(
        provider,
        operation,
        blocked_ms = millis(took),
        "a provider blocked the thread that keeps the locks, and with it every renewal; blocking \
         work belongs on `spawn_blocking`"
    );
}

/// Logs a call of a provider that has had no answer for `after`.
pub(crate) fn unanswered(provider: &str, operation: &str, name: &LockName, after: Duration) {
    warn!(lock = %name.shown(), provider, operation, waited_ms = millis(after),
        "a provider has not answered yet");
}

fn shown(error: &LockError) -> Option<String> {
    error.name().map(|name| name.shown().to_string())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
