//! A holder that is stopped by a signal for longer than its lease.

use std::path::Path;
use std::time::Duration;

use lock_tests::Probe;
use lock_tests::frozen::outlived;

use crate::common::{BOUND, connected, take, with_server};

#[test]
fn a_holder_frozen_for_three_leases_knows_it_and_is_fenced_off() {
    with_server(|server| async move {
        let lease = Duration::from_secs(1);
        let url = format!("{}?lease=1s", server.process.url());
        let frozen = Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), &url, "order");
        let other = connected(server.builder().lease(lease)).await;
        let last = outlived(frozen, lease, BOUND, || take(&other, "order")).await;
        assert!(server.raw.get("order").await.is_some(), "nor taken away");
        last.release().await.unwrap();
    });
}
