//! Mistakes that only locks in files can make: the files themselves, and other programs that use
//! them.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_runtime::{DistributedLock, FileProvider, LockErrorKind, LockGuard, LockProvider};
use lock_tests::history::Held;
use lock_tests::{History, Probe, Scratch, boot_nanos, poll_once, run};
use rustix::fs::{FlockOperation, flock};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// The lock `abc` in a directory of its own, where .NET keeps it.
pub(crate) struct Place {
    pub(crate) scratch: Scratch,
    pub(crate) provider: Arc<dyn LockProvider>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let provider = Arc::new(FileProvider::new(scratch.path()));
        Self { scratch, provider }
    }

    pub(crate) fn lock(&self) -> DistributedLock {
        DistributedLock::on(self.provider.clone(), "abc")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.scratch
            .join("abc56LLTQOSBT6ULGHITLS4KQEIRREMO53J.lock")
    }

    fn files(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.scratch.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub(crate) fn counters(&self) -> Vec<PathBuf> {
        let counters = self
            .files()
            .into_iter()
            .filter(|name| !name.ends_with(".lock"));
        counters.map(|name| self.scratch.join(&name)).collect()
    }
}

/// Another program's lock, made as the wire format says and without any of our code. Its handle is
/// open for reading only, as in .NET, and its file goes before its lock.
struct Foreign(File, PathBuf);

impl Foreign {
    fn try_lock(path: &Path) -> Option<Self> {
        loop {
            let read_only = rustix::fs::OFlags::CREATE
                | rustix::fs::OFlags::RDONLY
                | rustix::fs::OFlags::CLOEXEC;
            let mode = rustix::fs::Mode::from_raw_mode(0o666);
            let file = File::from(rustix::fs::open(path, read_only, mode).unwrap());
            flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
            let ours = file.metadata().unwrap().ino();
            if std::fs::metadata(path).is_ok_and(|named| named.ino() == ours) {
                return Some(Self(file, path.to_owned()));
            }
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.1);
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

pub(crate) async fn take(lock: &DistributedLock) -> LockGuard {
    lock.acquire_for(BOUND)
        .await
        .expect("free within the bound")
}

pub(crate) fn token(guard: &LockGuard) -> u64 {
    guard.fencing_token().unwrap().get()
}

#[test]
fn the_file_is_dotnets_and_goes_with_the_lock() {
    run(DEADLINE, async {
        let place = Place::new();
        let guard = place.lock().acquire().await.unwrap();
        assert!(place.file().exists(), "{:?}", place.files());
        guard.release().await.unwrap();
        assert!(!place.file().exists());

        let prefixed = Arc::new(FileProvider::new(place.scratch.path()).key_prefix("ab"));
        let guard = DistributedLock::on(prefixed, "c").acquire().await.unwrap();
        assert!(place.file().exists(), "a prefix is part of the key");
        assert!(place.lock().try_acquire().await.unwrap().is_none());
        guard.release().await.unwrap();
    });
}

#[test]
fn the_directory_stays_small() {
    run(DEADLINE, async {
        let place = Place::new();
        for name in 0..300 {
            let lock = DistributedLock::on(place.provider.clone(), format!("name-{name}"));
            let guard = lock.acquire().await.unwrap();
            let contended = poll_once(Box::pin(lock.acquire()).as_mut()).await;
            assert!(contended.is_none());
            guard.release().await.unwrap();
        }
        // The last ones may still be on their way out.
        lock_tests::eventually("no lock file is left", BOUND, || async {
            place.files().iter().all(|name| !name.ends_with(".lock"))
        })
        .await;
        assert_eq!(
            place.files().len(),
            16,
            "the counters alone: {:?}",
            place.files()
        );
        let size: u64 = place
            .counters()
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert!(size < 16 * 100, "{size} bytes");
    });
}

#[test]
fn another_program_excludes_and_is_excluded() {
    run(DEADLINE, async {
        let place = Place::new();
        let foreign = Foreign::try_lock(&place.file()).expect("free");
        assert!(place.lock().try_acquire().await.unwrap().is_none());
        let error = place
            .lock()
            .acquire_for(Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut);
        drop(foreign);
        let guard = take(&place.lock()).await;
        assert!(Foreign::try_lock(&place.file()).is_none(), "held by us");
        guard.release().await.unwrap();
        drop(Foreign::try_lock(&place.file()).expect("free again"));
    });
}

/// A process is stopped wherever it is. If that is between opening the file and locking it, the
/// path names another file than the one that it locks when it goes on.
#[test]
fn a_removed_file_is_not_the_lock() {
    run(DEADLINE, async {
        let place = Place::new();
        let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
        let url = format!("file:{}", place.scratch.path().display());
        let mut probe = Probe::start(program, &url, "abc");
        let mut foreign = Foreign::try_lock(&place.file()).expect("free");
        probe.tell("hammer");
        for round in 0..400 {
            tokio::time::sleep(Duration::from_micros(500 + round % 7 * 50)).await;
            probe.freeze();
            drop(foreign);
            foreign = Foreign::try_lock(&place.file()).expect("nobody else runs");
            probe.thaw();
            assert_eq!(probe.surprise(), None, "we hold it, in round {round}");
        }
        drop(foreign);
        probe.expect("acquired", BOUND).await;
    });
}

/// A task that takes the lock again as soon as it has released it lets others have it.
#[test]
fn a_busy_process_does_not_starve_another() {
    const ROUNDS: usize = 200;
    const SECTION: Duration = Duration::from_millis(5);
    run(DEADLINE, async {
        let place = Place::new();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..2 {
            // Apart from each other as processes are.
            let provider = Arc::new(FileProvider::new(place.scratch.path()));
            let (lock, served) = (DistributedLock::on(provider, "abc"), served.clone());
            tasks.spawn(async move {
                loop {
                    let guard = lock.acquire().await.unwrap();
                    tokio::time::sleep(SECTION).await;
                    if served.lock().unwrap().len() == ROUNDS {
                        return;
                    }
                    served.lock().unwrap().push(task);
                    guard.release().await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        let second = served.lock().unwrap().iter().sum::<usize>();
        let least = ROUNDS / 4;
        assert!(
            (least..=ROUNDS - least).contains(&second),
            "{second} of {ROUNDS}"
        );
    });
}

/// Every release removes the file while others have it open and are about to lock it.
#[test]
fn removed_files_never_let_two_in() {
    run(DEADLINE, async {
        let place = Place::new();
        let history = Arc::<History>::default();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..3 {
            let provider = Arc::new(FileProvider::new(place.scratch.path()));
            let (lock, history) = (DistributedLock::on(provider, "abc"), history.clone());
            tasks.spawn(async move {
                for _ in 0..100 {
                    let guard = lock.acquire().await.unwrap();
                    let from = boot_nanos();
                    tokio::task::yield_now().await;
                    history.record(held(&format!("ours {task}"), from, Some(token(&guard))));
                    guard.release().await.unwrap();
                }
            });
        }
        for thread in 0..3 {
            let (file, history) = (place.file(), history.clone());
            tasks.spawn_blocking(move || {
                let mut rounds = 0;
                while rounds < 100 {
                    let Some(foreign) = Foreign::try_lock(&file) else {
                        std::thread::sleep(Duration::from_micros(200));
                        continue;
                    };
                    let from = boot_nanos();
                    std::thread::yield_now();
                    history.record(held(&format!("foreign {thread}"), from, None));
                    drop(foreign);
                    rounds += 1;
                }
            });
        }
        tasks.join_all().await;
        assert_eq!(history.len(), 600);
        history.check();
        assert!(history.changes_of_holder() > 50, "they met");
    });
}

fn held(holder: &str, from: u64, token: Option<u64>) -> Held {
    Held {
        name: "abc".to_owned(),
        holder: holder.to_owned(),
        from,
        until: boot_nanos(),
        token,
    }
}

/// The file is there as after a crash, with a note in it that is long past or far in the future.
#[test]
fn a_file_that_was_left_is_no_obstacle() {
    run(DEADLINE, async {
        let place = Place::new();
        for content in [
            "",
            "rubbish",
            "00000000000000000001",
            "99999999999999999999",
            "9",
        ] {
            std::fs::write(place.file(), content.repeat(3)).unwrap();
            let guard = place.lock().try_acquire().await.unwrap().expect("free");
            guard.release().await.unwrap();
            let start = std::time::Instant::now();
            take(&place.lock()).await.release().await.unwrap();
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "after {content:?}"
            );
            assert!(!place.file().exists());
        }
    });
}

/// Somebody deletes the file, and another program takes the lock that seems free. Our holder has
/// lost it, and its release leaves the other program's lock alone.
#[test]
fn a_release_touches_no_other_file() {
    run(DEADLINE, async {
        let place = Place::new();
        let guard = place.lock().acquire().await.unwrap();
        std::fs::remove_file(place.file()).unwrap();
        let foreign = Foreign::try_lock(&place.file()).expect("a new file");
        assert_eq!(
            guard.release().await.unwrap_err().kind(),
            LockErrorKind::Lost
        );
        assert!(place.file().exists());
        assert!(
            place.lock().try_acquire().await.unwrap().is_none(),
            "held by the other one"
        );
        drop(foreign);
        take(&place.lock()).await.release().await.unwrap();
    });
}

#[test]
fn tokens_survive_lost_and_broken_counters() {
    run(DEADLINE, async {
        let place = Place::new();
        let mut last = 0;
        for round in 0..6 {
            let guard = take(&place.lock()).await;
            assert!(token(&guard) > last, "round {round}");
            last = token(&guard);
            guard.release().await.unwrap();
            for counter in place.counters() {
                match round % 3 {
                    0 => std::fs::remove_file(counter).unwrap(),
                    1 => std::fs::write(counter, "").unwrap(),
                    _ => std::fs::write(counter, [0xFF; 84]).unwrap(),
                }
            }
        }
        std::fs::remove_dir_all(place.scratch.path()).unwrap();
        assert!(
            token(&take(&place.lock()).await) > last,
            "the directory is made again"
        );
    });
}

/// A process is stopped while it counts. The lock itself is free afterwards.
#[test]
fn a_stuck_counter_is_reported() {
    run(DEADLINE, async {
        let place = Place::new();
        take(&place.lock()).await.release().await.unwrap();
        let counter = OpenOptions::new()
            .read(true)
            .open(&place.counters()[0])
            .unwrap();
        flock(&counter, FlockOperation::LockExclusive).unwrap();

        let error = place.lock().acquire().await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
        assert!(error.to_string().contains(".lk1-fence-"), "{error}");
        let error = place
            .lock()
            .acquire_for(Duration::from_millis(500))
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            LockErrorKind::ProviderUnavailable,
            "not a timeout: {error}"
        );

        let lock = place.lock();
        let mut waiting = Box::pin(lock.acquire());
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(waited.is_err(), "it waits for the counter");
        drop(waiting);
        lock_tests::eventually("the lock is given back", BOUND, || async {
            Foreign::try_lock(&place.file()).is_some()
        })
        .await;

        let mut waiting = Box::pin(lock.acquire());
        assert!(poll_once(waiting.as_mut()).await.is_none());
        flock(&counter, FlockOperation::Unlock).unwrap();
        waiting.await.unwrap().release().await.unwrap();
    });
}

/// There are more waiters than a pool of threads has threads; the holder must still be able to
/// release.
#[test]
fn many_waiters_block_nobody() {
    const NAMES: usize = 600;
    run(DEADLINE, async {
        let place = Place::new();
        let other: Arc<dyn LockProvider> = Arc::new(FileProvider::new(place.scratch.path()));
        let lock = |provider: &Arc<dyn LockProvider>, name: usize| {
            DistributedLock::on(provider.clone(), format!("name-{name}"))
        };
        let mut guards = Vec::new();
        let mut waiters = tokio::task::JoinSet::new();
        for name in 0..NAMES {
            guards.push(lock(&other, name).acquire().await.unwrap());
            let waiting = lock(&place.provider, name);
            waiters.spawn(async move { waiting.acquire().await.unwrap().release().await.unwrap() });
        }
        assert!(waiters.try_join_next().is_none(), "all wait");
        for guard in guards {
            guard.release().await.unwrap();
        }
        waiters.join_all().await;
    });
}
