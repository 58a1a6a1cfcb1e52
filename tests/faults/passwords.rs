//! A password that changes while locks are held.

use std::time::Duration;

use lock_runtime::{LockErrorKind, RedisProvider};
use lock_tests::redis::RedisOptions;

use crate::common::{BOUND, DEADLINE, Server, connected, lock, take};
use crate::server_stats::{calls, until_lost_and_gone};

#[test]
fn a_changed_password_is_a_loss_when_the_connection_ends_and_no_storm() {
    lock_tests::run(DEADLINE, async {
        let options = RedisOptions::default()
            .acl("user default on nopass ~* &* +@all")
            .acl("user app on >first ~* &* +@all");
        let Some(server) = options.start() else {
            return;
        };
        let server = Server::of(server).await;
        let url = format!("redis://app:first@127.0.0.1:{}", server.process.port());
        let lease = Duration::from_secs(3);
        let provider = connected(RedisProvider::builder(url).lease(lease)).await;
        let guard = take(&provider, "order").await;
        server
            .raw
            .ask::<String>("ACL SETUSER app resetpass >second")
            .await;
        // Who is connected stays so.
        let renewed = calls(&server.raw, "pexpire").await;
        lock_tests::eventually("it is renewed", BOUND, || async {
            calls(&server.raw, "pexpire").await > renewed
        })
        .await;
        let received = server.raw.info("total_connections_received").await;
        let killed: u64 = server.raw.ask("CLIENT KILL USER app").await;
        assert_eq!(killed, 1);
        until_lost_and_gone(&guard, &server.raw, "order", BOUND).await;
        for _ in 0..20 {
            let error = lock(&provider, "order")
                .acquire_for(BOUND)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            assert!(!error.to_string().contains("first"), "{error}");
        }
        let attempts = server.raw.info("total_connections_received").await - received;
        assert!((1..=3).contains(&attempts), "{attempts} attempts");
    });
}
