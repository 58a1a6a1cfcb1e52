//! A program in another language, with another client, that makes the .NET library's nodes. Each
//! side checks in a directory, which knows nothing of locks, that it may be where it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockMode, LockProvider, ZooKeeperProvider};
use lock_tests::any_lock::permits;
use lock_tests::child::ChildProcess;
use lock_tests::{Scratch, eventually, skip, unique};
use tokio::task::JoinSet;

use crate::common::{BOUND, Place, enter, with_server};

const WITNESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/zookeeper/foreign/witness.py");
const ROUNDS: u32 = 60;

/// Finds a Python that has kazoo. `None` where there is none, see [`skip`]. The one of the system
/// comes first, since Debian's package is for that one.
fn python() -> Option<PathBuf> {
    let of_the_system = ["/usr/bin/python3", "python3"].map(PathBuf::from);
    let candidates = match std::env::var_os("LOCK_TESTS_PYTHON") {
        Some(named) => vec![PathBuf::from(named)],
        None => of_the_system.to_vec(),
    };
    let has_kazoo = |python: &PathBuf| {
        let mut imports = Command::new(python);
        imports.args(["-c", "import kazoo"]).stderr(Stdio::null());
        imports.status().is_ok_and(|status| status.success())
    };
    let found = candidates.into_iter().find(has_kazoo);
    if found.is_none() {
        let why = "no Python has the package `kazoo`";
        assert!(!skip::is_required("kazoo"), "{why}, and it is asked for");
        skip::because(why);
    }
    found
}

/// What one side of a test does.
#[derive(Clone, Copy)]
struct Part {
    mode: LockMode,
    kind: &'static str,
    limit: u32,
}

const READS: Part = part(LockMode::Read, "read", 1);
const WRITES: Part = part(LockMode::Write, "write", 1);

const fn part(mode: LockMode, kind: &'static str, limit: u32) -> Part {
    Part { mode, kind, limit }
}

fn of_permits(take: u32, limit: u32) -> Part {
    part(permits(take, limit), "semaphore", limit)
}

impl Part {
    fn of_another_program(
        self,
        python: &Path,
        place: &Place,
        name: &str,
        directory: &Path,
        log: &Path,
    ) -> ChildProcess {
        let mut command = Command::new(python);
        command
            .arg(WITNESS)
            .arg(format!("127.0.0.1:{}", place.port));
        command.arg(place.node(name)).arg(self.kind);
        command.args([self.limit.to_string(), ROUNDS.to_string()]);
        command.arg(directory);
        ChildProcess::spawn(command, log).expect("it starts")
    }

    async fn of_ours(self, provider: Arc<ZooKeeperProvider>, name: String, directory: PathBuf) {
        for _ in 0..ROUNDS {
            let grant = enter(&provider, &name, self.mode).await;
            self.check(&directory).await;
            provider.release(&grant).await.expect("it was held");
        }
    }

    /// Does what only a holder may do.
    async fn check(self, directory: &Path) {
        let counter = directory.join("counter");
        let a_moment = tokio::time::sleep(Duration::from_millis(1));
        match self.mode {
            LockMode::Permits { take, .. } => {
                let signs: Vec<_> = (0..take.get()).map(|_| directory.join(unique())).collect();
                signs
                    .iter()
                    .for_each(|sign| std::fs::write(sign, "").unwrap());
                let inside = std::fs::read_dir(directory).unwrap().count();
                assert!(inside <= self.limit as usize, "{inside} of {}", self.limit);
                a_moment.await;
                signs
                    .iter()
                    .for_each(|sign| std::fs::remove_file(sign).unwrap());
            }
            LockMode::Read => {
                let number = std::fs::read(&counter).unwrap();
                a_moment.await;
                assert_eq!(std::fs::read(&counter).unwrap(), number, "it was read");
            }
            _ => {
                let number: u32 = std::fs::read_to_string(&counter).unwrap().parse().unwrap();
                a_moment.await;
                std::fs::write(&counter, (number + 1).to_string()).unwrap();
            }
        }
    }
}

/// Has both sides take the lock again and again until each is done, and returns how often the
/// writers of both wrote.
async fn beside_each_other(python: &Path, place: &Place, theirs: &[Part], ours: &[Part]) -> u32 {
    let (scratch, name) = (Scratch::new(), unique());
    let directory = scratch.join("checks");
    std::fs::create_dir(&directory).unwrap();
    let counter = directory.join("counter");
    let are_permits = matches!(ours[0].mode, LockMode::Permits { .. });
    if !are_permits {
        std::fs::write(&counter, "0").unwrap();
    }
    let mut programs: Vec<_> = theirs
        .iter()
        .enumerate()
        .map(|(number, part)| {
            let log = scratch.join(&format!("{number}.log"));
            part.of_another_program(python, place, &name, &directory, &log)
        })
        .collect();
    let mut tasks = JoinSet::new();
    for part in ours {
        let provider = place.provider().await;
        tasks.spawn(part.of_ours(provider, name.clone(), directory.clone()));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for program in &mut programs {
        let mut status = None;
        eventually("the other program is done", BOUND, || {
            status = program.exit_status();
            std::future::ready(status.is_some())
        })
        .await;
        let succeeded = status.is_some_and(|status| status.success());
        assert!(succeeded, "{}", program.log());
    }
    match are_permits {
        true => 0,
        false => std::fs::read_to_string(&counter).unwrap().parse().unwrap(),
    }
}

#[test]
fn readers_and_writers_of_kazoo_exclude_and_are_excluded() {
    let Some(python) = python() else { return };
    with_server(|place| async move {
        let written = beside_each_other(&python, &place, &[READS, WRITES], &[READS, WRITES]);
        assert_eq!(written.await, 2 * ROUNDS, "no writer wrote over another");
    });
}

/// Two of theirs wait one behind the other, and the last of them only hears of the one ahead.
#[test]
fn permits_of_kazoo_count_and_are_counted() {
    let Some(python) = python() else { return };
    with_server(|place| async move {
        for limit in [1, 3] {
            let one = of_permits(1, limit);
            let most = of_permits(limit.min(2), limit);
            beside_each_other(&python, &place, &[one, one], &[one, most]).await;
        }
    });
}
