//! Who holds a lock is told as far as the server knows, and no value that is not ours is shown.

use std::time::Duration;

use lock_runtime::{
    DistributedLock, DistributedRwLock, DistributedSemaphore, Holder, LockErrorKind, LockMode,
    LockProvider,
};

use crate::common::{BOUND, LONG, enter, entering, try_enter, with_server};
use crate::dotnet::DotNet;

const LEASE: u64 = 600_000;
const SECRET: &str = "hunter2-of-another-library";

#[test]
fn another_client_is_told_without_its_value() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let lock = DistributedLock::on(provider, "order");
        let taken = format!("SET order {SECRET} PX 600000");
        server.raw.ask::<String>(&taken).await;
        let state = lock.inspect().await.unwrap();
        let [holder] = state.holders() else {
            panic!("{state:?}");
        };
        assert_eq!(holder.label(), "another client");
        assert!(!holder.is_this_process());
        let left = holder.expires_in().expect("the key has an end");
        assert!(left > Duration::from_secs(590) && left <= Duration::from_secs(600));
        assert_eq!(holder.since(), None);
        let refused = lock.acquire_for(Duration::ZERO).await.unwrap_err();
        let expected = "lock `order` is held by another client";
        assert_eq!(refused.to_string(), expected);
        let late = lock
            .acquire_for(Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(late.kind(), LockErrorKind::TimedOut);
        let expected = "lock `order` was still held by another client when the timeout passed";
        assert_eq!(late.to_string(), expected);
        for shown in [
            format!("{state:?}"),
            format!("{refused:?}"),
            format!("{late:?}"),
        ] {
            assert!(!shown.contains(SECRET), "{shown}");
        }
        server.raw.ask::<u32>("DEL order").await;
    });
}

#[test]
fn a_label_of_another_process_of_ours_is_read() {
    with_server(|server| async move {
        let lock = DistributedLock::on(server.provider_with_long_lease().await, "order");
        let owner = format!("lk1:billing-7f9c:4711:{:032x}", 7);
        let taken = format!("SET order {owner} PX 600000");
        server.raw.ask::<String>(&taken).await;
        let refused = lock.acquire_for(Duration::ZERO).await.unwrap_err();
        let expected = "lock `order` is held by billing-7f9c (pid 4711)";
        assert_eq!(refused.to_string(), expected);
        // It was released, and is kept for its `min_hold`.
        let kept = format!("SET order {owner}:kept PX 600000");
        server.raw.ask::<String>(&kept).await;
        let state = lock.inspect().await.unwrap();
        assert_eq!(state.holders()[0].label(), "billing-7f9c (pid 4711)");
    });
}

#[test]
fn readers_of_the_net_library_are_counted_and_its_marks_are_not() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let net = DotNet::new(server.raw.connection(), "order");
        let lock = DistributedRwLock::on(provider.clone(), "order");
        let read = enter(&provider, "order", LockMode::Read).await;
        assert!(net.read("net1", LEASE).await);
        assert!(net.read("net2", LEASE).await);
        assert!(net.mark("net3", LEASE).await);
        let state = lock.inspect().await.unwrap();
        let labels: Vec<_> = state
            .holders()
            .iter()
            .map(|holder| holder.label())
            .collect();
        assert_eq!(labels.len(), 3, "{state:?}");
        assert_eq!(labels[1..], ["another client"; 2]);
        let reads = |holder: &Holder| holder.mode() == Some(LockMode::Read);
        assert!(state.holders().iter().all(reads), "{state:?}");
        // The mark is a writer who waits elsewhere, and no holder.
        assert_eq!(state.waiters(), Some(0), "the mark is not in our queue");
        let (_late, interest) = entering(&provider, "order", LockMode::Read, LONG);
        server.raw.until("LLEN {order}:lk1:rw", 1).await;
        assert_eq!(lock.inspect().await.unwrap().waiters(), Some(1));
        interest.abandon();
        provider.release(&read).await.unwrap();
    });
}

#[test]
fn permits_are_told_by_their_grants() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let here = DistributedSemaphore::on(provider, "order", 9);
        let there = DistributedSemaphore::on(other, "order", 9);
        let _three = here.acquire_many(3).await.unwrap();
        let _two = there.acquire_many(2).await.unwrap();
        let ends = server.clock().await / 1_000 + 60_000;
        let foreign = format!("ZADD order {ends} {SECRET}");
        server.raw.ask::<u32>(&foreign).await;
        let ended = format!("ZADD order {} long-gone", ends - 120_000);
        server.raw.ask::<u32>(&ended).await;
        let state = here.inspect().await.unwrap();
        let mut taken: Vec<_> = state.holders().iter().map(|it| it.permits()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [Some(1), Some(2), Some(3)], "{state:?}");
        assert_eq!(state.available(), Some(3));
        assert!(!format!("{state:?}").contains(SECRET));
        assert_eq!(there.inspect().await.unwrap().available(), Some(3));
    });
}

#[test]
fn what_is_no_lock_is_said_to_be_none() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        server.raw.ask::<u32>("RPUSH list 1").await;
        server.raw.ask::<u32>("RPUSH book.readers 1").await;
        let mutex = DistributedLock::on(provider.clone(), "list")
            .inspect()
            .await;
        let permits = DistributedSemaphore::on(provider.clone(), "list", 3);
        let permits = permits.inspect().await;
        let rw = DistributedRwLock::on(provider, "book").inspect().await;
        for (answer, key) in [(mutex, "list"), (permits, "list"), (rw, "book")] {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{key}: {error}");
            assert!(error.to_string().contains(key), "{error}");
        }
    });
}

#[test]
fn a_frozen_server_is_asked_no_longer_than_it_may_take() {
    with_server(|server| async move {
        let builder = server
            .builder()
            .response_timeout(Duration::from_millis(300));
        let provider = crate::common::connected(builder).await;
        let lock = DistributedLock::on(provider, "order");
        assert!(lock.inspect().await.unwrap().holders().is_empty());
        server.process.process().freeze();
        let asked = std::time::Instant::now();
        let error = lock.inspect().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        assert!(asked.elapsed() < BOUND, "{:?}", asked.elapsed());
        server.process.process().thaw();
    });
}

#[test]
fn a_value_that_never_expires_is_no_holder() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        server.raw.ask::<String>("SET note text").await;
        server.raw.ask::<String>("SET book.writer text").await;
        server.raw.ask::<u32>("ZADD scores 7 anna").await;
        let mutex = DistributedLock::on(provider.clone(), "note");
        let rw = DistributedRwLock::on(provider.clone(), "book");
        let permits = DistributedSemaphore::on(provider.clone(), "scores", 3);
        for answer in [
            mutex.inspect().await,
            rw.inspect().await,
            permits.inspect().await,
        ] {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        }
        // What is a mark beside readers is any other client's value under the key of a mutex.
        server
            .raw
            .ask::<String>("SET job a_WRITERWAITING PX 600000")
            .await;
        let state = DistributedLock::on(provider, "job").inspect().await;
        assert_eq!(state.unwrap().holders().len(), 1);
    });
}

/// Of those who read, only the one that may upgrade is in the way of the next such one.
#[test]
fn who_is_refused_an_upgradeable_read_is_told_who_has_it() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let may = enter(&provider, "order", LockMode::Upgradeable).await;
        let ends = server.clock().await / 1_000 + 60_000;
        let reader = format!("lk1:billing-7f9c:4711:{:032x}", 7);
        server
            .raw
            .ask::<u32>(&format!("SADD order.readers {reader}"))
            .await;
        let end = format!("ZADD {{order}}:lk1:readers {ends} {reader}");
        server.raw.ask::<u32>(&end).await;
        let refused = try_enter(&provider, "order", LockMode::Upgradeable).await;
        let refused = refused.unwrap_err();
        let holder = refused.holder().expect("it is known");
        assert!(holder.is_this_process(), "{holder:?}");
        // A writer is told of whoever ends first.
        let refused = try_enter(&provider, "order", LockMode::Write).await;
        let refused = refused.unwrap_err();
        let label = refused.holder().map(Holder::label);
        assert_eq!(label, Some("billing-7f9c (pid 4711)"));
        provider.release(&may).await.unwrap();
    });
}

#[test]
fn who_does_not_become_the_writer_is_told_who_reads() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let lock = DistributedRwLock::on(provider, "order");
        let mut may = lock.upgradeable_read().await.unwrap();
        let ends = server.clock().await / 1_000 + 60_000;
        let reader = format!("lk1:billing-7f9c:4711:{:032x}", 7);
        server
            .raw
            .ask::<u32>(&format!("SADD order.readers {reader}"))
            .await;
        let end = format!("ZADD {{order}}:lk1:readers {ends} {reader}");
        server.raw.ask::<u32>(&end).await;
        for (timeout, expected) in [
            (0, "lock `order` is held by billing-7f9c (pid 4711)"),
            (
                100,
                "lock `order` was still held by billing-7f9c (pid 4711) when the timeout passed",
            ),
        ] {
            let failed = may.upgrade_for(Duration::from_millis(timeout)).await;
            let failed = failed.unwrap_err();
            assert_eq!(failed.to_string(), expected);
            may = failed.into_guard().expect("it reads");
        }
        may.release().await.unwrap();
    });
}
