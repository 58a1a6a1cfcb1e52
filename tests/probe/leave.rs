//! A process that ends in the moment in which its call returns, whose release nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{LockError, LockProvider, distributed_lock};
use rustix::process::{Signal, getpid, kill_process};

use crate::{say, say_failed};

#[distributed_lock(name = name, provider = provider, release = "background")]
async fn called(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    hold: Duration,
) -> Result<(), LockError> {
    tokio::time::sleep(hold).await;
    // Said before the release, so that nothing comes between that and the end.
    say("leaving");
    Ok(())
}

pub(crate) async fn leave(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    hold: Duration,
    ending: &str,
) {
    if let Err(error) = called(provider, name, hold).await {
        return say_failed(&error);
    }
    match ending {
        "exit" => std::process::exit(0),
        "kill" => kill_process(getpid(), Signal::KILL).expect("a process can end itself"),
        _ => panic!("unknown ending `{ending}`"),
    }
}
