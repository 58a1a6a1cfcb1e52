//! Servers are killed, frozen and cut off at random while processes take one lock after another.
//! Windows never overlap, tokens grow, and a fenced resource refuses no holder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lock_tests::history::Held;
use lock_tests::{FencedRegister, History, Rng, boot_nanos};

use super::{Servers, lock, token, with_servers};

const PARAMETERS: &str = "lease=1s&longest_lease=1s&restart_delay=1s&response_timeout=300ms\
                          &connect_timeout=1s&failover_timeout=20s";
const CLIENTS: usize = 6;
const LENGTH: Duration = Duration::from_secs(16);

/// Takes the lock again and again, and writes with its token while it holds.
async fn work(
    (servers, number): (&Servers, usize),
    (history, register, over): (Arc<History>, Arc<FencedRegister>, Arc<AtomicBool>),
) -> tokio::task::JoinHandle<()> {
    let provider = servers.provider(PARAMETERS).await;
    tokio::spawn(async move {
        let mut rng = Rng::new(number as u64);
        while !over.load(Ordering::Relaxed) {
            let wait = Duration::from_secs(5);
            let Ok(guard) = lock(&provider, "order").acquire_for(wait).await else {
                continue;
            };
            let (from, token) = (boot_nanos(), token(&guard));
            let mut until = from;
            let until_asked = Instant::now() + rng.millis(0..30);
            while Instant::now() < until_asked {
                // What is read before the look is a time at which it was held.
                let now = boot_nanos();
                if guard.is_lost() {
                    break;
                }
                until = now;
                assert!(register.write("order", token), "a holder was refused");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            history.record(Held {
                name: "order".to_owned(),
                holder: number.to_string(),
                from,
                until,
                token: Some(token),
            });
            let _ = guard.release().await;
        }
    })
}

#[test]
fn no_two_hold_it_whatever_happens_to_a_minority() {
    with_servers(5, |mut servers| async move {
        let history = Arc::new(History::default());
        let register = Arc::new(FencedRegister::default());
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for number in 0..CLIENTS {
            let shared = (history.clone(), register.clone(), over.clone());
            tasks.push(work((&servers, number), shared).await);
        }
        let mut rng = Rng::new(7);
        let until = Instant::now() + LENGTH;
        let (mut restarts, mut freezes) = (0, 0);
        // Servers that are young do not vote: the first grant comes when they are old enough.
        tokio::time::sleep(Duration::from_secs(3)).await;
        while Instant::now() < until {
            let number = rng.below(5);
            if rng.below(2) == 0 {
                servers.0[number].process.restart_empty();
                restarts += 1;
                tokio::time::sleep(rng.millis(1_200..2_500)).await;
            } else {
                servers.0[number].process.process().freeze();
                freezes += 1;
                tokio::time::sleep(rng.millis(300..1_500)).await;
                servers.0[number].process.process().thaw();
            }
        }
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.expect("no panic");
        }
        let grants = history.len();
        println!("{grants} grants, {restarts} restarts, {freezes} freezes");
        history.check();
        assert!(grants > 200 && restarts > 0 && freezes > 0);
        assert_eq!(register.refused(), 0);
    });
}
