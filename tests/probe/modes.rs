//! Grants of any mode, asked of the provider itself; and a mix of them at random.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::{AcquireRequest, Grant, LockError, LockErrorKind, LockProvider};
use lock_tests::any_lock::ModeWord;
use lock_tests::{Rng, Window, boot_nanos};

use crate::{say, say_failed};

const LEASE: Duration = Duration::from_secs(10);

async fn ask(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    word: &str,
    waits: bool,
) -> Result<Grant, LockError> {
    let (request, _interest) = AcquireRequest::new(name, LEASE, waits)?;
    provider
        .acquire(&request.with_mode(ModeWord::parse(word)))
        .await
}

fn token(grant: &Grant) -> u64 {
    grant.token().map_or(0, |token| token.get())
}

/// Answers what became of it.
pub(crate) async fn granted(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    word: &str,
    waits: bool,
) -> Option<Grant> {
    match ask(provider, name, word, waits).await {
        Ok(grant) => {
            say(&format!("granted {} {}", boot_nanos(), token(&grant)));
            Some(grant)
        }
        Err(error) => {
            say_failed(&error);
            None
        }
    }
}

pub(crate) async fn give_back(provider: &Arc<dyn LockProvider>, grant: Grant) {
    match provider.release(&grant).await {
        Ok(()) => say("given-back"),
        Err(error) => say_failed(&error),
    }
}

/// Takes and gives back at random for so long, and tells each window.
pub(crate) async fn mix(
    provider: &Arc<dyn LockProvider>,
    name: &str,
    words: &[&str],
    seed: u64,
    length: Duration,
) {
    let mut random = Rng::new(seed);
    let start = Instant::now();
    while start.elapsed() < length {
        let word = random.one_of(words);
        let waits = random.below(3) > 0;
        let grant = match ask(provider, name, word, waits).await {
            Ok(grant) => grant,
            Err(error) if error.kind() == LockErrorKind::Contended && !waits => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(error) => return say_failed(&error),
        };
        let from = boot_nanos();
        if random.below(4) > 0 {
            tokio::time::sleep(random.millis(0..3)).await;
        }
        let until = boot_nanos();
        if let Err(error) = provider.release(&grant).await {
            return say_failed(&error);
        }
        let window = Window {
            name: name.to_owned(),
            holder: String::new(),
            mode: grant.mode(),
            from,
            until,
            token: grant.token().map(|token| token.get()),
        };
        say(&window.line());
    }
    say("done");
}
