//! Metrics, through the `metrics` facade and behind the feature of that name; without it, nothing
//! of this is compiled into anything.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `distributed_lock_attempts_total` | counter | `template`, `provider` |
//! | `distributed_lock_acquired_total` | counter | `template`, `provider` |
//! | `distributed_lock_not_acquired_total` | counter | `template`, `provider`, `reason` |
//! | `distributed_lock_lost_total` | counter | `template`, `provider` |
//! | `distributed_lock_wait_seconds` | histogram | `template`, `provider` |
//! | `distributed_lock_hold_seconds` | histogram | `template`, `provider` |
//! | `distributed_lock_held` | gauge | `template`, `provider` |
//! | `distributed_lock_renewals_total` | counter | `provider`, `result` |
//!
//! `template` is the attribute's name as written, never a rendered name, of which there is no end;
//! it is empty for a `DistributedLock`.

#[cfg(feature = "metrics")]
pub(crate) use measured::{Meter, renewed};
#[cfg(not(feature = "metrics"))]
pub(crate) use unmeasured::{Meter, renewed};

#[cfg(feature = "metrics")]
mod measured {
    use metrics::{counter, gauge, histogram};

    use crate::LockErrorKind;
    use crate::clock::Timestamp;
    use crate::provider::LockProvider;

    /// Follows one lock from the attempt to the release.
    #[derive(Clone, Copy)]
    pub(crate) struct Meter {
        template: &'static str,
        provider: &'static str,
        /// When the attempt, and then the hold, began.
        began: Timestamp,
    }

    impl Meter {
        pub(crate) fn attempt(template: &'static str, provider: &dyn LockProvider) -> Self {
            let provider = provider.capabilities().provider;
            counter!("distributed_lock_attempts_total",
                "template" => template, "provider" => provider)
            .increment(1);
            Self {
                template,
                provider,
                began: Timestamp::now(),
            }
        }

        pub(crate) fn acquired(mut self) -> Self {
            let Self {
                template, provider, ..
            } = self;
            counter!("distributed_lock_acquired_total",
                "template" => template, "provider" => provider)
            .increment(1);
            gauge!("distributed_lock_held", "template" => template, "provider" => provider)
                .increment(1);
            histogram!("distributed_lock_wait_seconds",
                "template" => template, "provider" => provider)
            .record(self.lap());
            self
        }

        pub(crate) fn not_acquired(self, kind: LockErrorKind) {
            self.ended(kind.label());
        }

        /// The caller went away.
        pub(crate) fn cancelled(self) {
            self.ended("cancelled");
        }

        fn ended(self, reason: &'static str) {
            let Self {
                template, provider, ..
            } = self;
            counter!("distributed_lock_not_acquired_total",
                "template" => template, "provider" => provider, "reason" => reason)
            .increment(1);
        }

        pub(crate) fn released(mut self, lost: bool) {
            let Self {
                template, provider, ..
            } = self;
            gauge!("distributed_lock_held", "template" => template, "provider" => provider)
                .decrement(1);
            histogram!("distributed_lock_hold_seconds",
                "template" => template, "provider" => provider)
            .record(self.lap());
            if lost {
                counter!("distributed_lock_lost_total",
                    "template" => template, "provider" => provider)
                .increment(1);
            }
        }

        fn lap(&mut self) -> f64 {
            let now = Timestamp::now();
            let lap = now.since(self.began);
            self.began = now;
            lap.as_secs_f64()
        }
    }

    pub(crate) fn renewed(provider: &dyn LockProvider, failure: Option<LockErrorKind>) {
        let provider = provider.capabilities().provider;
        let result = failure.map_or("ok", LockErrorKind::label);
        counter!("distributed_lock_renewals_total", "provider" => provider, "result" => result)
            .increment(1);
    }
}

#[cfg(not(feature = "metrics"))]
mod unmeasured {
    use crate::LockErrorKind;
    use crate::provider::LockProvider;

    #[derive(Clone, Copy)]
    pub(crate) struct Meter;

    impl Meter {
        pub(crate) fn attempt(_: &'static str, _: &dyn LockProvider) -> Self {
            Self
        }

        pub(crate) fn acquired(self) -> Self {
            self
        }

        pub(crate) fn not_acquired(self, _: LockErrorKind) {}

        pub(crate) fn cancelled(self) {}

        pub(crate) fn released(self, _lost: bool) {}
    }

    pub(crate) fn renewed(_: &dyn LockProvider, _: Option<LockErrorKind>) {}
}
