//! The program `lock-probe URL NAME`, which takes a lock as its standard input says; see
//! `lock_tests::Probe`.

mod contend;
mod contend_modes;
mod job;
mod leave;
mod modes;

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{
    DistributedMultiLock, FencingToken, Grant, LockError, LockMode, LockProvider, MultiLockGuard,
};
use lock_tests::any_lock::ModeWord;
use lock_tests::{AnyGuard, AnyLock, boot_nanos, fairness};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::contend::Contention;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, url, name] = &arguments[..] else {
        eprintln!("usage: lock-probe URL NAME");
        return ExitCode::FAILURE;
    };
    let provider = match lock_runtime::connect(url).await {
        Ok(provider) => provider,
        Err(error) => {
            eprintln!("lock-probe: {error}");
            return ExitCode::FAILURE;
        }
    };
    serve(&provider, name, commands()).await;
    ExitCode::SUCCESS
}

/// Reads the lines of the standard input. When that ends, so does the process, since the test that
/// started it is gone.
fn commands() -> UnboundedReceiver<String> {
    let (sender, commands) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "exit" {
                std::process::exit(0);
            }
            let _ = sender.send(line);
        }
        std::process::exit(0);
    });
    commands
}

async fn serve(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    mut commands: UnboundedReceiver<String>,
) {
    let mut mode = LockMode::Exclusive;
    let mut lock = AnyLock::on(mode, Arc::clone(provider), name);
    let mut contention = Contention::default();
    let mut guard: Option<AnyGuard> = None;
    let mut several: Option<MultiLockGuard> = None;
    let mut grant: Option<Grant> = None;
    while let Some(line) = commands.recv().await {
        let words: Vec<_> = line.splitn(3, ' ').collect();
        match words[..] {
            ["as", word] => {
                mode = ModeWord::parse(word);
                lock = AnyLock::on(mode, Arc::clone(provider), name);
            }
            ["acquire"] => guard = acquired(lock.acquire().await),
            ["acquire-for", millis] => {
                let timeout = Duration::from_millis(millis.parse().expect("milliseconds"));
                guard = acquired(lock.acquire_for(timeout).await);
            }
            ["try"] => guard = acquired(lock.acquire_for(Duration::ZERO).await),
            ["upgrade"] => guard = acquired(upgraded(guard.take()).await),
            ["several", names] => {
                let locks = DistributedMultiLock::on(Arc::clone(provider), names.split(','));
                several = taken(locks.acquire().await, |_| None);
            }
            ["several-lost"] => say_lost(several.as_ref().expect("they are held").is_lost()),
            ["hammer"] => {
                while guard.is_none() {
                    guard = lock.try_acquire().await.expect("the provider answers");
                }
                say(&format!("acquired {} -", boot_nanos()));
            }
            ["job", millis] => {
                let min_hold = Duration::from_millis(millis.parse().expect("milliseconds"));
                match job::job(provider, name, mode, min_hold).await {
                    Ok(Some(at)) => say(&format!("job ran {at}")),
                    Ok(None) => say("job skipped"),
                    Err(error) => say_failed(&error),
                }
            }
            ["leave", millis, ending] => {
                let hold = Duration::from_millis(millis.parse().expect("milliseconds"));
                leave::leave(provider, name, mode, hold, ending).await;
            }
            ["wait", mode] => grant = modes::granted(provider, name, mode, true).await,
            ["try", mode] => grant = modes::granted(provider, name, mode, false).await,
            ["give-back"] => {
                modes::give_back(provider, grant.take().expect("something is held")).await;
            }
            ["mix", millis, rest] => {
                let length = Duration::from_millis(millis.parse().expect("milliseconds"));
                let mut words: Vec<_> = rest.split(' ').collect();
                let seed = words.remove(0).parse().expect("a number");
                modes::mix(provider, name, &words, seed, length).await;
            }
            ["release"] => {
                let held = guard.take().expect("a lock is held");
                say(&format!("releasing {}", boot_nanos()));
                match held.release().await {
                    Ok(()) => say("released"),
                    Err(error) => say_failed(&error),
                }
            }
            ["drop"] => {
                drop(guard.take().expect("a lock is held"));
                say("dropped");
            }
            ["is-lost"] => {
                say_lost(guard.as_ref().expect("a lock is held").is_lost());
            }
            ["watch"] => {
                let lost = guard.as_ref().expect("a lock is held").lost();
                tokio::spawn(async move {
                    lost.await;
                    say(&format!("lost {}", boot_nanos()));
                });
            }
            ["work", rounds, file] => {
                work(&lock, rounds.parse().expect("a number"), Path::new(file)).await;
            }
            ["contend", register, seed] => {
                let register = register.parse().expect("a port");
                let seed = seed.parse().expect("a number");
                let names: Vec<_> = name.split(',').collect();
                contention.start(provider, &names, register, seed);
                say("contending");
            }
            ["contend-modes", register, seed] => {
                let register = register.parse().expect("a port");
                let seed = seed.parse().expect("a number");
                let names: Vec<_> = name.split(',').collect();
                contention
                    .start_modes(provider, &names, register, seed)
                    .await;
                say("contending");
            }
            ["share", names, millis] => {
                let names = names.parse().expect("a number");
                let length = Duration::from_millis(millis.parse().expect("milliseconds"));
                let shares = fairness::contend(provider, names, length).await;
                say(&format!("shared {}", shares.line()));
            }
            ["stop"] => contention.stop().await,
            ["child"] => say(&format!("child {}", start_child())),
            ["keys"] => say(&format!("keys {}", lock_runtime::testing::keys_in_use())),
            _ => panic!("unknown command `{line}`"),
        }
    }
}

fn start_child() -> u32 {
    let mut command = Command::new("sleep");
    let child = command.arg("600").stdout(Stdio::null()).spawn();
    child.expect("a child starts").id()
}

async fn work(lock: &AnyLock, rounds: u32, file: &Path) {
    for _ in 0..rounds {
        let guard = match lock.acquire().await {
            Ok(guard) => guard,
            Err(error) => return say_failed(&error),
        };
        let from = boot_nanos();
        let number: u64 = std::fs::read_to_string(file)
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("the file holds a number");
        tokio::task::yield_now().await;
        std::fs::write(file, (number + 1).to_string()).expect("the file can be written");
        let token = guard.fencing_token().map_or(0, |token| token.get());
        let until = boot_nanos();
        if guard.is_lost() {
            say("failed Lost during the work");
            return;
        }
        if let Err(error) = guard.release().await {
            return say_failed(&error);
        }
        say(&format!("held {from} {until} {token}"));
    }
    say("done");
}

async fn upgraded(guard: Option<AnyGuard>) -> Result<AnyGuard, LockError> {
    let Some(AnyGuard::Upgradeable(reader)) = guard else {
        panic!("it cannot be upgraded: {guard:?}");
    };
    let writer = reader.upgrade().await.map_err(LockError::from)?;
    Ok(AnyGuard::Write(writer))
}

fn acquired(answer: Result<AnyGuard, LockError>) -> Option<AnyGuard> {
    taken(answer, AnyGuard::fencing_token)
}

fn taken<T>(answer: Result<T, LockError>, token: impl Fn(&T) -> Option<FencingToken>) -> Option<T> {
    match answer {
        Ok(guard) => {
            let token = token(&guard).map_or(0, |token| token.get());
            say(&format!("acquired {} {token}", boot_nanos()));
            Some(guard)
        }
        Err(error) => {
            say_failed(&error);
            None
        }
    }
}

fn say_lost(is_lost: bool) {
    let word = if is_lost { "lost" } else { "valid" };
    say(&format!("{word} {}", boot_nanos()));
}

fn say_failed(error: &LockError) {
    say(&format!("failed {:?} {error}", error.kind()));
}

fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // Whoever started it may be gone.
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}
