//! Holders that have a new connection: the server that they find, and what became of their locks.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{LockErrorKind, LockGuard, RedisProvider};
use lock_tests::eventually;
use lock_tests::proxy::Flow;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{BOUND, connected, lock, take, with_server};
use crate::network::{builder_behind, count, proxy_of};
use crate::server_stats::{calls, life};
use crate::servers::{Servers, with_servers};

/// A lease so long that no renewal is due while a test runs.
const LEASE: Duration = Duration::from_secs(600);
/// A bound far below the third of a lease after which a renewal is due, and above what a busy
/// machine needs.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn told_at_once(guard: &LockGuard, since: Instant) {
    let told = tokio::time::timeout(BOUND, guard.lost()).await;
    assert!(told.is_ok() && guard.is_lost(), "the holder is not told");
    let after = since.elapsed();
    assert!(after < AT_ONCE, "told after {after:?}");
}

#[test]
fn holders_learn_at_once_that_a_restart_has_lost_their_locks() {
    with_server(|mut server| async move {
        let provider = connected(server.builder().lease(LEASE)).await;
        let mut guards = Vec::new();
        for number in 0..300 {
            guards.push(take(&provider, &format!("order{number}")).await);
        }
        let short = connected(server.builder()).await;
        guards.push(take(&short, "short").await);
        server.process.restart_empty();
        let restarted = Instant::now();
        for guard in &guards {
            told_at_once(guard, restarted).await;
        }
    });
}

/// The address leads to a server that missed the last writes, and nobody asks anything.
#[test]
fn holders_learn_at_once_that_a_failover_has_lost_their_locks() {
    with_servers(|mut servers| async move {
        servers
            .replication
            .set(|fault| fault.to_client = Flow::Swallow);
        let holder = connected(servers.client(&servers.holders).lease(LEASE)).await;
        let guard = take(&holder, "order").await;
        eventually("the last writes vanish", BOUND, || async {
            servers.replication.swallowed() > 0
        })
        .await;
        servers.new.raw.ask::<String>("REPLICAOF NO ONE").await;
        servers.holders.lead_to(servers.new.process.port());
        servers.old.process.kill();
        told_at_once(&guard, Instant::now()).await;
    });
}

#[test]
fn locks_that_a_failover_has_kept_are_renewed_at_once() {
    with_servers(|servers| async move {
        let Servers { old, new, .. } = &servers;
        let holder = connected(servers.client(&servers.holders).lease(LEASE)).await;
        let guard = take(&holder, "order").await;
        eventually("the new server knows it", BOUND, || async {
            new.raw.get("order").await.is_some()
        })
        .await;
        // As if much of the lease had passed.
        new.raw.ask::<String>("REPLICAOF NO ONE").await;
        new.raw.ask::<u8>("PEXPIRE order 60000").await;
        servers.holders.lead_to(new.process.port());
        let killed = old.raw.ask::<u64>("CLIENT KILL TYPE pubsub").await;
        assert_eq!(killed, 1);
        eventually("it is renewed", AT_ONCE, || async {
            life(&new.raw, "order").await > 60_000
        })
        .await;
        assert!(!guard.is_lost());
        guard.release().await.unwrap();
        assert_eq!(new.raw.get("order").await, None);
    });
}

/// A connection is made anew also where only a lock that is held wants one, and not where nothing
/// does.
#[test]
fn a_broken_connection_is_made_anew_for_whoever_holds_a_lock() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let provider = connected(builder_behind(&proxy).lease(LEASE)).await;
        let guard = take(&provider, "order").await;
        let connections = count(&proxy.counts().connections);
        let renewed = calls(&server.raw, "pexpire").await;
        proxy.reset();
        eventually("it is renewed over another one", AT_ONCE, || async {
            calls(&server.raw, "pexpire").await > renewed
        })
        .await;
        assert_eq!(count(&proxy.counts().connections), connections + 1);
        guard.release().await.unwrap();
        proxy.reset();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(count(&proxy.counts().connections), connections + 1);
        take(&provider, "order").await.release().await.unwrap();
    });
}

/// Stands before a server, takes connections, and closes each that asks for the lock `order`.
/// Returns its port, and counts the connections.
async fn closes_when_asked(server: u16, connections: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let to = (Ipv4Addr::LOCALHOST, server);
                let mut server = TcpStream::connect(to).await.unwrap();
                let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
                loop {
                    tokio::select! {
                        Ok(length @ 1..) = client.read(&mut from_client) => {
                            let asked = &from_client[..length];
                            if asked.windows(5).any(|part| part == b"order") {
                                return;
                            }
                            server.write_all(asked).await.unwrap();
                        }
                        Ok(length @ 1..) = server.read(&mut from_server) => {
                            let _ = client.write_all(&from_server[..length]).await;
                        }
                        else => return,
                    }
                }
            });
        }
    });
    port
}

#[test]
fn connections_that_break_when_they_are_used_are_no_storm() {
    with_server(|server| async move {
        let connections = Arc::new(AtomicU64::new(0));
        let port = closes_when_asked(server.process.port(), connections.clone()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{port}"));
        let provider = connected(builder).await;
        take(&provider, "other").await.release().await.unwrap();
        let before = count(&connections);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            let error = lock(&provider, "order").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        }
        let made = count(&connections) - before;
        assert!((2..20).contains(&made), "{made} connections in a second");
    });
}

/// The connections break in the same way while others use them for something else.
#[test]
fn connections_that_one_lock_breaks_and_others_use_are_no_storm() {
    with_server(|server| async move {
        let connections = Arc::new(AtomicU64::new(0));
        let port = closes_when_asked(server.process.port(), connections.clone()).await;
        let builder = RedisProvider::builder(format!("redis://127.0.0.1:{port}"));
        let provider = connected(builder).await;
        let before = count(&connections);
        let waiter = lock(&provider, "order");
        let waiting = tokio::spawn(async move { waiter.acquire_for(AT_ONCE / 2).await });
        while !waiting.is_finished() {
            // Its connection may be broken too, and more than once.
            if let Ok(Some(guard)) = lock(&provider, "other").try_acquire().await {
                let _ = guard.release().await;
            }
        }
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        let made = count(&connections) - before;
        assert!((2..30).contains(&made), "{made} connections");
        take(&provider, "other").await.release().await.unwrap();
    });
}
