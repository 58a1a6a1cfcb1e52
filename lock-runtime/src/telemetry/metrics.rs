//! Metrics, through the `metrics` facade and behind the feature of that name. Without the feature,
//! these functions do nothing.
//!
//! `docs/observability.md`, which is also the page `guide::observability`, lists the metrics with
//! their kinds and labels. The label `template` is the name as the attribute has it. It never is a
//! rendered name, since the number of those has no bound. The label `mode` is only on the metrics of
//! reader–writer locks and semaphores.

#[cfg(feature = "metrics")]
pub(crate) use measured::{Meter, renewed};
#[cfg(not(feature = "metrics"))]
pub(crate) use unmeasured::{Meter, renewed};

use crate::error::LockErrorKind;

/// Measures an attempt. One that is dropped before its end counts as cancelled.
pub(crate) struct Attempt(Option<Meter>);

impl Attempt {
    /// Counts the attempt.
    pub(crate) fn begin(
        template: &'static str,
        mode: &'static str,
        provider: impl FnOnce() -> &'static str,
    ) -> Self {
        let mut meter = Meter::new(template, mode);
        meter.attempt(provider);
        Self(Some(meter))
    }

    /// Returns what goes on to measure the hold.
    pub(crate) fn succeeded(mut self) -> Meter {
        self.0.take().unwrap_or_else(Meter::none)
    }

    pub(crate) fn failed(mut self, reason: LockErrorKind) {
        if let Some(meter) = self.0.take() {
            meter.not_acquired(reason);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(meter) = self.0.take() {
            meter.cancelled();
        }
    }
}

#[cfg(feature = "metrics")]
mod measured {
    use ::metrics::{Label, counter, gauge, histogram};

    use crate::clock::Timestamp;
    use crate::error::LockErrorKind;

    /// Follows one lock from the attempt to the release. Boxed, to keep callers' futures small.
    /// `None` measures nothing: the lock is one of several, which are measured as a whole.
    pub(crate) struct Meter(Option<Box<Measured>>);

    struct Measured {
        template: &'static str,
        /// Which mode of a lock it is; empty for a mutex, whose metrics have no such label.
        mode: &'static str,
        /// Empty before the attempt.
        provider: &'static str,
        /// When the attempt began and, after the grant, when the hold began.
        began: Timestamp,
    }

    impl Meter {
        pub(crate) fn new(template: &'static str, mode: &'static str) -> Self {
            Self(Some(Box::new(Measured {
                template,
                mode,
                provider: "",
                began: Timestamp::now(),
            })))
        }

        /// Makes one that measures nothing.
        pub(crate) fn none() -> Self {
            Self(None)
        }

        /// Counts the attempt at the first call; to be called at each poll.
        pub(crate) fn attempt(&mut self, provider: impl FnOnce() -> &'static str) {
            let Some(measured) = &mut self.0 else { return };
            if !measured.provider.is_empty() {
                return;
            }
            measured.provider = provider();
            counter!("distributed_lock_attempts_total", measured.labels()).increment(1);
            measured.began = Timestamp::now();
        }

        /// Counts the grant, and records how long the wait was.
        pub(crate) fn acquired(mut self) -> Self {
            let Some(measured) = &mut self.0 else {
                return self;
            };
            let labels = measured.labels();
            counter!("distributed_lock_acquired_total", labels.iter()).increment(1);
            gauge!("distributed_lock_held", labels.iter()).increment(1);
            histogram!("distributed_lock_wait_seconds", labels.iter()).record(measured.elapsed());
            measured.began = Timestamp::now();
            self
        }

        /// Counts the failure.
        pub(crate) fn not_acquired(self, kind: LockErrorKind) {
            self.ended(kind.label());
        }

        /// Counts an attempt whose future was dropped before it had an answer.
        pub(crate) fn cancelled(self) {
            if let Some(measured) = &self.0
                && !measured.provider.is_empty()
            {
                self.ended("cancelled");
            }
        }

        fn ended(self, reason: &'static str) {
            let Some(measured) = self.0 else { return };
            let mut labels = measured.labels();
            labels.push(Label::from_static_parts("reason", reason));
            counter!("distributed_lock_not_acquired_total", labels).increment(1);
        }

        /// Counts the end of the hold, and records how long it was.
        pub(crate) fn released(&self, lost: impl FnOnce() -> bool) {
            let Some(measured) = &self.0 else { return };
            let labels = measured.labels();
            gauge!("distributed_lock_held", labels.iter()).decrement(1);
            histogram!("distributed_lock_hold_seconds", labels.iter()).record(measured.elapsed());
            if lost() {
                counter!("distributed_lock_lost_total", labels).increment(1);
            }
        }
    }

    impl Measured {
        fn labels(&self) -> Vec<Label> {
            let Self {
                template,
                mode,
                provider,
                ..
            } = *self;
            let mut labels = Vec::with_capacity(4);
            labels.push(Label::from_static_parts("template", template));
            labels.push(Label::from_static_parts("provider", provider));
            if !mode.is_empty() {
                labels.push(Label::from_static_parts("mode", mode));
            }
            labels
        }

        fn elapsed(&self) -> f64 {
            Timestamp::now().since(self.began).as_secs_f64()
        }
    }

    /// Counts a renewal, and how it went.
    pub(crate) fn renewed(provider: &'static str, failure: Option<LockErrorKind>) {
        let result = failure.map_or("ok", LockErrorKind::label);
        counter!("distributed_lock_renewals_total", "provider" => provider, "result" => result)
            .increment(1);
    }
}

#[cfg(not(feature = "metrics"))]
mod unmeasured {
    use crate::error::LockErrorKind;

    pub(crate) struct Meter;

    impl Meter {
        pub(crate) fn new(_: &'static str, _: &'static str) -> Self {
            Self
        }

        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) fn attempt(&mut self, _: impl FnOnce() -> &'static str) {}

        pub(crate) fn acquired(self) -> Self {
            self
        }

        pub(crate) fn not_acquired(self, _: LockErrorKind) {}

        pub(crate) fn cancelled(self) {}

        pub(crate) fn released(&self, _lost: impl FnOnce() -> bool) {}
    }

    pub(crate) fn renewed(_: &'static str, _: Option<LockErrorKind>) {}
}
