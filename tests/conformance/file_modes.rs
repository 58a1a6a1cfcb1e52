//! Reader–writer locks in files, between providers that are apart as processes are, between
//! processes, and with `flock` of util-linux as a witness.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_runtime::{
    AcquireRequest, DistributedRwLock, FileProvider, Grant, LockError, LockErrorKind, LockMode,
    LockProvider,
};
use lock_tests::{Probe, Scratch, Windows, boot_nanos, eventually, run};

use crate::file_only::{BOUND, DEADLINE};
use crate::file_shared::TOLD_WITHIN;

const LEASE: Duration = Duration::from_secs(10);

/// A directory of locks, of which `abc` is used.
pub(crate) struct Directory(pub(crate) Scratch);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(Scratch::new())
    }

    /// Returns a provider that knows of no other.
    pub(crate) fn process(&self) -> FileProvider {
        FileProvider::new(self.0.path())
    }

    pub(crate) fn probe(&self) -> Probe {
        let url = format!("file:{}", self.0.path().display());
        Probe::start(Path::new(env!("CARGO_BIN_EXE_lock-probe")), &url, "abc")
    }

    fn file(&self) -> PathBuf {
        self.0.join("abc56LLTQOSBT6ULGHITLS4KQEIRREMO53J.lock")
    }

    fn writer_file(&self) -> PathBuf {
        self.0
            .join("abc56LLTQOSBT6ULGHITLS4KQEIRREMO53J.lk1-writer")
    }

    /// Returns the files but for the counters.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".lk1-fence-"))
            .collect()
    }
}

pub(crate) async fn ask(
    process: &FileProvider,
    mode: LockMode,
    waits: bool,
) -> Result<Grant, LockError> {
    let (request, _interest) = AcquireRequest::new("abc", LEASE, waits)?;
    process.acquire(&request.with_mode(mode)).await
}

/// Gets it without waiting.
pub(crate) async fn get(process: &FileProvider, mode: LockMode) -> Grant {
    let answer = ask(process, mode, false).await;
    answer.unwrap_or_else(|error| panic!("{mode:?} is free: {error}"))
}

pub(crate) async fn is_free(process: &FileProvider, mode: LockMode) -> bool {
    match ask(process, mode, false).await {
        Ok(grant) => {
            process.release(&grant).await.unwrap();
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), LockErrorKind::Contended, "{error}");
            false
        }
    }
}

/// Waits for it in a task of its own.
pub(crate) fn wait(
    process: FileProvider,
    mode: LockMode,
) -> tokio::task::JoinHandle<(FileProvider, Grant)> {
    tokio::spawn(async move {
        let grant = ask(&process, mode, true).await;
        (process, grant.expect("it is granted in the end"))
    })
}

pub(crate) async fn within<T>(task: tokio::task::JoinHandle<T>) -> T {
    let done = tokio::time::timeout(BOUND, task).await;
    done.expect("done within the bound").expect("no panic")
}

fn token(grant: &Grant) -> u64 {
    grant.token().expect("a token").get()
}

#[test]
fn only_readers_go_together() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let modes = [LockMode::Exclusive, LockMode::Read, LockMode::Write];
        for held in modes {
            for wanted in modes {
                let grant = get(&one, held).await;
                let together = held == LockMode::Read && wanted == LockMode::Read;
                // What a process has counts for itself as for others.
                for process in [&one, &other] {
                    let free = is_free(process, wanted).await;
                    assert_eq!(free, together, "{wanted:?} beside {held:?}");
                }
                one.release(&grant).await.unwrap();
                assert_eq!(directory.files(), [""; 0], "{held:?}, {wanted:?}");
                assert!(is_free(&other, wanted).await, "{wanted:?} after {held:?}");
            }
        }
    });
}

/// A program that has the file locked as `flock` of util-linux does it.
pub(crate) struct Foreign(Child);

impl Foreign {
    pub(crate) fn start(how: &str, file: &Path) -> Self {
        let mut command = Command::new("flock");
        command.args([how, "--no-fork"]).arg(file);
        command.args(["sh", "-c", "echo locked; exec sleep 600"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Self(child)
    }

    fn can(how: &str, file: &Path) -> bool {
        let mut command = Command::new("flock");
        let status = command.args([how, "--nonblock"]).arg(file).arg("true");
        status.status().unwrap().success()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn flock_of_util_linux_is_a_witness() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let file = directory.file();

        let read = get(&process, LockMode::Read).await;
        assert!(Foreign::can("--shared", &file));
        assert!(!Foreign::can("--exclusive", &file));
        process.release(&read).await.unwrap();
        for mode in [LockMode::Write, LockMode::Exclusive] {
            let grant = get(&process, mode).await;
            assert!(!Foreign::can("--shared", &file), "{mode:?}");
            assert!(!Foreign::can("--exclusive", &file), "{mode:?}");
            process.release(&grant).await.unwrap();
        }

        let foreign = Foreign::start("--shared", &file);
        assert!(is_free(&process, LockMode::Read).await);
        assert!(!is_free(&process, LockMode::Write).await);
        assert!(!is_free(&process, LockMode::Exclusive).await);
        assert!(file.exists(), "the last reader is not ours");
        let writer = wait(directory.process(), LockMode::Write);
        drop(foreign);
        let (writer, grant) = within(writer).await;
        writer.release(&grant).await.unwrap();

        let foreign = Foreign::start("--exclusive", &file);
        assert!(!is_free(&process, LockMode::Read).await);
        assert!(!is_free(&process, LockMode::Write).await);
        let reader = wait(directory.process(), LockMode::Read);
        drop(foreign);
        let (reader, grant) = within(reader).await;
        reader.release(&grant).await.unwrap();
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// Waits until new readers are held back.
async fn until_a_writer_waits(process: &FileProvider) {
    eventually("a writer is seen to wait", BOUND, async || {
        !is_free(process, LockMode::Read).await
    })
    .await;
}

#[test]
fn readers_stay_behind_a_waiting_writer() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let first = get(&one, LockMode::Read).await;
        let second = get(&other, LockMode::Read).await;
        assert!(one.may_share(&first).await.unwrap());

        let writer = wait(directory.process(), LockMode::Write);
        until_a_writer_waits(&one).await;
        assert!(directory.writer_file().exists());
        for _ in 0..50 {
            assert!(!is_free(&other, LockMode::Read).await);
        }
        assert!(!one.may_share(&first).await.unwrap());
        let reader = wait(directory.process(), LockMode::Read);

        one.release(&first).await.unwrap();
        assert!(
            !is_free(&one, LockMode::Read).await,
            "it waits for the last reader"
        );
        assert!(!writer.is_finished());
        other.release(&second).await.unwrap();
        let (writer, grant) = within(writer).await;
        assert!(!reader.is_finished());
        writer.release(&grant).await.unwrap();
        let (reader, grant) = within(reader).await;
        assert!(is_free(&one, LockMode::Read).await, "nobody waits any more");
        reader.release(&grant).await.unwrap();
        assert_eq!(directory.files(), [""; 0]);
    });
}

#[test]
fn a_writer_that_only_tries_holds_nobody_back() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let read = get(&one, LockMode::Read).await;
        for _ in 0..50 {
            assert!(!is_free(&other, LockMode::Write).await);
            assert!(is_free(&other, LockMode::Read).await);
        }
        one.release(&read).await.unwrap();
    });
}

/// Somebody is in the turnstile, and the lock is free.
#[test]
fn a_writer_that_only_tries_skips_the_turnstile() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let foreign = Foreign::start("--exclusive", &directory.writer_file());
        assert!(!is_free(&process, LockMode::Read).await);
        assert!(is_free(&process, LockMode::Write).await);
        let writer = wait(directory.process(), LockMode::Write);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!writer.is_finished(), "one that waits does not");
        drop(foreign);
        let (writer, grant) = within(writer).await;
        writer.release(&grant).await.unwrap();
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// Reads the mark, which comes after the note for the holder.
fn mark(file: &Path) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    let text = std::str::from_utf8(&bytes[20..40]).unwrap();
    text.trim_matches('\0').parse().unwrap_or(0)
}

/// By these marks others tell who passes by from who holds or waits.
#[test]
fn who_waits_and_who_leaves_marks_the_file() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let first = get(&one, LockMode::Read).await;
        let second = get(&other, LockMode::Read).await;
        let writer = wait(directory.process(), LockMode::Write);
        until_a_writer_waits(&one).await;
        eventually("the writer says that it waits", BOUND, async || {
            mark(&directory.writer_file()) > boot_nanos() - 1_000_000_000
        })
        .await;
        one.release(&first).await.unwrap();
        assert!(mark(&directory.file()) > boot_nanos() - 1_000_000_000);
        // The file is left as by a reader that crashed.
        let foreign = Foreign::start("--shared", &directory.file());
        other.release(&second).await.unwrap();
        drop(foreign);
        let (writer, grant) = within(writer).await;
        assert_eq!(mark(&directory.file()), 0, "a writer does not leave");
        writer.release(&grant).await.unwrap();
    });
}

#[test]
fn a_writer_that_gives_up_lets_readers_in() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let read = get(&process, LockMode::Read).await;
        let (request, interest) = AcquireRequest::new("abc", LEASE, true).unwrap();
        let request = request.with_mode(LockMode::Write);
        let writer = directory.process();
        let waiting = tokio::spawn(async move { writer.acquire(&request).await.err() });
        until_a_writer_waits(&process).await;
        interest.abandon();
        let error = within(waiting).await.expect("not granted");
        assert_eq!(error.kind(), LockErrorKind::Contended);
        assert!(is_free(&process, LockMode::Read).await);
        process.release(&read).await.unwrap();
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// A conversion that fails costs the shared lock, so the other readers must have theirs.
#[test]
fn readers_go_in_every_order_and_leave_no_file() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let processes: Vec<_> = (0..3).map(|_| directory.process()).collect();
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut grants = Vec::new();
            for process in &processes {
                grants.push(Some(get(process, LockMode::Read).await));
            }
            for reader in order {
                assert!(!is_free(&processes[0], LockMode::Write).await, "{order:?}");
                let grant = grants[reader].take().unwrap();
                processes[reader].release(&grant).await.unwrap();
                let error = processes[reader].release(&grant).await.unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::Lost, "only once");
            }
            assert_eq!(directory.files(), [""; 0], "{order:?}");
            assert!(is_free(&processes[0], LockMode::Write).await);
        }
    });
}

/// The last reader has the file exclusively while it removes it. Nobody else may take that for a
/// writer.
#[test]
fn readers_never_refuse_each_other() {
    run(DEADLINE, async {
        let directory = Arc::new(Directory::new());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let process = directory.process();
            tasks.spawn(async move {
                for round in 0..1_500 {
                    assert!(is_free(&process, LockMode::Read).await, "round {round}");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(directory.files(), [""; 0]);
    });
}

#[test]
fn tokens_grow_over_conflicting_grants() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let mut last_write = 0;
        let mut last_read = 0;
        for _ in 0..20 {
            let (request, interest) = AcquireRequest::new("abc", LEASE, false).unwrap();
            interest.want_tokens(7.try_into().unwrap());
            let write = one
                .acquire(&request.with_mode(LockMode::Write))
                .await
                .unwrap();
            assert!(token(&write) > last_write.max(last_read));
            assert_eq!(write.tokens().get(), 7);
            last_write = token(&write) + 6;
            one.release(&write).await.unwrap();

            let first = get(&other, LockMode::Read).await;
            let second = get(&one, LockMode::Read).await;
            assert!(token(&first) > last_write && token(&second) > last_write);
            last_read = token(&first).max(token(&second));
            other.release(&first).await.unwrap();
            one.release(&second).await.unwrap();
        }
    });
}

#[test]
fn a_removed_file_is_a_loss_for_readers() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let (one, other) = (directory.process(), directory.process());
        let first = get(&one, LockMode::Read).await;
        let second = get(&other, LockMode::Read).await;
        std::fs::remove_file(directory.file()).unwrap();
        let write = get(&one, LockMode::Write).await;
        for (process, grant) in [(&one, &first), (&other, &second)] {
            let error = process.release(grant).await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::Lost, "{error}");
        }
        assert!(directory.file().exists(), "that of the writer stays");
        one.release(&write).await.unwrap();
    });
}

#[test]
fn readers_are_told_of_a_removed_file() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let lock = |process| DistributedRwLock::on(Arc::new(process), "abc");
        let (one, other) = (lock(directory.process()), lock(directory.process()));
        let guards = [one.read().await, one.read().await, other.read().await];
        std::fs::remove_file(directory.file()).unwrap();
        for guard in guards {
            let guard = guard.unwrap();
            let told = tokio::time::timeout(TOLD_WITHIN, guard.lost()).await;
            assert!(told.is_ok(), "each reader is told");
        }
        assert!(one.try_write_for(BOUND).await.unwrap().is_some());
    });
}

#[test]
fn a_killed_reader_frees_the_lock() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let mut probe = directory.probe();
        probe.ask("wait read", "granted", BOUND).await;
        let process = directory.process();
        assert!(is_free(&process, LockMode::Read).await);
        assert!(!is_free(&process, LockMode::Write).await);
        let writer = wait(directory.process(), LockMode::Write);
        until_a_writer_waits(&process).await;
        let start = Instant::now();
        probe.kill();
        let (writer, grant) = within(writer).await;
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        writer.release(&grant).await.unwrap();
        assert_eq!(directory.files(), [""; 0]);
    });
}

#[test]
fn a_killed_waiting_writer_lets_readers_in() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let process = directory.process();
        let read = get(&process, LockMode::Read).await;
        let mut probe = directory.probe();
        probe.tell("wait write");
        until_a_writer_waits(&process).await;
        probe.kill();
        assert!(directory.writer_file().exists(), "it is left");
        assert!(
            is_free(&process, LockMode::Read).await,
            "and is no obstacle"
        );
        assert!(process.may_share(&read).await.unwrap());
        process.release(&read).await.unwrap();
        // It goes with the next writer, whether that waits or not.
        assert!(is_free(&process, LockMode::Write).await);
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// Readers come so often that there is always one.
#[test]
fn readers_do_not_starve_a_writer() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = tokio::task::JoinSet::new();
        for shift in 0..3 {
            let (process, stop) = (directory.process(), stop.clone());
            readers.spawn(async move {
                tokio::time::sleep(Duration::from_millis(5 * shift)).await;
                while !stop.load(Ordering::Relaxed) {
                    let grant = ask(&process, LockMode::Read, true).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(15)).await;
                    process.release(&grant).await.unwrap();
                }
            });
        }
        for _ in 0..10 {
            let start = Instant::now();
            let (writer, grant) = within(wait(directory.process(), LockMode::Write)).await;
            assert!(
                start.elapsed() < Duration::from_secs(1),
                "{:?}",
                start.elapsed()
            );
            writer.release(&grant).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.store(true, Ordering::Relaxed);
        readers.join_all().await;
    });
}

/// There is always a writer, and one that waits.
#[test]
fn writers_do_not_starve_a_reader() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let stop = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(AtomicUsize::new(0));
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let (process, stop) = (directory.process(), stop.clone());
            let writes = writes.clone();
            writers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let grant = ask(&process, LockMode::Write, true).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    writes.fetch_add(1, Ordering::Relaxed);
                    process.release(&grant).await.unwrap();
                }
            });
        }
        for _ in 0..5 {
            let before = writes.load(Ordering::Relaxed);
            let (reader, grant) = within(wait(directory.process(), LockMode::Read)).await;
            let passed = writes.load(Ordering::Relaxed) - before;
            assert!(passed < 500, "{passed} writes before the reader");
            reader.release(&grant).await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        writers.join_all().await;
    });
}

#[test]
fn no_window_overlaps_a_write() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let mut probes: Vec<_> = (0..3).map(|_| directory.probe()).collect();
        for (seed, probe) in probes.iter_mut().enumerate() {
            probe.tell(&format!("mix 3000 {seed} read read write exclusive"));
        }
        let windows = Windows::default();
        for probe in &mut probes {
            let lines = probe.lines_until("done", DEADLINE).await;
            windows.record_lines(&probe.id().to_string(), &lines);
        }
        let seen = windows.check();
        for mode in ["read", "write", "exclusive"] {
            assert!(seen.grants[mode] > 20, "{seen:?}");
        }
        assert_eq!(directory.files(), [""; 0]);
    });
}

/// The kernel names every process that has locked the file, foreign ones too.
#[cfg(target_os = "linux")]
#[test]
fn foreign_holders_are_told_by_their_processes() {
    run(DEADLINE, async {
        let directory = Directory::new();
        let lock = DistributedRwLock::on(Arc::new(directory.process()), "abc");
        let read = lock.read().await.expect("nobody writes");
        let foreign = Foreign::start("--shared", &directory.file());
        let state = lock.inspect().await.expect("the kernel tells");
        assert_eq!(state.holders().len(), 2, "{state:?}");
        let (here, there): (Vec<_>, Vec<_>) = state
            .holders()
            .iter()
            .partition(|holder| holder.is_this_process());
        assert_eq!((here.len(), there.len()), (1, 1));
        assert_ne!(here[0].label(), there[0].label());
        drop((read, foreign));
    });
}
