//! A client of another kind on the same key, as anybody can write it with `redis-cli`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lock_tests::history::Held;
use lock_tests::{History, Probe, Scratch, boot_nanos, skip};

use crate::common::with_server;

const BOUND: Duration = Duration::from_secs(50);
const TURNS: usize = 6;
const ROUNDS: usize = 15;
const FOREIGN_ROUNDS: usize = 3;
/// The script for a release that Redis's documentation shows.
const COMPARE_AND_DELETE: &str = "if redis.call('get',KEYS[1]) == ARGV[1] then \
    return redis.call('del',KEYS[1]) else return 0 end";

/// The foreign client. It takes the lock, counts, and gives the lock back.
struct Foreigner {
    program: PathBuf,
    port: u16,
    refused: usize,
}

impl Foreigner {
    fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        let port = self.port.to_string();
        let output = command.args(["-p", &port]).args(arguments).output();
        let output = output.expect("the client runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn work(&mut self, turn: usize, file: &Path, history: &History) {
        for round in 0..FOREIGN_ROUNDS {
            let owner = format!("foreigner-{turn}-{round}");
            while self.ask(&["SET", "order", &owner, "NX", "PX", "60000"]) != "OK" {
                self.refused += 1;
            }
            let from = boot_nanos();
            let number: usize = std::fs::read_to_string(file).unwrap().parse().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            std::fs::write(file, (number + 1).to_string()).unwrap();
            let until = boot_nanos();
            let deleted = self.ask(&["EVAL", COMPARE_AND_DELETE, "1", "order", &owner]);
            assert_eq!(deleted, "1", "it was its own to the end");
            history.record(Held {
                name: "order".to_owned(),
                holder: "foreigner".to_owned(),
                from,
                until,
                token: None,
            });
        }
    }
}

#[test]
fn two_programs_of_ours_and_redis_cli_never_overlap() {
    with_server(|server| async move {
        let programs = ["redis-cli", "valkey-cli"];
        let Some(program) = skip::find_server("redis", "LOCK_TESTS_REDIS_CLI", &programs) else {
            return;
        };
        let mut foreigner = Foreigner {
            program,
            port: server.process.port(),
            refused: 0,
        };
        let scratch = Scratch::new();
        let file = scratch.join("number");
        std::fs::write(&file, "0").unwrap();
        let history = std::sync::Arc::new(History::default());
        let url = server.process.url();
        let mut ours = [(); 2]
            .map(|()| Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), &url, "order"));
        for turn in 0..TURNS {
            // In every other turn the foreigner holds it when the others come.
            let work = format!("work {ROUNDS} {}", file.display());
            if turn % 2 == 0 {
                ours.iter_mut().for_each(|probe| probe.tell(&work));
            }
            let foreign = {
                let (file, history) = (file.clone(), history.clone());
                tokio::task::spawn_blocking(move || {
                    foreigner.work(turn, &file, &history);
                    foreigner
                })
            };
            if turn % 2 == 1 {
                lock_tests::eventually("somebody holds it", BOUND, || async {
                    server.raw.get("order").await.is_some()
                })
                .await;
                ours.iter_mut().for_each(|probe| probe.tell(&work));
            }
            for probe in &mut ours {
                for held in probe.finish_work(BOUND).await {
                    history.record(held);
                }
            }
            foreigner = foreign.await.unwrap();
        }
        history.check();
        let all = TURNS * (2 * ROUNDS + FOREIGN_ROUNDS);
        assert_eq!(history.len(), all);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), all.to_string());
        assert!(foreigner.refused > 0, "the foreigner was kept out");
        let changes = history.changes_of_holder();
        assert!(changes > 2 * TURNS, "{changes} changes of the holder");
    });
}
