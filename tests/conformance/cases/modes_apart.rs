//! Readers, writers and permits of providers that are apart as those of two processes are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{AcquireRequest, Grant, LockErrorKind, LockMode, LockProvider};
use lock_tests::any_lock::permits;
use lock_tests::{eventually, poll_once};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use super::Shared;
use crate::fixture::Fixture;

const LEASE: Duration = Duration::from_secs(30);
/// How long a process lets readers in without asking whether a writer waits.
const WINDOW: Duration = Duration::from_millis(10);

async fn another(fixture: &Fixture) -> Arc<dyn LockProvider> {
    fixture.second_provider().await.expect("there can be two")
}

/// Asks the provider itself, and tells when the grant is there.
async fn granted(provider: &Arc<dyn LockProvider>, mode: LockMode, waits: bool) -> Option<Grant> {
    let (request, _interest) = AcquireRequest::new("lock", LEASE, waits).unwrap();
    match provider.acquire(&request.with_mode(mode)).await {
        Ok(grant) => Some(grant),
        Err(error) => {
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            None
        }
    }
}

/// A reader, a writer who waits for it, and a reader who came later: of three processes.
pub(crate) async fn read_write_read_in_their_order(fixture: Shared) {
    let (first, second) = fixture.two_rw("lock").await;
    let third = lock_runtime::DistributedRwLock::on(another(&fixture).await, "lock");
    for _ in 0..5 {
        let reader = first.read().await.unwrap();
        let mut writing = Box::pin(second.write());
        assert!(poll_once(writing.as_mut()).await.is_none(), "it waits");
        eventually("the writer is seen to wait", fixture.bound(), async || {
            third.try_read().await.unwrap().is_none()
        })
        .await;
        for _ in 0..5 {
            assert!(third.try_read().await.unwrap().is_none(), "a writer waits");
        }
        tokio::time::sleep(2 * WINDOW).await;
        assert!(first.try_read().await.unwrap().is_none(), "a writer waits");
        let late = [third.clone(), first.clone()]
            .map(|lock| tokio::spawn(async move { lock.read().await.unwrap() }));
        tokio::time::sleep(2 * WINDOW).await;
        assert!(!late[0].is_finished() && !late[1].is_finished());
        reader.release().await.unwrap();
        let writer = tokio::time::timeout(fixture.bound(), writing).await;
        let writer = writer.expect("it came first").unwrap();
        assert!(!late[0].is_finished() && !late[1].is_finished());
        writer.release().await.unwrap();
        for reading in late {
            let reader = tokio::time::timeout(fixture.bound(), reading).await;
            reader
                .expect("nobody writes")
                .unwrap()
                .release()
                .await
                .unwrap();
        }
    }
}

/// A process that reads without a pause keeps a writer elsewhere out for no longer than its window
/// and its longest read last.
pub(crate) async fn endless_reads_let_a_writer_elsewhere_in(fixture: Shared) {
    const READ: Duration = Duration::from_millis(5);
    const WRITES: usize = 12;
    let (here, there) = fixture.two_rw("lock").await;
    let reads = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..6 {
        let (here, reads) = (here.clone(), reads.clone());
        readers.spawn(async move {
            loop {
                let guard = here.read().await.unwrap();
                tokio::time::sleep(READ).await;
                drop(guard);
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut waits = Vec::new();
    for _ in 0..WRITES {
        let before = reads.load(Ordering::Relaxed);
        eventually("they read", fixture.bound(), async || {
            reads.load(Ordering::Relaxed) > before + 12
        })
        .await;
        let asked = Instant::now();
        let writer = there.write_for(fixture.bound()).await;
        let writer = writer.expect("readers do not come past it for ever");
        waits.push(asked.elapsed());
        writer.release().await.unwrap();
    }
    readers.abort_all();
    waits.sort_unstable();
    // The machine may be busy, but not each time.
    let promised = WINDOW + READ + Duration::from_millis(45);
    assert!(waits[WRITES / 4] < promised, "{waits:?}");
}

/// Grants are given back once more than they were given.
pub(crate) async fn a_second_release_touches_nobody(fixture: Shared) {
    let (here, there) = (fixture.provider(), another(&fixture).await);
    for (mode, excluded) in [
        (LockMode::Read, LockMode::Write),
        (LockMode::Write, LockMode::Read),
        (permits(2, 3), permits(2, 3)),
    ] {
        let first = granted(here, mode, false).await.expect("it is free");
        here.release(&first).await.unwrap();
        let second = granted(&there, mode, false).await.expect("it is free");
        if let Err(error) = here.release(&first).await {
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        }
        assert!(
            granted(here, excluded, false).await.is_none(),
            "{mode:?} is held"
        );
        there.release(&second).await.expect("it is held");
        let third = granted(here, excluded, false).await.expect("it is free");
        here.release(&third).await.unwrap();
    }
}

/// Waits until a request stands in the server's queue, by the report that somebody is before it.
async fn queued(
    fixture: &Fixture,
    mode: LockMode,
) -> (Arc<dyn LockProvider>, tokio::task::JoinHandle<Grant>) {
    let provider = another(fixture).await;
    let (request, interest) = AcquireRequest::new("lock", LEASE, true).unwrap();
    let request = request.with_mode(mode);
    let waiting = tokio::spawn({
        let provider = provider.clone();
        async move { provider.acquire(&request).await.expect("it is served") }
    });
    eventually("it waits in the queue", fixture.bound(), async || {
        interest.is_contended()
    })
    .await;
    (provider, waiting)
}

/// Where the server keeps the order, it is that of both modes together.
pub(crate) async fn both_modes_are_served_in_arrival_order(fixture: Shared) {
    let first = granted(fixture.provider(), LockMode::Write, false).await;
    let (served, mut order) = unbounded_channel();
    let mut waiters = JoinSet::new();
    for (place, mode) in "rrwrwwrr".chars().enumerate() {
        let mode = if mode == 'r' {
            LockMode::Read
        } else {
            LockMode::Write
        };
        let (provider, waiting) = queued(&fixture, mode).await;
        let served = served.clone();
        waiters.spawn(async move {
            let grant = waiting.await.unwrap();
            served.send(place).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            provider.release(&grant).await.unwrap();
        });
    }
    drop(served);
    fixture.provider().release(&first.unwrap()).await.unwrap();
    waiters.join_all().await;
    let mut seen = Vec::new();
    while let Some(place) = order.recv().await {
        seen.push(place);
    }
    // Neighbouring readers enter together, so their order among each other is free.
    seen[0..2].sort_unstable();
    seen[6..8].sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// Writers that come one after another do not keep a reader elsewhere out.
pub(crate) async fn endless_writes_let_a_reader_elsewhere_in(fixture: Shared) {
    let (here, there) = fixture.two_rw("lock").await;
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let here = here.clone();
        writers.spawn(async move {
            loop {
                let guard = here.write().await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
                guard.release().await.unwrap();
            }
        });
    }
    for _ in 0..10 {
        let reader = there.read_for(fixture.bound()).await;
        reader
            .expect("it is served in its turn")
            .release()
            .await
            .unwrap();
    }
    writers.abort_all();
}

/// Who wants one permit stays behind who wants three, of another process.
pub(crate) async fn who_waits_for_many_is_not_overtaken(fixture: Shared) {
    let here = fixture.provider();
    let two = granted(here, permits(2, 3), false)
        .await
        .expect("three are free");
    let (provider, waiting) = queued(&fixture, permits(3, 3)).await;
    eventually(
        "who waits is seen",
        fixture.bound(),
        async || match granted(here, permits(1, 3), false).await {
            Some(one) => {
                here.release(&one).await.unwrap();
                false
            }
            None => true,
        },
    )
    .await;
    for _ in 0..10 {
        assert!(
            granted(here, permits(1, 3), false).await.is_none(),
            "somebody waits"
        );
    }
    here.release(&two).await.unwrap();
    let three = tokio::time::timeout(fixture.bound(), waiting).await;
    let three = three.expect("all are free").unwrap();
    assert!(
        granted(here, permits(1, 3), false).await.is_none(),
        "none is left"
    );
    provider.release(&three).await.unwrap();
    let one = granted(here, permits(1, 3), false)
        .await
        .expect("nobody waits");
    here.release(&one).await.unwrap();
}
