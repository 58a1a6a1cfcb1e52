//! Who holds a lock is told as far as the server knows.

use lock_runtime::postgres::advisory_key;
use lock_runtime::{Holder, LockKind, LockMode, LockProvider};
use lock_tests::any_lock::permits;

use crate::common::{BOUND, connected, enter, entering, with_server};

#[test]
fn sessions_are_told_by_what_they_call_themselves() {
    with_server(|server| async move {
        let provider = server.provider().await;
        let url = format!(
            "{}?application_name=lk1 billing-7f9c:4711",
            server.process.url()
        );
        let other = connected(lock_runtime::PostgresProvider::builder(url)).await;
        let sql = format!(
            "SET application_name = 'psql'; SELECT pg_advisory_lock_shared({})",
            advisory_key("order")
        );
        server.raw.batch_execute(&sql).await.unwrap();
        let (_own, _theirs) = (
            enter(&provider, "order", LockMode::Upgradeable).await,
            enter(&other, "order", LockMode::Read).await,
        );
        let name = "order".into();
        let state = provider.inspect(&name, LockKind::RwLock).await.unwrap();
        let pid = std::process::id();
        let described = |holder: &Holder| {
            let label = match holder.is_this_process() {
                true => "here".to_owned(),
                false => holder.label().to_owned(),
            };
            (label, holder.mode().unwrap())
        };
        let mut holders: Vec<_> = state.holders().iter().map(described).collect();
        holders.sort_by(|one, other| one.0.cmp(&other.0));
        let expected = [
            ("billing-7f9c (pid 4711)".to_owned(), LockMode::Read),
            ("here".to_owned(), LockMode::Upgradeable),
            ("psql".to_owned(), LockMode::Read),
        ];
        assert_eq!(holders, expected, "{pid}");
        assert_eq!(state.waiters(), Some(0));
        let (_writing, interest) = entering(&other, "order", LockMode::Write);
        server.until_waiting(1).await;
        let state = provider.inspect(&name, LockKind::RwLock).await.unwrap();
        assert_eq!(state.waiters(), Some(1));
        interest.abandon();
    });
}

#[test]
fn permits_and_those_who_wait_for_them_are_counted() {
    with_server(|server| async move {
        let (here, there) = (server.provider().await, server.provider().await);
        let two = enter(&here, "order", permits(2, 3)).await;
        let one = enter(&there, "order", permits(1, 3)).await;
        let (waiting, interest) = entering(&there, "order", permits(3, 3));
        let name = "order".into();
        lock_tests::eventually("one waits", BOUND, || async {
            let state = here.inspect(&name, LockKind::Semaphore).await.unwrap();
            state.waiters() == Some(1)
        })
        .await;
        let state = here.inspect(&name, LockKind::Semaphore).await.unwrap();
        let taken = state
            .holders()
            .iter()
            .map(|holder| holder.permits().unwrap());
        assert_eq!(taken.sum::<u32>(), 3, "{state:?}");
        interest.abandon();
        assert!(waiting.await.unwrap().is_err());
        here.release(&two).await.unwrap();
        there.release(&one).await.unwrap();
        server.until_free(BOUND).await;
    });
}
