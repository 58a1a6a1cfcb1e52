//! Lock files that others remove, replace, may not open, or that are none; many locks at a time.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{DistributedLock, FileProvider, LockErrorKind};
use lock_tests::{Probe, Scratch, nobody_is_accused_under_load, run};

use crate::file_only::{BOUND, DEADLINE, Place, take, token};

/// The time within which the holder of a lost file hears of it: files are looked at twice a second.
pub(crate) const TOLD_WITHIN: Duration = Duration::from_millis(1_500);

async fn loses_by(what: impl FnOnce(&Place)) {
    let place = Place::new();
    let others = DistributedLock::on(place.provider.clone(), "other");
    let other = others.acquire().await.unwrap();
    let guard = place.lock().acquire().await.unwrap();
    what(&place);
    let told = tokio::time::timeout(TOLD_WITHIN, guard.lost()).await;
    assert!(told.is_ok(), "the holder is told");
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);
    // A rename of the directory takes that one along.
    if place.scratch.path().exists() {
        assert!(!other.is_lost(), "nobody touched that one's file");
    }
    take(&place.lock()).await.release().await.unwrap();
}

#[test]
fn a_removed_file_is_a_loss() {
    run(
        DEADLINE,
        loses_by(|place| std::fs::remove_file(place.file()).unwrap()),
    );
}

#[test]
fn a_replaced_file_is_a_loss() {
    run(
        DEADLINE,
        loses_by(|place| {
            let new = place.scratch.join("new");
            std::fs::write(&new, "").unwrap();
            std::fs::rename(new, place.file()).unwrap();
        }),
    );
}

#[test]
fn a_renamed_directory_is_a_loss() {
    run(
        DEADLINE,
        loses_by(|place| {
            let away = place.scratch.path().with_extension("away");
            std::fs::rename(place.scratch.path(), &away).unwrap();
            std::fs::remove_dir_all(away).unwrap();
        }),
    );
}

/// A path that is no file holds no lock, and never will.
#[test]
fn what_is_no_file_is_refused_at_once() {
    run(DEADLINE, async {
        type Make = fn(&Path);
        let kinds: [(&str, Make); 4] = [
            ("a directory", |path| std::fs::create_dir(path).unwrap()),
            ("a link", |path| {
                std::os::unix::fs::symlink("x", path).unwrap()
            }),
            ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
            ("a FIFO", |path| {
                let fifo = std::process::Command::new("mkfifo").arg(path).status();
                assert!(fifo.unwrap().success());
            }),
        ];
        for (kind, make) in kinds {
            let place = Place::new();
            make(&place.file());
            for timeout in [Duration::ZERO, BOUND] {
                let start = Instant::now();
                let error = place.lock().acquire_for(timeout).await.unwrap_err();
                assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
                assert!(error.to_string().contains(kind), "{kind}: {error}");
                let path = place.file().display().to_string();
                assert!(error.to_string().contains(&path), "{error}");
                assert!(start.elapsed() < BOUND / 2, "at once");
            }
        }
    });
}

#[test]
fn what_cannot_work_fails_when_connecting() {
    run(DEADLINE, async {
        let scratch = Scratch::new();
        std::fs::write(scratch.join("file"), "").unwrap();
        let mut unusable = vec![scratch.join("file"), scratch.join("file/below")];
        if cfg!(target_os = "linux") {
            unusable.push(PathBuf::from("/proc/1/locks"));
        }
        for directory in unusable {
            let url = format!("file:{}", directory.display());
            let Err(error) = lock_runtime::connect(&url).await else {
                panic!("{url} connects");
            };
            let path = directory.display().to_string();
            assert!(error.to_string().contains(&path), "{error}");
            let built = FileProvider::builder(&directory).build();
            assert!(built.is_err(), "{path}");
        }
        let missing = scratch.join("no/such/dir");
        for query in ["", "?mode=0660"] {
            let url = format!("file:{}{query}", missing.display());
            let error = lock_runtime::connect(&url).await.err().expect("no parent");
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
            assert!(error.to_string().contains("does not exist"), "{error}");
            assert!(!scratch.join("no").exists(), "nothing is created");
        }
        let made = scratch.join("made");
        let url = format!("file:{}", made.display());
        assert!(lock_runtime::connect(&url).await.is_ok());
        assert!(made.is_dir(), "it is created");
    });
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Copies the program of another process to where another user can run it.
fn probe_in(scratch: &Scratch) -> PathBuf {
    std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
    let program = scratch.join("lock-probe");
    std::fs::copy(env!("CARGO_BIN_EXE_lock-probe"), &program).unwrap();
    program
}

/// Another process has the lock when its file is gone, and the first holder is told.
#[test]
fn another_process_has_the_lock_of_a_removed_file() {
    run(DEADLINE, async {
        let place = Place::new();
        let url = format!("file:{}", place.scratch.path().display());
        let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
        let mut probe = Probe::start(program, &url, "abc");
        let lock = DistributedLock::on(place.provider.clone(), "abc");
        let guard = lock.acquire().await.unwrap();
        assert_eq!(probe.ask("try", "failed", BOUND).await[1], "Contended");
        let files = std::fs::read_dir(place.scratch.path()).unwrap();
        for file in files {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        probe.ask("acquire", "acquired", BOUND).await;
        let told = tokio::time::timeout(TOLD_WITHIN, guard.lost()).await;
        assert!(told.is_ok(), "the holder is told");
        drop(guard);
        assert!(
            lock.try_acquire().await.unwrap().is_none(),
            "the other one has it"
        );
        probe.ask("release", "releasing", BOUND).await;
        probe.expect("released", BOUND).await;
    });
}

/// A process that is stopped keeps its lock, as the kernel sees it: there is no lease.
#[test]
fn a_stopped_holder_is_a_holder() {
    run(DEADLINE, async {
        let place = Place::new();
        let url = format!("file:{}", place.scratch.path().display());
        let program = Path::new(env!("CARGO_BIN_EXE_lock-probe"));
        let mut probe = Probe::start(program, &url, "abc");
        probe.ask("acquire", "acquired", BOUND).await;
        probe.freeze();
        let lock = DistributedLock::on(place.provider.clone(), "abc");
        assert!(lock.try_acquire().await.unwrap().is_none());
        let wait = Duration::from_millis(300);
        let error = lock.acquire_for(wait).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::TimedOut, "{error}");
        // It ends with its process.
        probe.kill();
        take(&lock).await.release().await.unwrap();
    });
}

#[test]
fn a_mode_lets_other_users_take_part() {
    run(DEADLINE, async {
        let scratch = Scratch::new();
        let program = probe_in(&scratch);
        let directory = scratch.join("locks");
        let provider = FileProvider::builder(&directory)
            .mode(0o666)
            .build()
            .unwrap();
        let lock = DistributedLock::on(Arc::new(provider), "abc");
        assert_eq!(mode_of(&directory), 0o777);
        let guard = lock.acquire().await.unwrap();
        let mut files = 0;
        for file in std::fs::read_dir(&directory).unwrap() {
            assert_eq!(mode_of(&file.unwrap().path()), 0o666);
            files += 1;
        }
        assert_eq!(files, 2, "lock and counter");

        let url = format!("file:{}?mode=0666", directory.display());
        let mut probe = Probe::start_unprivileged(&program, &url, "abc");
        assert_eq!(probe.ask("try", "failed", BOUND).await[1], "Contended");
        guard.release().await.unwrap();
        probe.ask("acquire", "acquired", BOUND).await;
        assert!(lock.try_acquire().await.unwrap().is_none());
        probe.ask("release", "releasing", BOUND).await;
        probe.expect("released", BOUND).await;
    });
}

#[test]
fn a_file_without_rights_is_named_or_held() {
    run(DEADLINE, async {
        let scratch = Scratch::new();
        let program = probe_in(&scratch);
        let directory = scratch.join("locks");
        let provider = FileProvider::builder(&directory).build().unwrap();
        std::fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        let lock = DistributedLock::on(Arc::new(provider), "abc");
        let guard = lock.acquire().await.unwrap();
        for file in std::fs::read_dir(&directory).unwrap() {
            std::fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o0)).unwrap();
        }
        let url = format!("file:{}", directory.display());
        let mut probe = Probe::start_unprivileged(&program, &url, "abc");
        // No right to the file is needed to see that it is locked, where the system lists locks.
        if Path::new("/proc/locks").exists() {
            assert_eq!(probe.ask("try", "failed", BOUND).await[1], "Contended");
            let answer = probe.ask("acquire-for 200", "failed", BOUND).await;
            assert_eq!(answer[1], "TimedOut");
        }
        guard.release().await.unwrap();
        // The lock's file went with the lock; the counter stays, and keeps others out.
        let answer = probe.ask("try", "failed", BOUND).await.join(" ");
        assert!(answer.contains("InvalidConfig"), "{answer}");
        assert!(answer.contains("/.lk1-fence-"), "{answer}");
    });
}

#[test]
fn tokens_start_above_the_floor() {
    run(DEADLINE, async {
        let scratch = Scratch::new();
        let floor = 4_000_000_000_000_000_000;
        let path = scratch.path().display();
        let url = format!("file:{path}?token_floor={floor}");
        let lock = DistributedLock::on(lock_runtime::connect(&url).await.unwrap(), "abc");
        let guard = lock.acquire().await.unwrap();
        assert!(token(&guard) > floor);
        guard.release().await.unwrap();
        // The counter remembers it.
        let lock = DistributedLock::on(Arc::new(FileProvider::new(scratch.path())), "abc");
        assert!(token(&lock.acquire().await.unwrap()) > floor + 1);
    });
}

/// A task that does not get a lock which nobody holds is not told that somebody does.
#[test]
fn many_free_names_are_never_held_elsewhere() {
    run(DEADLINE, async {
        let place = Place::new();
        let lock = |name: &str| DistributedLock::on(place.provider.clone(), name);
        nobody_is_accused_under_load(lock).await;
    });
}

#[test]
fn unusable_directories_are_named() {
    run(DEADLINE, async {
        let scratch = Scratch::new();
        std::fs::write(scratch.join("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", scratch.join("dangling")).unwrap();
        let mut unusable = vec![scratch.join("file"), scratch.join("file/below")];
        if cfg!(target_os = "linux") {
            // Not even root makes a directory there.
            unusable.push(PathBuf::from("/proc/1/locks"));
            unusable.push(PathBuf::from("/sys/kernel/locks"));
        }
        unusable.push(scratch.join("dangling"));
        for directory in unusable {
            let lock = DistributedLock::on(Arc::new(FileProvider::new(&directory)), "abc");
            let error = lock.acquire().await.unwrap_err();
            let expected = [
                LockErrorKind::InvalidConfig,
                LockErrorKind::ProviderUnavailable,
            ];
            assert!(expected.contains(&error.kind()), "{error:?}");
            assert!(
                error.to_string().contains(&*directory.to_string_lossy()),
                "{error}"
            );
            assert_eq!(error.name().map(AsRef::as_ref), Some("abc"));
        }
        let place = Place::new();
        std::os::unix::fs::symlink(scratch.join("elsewhere"), place.file()).unwrap();
        assert!(
            place.lock().acquire().await.is_err(),
            "a link is no lock file"
        );
        assert!(!scratch.join("elsewhere").exists());
    });
}
