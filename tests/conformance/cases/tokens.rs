//! Fencing tokens of a name grow strictly.

use std::sync::{Arc, Mutex};

use lock_tests::{AnyGuard, FencedRegister};
use tokio::task::JoinSet;

use super::Shared;

fn token(guard: &AnyGuard) -> u64 {
    guard
        .fencing_token()
        .expect("this provider promises tokens")
        .get()
}

fn assert_growing(tokens: &[u64]) {
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
}

pub(crate) async fn tokens_grow(fixture: Shared) {
    let lock = fixture.lock("lock");
    let register = FencedRegister::default();
    let mut tokens = Vec::new();
    for round in 0..50 {
        let guard = fixture.take(&lock).await;
        assert!(register.write("lock", token(&guard)));
        tokens.push(token(&guard));
        match round % 2 {
            0 => drop(guard),
            _ => guard.release().await.unwrap(),
        }
        // Grants of other names come between.
        drop(fixture.take(&fixture.lock(format!("other-{round}"))).await);
    }
    assert_growing(&tokens);
    assert!(
        !register.write("lock", tokens[0]),
        "the register refuses what is stale"
    );
}

/// Waiters of one process are served in runs from one grant, where the provider can do that.
pub(crate) async fn tokens_grow_in_a_crowd(fixture: Shared) {
    let lock = fixture.lock("lock");
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (lock, tokens) = (lock.clone(), tokens.clone());
        tasks.spawn(async move {
            for _ in 0..3 {
                let guard = lock.acquire().await.unwrap();
                tokens.lock().unwrap().push(token(&guard));
                guard.release().await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(tokens.lock().unwrap().len(), 300);
    assert_growing(&tokens.lock().unwrap());
}

pub(crate) async fn tokens_grow_over_providers(fixture: Shared) {
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let provider = fixture.second_provider().await;
        let provider = provider.unwrap_or_else(|| fixture.provider().clone());
        let other = fixture.lock_on(provider, "lock");
        for lock in [&other, &fixture.lock("lock")] {
            let guard = fixture.take(lock).await;
            tokens.push(token(&guard));
            guard.release().await.unwrap();
        }
    }
    assert_growing(&tokens);
}
