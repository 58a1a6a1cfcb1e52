//! Fencing tokens grow, whatever the server forgets.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockProvider, PostgresProvider};
use lock_tests::postgres::PostgresOptions;
use lock_tests::{FaultProxy, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{
    BOUND, Server, connected, lock, probe, proxied, raw, raw_soon, take, through, token,
    with_server, with_server_of,
};

const LEASE: Duration = Duration::from_secs(60);

/// Returns options of a server that writes what nobody waits for so late that a crash forgets it.
fn forgetful() -> PostgresOptions {
    PostgresOptions::default().config("wal_writer_delay = 10s")
}

/// Takes the lock some times, and returns a transaction number then.
async fn take_some(server: &Server, provider: &Arc<PostgresProvider>, last: &mut u64) -> i64 {
    for _ in 0..20 {
        let next = token(&take(provider, "order").await);
        assert!(next > *last, "{next} after {last}");
        *last = next;
    }
    server
        .count("SELECT pg_current_xact_id()::text::int8")
        .await
}

#[test]
fn tokens_grow_over_processes_and_connections() {
    with_server(|server| async move {
        let (proxy, provider) = proxied(&server.process, LEASE).await;
        let mut probes = [0; 3].map(|_| probe(&server.process, LEASE, "order"));
        let mut last = 0;
        for _ in 0..3 {
            for probe in &mut probes {
                let answer = probe.ask("acquire", "acquired", BOUND).await;
                let next = answer[2].parse().unwrap();
                assert!(next > last, "{next} after {last}");
                last = next;
                probe.ask("release", "releasing", BOUND).await;
                probe.expect("released", BOUND).await;
            }
            let guard = take(&provider, "order").await;
            assert!(token(&guard) > last);
            last = token(&guard);
            proxy.reset();
            guard.lost().await;
        }
    });
}

/// All processes of the server start again then, but that does not count as a start of the server.
#[test]
fn tokens_grow_over_the_crash_of_one_process_of_the_server() {
    with_server_of(forgetful(), |mut server| async move {
        let provider = connected(server.builder().lease(LEASE)).await;
        let (mut last, mut forgot) = (0, 0);
        let started = server.count(STARTED).await;
        for _ in 0..4 {
            let before = take_some(&server, &provider, &mut last).await;
            let guard = take(&provider, "order").await;
            last = token(&guard);
            let victim = server.count("SELECT pg_backend_pid()::int8").await;
            let victim = Pid::from_raw(victim.try_into().unwrap()).unwrap();
            kill_process(victim, Signal::KILL).unwrap();
            tokio::time::timeout(BOUND, guard.lost())
                .await
                .expect("lost");
            server.raw = raw_soon(&server.process).await;
            let after = server
                .count("SELECT pg_current_xact_id()::text::int8")
                .await;
            forgot += i64::from(after <= before);
        }
        assert!(forgot > 0, "it gave transaction numbers again");
        assert_eq!(server.count(STARTED).await, started);
        assert!(token(&take(&provider, "order").await) > last);
    });
}

const STARTED: &str = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";

#[test]
fn tokens_grow_over_crashes_of_the_whole_server() {
    with_server_of(forgetful(), |mut server| async move {
        let provider = connected(server.builder().lease(LEASE)).await;
        let (mut last, mut forgot) = (0, 0);
        for _ in 0..3 {
            let before = take_some(&server, &provider, &mut last).await;
            let guard = take(&provider, "order").await;
            last = token(&guard);
            server.process.kill();
            tokio::time::timeout(BOUND, guard.lost())
                .await
                .expect("lost");
            server.process.start_again();
            server.raw = raw(&server.process).await;
            let after = server
                .count("SELECT pg_current_xact_id()::text::int8")
                .await;
            forgot += i64::from(after <= before);
        }
        assert!(forgot > 0, "it gave transaction numbers again");
        assert!(token(&take(&provider, "order").await) > last);
    });
}

/// The standby's start counts less than the primary's, and it has not seen the last transactions.
#[test]
fn tokens_grow_over_the_take_over_by_a_standby() {
    with_server_of(forgetful(), |mut server| async move {
        let standby = server.process.start_standby();
        server.process.kill();
        server.process.start_again();
        server.raw = raw(&server.process).await;
        let proxy = FaultProxy::start(server.process.port()).await;
        let provider = connected(through(&proxy).lease(LEASE)).await;
        let mut last = 0;
        take_some(&server, &provider, &mut last).await;

        let guard = take(&provider, "order").await;
        last = token(&guard);
        proxy.lead_to(standby.port());
        proxy.reset();
        guard.lost().await;
        let error = through(&proxy).connect().await.unwrap_err();
        assert!(error.to_string().contains("standby"), "{error}");

        let primary_started = server.count(STARTED).await;
        server.process.kill();
        standby.psql("postgres", "SELECT pg_promote()").unwrap();
        let standby = raw(&standby).await;
        let standby_started: i64 = standby.query_one(STARTED, &[]).await.unwrap().get(0);
        assert!(standby_started < primary_started);
        eventually("it takes locks again", BOUND, || async {
            lock(&provider, "other").try_acquire().await.is_ok()
        })
        .await;
        assert!(token(&take(&provider, "order").await) > last);
    });
}

/// Version 14 does not tell when it forgets transaction numbers. Only its word that it is of that
/// version is played here; all else is this server's.
#[test]
fn version_14_gives_no_tokens() {
    with_server(|server| async move {
        let holder = server.provider().await;
        assert!(holder.capabilities().fencing_tokens);
        let port = ages(server.process.port()).await;
        let url = format!("postgres://app@127.0.0.1:{port}/postgres");
        let provider = connected(PostgresProvider::builder(url)).await;
        assert!(!provider.capabilities().fencing_tokens);
        let guard = take(&provider, "order").await;
        assert!(guard.fencing_token().is_none());
        let tried = lock(&provider, "order").try_acquire().await.unwrap();
        assert!(tried.is_none());
        guard.release().await.unwrap();

        let held = take(&holder, "order").await;
        let waiting = tokio::spawn(async move { take(&provider, "order").await });
        server.until_waiting(1).await;
        held.release().await.unwrap();
        let guard = waiting.await.unwrap();
        assert!(guard.fencing_token().is_none());
        guard.release().await.unwrap();
    });
}

/// Starts a proxy that passes on everything but the server's version, which becomes 14.
async fn ages(server: u16) -> u16 {
    const VERSION: &[u8] = b"server_version\0";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut bytes = [0; 16 * 1024];
                while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                    let bytes = &mut bytes[..read];
                    let said = bytes
                        .windows(VERSION.len())
                        .position(|word| word == VERSION);
                    if let Some(said) = said {
                        bytes[said + VERSION.len()..][..2].copy_from_slice(b"14");
                    }
                    if to_client.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// Somebody resets the server's statistics, whose time tells of a crash.
#[test]
fn tokens_grow_over_a_reset_of_statistics() {
    with_server(|server| async move {
        let early = server.provider().await;
        let mut last = token(&take(&early, "order").await);
        let was_reset = "SELECT (extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()) \
                         * 1000000)::int8";
        for _ in 0..3 {
            let before = server.count(was_reset).await;
            let reset = "SELECT pg_stat_reset_shared('bgwriter')";
            server.raw.batch_execute(reset).await.unwrap();
            assert!(server.count(was_reset).await > before);
            let late = server.provider().await;
            for provider in [&late, &early] {
                let next = token(&take(provider, "order").await);
                assert!(next > last, "{next} after {last}");
                last = next;
            }
        }
    });
}
