//! What the attribute refuses in literals, the runtime refuses in values, and nothing else.

use std::time::Duration;

use lock_runtime::{LockError, LockErrorKind, LockName, distributed_lock};

use super::mistakes;
use crate::duration;
use crate::options::durations::{LEASES, LONGEST_MIN_HOLD};
use crate::options::name::MAX_BYTES;

const STEP: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The options that are durations. The attribute leaves expressions to the runtime.
#[derive(Clone, Copy, Debug)]
struct Durations {
    timeout: Duration,
    lease: Duration,
    max_hold: Duration,
    min_hold: Duration,
}

impl Durations {
    const GOOD: Self = Self {
        timeout: Duration::ZERO,
        lease: HOUR,
        max_hold: Duration::from_secs(48 * 60 * 60),
        min_hold: HOUR,
    };

    #[distributed_lock(
        name = format!("limits:{self:?}"),
        timeout = self.timeout,
        lease = self.lease,
        max_hold = self.max_hold,
        min_hold = self.min_hold
    )]
    async fn run(self) -> Result<(), LockError> {
        Ok(())
    }

    fn mistakes(self) -> Vec<String> {
        let text = |duration: Duration| format!("\"{}ms\"", duration.as_millis());
        let args = format!(
            "name = \"x\", timeout = {}, lease = {}, max_hold = {}, min_hold = {}",
            text(self.timeout),
            text(self.lease),
            text(self.max_hold),
            text(self.min_hold),
        );
        mistakes(&args, "async fn f() -> R {}")
    }
}

/// Lists a limit and what is next to it.
fn around(limit: Duration) -> [Duration; 3] {
    [limit.saturating_sub(STEP), limit, limit + STEP]
}

#[tokio::test]
async fn of_durations() {
    let good = Durations::GOOD;
    let day = 24 * HOUR;
    let mut all = Vec::new();
    for timeout in [Duration::ZERO, STEP, HOUR] {
        all.push(Durations { timeout, ..good });
    }
    for limit in [Duration::ZERO, *LEASES.start(), *LEASES.end()] {
        all.extend(around(limit).map(|lease| Durations { lease, ..good }));
    }
    for limit in [Duration::ZERO, good.min_hold, day] {
        all.extend(around(limit).map(|max_hold| Durations { max_hold, ..good }));
    }
    for limit in [good.max_hold, LONGEST_MIN_HOLD] {
        all.extend(around(limit).map(|min_hold| Durations { min_hold, ..good }));
    }
    let mut refused = 0;
    for durations in all {
        let mistakes = durations.mistakes();
        match durations.run().await {
            Ok(()) => assert!(mistakes.is_empty(), "{durations:?}: {mistakes:?}"),
            Err(error) => {
                assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
                assert!(!mistakes.is_empty(), "{durations:?}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 8, "only {refused} are out of range");
}

#[distributed_lock(name = "limits:permits:{permits}:{take}", permits = permits, take = take)]
async fn takes(permits: u32, take: u32) -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn of_permits() {
    let numbers = [0, 1, 2, 3, u32::MAX - 1, u32::MAX];
    let mut refused = 0;
    for permits in numbers {
        for take in numbers {
            let args = format!("name = \"x\", permits = {permits}, take = {take}");
            let mistakes = mistakes(&args, "async fn f() -> R {}");
            match takes(permits, take).await {
                Ok(()) => assert!(mistakes.is_empty(), "{args}: {mistakes:?}"),
                Err(error) => {
                    assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
                    assert!(!mistakes.is_empty(), "{args}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(refused, 21);
}

#[test]
fn of_names() {
    let texts = [
        String::new(),
        "x".repeat(MAX_BYTES),
        "x".repeat(MAX_BYTES + 1),
        "é".repeat(MAX_BYTES / 2),
        "é".repeat(MAX_BYTES / 2) + "x",
        "a\0b".to_owned(),
        "a\nb\u{feff}".to_owned(),
    ];
    for text in texts {
        let mistakes = mistakes(&format!("name = {text:?}"), "async fn f() -> R {}");
        let valid = LockName::from(text.as_str()).validate();
        assert_eq!(mistakes.is_empty(), valid.is_ok(), "{text:?}: {mistakes:?}");
    }
}

#[test]
fn in_messages() {
    let limit_in_message = |durations: Durations| {
        let mistakes = durations.mistakes();
        let limit = mistakes[0].split('"').nth(1).map(duration::parse);
        limit.expect("the message has a limit")
    };
    let good = Durations::GOOD;
    for (lease, limit) in [
        (Duration::ZERO, *LEASES.start()),
        (*LEASES.start() - STEP, *LEASES.start()),
        (*LEASES.end() + STEP, *LEASES.end()),
    ] {
        assert_eq!(limit_in_message(Durations { lease, ..good }), Ok(limit));
    }
    let min_hold = LONGEST_MIN_HOLD + STEP;
    assert_eq!(
        limit_in_message(Durations { min_hold, ..good }),
        Ok(LONGEST_MIN_HOLD)
    );
}
