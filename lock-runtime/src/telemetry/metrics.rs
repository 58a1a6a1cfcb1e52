//! Metrics, through the `metrics` facade and behind the feature of that name. Without the feature,
//! these functions do nothing.
//!
//! `docs/observability.md`, which is also the page `guide::observability`, lists the metrics with
//! their kinds and labels. The label `template` is the name as the attribute has it. It never is a
//! rendered name, since the number of those has no bound.

#[cfg(feature = "metrics")]
pub(crate) use measured::{Meter, renewed};
#[cfg(not(feature = "metrics"))]
pub(crate) use unmeasured::{Meter, renewed};

#[cfg(feature = "metrics")]
mod measured {
    use ::metrics::{counter, gauge, histogram};

    use crate::clock::Timestamp;
    use crate::error::LockErrorKind;

    /// Follows one lock from the attempt to the release. Boxed, to keep callers' futures small.
    pub(crate) struct Meter(Box<Measured>);

    struct Measured {
        template: &'static str,
        /// Empty before the attempt.
        provider: &'static str,
        /// When the attempt began and, after the grant, when the hold began.
        began: Timestamp,
    }

    impl Meter {
        pub(crate) fn new(template: &'static str) -> Self {
            Self(Box::new(Measured {
                template,
                provider: "",
                began: Timestamp::now(),
            }))
        }

        /// Counts the attempt at the first call; to be called at each poll.
        pub(crate) fn attempt(&mut self, provider: impl FnOnce() -> &'static str) {
            if !self.0.provider.is_empty() {
                return;
            }
            let (template, provider) = (self.0.template, provider());
            counter!("distributed_lock_attempts_total",
                "template" => template, "provider" => provider)
            .increment(1);
            self.0.provider = provider;
            self.0.began = Timestamp::now();
        }

        /// Counts the grant, and records how long the wait was.
        pub(crate) fn acquired(mut self) -> Self {
            let Measured {
                template, provider, ..
            } = *self.0;
            counter!("distributed_lock_acquired_total",
                "template" => template, "provider" => provider)
            .increment(1);
            gauge!("distributed_lock_held", "template" => template, "provider" => provider)
                .increment(1);
            histogram!("distributed_lock_wait_seconds",
                "template" => template, "provider" => provider)
            .record(self.elapsed());
            self.0.began = Timestamp::now();
            self
        }

        /// Counts the failure.
        pub(crate) fn not_acquired(self, kind: LockErrorKind) {
            self.ended(kind.label());
        }

        /// Counts an attempt whose future was dropped before it had an answer.
        pub(crate) fn cancelled(self) {
            if !self.0.provider.is_empty() {
                self.ended("cancelled");
            }
        }

        fn ended(self, reason: &'static str) {
            let Measured {
                template, provider, ..
            } = *self.0;
            counter!("distributed_lock_not_acquired_total",
                "template" => template, "provider" => provider, "reason" => reason)
            .increment(1);
        }

        /// Counts the end of the hold, and records how long it was.
        pub(crate) fn released(&self, lost: impl FnOnce() -> bool) {
            let Measured {
                template, provider, ..
            } = *self.0;
            gauge!("distributed_lock_held", "template" => template, "provider" => provider)
                .decrement(1);
            histogram!("distributed_lock_hold_seconds",
                "template" => template, "provider" => provider)
            .record(self.elapsed());
            if lost() {
                counter!("distributed_lock_lost_total",
                    "template" => template, "provider" => provider)
                .increment(1);
            }
        }

        fn elapsed(&self) -> f64 {
            Timestamp::now().since(self.0.began).as_secs_f64()
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
        pub(crate) fn new(_: &'static str) -> Self {
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
