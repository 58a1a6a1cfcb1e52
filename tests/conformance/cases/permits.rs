//! So many permits and no more, in the order in which they were asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lock_runtime::{DistributedLock, DistributedSemaphore, LockErrorKind};
use lock_tests::poll_once;
use tokio::task::JoinSet;

use super::Shared;
use super::modes::{Judged, play};

const SHORT: Duration = Duration::from_millis(50);
/// Long enough for an answer that none is left, on a loaded machine.
const A_WHILE: Duration = Duration::from_millis(400);
const POLLS: usize = 30;

pub(crate) async fn there_are_so_many_and_no_more(fixture: Shared) {
    let (here, there) = fixture.two_permits("lock", 3).await;
    let mut held = vec![
        here.acquire().await.unwrap(),
        there.try_acquire().await.unwrap().expect("two are left"),
        here.acquire_for(fixture.bound()).await.unwrap(),
    ];
    for semaphore in [&here, &there] {
        assert!(semaphore.try_acquire().await.unwrap().is_none());
        let error = semaphore.acquire_for(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        assert_eq!(error.name().map(AsRef::as_ref), Some("lock"));
        let error = semaphore.acquire_for(A_WHILE).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
    }
    held.pop().unwrap().release().await.unwrap();
    for semaphore in [&here, &there] {
        let last = semaphore.acquire_for(fixture.bound()).await.unwrap();
        assert_eq!(last.name().as_str(), "lock");
        for semaphore in [&here, &there] {
            assert!(semaphore.try_acquire().await.unwrap().is_none());
        }
        last.release().await.unwrap();
    }
}

pub(crate) async fn numbers_that_cannot_be_are_refused(fixture: Shared) {
    let none = fixture.permits("none", 0);
    let three = fixture.permits("three", 3);
    for error in [
        none.acquire().await.unwrap_err(),
        three.acquire_many(0).await.unwrap_err(),
        three.acquire_many(4).await.unwrap_err(),
        three.try_acquire_many(u32::MAX).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
    }
    let all = three.acquire_many(3).await.unwrap();
    all.release().await.unwrap();
}

/// Ten tasks with three permits see one, two and three inside, and nothing else.
pub(crate) async fn exactly_one_two_and_three_are_inside(fixture: Shared) {
    let (here, there) = fixture.two_permits("lock", 3).await;
    let inside = Arc::new(AtomicU32::new(0));
    let seen = Arc::new([const { AtomicBool::new(false) }; 11]);
    let mut tasks = JoinSet::new();
    for task in 0..10 {
        let semaphore = if task % 2 == 0 {
            here.clone()
        } else {
            there.clone()
        };
        let (inside, seen) = (inside.clone(), seen.clone());
        tasks.spawn(async move {
            for _ in 0..25 {
                let permit = semaphore.acquire().await.unwrap();
                let count = inside.fetch_add(1, Ordering::SeqCst) + 1;
                seen[count as usize].store(true, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                permit.release().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let seen: Vec<_> = (0..11)
        .filter(|count| seen[*count].load(Ordering::SeqCst))
        .collect();
    assert_eq!(seen, [1, 2, 3]);
}

/// A hundred tasks reach ten, all at once, and never more.
pub(crate) async fn a_hundred_tasks_reach_exactly_ten(fixture: Shared) {
    let semaphore = fixture.permits("lock", 10);
    let (inside, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let ten = Arc::new(tokio::sync::Barrier::new(10));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (semaphore, inside) = (semaphore.clone(), inside.clone());
        let (most, ten) = (most.clone(), ten.clone());
        tasks.spawn(async move {
            let permit = semaphore.acquire().await.unwrap();
            let count = inside.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(count, Ordering::SeqCst);
            // Passed by ten at a time only.
            ten.wait().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            permit.release().await.unwrap();
        });
    }
    let all = tokio::time::timeout(2 * fixture.bound(), tasks.join_all()).await;
    all.expect("ten are inside again and again");
    assert_eq!(most.load(Ordering::SeqCst), 10);
}

/// Until none is left, and back.
pub(crate) async fn they_are_drained_and_filled(fixture: Shared) {
    let (here, there) = fixture.two_permits("lock", 5).await;
    for _ in 0..3 {
        let mut held = Vec::new();
        while let Some(permit) = here.try_acquire().await.unwrap() {
            held.push(permit);
            assert!(held.len() <= 5, "more than there are");
        }
        assert_eq!(held.len(), 5);
        assert!(there.try_acquire().await.unwrap().is_none());
        for (place, permit) in held.into_iter().enumerate() {
            match place % 2 {
                0 => drop(permit),
                _ => permit.release().await.unwrap(),
            }
            let free = u32::try_from(place + 1).unwrap();
            let all = there.acquire_many_for(free, fixture.bound()).await;
            all.expect("so many are free").release().await.unwrap();
            if free < 5 {
                assert!(there.try_acquire_many(free + 1).await.unwrap().is_none());
            }
        }
    }
}

pub(crate) async fn there_may_be_as_many_as_a_number_can_say(fixture: Shared) {
    let name = "漢".repeat(300);
    let (here, there) = fixture.two_permits(&name, u32::MAX).await;
    let mut held = Vec::new();
    for number in 0..100 {
        let semaphore = if number % 2 == 0 { &here } else { &there };
        let permit = semaphore.try_acquire().await.unwrap();
        held.push(permit.expect("four thousand million are left"));
    }
    for permit in held {
        permit.release().await.unwrap();
    }
}

/// Several are held together or not at all.
pub(crate) async fn several_are_taken_together(fixture: Shared) {
    let (here, there) = fixture.two_permits("lock", 5).await;
    let three = here.acquire_many(3).await.unwrap();
    assert!(there.try_acquire_many(3).await.unwrap().is_none());
    let two = there.try_acquire_many(2).await.unwrap();
    let two = two.expect("what did not fit has taken none");
    assert!(here.try_acquire().await.unwrap().is_none());
    let mut waiting = Box::pin(here.acquire_many(5));
    assert!(poll_once(waiting.as_mut()).await.is_none());
    three.release().await.unwrap();
    assert!(
        tokio::time::timeout(SHORT, &mut waiting).await.is_err(),
        "two are out"
    );
    two.release().await.unwrap();
    let five = tokio::time::timeout(fixture.bound(), waiting).await;
    five.expect("all are free")
        .unwrap()
        .release()
        .await
        .unwrap();
}

/// One that wants three is served although others take one without a pause, here and elsewhere.
pub(crate) async fn who_wants_many_is_not_starved(fixture: Shared) {
    let (here, there) = fixture.two_permits("lock", 3).await;
    let mut stream = JoinSet::new();
    for task in 0..6 {
        let semaphore = if task % 2 == 0 {
            here.clone()
        } else {
            there.clone()
        };
        stream.spawn(async move {
            loop {
                let permit = semaphore.acquire().await.unwrap();
                tokio::time::sleep(Duration::from_millis(3)).await;
                permit.release().await.unwrap();
            }
        });
    }
    for semaphore in [&here, &there, &here, &there] {
        let three = semaphore.acquire_many_for(3, fixture.bound()).await;
        three
            .expect("it is served in its turn")
            .release()
            .await
            .unwrap();
    }
    stream.abort_all();
}

/// Those of one process are served as they came: one who wants one stays behind who wants three.
pub(crate) async fn permits_in_arrival_order(fixture: Shared) {
    let semaphore = fixture.permits("lock", 3);
    let two = semaphore.acquire_many(2).await.unwrap();
    let mut many = Box::pin(semaphore.acquire_many(3));
    assert!(poll_once(many.as_mut()).await.is_none(), "it waits");
    let mut one = Box::pin(semaphore.acquire());
    assert!(poll_once(one.as_mut()).await.is_none(), "it stays behind");
    assert!(semaphore.try_acquire().await.unwrap().is_none());
    assert!(tokio::time::timeout(SHORT, &mut one).await.is_err());
    two.release().await.unwrap();
    let three = tokio::time::timeout(fixture.bound(), many).await;
    let three = three.expect("all are free").unwrap();
    assert!(tokio::time::timeout(SHORT, &mut one).await.is_err());
    three.release().await.unwrap();
    let one = tokio::time::timeout(fixture.bound(), one).await;
    one.expect("it comes next")
        .unwrap()
        .release()
        .await
        .unwrap();
}

/// Each caller's own limit counts for it, and never are more out than the largest.
pub(crate) async fn limits_may_differ(fixture: Shared) {
    let (three, _) = fixture.two_permits("lock", 3).await;
    let five = DistributedSemaphore::on(fixture.elsewhere().await, "lock", 5);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(three.try_acquire().await.unwrap().expect("below its limit"));
    }
    assert!(three.try_acquire().await.unwrap().is_none());
    for _ in 0..2 {
        held.push(five.try_acquire().await.unwrap().expect("below its limit"));
    }
    for semaphore in [&three, &five] {
        assert!(semaphore.try_acquire().await.unwrap().is_none());
    }
    for permit in held {
        permit.release().await.unwrap();
    }
    // And judged, with takers of both at random.
    let judged = Judged::default();
    let modes = ["1/3", "2/3", "1/5", "2/5", "3/5"];
    play(&fixture, "mixed", &modes, 8, 20, &judged).await;
    let seen = judged.windows.check();
    assert!(seen.most_permits > 3, "{seen:?}");
}

pub(crate) async fn windows_of_permits(fixture: Shared) {
    let judged = Judged::default();
    play(
        &fixture,
        "lock",
        &["1/4", "1/4", "2/4", "4/4"],
        8,
        25,
        &judged,
    )
    .await;
    let seen = judged.windows.check();
    assert_eq!(seen.grants.values().sum::<usize>(), 200);
    assert_eq!(seen.most_permits, 4, "{seen:?}");
}

pub(crate) async fn permits_dropped_at_every_poll(fixture: Shared) {
    let (here, there) = fixture.two_permits("lock", 3).await;
    for polls in 1..POLLS {
        let two = here.acquire_many_for(2, fixture.bound()).await.unwrap();
        for semaphore in [&here, &there] {
            let mut waiting = Box::pin(semaphore.acquire_many(2));
            for _ in 0..polls {
                assert!(poll_once(waiting.as_mut()).await.is_none(), "it waits");
                tokio::task::yield_now().await;
            }
            drop(waiting);
            let one = semaphore.acquire_for(fixture.bound()).await;
            one.expect("nobody waits").release().await.unwrap();
        }
        two.release().await.unwrap();
        // And when they are free.
        let mut taking = Box::pin(there.acquire_many(2));
        for _ in 0..polls {
            if let Some(permits) = poll_once(taking.as_mut()).await {
                drop(permits.unwrap());
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(taking);
        let all = here.acquire_many_for(3, fixture.bound()).await;
        all.expect("nothing is left").release().await.unwrap();
    }
}

pub(crate) async fn permits_dropped_when_just_granted(fixture: Shared) {
    let (here, there) = fixture.two_permits("lock", 3).await;
    for round in 0..POLLS {
        let all = here.acquire_many_for(3, fixture.bound()).await.unwrap();
        let (mut one, mut two) = (Box::pin(here.acquire()), Box::pin(here.acquire_many(2)));
        assert!(poll_once(one.as_mut()).await.is_none(), "it waits");
        assert!(poll_once(two.as_mut()).await.is_none(), "it waits");
        let releasing = tokio::spawn(all.release());
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        drop(one);
        tokio::task::yield_now().await;
        drop(two);
        releasing.await.unwrap().unwrap();
        let all = there.acquire_many_for(3, fixture.bound()).await;
        all.expect("nothing is left").release().await.unwrap();
    }
}

pub(crate) async fn permits_are_no_other_kind(fixture: Shared) {
    let mutex = DistributedLock::on(fixture.provider().clone(), "lock");
    let (permits, rw) = (fixture.permits("lock", 3), fixture.rw("lock"));
    let permit = permits.acquire().await.unwrap();
    for error in [
        mutex.acquire().await.unwrap_err(),
        rw.read().await.unwrap_err(),
        rw.try_write().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("semaphore"), "{error}");
    }
    assert!(!permit.is_lost());
    permit.release().await.unwrap();
}
