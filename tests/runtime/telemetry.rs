//! Spans, events and metrics, as operators see them.

use std::sync::Arc;

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{LockError, LockProvider, distributed_lock};
use tracing::Level;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::log::Log;
use crate::own_process::in_own_process;
use crate::{BOUND, lock_on, nothing_held, run, shared};

#[distributed_lock(name = "observed:{id}", provider = locks)]
async fn observed(locks: &Arc<dyn LockProvider>, id: u32) -> Result<(), LockError> {
    let _ = id;
    Ok(())
}

#[distributed_lock(name = "observed:{id}", provider = locks, on_unavailable = "skip")]
async fn skips(locks: &Arc<dyn LockProvider>, id: u32) {
    let _ = id;
}

#[distributed_lock(name = ["from:{id}", "to:{id}"], provider = locks)]
async fn several(locks: &Arc<dyn LockProvider>, id: u32) -> Result<(), LockError> {
    let _ = id;
    Ok(())
}

#[test]
fn a_call_is_one_span_with_its_outcome() {
    in_own_process(
        "telemetry::a_call_is_one_span_with_its_outcome",
        &[],
        || {
            let log = Log::install_with(Level::DEBUG, FmtSpan::CLOSE);
            run(async move {
                let provider = TestProvider::new();
                let locks = shared(provider.clone());
                observed(&locks, 7).await.expect("the lock is free");
                let closed = log.line_with("close");
                for field in [
                    "distributed_lock{",
                    "template=\"observed:{id}\"",
                    "lock=observed:7",
                    "provider=\"test\"",
                    "outcome=\"completed\"",
                    "waited_ms=",
                    "held_ms=",
                    "fencing_token=1",
                ] {
                    assert!(closed.contains(field), "no {field} in {closed}");
                }
                assert_eq!(log.lines_with(": acquired"), 1);
                assert_eq!(log.lines_with(": released"), 1);

                let elsewhere = lock_on(&provider, "observed:8").acquire().await;
                let elsewhere = elsewhere.expect("the lock is free");
                skips(&locks, 8).await;
                assert!(
                    log.line_with("lock=observed:8")
                        .contains("outcome=Contended")
                );
                drop(elsewhere);
                nothing_held(&provider).await;
                assert_eq!(
                    log.lines_with("ERROR") + log.lines_with("WARN"),
                    0,
                    "nothing went wrong"
                );

                provider.fail_next(Operation::Acquire, 1);
                skips(&locks, 9).await;
                assert_eq!(log.lines_with("ERROR"), 1, "a failure is skipped, and said");

                provider.fail_next(Operation::Release, 1);
                observed(&locks, 11).await.expect("the body ran to its end");
                assert_eq!(log.lines_with("could not release"), 1);

                let lost = lock_on(&provider, "observed:10")
                    .acquire()
                    .await
                    .expect("it is free");
                provider.lose("observed:10");
                lost.lost().await;
                let said = || async { log.lines_with("lost a lock") == 1 };
                lock_tests::eventually("the loss is said", BOUND, said).await;
            });
        },
    );
}

#[test]
fn a_renewal_that_fails_is_said_at_once_and_then_quietly() {
    in_own_process(
        "telemetry::a_renewal_that_fails_is_said_at_once_and_then_quietly",
        &[],
        || {
            let log = Log::install(Level::WARN);
            run(async move {
                let lease = std::time::Duration::from_secs(2);
                let provider = TestProvider::new().with_lease(lease);
                let guard = lock_on(&provider, "renewed").acquire().await;
                let guard = guard.expect("the lock is free");
                provider.fail_next(Operation::Renew, 3);
                let said = || async { log.lines_with("could not renew a lock") == 1 };
                lock_tests::eventually("it is said", BOUND, said).await;
                let line = log.line_with("could not renew");
                for field in ["lock=\"renewed\"", "provider=\"test\"", "left_ms=1"] {
                    assert!(line.contains(field), "no {field} in {line}");
                }
                let tried = || async { provider.calls(Operation::Renew) >= 5 };
                lock_tests::eventually("it is renewed again", BOUND, tried).await;
                assert_eq!(log.lines_with("WARN"), 1);
                assert!(!guard.is_lost());
            });
        },
    );
}

#[test]
fn a_name_with_a_line_break_forges_no_line() {
    in_own_process(
        "telemetry::a_name_with_a_line_break_forges_no_line",
        &[],
        || {
            let log = Log::install_with(Level::DEBUG, FmtSpan::CLOSE);
            run(async move {
                let provider = TestProvider::new();
                let name = "7\n2026-01-01 ERROR forged\u{1b}[31m\u{202e}\r";
                let lock = lock_on(&provider, name);
                let guard = lock.acquire().await.expect("the lock is free");
                let error = lock
                    .acquire_for(std::time::Duration::ZERO)
                    .await
                    .unwrap_err();
                let escaped = "7\\n2026-01-01 ERROR forged\\u{1b}[31m\\u{202e}\\r";
                assert!(error.to_string().contains(escaped), "{error}");
                assert!(format!("{error:?}").contains(escaped), "{error:?}");
                assert_eq!(error.name().map(AsRef::as_ref), Some(name), "as it is");
                guard.release().await.expect("it was held");

                let detail = LockError::new(lock_runtime::LockErrorKind::InvalidConfig)
                    .with_detail(format!("expected no key `{name}`"));
                assert!(!detail.to_string().contains('\n'), "{detail}");
                lock.run(async { provider.lose(name) })
                    .await
                    .expect("it ran");
                nothing_held(&provider).await;
                drop(lock.acquire().await.expect("the lock is free"));
                nothing_held(&provider).await;
                provider.fail_next(Operation::Release, 1);
                drop(lock.acquire().await.expect("the lock is free"));
                let said = || async { log.lines_with("could not release") == 1 };
                lock_tests::eventually("the failure is said", BOUND, said).await;
                assert_eq!(log.lines_that_begin_with("2026-01-01"), 0);
                assert!(log.lines_with("lost a lock") > 0);
            });
        },
    );
}

#[test]
fn the_span_of_a_shared_kind_has_its_mode() {
    use lock_runtime::__private::{Output, Request};

    in_own_process(
        "telemetry::the_span_of_a_shared_kind_has_its_mode",
        &[],
        || {
            let log = Log::install_with(Level::DEBUG, FmtSpan::CLOSE);
            run(async move {
                let locks = shared(TestProvider::new());
                macro_rules! call {
                    ($name:literal, $request:ident => $kind:expr) => {{
                        let body = std::pin::pin!(Some(async { Ok::<_, LockError>(()) }));
                        let (output, body) = Output::of(body);
                        let $request = Request::new("t", $name.into());
                        let run = $kind.on(&locks).run(output.keep(), body, Err);
                        run.await.expect("the lock is free");
                        log.line_with(concat!("lock=", $name))
                    }};
                }
                assert!(call!("one", request => request.read()).contains("mode=\"read\""));
                assert!(call!("two", request => request.write()).contains("mode=\"write\""));
                let line = call!("three", request => request.permits(2, 1));
                assert!(line.contains("mode=\"permit\""), "{line}");
                assert!(!call!("four", request => request).contains("mode="));
            });
        },
    );
}

/// One span tells of all, whichever of them was not to be had or was lost.
#[test]
fn a_call_for_several_locks_is_one_span() {
    in_own_process(
        "telemetry::a_call_for_several_locks_is_one_span",
        &[],
        || {
            let log = Log::install_with(Level::DEBUG, FmtSpan::CLOSE);
            run(async move {
                let provider = TestProvider::new();
                let locks = shared(provider.clone());
                several(&locks, 7).await.expect("both are free");
                let closed = log.line_with("close");
                for field in [
                    "template=\"from:{id}, to:{id}\"",
                    "lock=from:7, to:7",
                    "mode=\"several\"",
                    "provider=\"test\"",
                    "outcome=\"completed\"",
                    "waited_ms=",
                    "held_ms=",
                ] {
                    assert!(closed.contains(field), "no {field} in {closed}");
                }
                assert_eq!(log.lines_with(": acquired"), 1);
                assert_eq!(log.lines_with(": released"), 1);
                let held = lock_on(&provider, "to:8").acquire().await;
                let error = several(&locks, 8).await.unwrap_err();
                assert_eq!(error.name().map(|name| name.as_str()), Some("to:8"));
                let line = log.line_with("lock=from:8, to:8");
                assert!(line.contains("outcome=Contended"), "{line}");
                drop(held);
                provider.fail_next(Operation::Release, 1);
                several(&locks, 9).await.expect("the body ran to its end");
                assert_eq!(log.lines_with("could not release"), 1);
                nothing_held(&provider).await;
            });
        },
    );
}

#[test]
fn limits_that_differ_are_said_once() {
    in_own_process("telemetry::limits_that_differ_are_said_once", &[], || {
        let log = Log::install(Level::WARN);
        run(async move {
            let provider = shared(TestProvider::new());
            let semaphores = [3, 5, 3].map(|permits| {
                lock_runtime::DistributedSemaphore::on(Arc::clone(&provider), "limits", permits)
            });
            for permits in &semaphores {
                drop(permits.acquire().await.expect("one is free"));
            }
            assert_eq!(log.lines_with("do not agree"), 1);
        });
    });
}

#[cfg(feature = "metrics")]
#[test]
fn metrics_count_by_template() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    in_own_process("telemetry::metrics_count_by_template", &[], || {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().expect("there is none yet");
        run(async {
            let provider = TestProvider::new();
            let locks = shared(provider.clone());
            for id in 0..3 {
                observed(&locks, id).await.expect("the lock is free");
            }
            let kept = lock_on(&provider, "observed:3")
                .acquire()
                .await
                .expect("it is free");
            skips(&locks, 3).await;
            let lock = lock_on(&provider, "observed:3");
            let mut waiting = Box::pin(lock.acquire());
            assert!(lock_tests::poll_once(waiting.as_mut()).await.is_none());
            drop(waiting);
            provider.lose("observed:3");
            kept.lost().await;
            drop(kept);
            let held = lock_on(&provider, "observed:4")
                .acquire()
                .await
                .expect("it is free");
            std::mem::forget(held);
            let rw = lock_runtime::DistributedRwLock::on(Arc::clone(&locks), "observed:5");
            drop(rw.read().await.expect("it is free"));
            drop(rw.write().await.expect("it is free"));
            let permits = lock_runtime::DistributedSemaphore::on(locks, "observed:6", 2);
            drop(permits.acquire().await.expect("it is free"));
            let locks = shared(provider);
            several(&locks, 1).await.expect("both are free");
            several(&locks, 2).await.expect("both are free");
        });
        let mut seen: Vec<String> = Vec::new();
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(values) => format!("{} values", values.len()),
            };
            seen.push(format!(
                "{}{{{}}} {value}",
                key.key().name(),
                labels.join(",")
            ));
        }
        let test = "provider=test";
        let named = "template=observed:{id},provider=test";
        let both = "template=from:{id}, to:{id},provider=test,mode=several";
        for expected in [
            format!("distributed_lock_attempts_total{{{named}}} 4"),
            format!("distributed_lock_acquired_total{{{named}}} 3"),
            format!("distributed_lock_not_acquired_total{{{named},reason=contended}} 1"),
            format!("distributed_lock_not_acquired_total{{template=,{test},reason=cancelled}} 1"),
            format!("distributed_lock_lost_total{{template=,{test}}} 1"),
            format!("distributed_lock_held{{{named}}} 0"),
            format!("distributed_lock_held{{template=,{test}}} 1"),
            format!("distributed_lock_wait_seconds{{{named}}} 3 values"),
            format!("distributed_lock_hold_seconds{{{named}}} 3 values"),
            format!("distributed_lock_acquired_total{{template=,{test},mode=read}} 1"),
            format!("distributed_lock_held{{template=,{test},mode=write}} 0"),
            format!("distributed_lock_hold_seconds{{template=,{test},mode=permit}} 1 values"),
            // Of several locks the whole counts, and not each.
            format!("distributed_lock_attempts_total{{{both}}} 2"),
            format!("distributed_lock_acquired_total{{{both}}} 2"),
            format!("distributed_lock_held{{{both}}} 0"),
            format!("distributed_lock_wait_seconds{{{both}}} 2 values"),
            format!("distributed_lock_hold_seconds{{{both}}} 2 values"),
        ] {
            assert!(seen.contains(&expected), "no {expected} in {seen:#?}");
        }
        let is_rendered = |line: &String| line.contains("observed:3") || line.contains("from:1");
        assert!(!seen.iter().any(is_rendered), "{seen:#?}");
    });
}
