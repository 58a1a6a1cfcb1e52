//! Who is served next.

use std::sync::Arc;

use lock_tests::history::Held;
use lock_tests::{History, boot_nanos, eventually};
use tokio::sync::Mutex;

use crate::common::BOUND;

use super::{YOUNG, take, token, with_servers};

#[test]
fn processes_are_served_in_the_order_in_which_they_came() {
    with_servers(3, |servers| async move {
        let guard = take(&servers.provider(YOUNG).await, "order").await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..6 {
            let (provider, served) = (servers.provider(YOUNG).await, served.clone());
            waiting.push(tokio::spawn(async move {
                let guard = take(&provider, "order").await;
                served.lock().await.push(number);
                guard.release().await.expect("it was held");
            }));
            servers.0[0].raw.until_waiting("order", number + 1).await;
        }
        // Only the queue's server has to do with those who wait.
        for server in &servers.0[1..] {
            assert_eq!(server.raw.waiting("order").await, 0);
        }
        guard.release().await.expect("it was held");
        for waiting in waiting {
            waiting.await.expect("no panic");
        }
        assert_eq!(*served.lock().await, [0, 1, 2, 3, 4, 5]);
        servers.until_nothing_is_left().await;
    });
}

/// All use the queue of the first server that they reach, and go back there.
#[test]
fn a_waiter_returns_to_the_first_server() {
    with_servers(3, |servers| async move {
        let guard = take(&servers.provider(YOUNG).await, "order").await;
        let proxies = servers.proxies().await;
        // The order is that of the ports, and these are other ones.
        let provider = proxies.provider(YOUNG).await;
        let first = (0..3).min_by_key(|number| proxies.0[*number].port());
        let first = first.expect("there are three");
        proxies.cut(first);
        let waiting = tokio::spawn(async move { take(&provider, "order").await });
        let waiters = || async {
            let mut all = Vec::new();
            for server in &servers.0 {
                all.push(server.raw.waiting("order").await);
            }
            all
        };
        eventually("it waits elsewhere", BOUND, || async {
            let waiters = waiters().await;
            waiters.iter().sum::<usize>() == 1 && waiters[first] == 0
        })
        .await;
        proxies.0[first].heal();
        eventually("it waits there alone", BOUND, || async {
            let waiters = waiters().await;
            waiters.iter().sum::<usize>() == 1 && waiters[first] == 1
        })
        .await;
        guard.release().await.expect("it was held");
        let _guard = waiting.await.expect("no panic");
    });
}

/// Clients that do not reach the same servers use different queues, and exclude each other.
#[test]
fn clients_that_reach_different_servers_exclude_each_other() {
    with_servers(3, |servers| async move {
        let history = Arc::new(History::default());
        let mut tasks = Vec::new();
        for number in 0..6_usize {
            let proxies = servers.proxies().await;
            proxies.cut(number % 3);
            let provider = proxies.provider(YOUNG).await;
            let history = history.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..40 {
                    let guard = take(&provider, "order").await;
                    let from = boot_nanos();
                    tokio::task::yield_now().await;
                    let until = boot_nanos();
                    history.record(Held {
                        name: "order".to_owned(),
                        holder: number.to_string(),
                        from,
                        until,
                        token: Some(token(&guard)),
                    });
                    guard.release().await.expect("it was held");
                }
                drop(proxies);
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(history.len(), 240);
        history.check();
    });
}
