//! Fencing tokens over changing majorities.

use std::time::Duration;

use lock_tests::proxy::Flow;

use super::{YOUNG, take, token, with_servers};

/// However far a server's counter is ahead, whoever is granted next has a higher token.
#[test]
fn tokens_grow_over_every_majority() {
    with_servers(3, |servers| async move {
        let proxies = servers.proxies().await;
        let parameters = format!("{YOUNG}&response_timeout=500ms");
        let provider = proxies.provider(&parameters).await;
        let mut last = token(&take(&provider, "order").await);
        for round in 0..9 {
            let number = round % 3;
            let ahead = servers.0[number].clock().await + 3_600_000_000 * (round as u64 + 1);
            let raise = format!("SET lk1:fence {ahead} PX 600000");
            servers.0[number].raw.ask::<String>(&raise).await;
            // The one that is ahead is out of reach for every second grant.
            let away = (number + round % 2) % 3;
            proxies.cut(away);
            for _ in 0..3 {
                let guard = take(&provider, "order").await;
                assert!(token(&guard) > last, "{round}: {} {last}", token(&guard));
                last = token(&guard);
                guard.release().await.expect("it was held");
            }
            proxies.0[away].heal();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

/// In a second round, if need be.
#[test]
fn a_majority_knows_every_token() {
    // The servers that answer first may have the highest numbers, or the lowest.
    for first_are_ahead in [true, false] {
        with_servers(5, move |servers| async move {
            let provider = servers.provider(YOUNG).await;
            let clock = servers.0[0].clock().await;
            // So far apart that no proposal is above all of them.
            for (number, server) in servers.0.iter().enumerate() {
                let hours = if first_are_ahead {
                    5 - number
                } else {
                    number + 1
                };
                let ahead = clock + 3_600_000_000 * hours as u64;
                let raise = format!("SET lk1:fence {ahead} PX 600000");
                server.raw.ask::<String>(&raise).await;
            }
            let guard = take(&provider, "order").await;
            let mut know = 0;
            for server in &servers.0 {
                let counter: u64 = server.raw.ask("GET lk1:fence").await;
                know += usize::from(counter >= token(&guard));
            }
            assert!(know >= 3, "{know} know it");
        });
    }
}

/// The proposal is ahead of every server's clock, however long it is on its way.
#[test]
fn one_round_is_the_rule() {
    for delay in [0, 8] {
        with_servers(3, move |servers| async move {
            let proxies = servers.proxies().await;
            for proxy in &proxies.0 {
                let flow = match delay {
                    0 => Flow::Pass,
                    delay => Flow::Delay(Duration::from_millis(delay)),
                };
                proxy.set(|fault| (fault.to_server, fault.to_client) = (flow, flow));
            }
            let provider = proxies.provider(YOUNG).await;
            for _ in 0..3 {
                drop(take(&provider, "order").await.release().await);
            }
            const GRANTS: u64 = 50;
            let scripts = || async {
                let mut all = 0;
                for server in &servers.0 {
                    all += server.raw.scripts().await;
                }
                all
            };
            let before = scripts().await;
            for _ in 0..GRANTS {
                take(&provider, "order")
                    .await
                    .release()
                    .await
                    .expect("held");
            }
            let asked = scripts().await - before;
            // A turn, and of each server a vote and a release. A second round asks two or three of
            // them, and a busy machine may make some.
            assert!(asked <= GRANTS * 7 + GRANTS / 2, "{delay}: {asked}");
        });
    }
}

/// One grant serves several waiters of a process, each with a token of its own.
#[test]
fn blocks_of_tokens_do_not_overlap() {
    with_servers(3, |servers| async move {
        let providers = [servers.provider(YOUNG).await, servers.provider(YOUNG).await];
        let mut tasks = Vec::new();
        for number in 0..16 {
            let provider = providers[number % 2].clone();
            tasks.push(tokio::spawn(async move {
                let mut all = Vec::new();
                for _ in 0..20 {
                    let guard = take(&provider, "order").await;
                    all.push(token(&guard));
                    guard.release().await.expect("it was held");
                }
                all
            }));
        }
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("no panic"));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a token was given out twice");
    });
}
