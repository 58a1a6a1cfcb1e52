//! A holder that does not run: stopped by a signal, for longer than its lease.

use std::path::Path;
use std::time::{Duration, Instant};

use lock_tests::history::Held;
use lock_tests::{FencedRegister, History, Probe, boot_nanos};

use crate::common::{BOUND, connected, take, with_server};

#[test]
fn a_holder_frozen_for_three_leases_knows_it_and_is_fenced_off() {
    with_server(|server| async move {
        let lease = Duration::from_secs(1);
        let url = format!("{}?lease=1s", server.process.url());
        let register = FencedRegister::default();
        let history = History::default();
        let mut frozen = Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), &url, "order");
        let other = connected(server.builder().lease(lease)).await;

        let answer = frozen.ask("acquire", "acquired", BOUND).await;
        let stale: u64 = answer[2].parse().unwrap();
        assert!(register.write("order", stale));
        let valid = frozen.ask("is-lost", "valid", BOUND).await;
        frozen.freeze();
        let stopped = Instant::now();
        history.record(Held {
            name: "order".to_owned(),
            holder: "frozen".to_owned(),
            from: answer[1].parse().unwrap(),
            until: valid[1].parse().unwrap(),
            token: Some(stale),
        });

        // Meanwhile others hold it, one after another.
        while stopped.elapsed() < lease * 3 {
            let guard = take(&other, "order").await;
            let from = boot_nanos();
            let token = guard.fencing_token().expect("a token").get();
            assert!(register.write("order", token));
            tokio::time::sleep(Duration::from_millis(20)).await;
            let until = boot_nanos();
            assert!(!guard.is_lost());
            let holder = "other".to_owned();
            guard.release().await.unwrap();
            let name = "order".to_owned();
            let token = Some(token);
            history.record(Held {
                name,
                holder,
                from,
                until,
                token,
            });
        }
        let last = take(&other, "order").await;

        frozen.thaw();
        frozen.ask("is-lost", "lost", BOUND).await;
        assert!(
            !register.write("order", stale),
            "the stale write is refused"
        );
        frozen.ask("release", "releasing", BOUND).await;
        let answer = frozen.expect("failed", BOUND).await;
        assert_eq!(answer[1], "Lost");
        assert!(!last.is_lost());
        assert!(server.raw.get("order").await.is_some(), "nor taken away");
        last.release().await.unwrap();
        history.check();
        assert!(history.len() > 2 && history.changes_of_holder() == 1);
        assert_eq!(register.refused(), 1);
    });
}
