//! Several mutexes in one request.

use std::sync::Arc;
use std::time::Duration;

use lock_runtime::{
    AcquireRequest, DistributedMultiLock, Grant, LockError, LockErrorKind, LockProvider,
    RedisProvider,
};
use lock_tests::proxy::Flow;
use lock_tests::{FaultProxy, eventually};

use crate::common::{BOUND, LONG, connected, lock, take, with_server};

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn several(provider: &RedisProvider) -> Vec<Result<Grant, LockError>> {
    let requests = NAMES.map(|name| AcquireRequest::new(name, LONG, false).unwrap().0);
    provider.acquire_several(&requests).expect("it can").await
}

fn kinds(answers: &[Result<Grant, LockError>]) -> Vec<Option<LockErrorKind>> {
    let kind = |answer: &Result<Grant, LockError>| answer.as_ref().err().map(LockError::kind);
    answers.iter().map(kind).collect()
}

#[test]
fn all_that_are_free_take_one_request() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let locks = DistributedMultiLock::on(provider.clone(), NAMES);
        locks.acquire().await.unwrap().release().await.unwrap();
        let before = server.raw.scripts().await;
        let guard = locks.acquire().await.unwrap();
        let tokens: Vec<_> = guard.tokens().map(|(_, token)| token).collect();
        assert_eq!(tokens.len(), 3);
        assert!(
            tokens.windows(2).all(|pair| pair[0] < pair[1]),
            "{tokens:?}"
        );
        let taken = server.raw.scripts().await;
        guard.release().await.unwrap();
        let released = server.raw.scripts().await;
        assert_eq!((taken - before, released - taken), (1, 1), "of scripts");
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn it_stops_at_the_first_that_is_held() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let held = take(&other, "b").await;
        let answers = several(&provider).await;
        let contended = Some(LockErrorKind::Contended);
        assert_eq!(kinds(&answers), [None, contended, contended]);
        let named = answers[1].as_ref().unwrap_err().holder().is_some();
        assert!(named, "the answer says who it is");
        assert_eq!(server.raw.get("c").await, None, "it was not touched");
        provider
            .release(answers[0].as_ref().unwrap())
            .await
            .unwrap();
        held.release().await.unwrap();
        // What is no lock stops it too, and says so.
        server.raw.ask::<u32>("RPUSH b 1").await;
        let answers = several(&provider).await;
        assert_eq!(
            kinds(&answers),
            [None, Some(LockErrorKind::InvalidConfig), contended]
        );
        provider
            .release(answers[0].as_ref().unwrap())
            .await
            .unwrap();
        server.raw.ask::<u32>("DEL b").await;
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn the_dead_in_a_queue_are_no_holders() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let entry = format!("lk1:gone:1:{:032x}|nobody|600000|1|1", 7);
        for name in ["a", "b"] {
            let dead = format!("RPUSH {{{name}}}:lk1:waiters {entry}");
            server.raw.ask::<u32>(&dead).await;
        }
        let answers = several(&provider).await;
        assert_eq!(kinds(&answers), [None; 3]);
        for grant in answers {
            provider.release(&grant.unwrap()).await.unwrap();
        }
        server.raw.until_nothing_is_left().await;
    });
}

#[test]
fn a_script_that_was_forgotten_is_sent_again() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        for _ in 0..2 {
            server.raw.ask::<String>("SCRIPT FLUSH").await;
            let answers = several(&provider).await;
            assert_eq!(kinds(&answers), [None; 3]);
            for grant in answers {
                provider.release(&grant.unwrap()).await.unwrap();
            }
        }
        server.raw.until_nothing_is_left().await;
    });
}

/// The server has taken all three, and the answer is lost.
#[test]
fn a_lost_answer_leaves_nothing() {
    with_server(|server| async move {
        let proxy = FaultProxy::start(server.process.port()).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let builder = RedisProvider::builder(url).lease(LONG);
        let provider = connected(builder.response_timeout(Duration::from_millis(300))).await;
        let locks = DistributedMultiLock::on(provider.clone(), NAMES);
        locks.acquire().await.unwrap().release().await.unwrap();
        for breaks in [false, true] {
            proxy.set(|fault| fault.to_client = Flow::Swallow);
            let waiting = locks.clone();
            let acquiring = tokio::spawn(async move { waiting.acquire_for(BOUND).await });
            eventually("the server has taken them", BOUND, async || {
                server.raw.get("c").await.is_some()
            })
            .await;
            if breaks {
                acquiring.abort();
            }
            proxy.heal();
            proxy.reset();
            match acquiring.await {
                Ok(guard) => guard.unwrap().release().await.unwrap(),
                Err(aborted) => assert!(aborted.is_cancelled()),
            }
            // Long before the leases end.
            server.raw.until_nothing_is_left().await;
        }
    });
}

#[test]
fn one_after_another_is_waited_for() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        let other = server.provider_with_long_lease().await;
        let locks = DistributedMultiLock::on(provider, NAMES);
        let (first, last) = (take(&other, "a").await, take(&other, "c").await);
        let acquiring = tokio::spawn(async move { locks.acquire().await });
        server.raw.until_waiting("a", 1).await;
        assert_eq!(server.raw.get("b").await, None, "only once `a` is held");
        first.release().await.unwrap();
        server.raw.until_waiting("c", 1).await;
        assert!(server.raw.get("b").await.is_some());
        last.release().await.unwrap();
        acquiring.await.unwrap().unwrap().release().await.unwrap();
        let free = lock(&Arc::clone(&other), "b").try_acquire().await.unwrap();
        free.expect("all were given back").release().await.unwrap();
    });
}
