//! Fencing tokens grow, whichever client asks and whatever happens in between.

use std::path::Path;
use std::time::Duration;

use lock_tests::{FaultProxy, Probe, ZooKeeperServer};

use crate::common::{BOUND, DEADLINE, Place, break_off};
use crate::session_takeover::close_session;

const LEASE: Duration = Duration::from_secs(30);
const PROCESSES: usize = 3;

async fn start(place: &Place) -> (FaultProxy, Probe) {
    let proxy = FaultProxy::start(place.port).await;
    let url = place.url(&proxy.port().to_string(), LEASE);
    let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
    (proxy, Probe::start(program, &url, "order"))
}

#[test]
fn tokens_grow_over_processes_connections_sessions_and_restarts() {
    lock_tests::run(DEADLINE, async {
        let Some(mut server) = ZooKeeperServer::start() else {
            return;
        };
        let place = Place::on(server.port()).await;
        let mut processes = Vec::new();
        for _ in 0..PROCESSES {
            processes.push(start(&place).await);
        }
        let mut tokens: Vec<u64> = Vec::new();
        for round in 0..6 * PROCESSES {
            let (proxy, probe) = &mut processes[round % PROCESSES];
            let answer = probe.ask("acquire", "acquired", BOUND).await;
            tokens.push(answer[2].parse().unwrap());
            if round == 4 {
                break_off(proxy).await;
            }
            if round == 7 {
                let children = place.children("order").await;
                let session = place.session_of("order", &children[0]).await;
                close_session(place.port, session);
                probe.ask("watch", "lost", BOUND).await;
                probe.tell("release");
                probe.expect("releasing", BOUND).await;
                probe.expect("failed", BOUND).await;
                continue;
            }
            if round == 10 {
                server.kill();
                server.start_again();
            }
            probe.ask("release", "releasing", BOUND).await;
            probe.expect("released", BOUND).await;
            // The lock's node is removed each time, and its children count from zero again.
            place.until_gone("order").await;
            if round == 13 {
                processes[round % PROCESSES] = start(&place).await;
            }
        }
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
        assert_eq!(tokens.len(), 6 * PROCESSES);
    });
}
