//! A process that ends in the moment in which its call returns, whose release nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockError, LockMode, LockProvider, distributed_lock};
use rustix::process::{Signal, getpid, kill_process};

use crate::{say, say_failed};

type Provider = Arc<dyn LockProvider>;

async fn body(hold: Duration) -> Result<(), LockError> {
    tokio::time::sleep(hold).await;
    // Said before the release, so that nothing comes between that and the end.
    say("leaving");
    Ok(())
}

#[distributed_lock(name = name, provider = provider, release = "background")]
async fn locked(provider: &Provider, name: &str, hold: Duration) -> Result<(), LockError> {
    body(hold).await
}

#[distributed_lock(name = name, provider = provider, release = "background", mode = "read")]
async fn reading(provider: &Provider, name: &str, hold: Duration) -> Result<(), LockError> {
    body(hold).await
}

#[distributed_lock(name = name, provider = provider, release = "background", mode = "write")]
async fn writing(provider: &Provider, name: &str, hold: Duration) -> Result<(), LockError> {
    body(hold).await
}

#[distributed_lock(
    name = name,
    provider = provider,
    release = "background",
    permits = permits,
    take = take
)]
async fn with_permits(
    provider: &Provider,
    name: &str,
    hold: Duration,
    permits: u32,
    take: u32,
) -> Result<(), LockError> {
    body(hold).await
}

pub(crate) async fn leave(
    provider: &Provider,
    name: &str,
    mode: LockMode,
    hold: Duration,
    ending: &str,
) {
    let answer = match mode {
        LockMode::Exclusive => locked(provider, name, hold).await,
        LockMode::Read => reading(provider, name, hold).await,
        LockMode::Write => writing(provider, name, hold).await,
        LockMode::Permits { limit, take } => {
            with_permits(provider, name, hold, limit.get(), take.get()).await
        }
        other => panic!("an unknown mode: {other:?}"),
    };
    if let Err(error) = answer {
        return say_failed(&error);
    }
    match ending {
        "exit" => std::process::exit(0),
        "kill" => kill_process(getpid(), Signal::KILL).expect("a process can end itself"),
        _ => panic!("unknown ending `{ending}`"),
    }
}
