//! A server that says nothing, or only errors, is not a lock that somebody holds. It costs nobody
//! more than the timeout that was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{LockError, LockErrorKind, LockProvider, RedisProvider, distributed_lock};
use lock_tests::eventually;
use lock_tests::proxy::Flow;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{BOUND, DEADLINE, connected, lock, take, with_server};
use crate::network::{builder_behind, count, proxy_of};

/// The time that a try may wait for its answer.
const ANSWER: Duration = Duration::from_millis(600);
/// The time that a busy machine may add to a timeout.
const BUSY: Duration = Duration::from_millis(250);
const LEASE: Duration = Duration::from_secs(600);

type Provider = Arc<dyn LockProvider>;

#[distributed_lock(name = "{key}:0s", timeout = "0s", provider = provider)]
async fn tried(provider: &Provider, key: &str) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "{key}:300ms", timeout = "300ms", provider = provider)]
async fn brief(provider: &Provider, key: &str) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "{key}:1500ms", timeout = "1500ms", provider = provider)]
async fn patient(provider: &Provider, key: &str) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(
    name = "{key}:skip",
    timeout = "0s",
    on_unavailable = "skip",
    provider = provider
)]
async fn skipped(provider: &Provider, key: &str) -> Result<Option<()>, LockError> {
    Ok(Some(()))
}

#[distributed_lock(
    name = "{key}:skip later",
    timeout = "300ms",
    on_unavailable = "skip",
    provider = provider
)]
async fn skipped_later(provider: &Provider, key: &str) -> Result<Option<()>, LockError> {
    Ok(Some(()))
}

/// Returns how an attempt ended, and checks that it took no longer than this.
async fn ended<T>(
    limit: Duration,
    attempt: impl Future<Output = Result<T, LockError>>,
) -> Result<T, LockError> {
    let began = Instant::now();
    let result = attempt.await;
    let took = began.elapsed();
    assert!(took <= limit + BUSY, "{took:?} instead of {limit:?}");
    result
}

/// Asks for many free locks at once, each with a name of its own. Nobody can tell whether they are
/// free.
async fn nobody_can_tell(provider: &Arc<RedisProvider>, key: &str) {
    let shared: Provider = provider.clone();
    let [none, brief_wait, wait] = [0, 300, 1_500].map(Duration::from_millis);
    let by_hand = |timeout: Duration| {
        let by_hand = lock(provider, &format!("{key}:by hand:{timeout:?}"));
        let limit = if timeout.is_zero() { ANSWER } else { timeout };
        ended(limit, async move {
            by_hand.acquire_for(timeout).await.map(drop)
        })
    };
    let tried_by_hand = async {
        let lock = lock(provider, &format!("{key}:try"));
        ended(ANSWER, lock.try_acquire()).await.map(drop)
    };
    let results = tokio::join!(
        ended(ANSWER, tried(&shared, key)),
        ended(brief_wait, brief(&shared, key)),
        ended(wait, patient(&shared, key)),
        async { ended(ANSWER, skipped(&shared, key)).await.map(drop) },
        async {
            ended(brief_wait, skipped_later(&shared, key))
                .await
                .map(drop)
        },
        by_hand(none),
        by_hand(brief_wait),
        by_hand(wait),
        tried_by_hand,
    );
    let (a, b, c, d, e, f, g, h, i) = results;
    for (at, result) in [a, b, c, d, e, f, g, h, i].into_iter().enumerate() {
        let error = result.expect_err("nobody can tell");
        let kind = error.kind();
        assert_eq!(kind, LockErrorKind::ProviderUnavailable, "{at}: {error}");
    }
}

#[test]
fn a_frozen_server_is_no_holder_and_costs_no_more_than_the_timeout() {
    with_server(|server| async move {
        let builder = server.builder().lease(LEASE).response_timeout(ANSWER);
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        server.process.process().freeze();
        nobody_can_tell(&provider, "frozen").await;
        // By now the connection has been given up.
        nobody_can_tell(&provider, "connecting").await;
        server.process.process().thaw();
        take(&provider, "frozen:0s").await.release().await.unwrap();
    });
}

#[test]
fn a_server_that_cannot_be_connected_to_is_no_holder() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy).lease(LEASE).response_timeout(ANSWER);
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        // It accepts, and says nothing.
        let connections = count(&proxy.counts().connections);
        proxy.set(|fault| fault.to_client = Flow::Hold);
        proxy.reset();
        nobody_can_tell(&provider, "silent").await;
        assert!(count(&proxy.counts().connections) > connections);
        // It hangs up.
        proxy.set(|fault| fault.refuse = true);
        proxy.reset();
        nobody_can_tell(&provider, "refusing").await;
        assert!(count(&proxy.counts().refused) > 0);
        proxy.heal();
        take(&provider, "silent:0s").await.release().await.unwrap();
    });
}

#[test]
fn a_slow_server_is_no_holder() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy).lease(LEASE).response_timeout(ANSWER);
        let provider = connected(builder).await;
        take(&provider, "warm-up").await.release().await.unwrap();
        let slow = Flow::Delay(Duration::from_secs(3));
        proxy.set(|fault| fault.to_client = slow);
        nobody_can_tell(&provider, "slow").await;
        assert!(count(&proxy.counts().delayed) > 0);
        proxy.heal();
        eventually("all that was taken is given back", BOUND, || async {
            server
                .raw
                .ask::<Vec<String>>("KEYS slow:*")
                .await
                .is_empty()
        })
        .await;
    });
}

/// Starts a server that agrees to be connected to. It answers every script with this error once it
/// is told to.
async fn erring(error: &'static str, errs: Arc<AtomicBool>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = move |command: &str| {
        let is_script = command.contains("EVAL");
        if command.contains("HELLO") {
            "%3\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n\
             $4\r\nrole\r\n$6\r\nmaster\r\n"
                .to_owned()
        } else if command.contains("SUBSCRIBE") {
            ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n".to_owned()
        } else if is_script && errs.load(Ordering::Relaxed) {
            format!("-{error}\r\n")
        } else if is_script {
            ":1\r\n".to_owned()
        } else {
            "+OK\r\n".to_owned()
        }
    };
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                while let Ok(length @ 1..) = client.read(&mut buffer).await {
                    let asked = String::from_utf8_lossy(&buffer[..length]);
                    let answers: String = asked.split('*').skip(1).map(&answer).collect();
                    if client.write_all(answers.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("redis://127.0.0.1:{port}")
}

#[test]
fn a_server_that_answers_errors_is_no_holder() {
    lock_tests::run(DEADLINE, async {
        for error in [
            "LOADING Redis is loading the dataset in memory",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "MISCONF Redis is configured to save RDB snapshots, but it can't persist on disk.",
            "NOREPLICAS Not enough good replicas to write.",
            "BUSY Redis is busy running a script.",
            "CLUSTERDOWN The cluster is down",
            "ERR something of a proxy's own",
        ] {
            let errs = Arc::new(AtomicBool::new(false));
            let url = erring(error, Arc::clone(&errs)).await;
            let builder = RedisProvider::builder(url).response_timeout(ANSWER);
            let provider = connected(builder.connect_timeout(ANSWER)).await;
            errs.store(true, Ordering::Relaxed);
            nobody_can_tell(&provider, "erring").await;
        }
    });
}

#[test]
fn a_lock_that_is_held_is_still_contended() {
    with_server(|server| async move {
        let holder = server.provider_with_long_lease().await;
        let provider = connected(server.builder().response_timeout(ANSWER)).await;
        let kinds = [
            ("0s", LockErrorKind::Contended),
            ("300ms", LockErrorKind::TimedOut),
            ("1500ms", LockErrorKind::TimedOut),
        ];
        let mut guards = Vec::new();
        for name in ["0s", "300ms", "1500ms", "skip", "skip later"] {
            guards.push(take(&holder, &format!("held:{name}")).await);
        }
        let shared: Provider = provider.clone();
        // At once, before anybody else has asked.
        let results = tokio::join!(
            tried(&shared, "held"),
            brief(&shared, "held"),
            patient(&shared, "held"),
            skipped(&shared, "held"),
            skipped_later(&shared, "held"),
        );
        let (a, b, c, skipped, skipped_later) = results;
        for (result, (name, kind)) in [a, b, c].into_iter().zip(kinds) {
            assert_eq!(result.unwrap_err().kind(), kind, "{name}");
        }
        assert_eq!((skipped.unwrap(), skipped_later.unwrap()), (None, None));
        let brief = lock(&provider, "held:skip");
        let brief = brief.acquire_for(Duration::from_millis(100)).await;
        assert_eq!(brief.unwrap_err().kind(), LockErrorKind::TimedOut);
    });
}

/// A lock that a process has left behind, and takes back, is not held elsewhere.
#[test]
fn a_release_that_was_lost_is_no_holder() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy).lease(LEASE).response_timeout(ANSWER);
        let provider = connected(builder).await;
        for waits in [false, true] {
            let guard = take(&provider, "order").await;
            let owner = server.raw.get("order").await;
            let swallowed = proxy.swallowed();
            proxy.set(|fault| fault.to_server = Flow::Swallow);
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            proxy.heal();
            assert!(proxy.swallowed() > swallowed);
            assert_eq!(server.raw.get("order").await, owner, "it is left behind");
            let order = lock(&provider, "order");
            let guard = match waits {
                true => order.acquire_for(BOUND).await,
                false => order.try_acquire().await.map(|it| it.expect("free")),
            };
            guard.expect("free").release().await.unwrap();
        }
    });
}

/// A place in the queue is given up, and the lock is handed to it while nobody can say so.
#[test]
fn a_place_that_was_left_behind_is_no_holder() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy).lease(LEASE).response_timeout(ANSWER);
        let (holder, provider) = (
            server.provider_with_long_lease().await,
            connected(builder).await,
        );
        let guard = take(&holder, "order").await;
        let waiter = lock(&provider, "order");
        let waiting = tokio::spawn(async move { waiter.acquire_for(BOUND).await });
        server.raw.until_waiting("order", 1).await;
        let swallowed = proxy.swallowed();
        proxy.set(|fault| fault.to_server = Flow::Swallow);
        waiting.abort();
        eventually("it cannot leave", BOUND, || async {
            proxy.swallowed() > swallowed
        })
        .await;
        guard.release().await.unwrap();
        assert!(server.raw.get("order").await.is_some(), "handed over");
        proxy.heal();
        // Whatever this call is asked on, its answer names an owner that nobody is.
        let guard = lock(&provider, "order").acquire_for(BOUND).await.unwrap();
        guard.release().await.unwrap();
        let guard = lock(&provider, "order").try_acquire().await.unwrap();
        guard.expect("free").release().await.unwrap();
    });
}
