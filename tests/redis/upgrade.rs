//! Readers who may become the writer: what stands on the server, what is left of those who crash or
//! are not answered, and the .NET library beside them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{
    DistributedRwLock, Grant, LockErrorKind, LockKind, LockMode, LockProvider, RedisProvider,
};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, eventually, poll_once};

use crate::common::{BOUND, LONG, Server, connected, enter, request, try_enter, with_server};
use crate::dotnet::DotNet;

const UPGRADER: &str = "{order}:lk1:upgrader";
const READERS: &str = "SCARD order.readers";

fn rw(provider: &Arc<RedisProvider>) -> DistributedRwLock {
    DistributedRwLock::on(provider.clone(), "order")
}

async fn keys(server: &Server) -> Vec<String> {
    let mut keys: Vec<String> = server.raw.ask("KEYS *").await;
    keys.sort();
    keys
}

async fn until_marked(server: &Server) -> String {
    eventually("the upgrade waits", BOUND, || async {
        let mark = server.raw.get("order.writer").await;
        mark.is_some_and(|mark| mark.ends_with("_UPGRADEWAITING"))
    })
    .await;
    server.raw.get("order.writer").await.expect("a mark")
}

fn dotnet(server: &Server) -> DotNet {
    DotNet::new(server.raw.connection(), "order")
}

fn token(grant: &Grant) -> u64 {
    grant.token().expect("a token").get()
}

#[test]
fn what_stands_on_the_server() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let plain = enter(&other, "order", LockMode::Read).await;
        let may = enter(&provider, "order", LockMode::Upgradeable).await;
        assert!(token(&plain) < token(&may));
        let expected = [
            "lk1:fence",
            "order.readers",
            "{order}:lk1:readers",
            UPGRADER,
        ];
        assert_eq!(keys(&server).await, expected);
        assert_eq!(server.raw.count(READERS).await, 2);
        for key in keys(&server).await {
            assert!(server.raw.count(&format!("PTTL {key}")).await > 0, "{key}");
        }
        let value = server.raw.get(UPGRADER).await.expect("its owner");
        let (owner, rest) = value.split_once('|').expect("a number");
        assert_eq!(rest, "0||");
        let refused = try_enter(&other, "order", LockMode::Upgradeable).await;
        assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Contended);
        // One that does not wait leaves nothing.
        let ask = request("order", LockMode::Write, LONG, false).0;
        let refused = provider.upgrade(&may, &ask).await.unwrap_err();
        assert_eq!(refused.kind(), LockErrorKind::Contended, "{refused}");
        assert_eq!(keys(&server).await, expected);
        let (asking, _) = upgrading(&provider, may);
        let mark = until_marked(&server).await;
        let writer = mark.strip_suffix("_UPGRADEWAITING").expect("a mark");
        let value = server.raw.get(UPGRADER).await.expect("its owner");
        let parts: Vec<_> = value.split('|').collect();
        assert_eq!((parts[0], parts[2]), (owner, writer));
        let told = provider.inspect(&"order".into(), LockKind::RwLock).await;
        let told = told.unwrap();
        let mut modes: Vec<_> = told
            .holders()
            .iter()
            .map(lock_runtime::Holder::mode)
            .collect();
        modes.sort_by_key(|mode| format!("{mode:?}"));
        assert_eq!(modes, [Some(LockMode::Read), Some(LockMode::Upgradeable)]);
        other.release(&plain).await.unwrap();
        let writes = asking.await.unwrap().1.unwrap();
        assert_eq!(writes.mode(), LockMode::Write);
        assert_eq!(
            server.raw.get("order.writer").await.as_deref(),
            Some(writer)
        );
        assert_eq!(keys(&server).await, ["lk1:fence", "order.writer"]);
        provider.release(&writes).await.unwrap();
        assert_eq!(keys(&server).await, ["lk1:fence"]);
    });
}

type Upgraded = (Grant, Result<Grant, lock_runtime::LockError>);

/// Asks for an upgrade in a task, and returns the grant of the reader too.
fn upgrading(
    provider: &Arc<RedisProvider>,
    may: Grant,
) -> (tokio::task::JoinHandle<Upgraded>, lock_runtime::Interest) {
    upgrading_for(provider, may, LONG)
}

fn upgrading_for(
    provider: &Arc<RedisProvider>,
    may: Grant,
    lease: Duration,
) -> (tokio::task::JoinHandle<Upgraded>, lock_runtime::Interest) {
    let (ask, interest) = request("order", LockMode::Write, lease, true);
    let provider = provider.clone();
    let asking = tokio::spawn(async move {
        let answer = provider.upgrade(&may, &ask).await;
        (may, answer)
    });
    (asking, interest)
}

#[test]
fn an_upgrade_is_pushed_when_the_last_reader_leaves() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        for crowd in [1, 3] {
            let mut plain = Vec::new();
            for _ in 0..crowd {
                plain.push(enter(&other, "order", LockMode::Read).await);
            }
            let may = enter(&provider, "order", LockMode::Upgradeable).await;
            let (asking, _) = upgrading(&provider, may);
            until_marked(&server).await;
            for grant in plain {
                other.release(&grant).await.unwrap();
            }
            let began = Instant::now();
            let writes = asking.await.unwrap().1.unwrap();
            // The lease is ten minutes, of which a waiter without a word looks after ten seconds.
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{:?}",
                began.elapsed()
            );
            provider.release(&writes).await.unwrap();
        }
    });
}

#[test]
fn an_upgrade_that_is_abandoned_leaves_the_reader_what_it_was() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let plain = enter(&other, "order", LockMode::Read).await;
        let may = enter(&provider, "order", LockMode::Upgradeable).await;
        let (asking, interest) = upgrading(&provider, may);
        until_marked(&server).await;
        let refused = try_enter(&other, "order", LockMode::Read).await;
        assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Contended);
        interest.abandon();
        let (may, answer) = asking.await.unwrap();
        assert_eq!(answer.unwrap_err().kind(), LockErrorKind::Contended);
        assert_eq!(server.raw.get("order.writer").await, None);
        assert_eq!(server.raw.count(READERS).await, 2);
        provider.renew(&may).await.unwrap();
        let more = try_enter(&other, "order", LockMode::Read).await.unwrap();
        let (asking, _) = upgrading(&provider, may);
        until_marked(&server).await;
        other.release(&plain).await.unwrap();
        other.release(&more).await.unwrap();
        let writes = asking.await.unwrap().1.unwrap();
        provider.release(&writes).await.unwrap();
        assert_eq!(keys(&server).await, ["lk1:fence"]);
    });
}

/// A waiting writer's mark is replaced, and comes back when the upgrade is over.
#[test]
fn an_upgrade_takes_the_place_of_a_writer_that_waits() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let plain = enter(&other, "order", LockMode::Read).await;
        let may = enter(&provider, "order", LockMode::Upgradeable).await;
        let writing = {
            let lock = rw(&other);
            tokio::spawn(async move { lock.write().await.unwrap().release().await })
        };
        server.raw.until("LLEN {order}:lk1:rw", 1).await;
        let mark = server.raw.get("order.writer").await.expect("a mark");
        assert!(mark.ends_with("_WRITERWAITING"), "{mark}");
        let (asking, interest) = upgrading(&provider, may);
        until_marked(&server).await;
        interest.abandon();
        let (may, _) = asking.await.unwrap();
        assert_eq!(server.raw.get("order.writer").await, Some(mark));
        let (asking, _) = upgrading(&provider, may);
        until_marked(&server).await;
        other.release(&plain).await.unwrap();
        let writes = asking.await.unwrap().1.unwrap();
        assert!(!writing.is_finished());
        provider.release(&writes).await.unwrap();
        writing.await.unwrap().unwrap();
    });
}

#[test]
fn a_crashed_reader_that_could_upgrade_costs_one_lease() {
    with_server(|server| async move {
        let lease = Duration::from_millis(1_500);
        let provider = connected(server.builder().lease(lease)).await;
        let other = connected(server.builder().lease(lease)).await;
        for upgrades in [false, true] {
            let began = Instant::now();
            let (ask, _interest) = request("order", LockMode::Upgradeable, lease, true);
            let may = provider.acquire(&ask).await.unwrap();
            // It crashes, with somebody else reading, and while it waits to become the writer.
            let plain = rw(&other).read().await.unwrap();
            let asking = upgrades.then(|| upgrading_for(&provider, may, lease).0);
            if upgrades {
                until_marked(&server).await;
                asking.expect("it asks").abort();
            }
            let next = rw(&other).upgradeable_read_for(BOUND).await.unwrap();
            let took = began.elapsed();
            assert!(took < 2 * lease + Duration::from_secs(1), "{took:?}");
            drop(plain);
            let writes = next.upgrade_for(BOUND).await.unwrap();
            writes.release().await.unwrap();
            eventually("nothing is left", BOUND, || async {
                keys(&server).await == ["lk1:fence"]
            })
            .await;
        }
    });
}

#[test]
fn both_keys_are_renewed_and_one_missing_is_a_loss() {
    with_server(|server| async move {
        let lease = Duration::from_secs(3);
        let provider = connected(server.builder().lease(lease)).await;
        let ask = request("order", LockMode::Upgradeable, lease, false).0;
        let may = provider.acquire(&ask).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let left = server.raw.count(&format!("PTTL {UPGRADER}")).await;
        provider.renew(&may).await.unwrap();
        let renewed = server.raw.count(&format!("PTTL {UPGRADER}")).await;
        assert!(renewed > left, "{left} {renewed}");
        let readers = server.raw.count("PTTL order.readers").await;
        assert!(readers > left, "{left} {readers}");
        let _: u8 = server.raw.ask(&format!("DEL {UPGRADER}")).await;
        let error = provider.renew(&may).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        assert_eq!(server.raw.count(READERS).await, 0, "the rest is gone too");
        let ask = request("order", LockMode::Write, lease, true).0;
        let error = provider.upgrade(&may, &ask).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        assert_eq!(keys(&server).await, ["lk1:fence"]);
    });
}

#[test]
fn dotnet_is_excluded_and_excludes() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let net = dotnet(&server);
        assert!(net.write("net1", 60_000).await);
        let refused = try_enter(&provider, "order", LockMode::Upgradeable).await;
        assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Contended);
        net.release_write("net1").await;
        assert!(net.read("net1", 60_000).await);
        let may = rw(&provider).upgradeable_read().await.unwrap();
        assert!(!net.write("net2", 60_000).await, "two read");
        assert!(net.read("net3", 60_000).await);
        // Its writer waits, with its mark.
        assert!(net.mark("net4", 60_000).await);
        let mut upgrade = Box::pin(may.upgrade());
        assert!(poll_once(upgrade.as_mut()).await.is_none());
        until_marked(&server).await;
        assert!(!net.read("net5", 60_000).await, "an upgrade waits");
        assert!(!net.write("net4", 60_000).await, "two read");
        net.release_read("net1").await;
        net.release_read("net3").await;
        assert!(!net.write("net4", 60_000).await, "the upgrade comes first");
        // Nobody tells of a foreign reader that leaves.
        let writes = tokio::time::timeout(Duration::from_secs(5), upgrade).await;
        let writes = writes.expect("it looks by itself").unwrap();
        assert!(!net.read("net5", 60_000).await, "it writes");
        assert!(!net.write("net4", 60_000).await, "it writes");
        writes.release().await.unwrap();
        assert!(net.write("net4", 60_000).await);
    });
}

/// The answer that says so is lost, and the second request finds that it is the writer already.
#[test]
fn a_lost_answer_to_an_upgrade_is_asked_for_again() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let provider = connected(RedisProvider::builder(url).lease(Duration::from_secs(60))).await;
        let lock = rw(&provider);
        // The server knows the script from now on.
        let may = lock.upgradeable_read().await.unwrap();
        drop(may.upgrade().await.unwrap());
        let may = lock.upgradeable_read().await.unwrap();
        proxy.set(|fault| fault.to_client = Flow::Swallow);
        let upgrade = tokio::spawn(may.upgrade());
        eventually("the server has done it", BOUND, || async {
            let writer = server.raw.get("order.writer").await;
            writer.is_some_and(|writer| !writer.ends_with("WAITING"))
        })
        .await;
        proxy.heal();
        proxy.reset();
        let writes = upgrade.await.unwrap().unwrap();
        assert!(!writes.is_lost());
        writes.release().await.unwrap();
        eventually("nothing is left", BOUND, || async {
            keys(&server).await == ["lk1:fence"]
        })
        .await;
    });
}

/// The caller has given up when the server's answer would have said that it is the writer.
#[test]
fn an_upgrade_that_was_made_unheard_is_undone() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let provider = connected(RedisProvider::builder(url).lease(Duration::from_secs(60))).await;
        let lock = rw(&provider);
        // The server knows the script from now on.
        let may = lock.upgradeable_read().await.unwrap();
        drop(may.upgrade().await.unwrap());
        let may = lock.upgradeable_read().await.unwrap();
        proxy.set(|fault| fault.to_client = Flow::Swallow);
        let failed = may
            .upgrade_for(Duration::from_millis(400))
            .await
            .unwrap_err();
        assert_eq!(
            failed.kind(),
            LockErrorKind::ProviderUnavailable,
            "{failed}"
        );
        let may = failed.into_guard().expect("as far as is known");
        let writer = server.raw.get("order.writer").await.expect("it writes");
        assert!(!writer.ends_with("WAITING"), "{writer}");
        proxy.heal();
        proxy.reset();
        eventually("it is a reader again", BOUND, || async {
            server.raw.get("order.writer").await.is_none() && server.raw.count(READERS).await == 1
        })
        .await;
        let other = server.provider_with_long_lease().await;
        let beside = rw(&other).read_for(BOUND).await.expect("nobody writes");
        assert!(!may.is_lost());
        drop(beside);
        let writes = eventually_upgraded(may).await;
        writes.release().await.unwrap();
    });
}

/// Upgrades as soon as the upgrade before is known to be taken back.
async fn eventually_upgraded(
    mut may: lock_runtime::RwLockUpgradeableReadGuard,
) -> lock_runtime::RwLockWriteGuard {
    let began = Instant::now();
    loop {
        match may.upgrade_for(BOUND).await {
            Ok(writes) => return writes,
            Err(failed) => {
                assert!(began.elapsed() < BOUND, "{failed}");
                may = failed.into_guard().expect("still a reader");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Its request comes to the server when it has been taken back.
#[test]
fn a_late_request_does_not_begin_an_upgrade_again() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let plain = enter(&other, "order", LockMode::Read).await;
        let may = enter(&provider, "order", LockMode::Upgradeable).await;
        let (asking, interest) = upgrading(&provider, may);
        let mark = until_marked(&server).await;
        let value = server.raw.get(UPGRADER).await.expect("its owner");
        let number = value.split('|').nth(1).expect("a number").to_owned();
        interest.abandon();
        let (may, _) = asking.await.unwrap();
        let value = server.raw.get(UPGRADER).await.expect("its owner");
        let over: u64 = value.split('|').nth(1).unwrap().parse().unwrap();
        assert!(over > number.parse().unwrap());
        // The same request once more, by another connection.
        let writer = mark.strip_suffix("_UPGRADEWAITING").unwrap();
        let owner = value.split('|').next().unwrap();
        let names = [
            "order.writer",
            "{order}:lk1:rw",
            "lk1:fence",
            "order.readers",
            "{order}:lk1:readers",
            UPGRADER,
        ];
        let names = names.map(str::to_owned);
        let args = [writer, "60000", "1", "lk1:grants:x", owner, number.as_str()];
        let scripts = crate::interleavings::scripts::Scripts::real();
        let answer = scripts
            .run(&server.raw.connection(), "UPGRADE", &names, &args)
            .await;
        assert_eq!(answer, redis::Value::Int(0));
        assert_eq!(server.raw.get("order.writer").await, None);
        provider.renew(&may).await.unwrap();
        other.release(&plain).await.unwrap();
        provider.release(&may).await.unwrap();
        assert_eq!(keys(&server).await, ["lk1:fence"]);
    });
}
