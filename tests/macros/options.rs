//! All options of the attribute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::{Operation, TestProvider};
use lock_runtime::{
    DistributedLock, InProcessProvider, LockError, LockErrorKind, LockName, LockProvider,
    distributed_lock,
};

use crate::support::{hold, is_held};

#[distributed_lock(name = "options:try")]
async fn try_once() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "options:zero", timeout = "0s")]
async fn zero() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "options:brief", timeout = "20ms")]
async fn brief() -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "options:given", timeout = wait * 2)]
async fn given(wait: Duration) -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn timeout() {
    let _held = (
        hold("options:try").await,
        hold("options:zero").await,
        hold("options:brief").await,
        hold("options:given").await,
    );
    assert_eq!(
        try_once().await.unwrap_err().kind(),
        LockErrorKind::Contended
    );
    assert_eq!(zero().await.unwrap_err().kind(), LockErrorKind::Contended);
    let start = Instant::now();
    assert_eq!(brief().await.unwrap_err().kind(), LockErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(20));
    let start = Instant::now();
    let error = given(Duration::from_millis(15)).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[distributed_lock(name = "options:wait", timeout = "1m30s")]
async fn waits() -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn timeout_that_suffices() {
    let guard = hold("options:wait").await;
    let waiter = tokio::spawn(waits());
    tokio::task::yield_now().await;
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap();
}

#[distributed_lock(name = "options:max-hold", max_hold = "20ms")]
async fn held_for(time: Duration) -> Result<(), LockError> {
    tokio::time::sleep(time).await;
    Ok(())
}

#[tokio::test]
async fn max_hold() {
    held_for(Duration::ZERO).await.unwrap();
    let error = held_for(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::MaxHoldExceeded);
    assert!(!is_held("options:max-hold").await);
}

#[distributed_lock(name = "options:guard", guard = lock)]
async fn token() -> Result<(LockName, u64, bool), LockError> {
    let signal = lock.lost();
    tokio::task::yield_now().await;
    drop(signal);
    let token = lock.fencing_token().expect("the provider gives tokens");
    Ok((
        lock.name().clone(),
        token.to_string().parse().unwrap(),
        lock.is_lost(),
    ))
}

#[tokio::test]
async fn guard() {
    let (name, first, lost) = token().await.unwrap();
    let (_, second, _) = crate::support::assert_send(token()).await.unwrap();
    assert_eq!(name, "options:guard");
    assert!(second > first);
    assert!(!lost);
}

#[distributed_lock(name = "options:release", provider = locks, release = "background")]
async fn in_the_background(locks: &Arc<dyn LockProvider>) -> Result<(), LockError> {
    Ok(())
}

#[distributed_lock(name = "options:release", provider = locks, release = "confirmed")]
async fn confirmed(locks: &Arc<dyn LockProvider>) -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn release() {
    let server = TestProvider::new();
    let locks: Arc<dyn LockProvider> = Arc::new(server.clone());
    server.delay(Operation::Release, Duration::from_millis(50));
    confirmed(&locks).await.unwrap();
    assert!(!server.is_held("options:release"));
    in_the_background(&locks).await.unwrap();
    assert!(server.is_held("options:release"));
}

struct Service {
    locks: Arc<dyn LockProvider>,
    shared: Arc<Arc<dyn LockProvider>>,
}

impl Service {
    #[distributed_lock(name = "options:provider", provider = self.locks)]
    async fn on_field(&self) -> Result<bool, LockError> {
        Ok(is_held("options:provider").await)
    }

    #[distributed_lock(name = "options:provider", provider = &self.shared)]
    async fn on_deref(&self) -> Result<bool, LockError> {
        Ok(is_held("options:provider").await)
    }

    #[distributed_lock(name = "options:provider", provider = self.choose(true))]
    async fn on_call(self) -> Result<bool, LockError> {
        drop(self.locks);
        Ok(is_held("options:provider").await)
    }

    #[distributed_lock(
        name = "options:provider",
        provider = if true { &self.locks } else { &self.shared }
    )]
    async fn on_block(&self) -> Result<bool, LockError> {
        Ok(is_held("options:provider").await)
    }

    fn choose(&self, first: bool) -> &Arc<dyn LockProvider> {
        if first { &self.locks } else { &self.shared }
    }
}

#[tokio::test]
async fn provider_by_expression() {
    let locks: Arc<dyn LockProvider> = Arc::new(InProcessProvider::new());
    let service = Service {
        locks: locks.clone(),
        shared: Arc::new(locks.clone()),
    };
    // Held there, and not on the default provider.
    let elsewhere = DistributedLock::on(locks, "options:provider")
        .acquire()
        .await
        .unwrap();
    let contended = LockErrorKind::Contended;
    assert_eq!(service.on_field().await.unwrap_err().kind(), contended);
    assert_eq!(service.on_deref().await.unwrap_err().kind(), contended);
    assert_eq!(service.on_block().await.unwrap_err().kind(), contended);
    elsewhere.release().await.unwrap();
    assert!(!service.on_field().await.unwrap());
    assert!(!service.on_deref().await.unwrap());
    assert!(!service.on_block().await.unwrap());
    assert!(!service.on_call().await.unwrap());
}

#[distributed_lock(name = "options:named", provider = "options")]
async fn on_named() -> Result<bool, LockError> {
    Ok(is_held("options:named").await)
}

#[distributed_lock(name = "options:named", provider = "nobody")]
async fn on_unregistered() -> Result<bool, LockError> {
    Ok(true)
}

#[tokio::test]
async fn provider_by_name() {
    lock_runtime::register_named("options", InProcessProvider::new()).unwrap();
    assert!(!on_named().await.unwrap());
    assert_eq!(
        on_unregistered().await.unwrap_err().kind(),
        LockErrorKind::NoProvider
    );
}

mod reexported {
    pub(crate) mod inner {
        pub(crate) use lock_runtime::{__private, distributed_lock};
    }
}

#[reexported::inner::distributed_lock(
    name = "options:crate:{id}",
    crate = crate::options::reexported::inner
)]
async fn through_reexport(id: u32) -> Result<u32, LockError> {
    Ok(id)
}

#[tokio::test]
async fn path_of_the_crate() {
    assert_eq!(through_reexport(1).await.unwrap(), 1);
}

#[distributed_lock(name = "options:none", timeout = "none")]
async fn waits_for_ever() -> Result<(), LockError> {
    Ok(())
}

#[tokio::test]
async fn timeout_of_none_waits_as_long_as_it_takes() {
    let guard = hold("options:none").await;
    let mut waiter = Box::pin(waits_for_ever());
    assert!(crate::support::poll_once(waiter.as_mut()).is_pending());
    guard.release().await.unwrap();
    waiter.await.unwrap();
}

#[derive(Clone, Copy)]
struct Durations {
    lease: Duration,
    max_hold: Duration,
    min_hold: Duration,
}

impl Durations {
    const GOOD: Self = Self {
        lease: Duration::from_secs(1),
        max_hold: Duration::from_secs(60),
        min_hold: Duration::ZERO,
    };

    #[distributed_lock(
        name = "options:durations",
        lease = self.lease,
        max_hold = self.max_hold,
        min_hold = self.min_hold
    )]
    async fn run(self) -> Result<(), LockError> {
        Ok(())
    }
}

#[tokio::test]
async fn bad_durations_at_run_time_are_bad_configuration() {
    let good = Durations::GOOD;
    good.run().await.unwrap();
    assert!(!is_held("options:durations").await);
    let millis = Duration::from_millis;
    let day = Duration::from_secs(24 * 60 * 60);
    let bad = [
        (
            Durations {
                lease: millis(99),
                ..good
            },
            "lease",
        ),
        (
            Durations {
                lease: day + millis(1),
                ..good
            },
            "lease",
        ),
        (
            Durations {
                max_hold: Duration::ZERO,
                ..good
            },
            "max_hold",
        ),
        (
            Durations {
                min_hold: millis(60_001),
                ..good
            },
            "min_hold",
        ),
        (
            Durations {
                max_hold: Duration::MAX,
                min_hold: day + millis(1),
                ..good
            },
            "min_hold",
        ),
        (
            Durations {
                max_hold: Duration::MAX,
                min_hold: Duration::MAX,
                ..good
            },
            "min_hold",
        ),
    ];
    for (durations, what) in bad {
        let error = durations.run().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(error.name().unwrap(), "options:durations");
    }
    Durations {
        max_hold: Duration::MAX,
        ..good
    }
    .run()
    .await
    .unwrap();
}

/// Notes that it was asked for a value.
struct Noted(std::cell::RefCell<Vec<&'static str>>);

impl Noted {
    fn get<T>(&self, what: &'static str, value: T) -> T {
        self.0.borrow_mut().push(what);
        value
    }

    #[distributed_lock(
        provider = &self.get("provider", locks),
        min_hold = self.get("min_hold", Duration::ZERO),
        on_unavailable = self.get("on_unavailable", Err),
        timeout = self.get("timeout", Duration::from_millis(1)),
        max_hold = self.get("max_hold", Duration::from_secs(60)),
        name = self.get("name", "options:order"),
        lease = self.get("lease", Duration::from_secs(1))
    )]
    async fn run(&self, locks: &Arc<dyn LockProvider>) -> Result<(), LockError> {
        self.0.borrow_mut().push("body");
        Ok(())
    }
}

#[tokio::test]
async fn options_are_evaluated_once_before_the_wait() {
    let noted = Noted(std::cell::RefCell::default());
    let locks: Arc<dyn LockProvider> = Arc::new(InProcessProvider::new());
    noted.run(&locks).await.unwrap();
    let mut expected = [
        "name",
        "min_hold",
        "timeout",
        "max_hold",
        "lease",
        "provider",
        "on_unavailable",
        "body",
    ];
    assert_eq!(noted.0.take(), expected);
    let _held = DistributedLock::on(locks.clone(), "options:order")
        .acquire()
        .await
        .unwrap();
    noted.run(&locks).await.unwrap_err();
    expected[7] = "";
    assert_eq!(noted.0.take(), expected[..7]);
}
