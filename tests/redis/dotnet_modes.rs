//! Reader–writer locks and semaphores of the .NET library on the same keys: they exclude us, we
//! exclude them, and waiting writers of either hold back the readers of the other.

use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockMode, LockProvider};

use crate::common::{
    LONG, Server, TICK, enter, entering, permits, request, try_enter, with_server,
};
use crate::dotnet::{DotNet, MARK};

const QUEUE: &str = "LLEN {order}:lk1:rw";
/// The head of the queue looks every 25 to 125 ms; the rest is the machine's.
const POLLED: Duration = Duration::from_secs(1);
const LEASE: u64 = 600_000;

fn dotnet(server: &Server) -> DotNet {
    DotNet::new(server.raw.connection(), "order")
}

#[test]
fn we_exclude_each_other() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        let ours = async |mode| match try_enter(&provider, "order", mode).await {
            Ok(grant) => Some(grant),
            Err(error) => {
                assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
                None
            }
        };
        assert!(net.read("net1", LEASE).await);
        let read = ours(LockMode::Read).await.expect("readers share");
        assert!(ours(LockMode::Write).await.is_none());
        net.release_read("net1").await;
        assert!(!net.write("net2", LEASE).await, "we still read");
        assert!(net.read("net3", LEASE).await);
        provider.release(&read).await.unwrap();
        assert!(ours(LockMode::Write).await.is_none());
        net.release_read("net3").await;
        let write = ours(LockMode::Write).await.expect("nobody reads");
        assert!(!net.read("net4", LEASE).await);
        assert!(!net.write("net4", LEASE).await);
        provider.release(&write).await.unwrap();
        assert!(net.write("net5", LEASE).await);
        assert!(ours(LockMode::Read).await.is_none());
        assert!(ours(LockMode::Write).await.is_none());
        net.release_write("net5").await;
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn its_waiting_writer_holds_back_our_readers() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        let read = enter(&provider, "order", LockMode::Read).await;
        assert!(!net.write("net1", LEASE).await);
        assert!(net.mark("net1", LEASE).await);
        let error = try_enter(&provider, "order", LockMode::Read)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        assert!(!provider.may_share(&read).await.unwrap());
        let (late, _) = entering(&provider, "order", LockMode::Read, LONG);
        server.raw.until(QUEUE, 1).await;
        // Its own lock is renewed and released beside the mark.
        provider.renew(&read).await.unwrap();
        provider.release(&read).await.unwrap();
        assert_eq!(server.raw.count(QUEUE).await, 1, "the writer comes first");
        assert!(net.write("net1", LEASE).await);
        net.release_write("net1").await;
        let freed = Instant::now();
        let late = late.await.unwrap().unwrap();
        assert!(freed.elapsed() < POLLED, "{:?}", freed.elapsed());
        provider.release(&late).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_mark_of_a_writer_that_died_ends() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        let read = enter(&provider, "order", LockMode::Read).await;
        assert!(net.mark("net1", 700).await);
        let (late, _) = entering(&provider, "order", LockMode::Read, LONG);
        server.raw.until(QUEUE, 1).await;
        let start = Instant::now();
        let late = late.await.unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_millis(700) + POLLED);
        provider.release(&late).await.unwrap();
        provider.release(&read).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn our_waiting_writer_holds_back_its_readers() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        assert!(net.read("net1", LEASE).await);
        let (write, _) = entering(&provider, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        assert!(!net.read("net2", LEASE).await);
        assert!(!net.write("net3", LEASE).await);
        assert!(!net.mark("net3", LEASE).await);
        // It hands nothing over.
        net.release_read("net1").await;
        let freed = Instant::now();
        let write = write.await.unwrap().unwrap();
        assert!(freed.elapsed() < POLLED, "{:?}", freed.elapsed());
        assert!(!net.read("net2", LEASE).await);
        provider.release(&write).await.unwrap();
        assert!(net.read("net2", LEASE).await);
        net.release_read("net2").await;
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_writer_that_leaves_lets_its_readers_in() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        assert!(net.read("net1", LEASE).await);
        let (write, interest) = entering(&provider, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        let mark = server.raw.get("order.writer").await.expect("a mark");
        assert!(mark.ends_with(MARK), "{mark}");
        interest.abandon();
        assert!(write.await.unwrap().is_err());
        assert!(net.read("net2", LEASE).await, "at once");
    });
}

/// Only the head of the queue polls, and the next one when it has left.
#[test]
fn the_next_head_takes_over_the_polling() {
    with_server(|server| async move {
        let (first, second) = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let net = dotnet(&server);
        assert!(net.read("net1", LEASE).await);
        let (head, interest) = entering(&first, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 1).await;
        let (next, _) = entering(&second, "order", LockMode::Write, LONG);
        server.raw.until(QUEUE, 2).await;
        interest.abandon();
        assert!(head.await.unwrap().is_err());
        let mark = server.raw.get("order.writer").await.expect("a mark");
        let entry: String = server.raw.ask("LINDEX {order}:lk1:rw 0").await;
        assert!(entry.contains(mark.trim_end_matches(MARK)), "{entry}");
        net.release_read("net1").await;
        let freed = Instant::now();
        let next = next.await.unwrap().unwrap();
        assert!(freed.elapsed() < POLLED, "{:?}", freed.elapsed());
        second.release(&next).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

/// A reader of its leaves nothing by which its own end could be told, so it ends with the key.
#[test]
fn its_crashed_reader_costs_our_waiting_writer_one_lease() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        let lease = 1_000;
        assert!(net.read("net1", lease).await);
        let start = Instant::now();
        let write = enter(&provider, "order", LockMode::Write).await;
        let after = start.elapsed();
        assert!(after < Duration::from_millis(lease) + POLLED, "{after:?}");
        provider.release(&write).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn our_crashed_reader_costs_its_writer_one_lease() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        let lease = Duration::from_secs(1);
        let (dying, _) = request("order", LockMode::Read, lease, false);
        let start = Instant::now();
        provider.acquire(&dying).await.unwrap();
        // Another reader of ours raises the life of the readers' key to ten minutes.
        let read = enter(&provider, "order", LockMode::Read).await;
        provider.release(&read).await.unwrap();
        assert!(net.mark("net1", LEASE).await);
        while !net.write("net1", LEASE).await {
            // Whatever we do with the lock drops the dead.
            assert!(try_enter(&provider, "order", LockMode::Read).await.is_err());
            assert!(start.elapsed() < lease + POLLED);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(start.elapsed() >= lease - TICK);
    });
}

#[test]
fn permits_are_counted_together() {
    with_server(|server| async move {
        let (provider, net) = (server.provider_with_long_lease().await, dotnet(&server));
        assert!(net.permit("net1", LEASE, 3).await);
        let two = enter(&provider, "order", permits(3, 2)).await;
        assert!(!net.permit("net2", LEASE, 3).await);
        let error = try_enter(&provider, "order", permits(3, 1))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
        let (waiting, _) = entering(&provider, "order", permits(3, 1), LONG);
        server.raw.until("LLEN {order}:lk1:permits", 1).await;
        // It hands nothing over.
        net.release_permit("net1").await;
        let freed = Instant::now();
        let one = waiting.await.unwrap().unwrap();
        assert!(freed.elapsed() < POLLED, "{:?}", freed.elapsed());
        provider.release(&two).await.unwrap();
        assert!(net.permit("net2", LEASE, 3).await);
        assert!(net.permit("net3", LEASE, 3).await);
        assert!(!net.permit("net4", LEASE, 3).await);
        provider.release(&one).await.unwrap();
        net.release_permit("net2").await;
        net.release_permit("net3").await;
        server.raw.until_nothing_is_left().await;
    });
}

/// The head is served, and the next one stands before a permit that nobody hands over.
#[test]
fn the_next_head_looks_for_its_permits() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let others = (
            server.provider_with_long_lease().await,
            server.provider_with_long_lease().await,
        );
        let net = dotnet(&server);
        assert!(net.permit("net1", LEASE, 2).await);
        let held = enter(&provider, "order", permits(2, 1)).await;
        let (head, _) = entering(&others.0, "order", permits(2, 1), LONG);
        server.raw.until("LLEN {order}:lk1:permits", 1).await;
        let (next, _) = entering(&others.1, "order", permits(2, 1), LONG);
        server.raw.until("LLEN {order}:lk1:permits", 2).await;
        provider.release(&held).await.unwrap();
        let head = head.await.unwrap().unwrap();
        net.release_permit("net1").await;
        let freed = Instant::now();
        let next = next.await.unwrap().unwrap();
        assert!(freed.elapsed() < POLLED, "{:?}", freed.elapsed());
        others.0.release(&head).await.unwrap();
        others.1.release(&next).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}

/// The head knows of no holder but ours, when another one comes beside it.
#[test]
fn the_head_looks_for_a_permit_that_came_later() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let net = dotnet(&server);
        let held = enter(&provider, "order", permits(3, 1)).await;
        let (all, _) = entering(&other, "order", permits(3, 3), LONG);
        server.raw.until("LLEN {order}:lk1:permits", 1).await;
        assert!(net.permit("net1", LEASE, 3).await);
        provider.release(&held).await.unwrap();
        net.release_permit("net1").await;
        let freed = Instant::now();
        let all = all.await.unwrap().unwrap();
        assert!(freed.elapsed() < POLLED, "{:?}", freed.elapsed());
        other.release(&all).await.unwrap();
        server.raw.until_nothing_is_left().await;
    });
}
