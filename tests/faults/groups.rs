//! Faults while many locks are asked for, released and passed on in one request: each call has one
//! outcome, and a call whose answer is lost is taken back or asked again as one alone is.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_runtime::testing::entries_under;
use lock_runtime::{LockError, LockErrorKind, LockGuard, RedisProvider, RedisProviderBuilder};
use lock_tests::history::Held;
use lock_tests::nemesis::for_each_seed;
use lock_tests::proxy::Flow;
use lock_tests::{
    FaultProxy, History, Rng, boot_nanos, eventually, nobody_is_accused, poll_once, unique,
};

use crate::common::{BOUND, Raw, Server, connected, lock, take, with_server};
use crate::network::{builder_behind, count, proxy_of};
use crate::server_stats::{forgotten_scripts, write_down_all};
use crate::together::{FEW, MANY, Together, asked, ended, held, long, names, tokens};

const SHORT_TIMEOUT: Duration = Duration::from_millis(300);

/// Does not wait for answers for long.
fn impatient(builder: RedisProviderBuilder) -> RedisProviderBuilder {
    long(builder).response_timeout(SHORT_TIMEOUT)
}

/// Waits until the server has carried out what it was asked, so that the answers are under way.
async fn until_held(server: &Server, names: &[String], count: usize) {
    eventually("the server has done it", BOUND, || async {
        held(&server.raw, names).await == count
    })
    .await;
}

/// Releases all, and checks that nothing is left or comes back.
async fn nothing_stays(server: &Server, together: &Together, guards: Vec<LockGuard>) {
    let released = together
        .begin(guards.into_iter().map(LockGuard::release).collect())
        .await;
    together.proxy.heal();
    for released in ended(released).await {
        released.expect("it was held");
    }
    only_the_counter(server).await;
    // Nor does a request that is late bring it back.
    tokio::time::sleep(Duration::from_millis(500)).await;
    only_the_counter(server).await;
}

async fn only_the_counter(server: &Server) {
    eventually("only the counter is left", BOUND, || async {
        server.raw.ask::<Vec<String>>("KEYS *").await == ["lk1:fence"]
    })
    .await;
}

fn all_granted(answers: Vec<Result<LockGuard, LockError>>) -> Vec<LockGuard> {
    answers
        .into_iter()
        .map(|answer| answer.expect("free"))
        .collect()
}

#[test]
fn acquisitions_whose_answers_are_cut_off_are_asked_for_again() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let mut last = 0;
        for _ in 0..3 {
            let broken = count(&together.proxy.counts().broken);
            let before = asked(&server.raw).await;
            let begun = together.begin(names.iter().map(|name| together.take(name)).collect());
            let begun = begun.await;
            until_held(&server, &names, MANY).await;
            let requests = asked(&server.raw).await - before;
            assert!(requests <= FEW, "{requests} requests");
            let owners: Vec<String> = server.raw.ask(&format!("MGET {}", names.join(" "))).await;
            together.proxy.reset();
            together.proxy.heal();
            let guards = all_granted(ended(begun).await);
            assert!(count(&together.proxy.counts().broken) > broken);
            // Each is the same owner's, so nobody holds one twice.
            let now: Vec<String> = server.raw.ask(&format!("MGET {}", names.join(" "))).await;
            assert_eq!(now, owners);
            let tokens = tokens(&guards);
            assert!(tokens.iter().all(|token| *token > last), "they grow");
            last = *tokens.iter().max().expect("there are some");
            nothing_stays(&server, &together, guards).await;
        }
    });
}

#[test]
fn acquisitions_whose_answers_are_lost_with_the_way_to_the_server_are_taken_back() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let tries = names.iter().map(|name| {
            let lock = lock(&together.provider, name);
            async move { lock.try_acquire().await }
        });
        let begun = together.begin(tries.collect()).await;
        until_held(&server, &names, MANY).await;
        together.proxy.set(|fault| fault.refuse = true);
        together.proxy.reset();
        for answer in ended(begun).await {
            let error = answer.map(drop).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        }
        assert_eq!(held(&server.raw, &names).await, MANY, "the keys are there");
        together.proxy.heal();
        // Long before their leases end.
        only_the_counter(&server).await;
        let guards = together.take_all(&names).await;
        nothing_stays(&server, &together, guards).await;
    });
}

#[test]
fn acquisitions_that_are_not_answered_in_time_are_taken_back() {
    with_server(|server| async move {
        let together = Together::start(&server, impatient).await;
        let names = names(MANY);
        let tries = names.iter().map(|name| {
            let lock = lock(&together.provider, name);
            async move { lock.try_acquire().await }
        });
        let begun = together.begin(tries.collect()).await;
        together.proxy.set(|fault| fault.to_client = Flow::Swallow);
        until_held(&server, &names, MANY).await;
        for answer in ended(begun).await {
            let error = answer.map(drop).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        }
        assert!(together.proxy.swallowed() > 0, "answers were lost");
        // Although nothing is answered.
        only_the_counter(&server).await;
        together.proxy.heal();
        let begun = together
            .begin(names.iter().map(|name| together.take(name)).collect())
            .await;
        together.proxy.heal();
        let guards = all_granted(ended(begun).await);
        nothing_stays(&server, &together, guards).await;
    });
}

/// A release of which nobody knows whether it was carried out is no loss.
#[test]
fn releases_whose_answers_are_lost_are_not_lost_locks() {
    with_server(|server| async move {
        let names = names(MANY);
        for is_cut in [true, false] {
            let together = Together::start(&server, impatient).await;
            let guards = together.take_all(&names).await;
            let before = asked(&server.raw).await;
            let released = together
                .begin(guards.into_iter().map(LockGuard::release).collect())
                .await;
            if !is_cut {
                together.proxy.set(|fault| fault.to_client = Flow::Swallow);
            }
            until_held(&server, &names, 0).await;
            let requests = asked(&server.raw).await - before;
            assert!(requests <= FEW, "{requests} requests");
            if is_cut {
                together.proxy.reset();
                together.proxy.heal();
            }
            for released in ended(released).await {
                match is_cut {
                    true => released.expect("it is asked for again"),
                    false => {
                        let kind = released.unwrap_err().kind();
                        assert_eq!(kind, LockErrorKind::ProviderUnavailable);
                    }
                }
            }
            together.proxy.heal();
            only_the_counter(&server).await;
        }
    });
}

#[test]
fn locks_that_are_passed_on_by_a_request_whose_answer_is_cut_off_have_one_holder() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let guards = together.take_all(&names).await;
        let first = tokens(&guards);
        let mget = format!("MGET {}", names.join(" "));
        let before: Vec<String> = server.raw.ask(&mget).await;
        let mut waiting = Vec::new();
        for name in &names {
            let mut next = Box::pin(together.take(name));
            assert!(poll_once(next.as_mut()).await.is_none());
            waiting.push(tokio::spawn(next));
        }
        let requests = asked(&server.raw).await;
        let released = together
            .begin(guards.into_iter().map(LockGuard::release).collect())
            .await;
        eventually("the next owners have them", BOUND, || async {
            let now: Vec<Option<String>> = server.raw.ask(&mget).await;
            now.iter()
                .zip(&before)
                .all(|(now, before)| now.as_ref() != Some(before))
        })
        .await;
        let requests = asked(&server.raw).await - requests;
        assert!(requests <= FEW, "{requests} requests");
        together.proxy.reset();
        together.proxy.heal();
        for released in ended(released).await {
            released.expect("it was passed on");
        }
        let guards = all_granted(ended(waiting).await);
        for (token, first) in tokens(&guards).iter().zip(first) {
            assert!(*token > first, "tokens grow");
        }
        nothing_stays(&server, &together, guards).await;
    });
}

#[test]
fn waiters_whose_places_are_not_answered_take_them_again() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let holder = server.provider_with_long_lease().await;
        let names = names(MANY);
        let mut theirs = Vec::new();
        for name in &names {
            theirs.push(take(&holder, name).await);
        }
        let begun = together
            .begin(names.iter().map(|name| together.take(name)).collect())
            .await;
        for name in &names {
            server.raw.until_waiting(name, 1).await;
        }
        together.proxy.reset();
        together.proxy.heal();
        for (name, guard) in names.iter().zip(theirs) {
            guard.release().await.unwrap();
            assert!(server.raw.waiting(name).await <= 1, "one place each");
        }
        let guards = all_granted(ended(begun).await);
        nothing_stays(&server, &together, guards).await;
    });
}

/// Tasks that take and release names of their own, until told to stop.
async fn keep_busy(
    provider: &Arc<RedisProvider>,
    stop: impl Fn() -> bool + Clone + Send + 'static,
) -> usize {
    let tasks = names(64).into_iter().map(|name| {
        let (provider, stop) = (provider.clone(), stop.clone());
        tokio::spawn(async move {
            let (mut last, mut rounds) = (0, 0);
            while !stop() {
                let guard = take(&provider, &name).await;
                let token = guard.fencing_token().expect("a token").get();
                assert!(token > last, "{token} after {last}");
                last = token;
                rounds += 1;
                // Killed twice while it asks, it cannot be sure; the lock is freed all the same.
                if let Err(error) = guard.release().await {
                    assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
                }
            }
            rounds
        })
    });
    ended(tasks.collect()).await.into_iter().sum()
}

fn after(length: Duration) -> impl Fn() -> bool + Clone + Send + 'static {
    let began = Instant::now();
    move || began.elapsed() > length
}

#[test]
fn connections_killed_in_the_midst_of_groups_cost_no_lock() {
    with_server(|server| async move {
        let provider = server.provider_with_long_lease().await;
        write_down_all(&server.raw).await;
        let length = Duration::from_secs(2);
        let killing = {
            let (raw, over) = (server.raw.clone(), after(length));
            tokio::spawn(async move {
                let mut killed: u64 = 0;
                while !over() {
                    killed += raw.ask::<u64>("CLIENT KILL TYPE pubsub").await;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                killed
            })
        };
        let rounds = keep_busy(&provider, after(length)).await;
        assert!(killing.await.unwrap() >= 10, "connections were killed");
        assert!(rounds > 64, "{rounds}");
        assert!(groups(&server.raw).await > 20, "they went in groups");
        only_the_counter(&server).await;
    });
}

#[test]
fn scripts_may_be_forgotten_before_and_between_groups() {
    with_server(|server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let missed = forgotten_scripts(&server.raw).await;
        server.raw.ask::<String>("SCRIPT FLUSH").await;
        let guards = together.take_all(&names).await;
        server.raw.ask::<String>("SCRIPT FLUSH").await;
        together.release_all(guards).await;
        let missed = forgotten_scripts(&server.raw).await - missed;
        assert!((2..=2 * FEW).contains(&missed), "{missed} were missed");
        let over = after(Duration::from_secs(2));
        let flushing = {
            let (raw, over) = (server.raw.clone(), over.clone());
            tokio::spawn(async move {
                while !over() {
                    raw.ask::<String>("SCRIPT FLUSH").await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        };
        let missed = forgotten_scripts(&server.raw).await;
        assert!(keep_busy(&together.provider, over).await > 64);
        flushing.await.unwrap();
        assert!(forgotten_scripts(&server.raw).await > missed + 20);
        only_the_counter(&server).await;
    });
}

#[test]
fn a_restart_in_the_midst_of_a_group_costs_nobody_a_lock() {
    with_server(|mut server| async move {
        let together = Together::start(&server, long).await;
        let names = names(MANY);
        let begun = together
            .begin(names.iter().map(|name| together.take(name)).collect())
            .await;
        until_held(&server, &names, MANY).await;
        // What it has answered before, nobody learns.
        together.proxy.set(|fault| fault.refuse = true);
        together.proxy.reset();
        server.process.restart_empty();
        together.proxy.heal();
        let guards = all_granted(ended(begun).await);
        let server = Server::of(server.process).await;
        assert_eq!(held(&server.raw, &names).await, MANY, "they are held again");
        let tokens = tokens(&guards);
        let distinct: std::collections::HashSet<_> = tokens.iter().collect();
        assert_eq!(distinct.len(), MANY);
        nothing_stays(&server, &together, guards).await;
    });
}

#[test]
fn a_frozen_server_accuses_nobody_in_groups() {
    with_server(|server| async move {
        let answer = Duration::from_millis(600);
        let configure = |builder| long(builder).response_timeout(answer);
        let together = Together::start(&server, configure).await;
        server.process.process().freeze();
        // More groups hang than there are lanes.
        let hung: Vec<_> = names(4 * MANY)
            .into_iter()
            .map(|name| {
                let lock = lock(&together.provider, &name);
                tokio::spawn(async move { lock.acquire_for(Duration::from_millis(400)).await })
            })
            .collect();
        nobody_is_accused("frozen", answer, |name| lock(&together.provider, name)).await;
        for answer in ended(hung).await {
            let error = answer.map(drop).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
        }
        server.process.process().thaw();
        only_the_counter(&server).await;
        let guards = together.take_all(&names(MANY)).await;
        nothing_stays(&server, &together, guards).await;
    });
}

/// What hangs on a connection that is given up is waited for by its own callers alone.
#[test]
fn calls_that_are_due_later_do_not_wait_for_groups_that_hang() {
    with_server(|server| async move {
        let answer = Duration::from_secs(20);
        let proxy = proxy_of(&server).await;
        let builder = long(builder_behind(&proxy)).response_timeout(answer);
        let provider = connected(builder).await;
        // Its renewals find out that the connection is dead.
        let short = lock(&provider, "short").lease(Duration::from_secs(3));
        let renewed = short.acquire_for(BOUND).await.unwrap();
        proxy.strand();
        let hung: Vec<_> = names(MANY)
            .into_iter()
            .map(|name| {
                let lock = lock(&provider, &name);
                tokio::spawn(async move { lock.acquire_for(answer * 2).await })
            })
            .collect();
        let connections = count(&proxy.counts().connections);
        eventually("there is another connection", BOUND, || async {
            count(&proxy.counts().connections) > connections
        })
        .await;
        let start = Instant::now();
        for name in names(MANY) {
            take(&provider, &format!("later:{name}"))
                .await
                .release()
                .await
                .unwrap();
        }
        assert!(start.elapsed() < answer / 4, "{:?}", start.elapsed());
        assert!(!renewed.is_lost());
        assert!(hung.iter().all(|hung| !hung.is_finished()), "they hang");
        hung.iter().for_each(tokio::task::JoinHandle::abort);
        renewed.release().await.unwrap();
    });
}

/// Polls all of these so many times, a moment apart, and drops them.
async fn drop_after<F: Future>(futures: impl Iterator<Item = F>, polls: usize) -> usize {
    let mut futures: Vec<Option<Pin<Box<F>>>> = futures.map(|f| Some(Box::pin(f))).collect();
    let mut done = 0;
    for poll in 0..polls {
        for future in &mut futures {
            let Some(polled) = future else { continue };
            if poll_once(polled.as_mut()).await.is_some() {
                *future = None;
                done += 1;
            }
        }
        match poll % 3 {
            0 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_micros(300)).await,
        }
    }
    done
}

#[test]
fn callers_that_go_away_from_a_group_leave_nothing() {
    with_server(|server| async move {
        let proxy = proxy_of(&server).await;
        let provider = connected(long(builder_behind(&proxy))).await;
        let holder = server.provider_with_long_lease().await;
        let prefix = unique();
        proxy.set(|fault| {
            fault.to_server = Flow::Delay(Duration::from_millis(1));
            fault.to_client = Flow::Delay(Duration::from_millis(1));
        });
        write_down_all(&server.raw).await;
        let name = |number: usize| format!("{prefix}:{number}");
        let mut theirs = Vec::new();
        for number in (0..32).step_by(4) {
            theirs.push(take(&holder, &name(number)).await);
        }
        let (mut done, mut dropped) = (0, 0);
        for polls in 0..24 {
            // Half of them go on to their release, in both ways.
            let futures = (0..32).map(|number| {
                let lock = lock(&provider, &name(number));
                let lock = match number % 3 {
                    0 => lock.release_in_background(),
                    _ => lock,
                };
                async move {
                    let guard = lock.acquire_for(BOUND).await?;
                    match number % 2 {
                        0 => drop(guard),
                        _ => guard.release().await?,
                    }
                    Ok::<_, LockError>(())
                }
            });
            let finished = drop_after(futures, polls).await;
            done += finished;
            dropped += 32 - finished;
        }
        assert!(
            dropped > 32 * 8 && done > 32,
            "{dropped} of {done} and {dropped}"
        );
        assert!(groups(&server.raw).await > 10, "they went in groups");
        for guard in theirs {
            guard.release().await.unwrap();
        }
        only_the_counter(&server).await;
        eventually("the process has forgotten all names", BOUND, || async {
            entries_under(&prefix) == 0
        })
        .await;
    });
}

/// Returns how many requests for several locks the server has written down.
async fn groups(raw: &Raw) -> usize {
    type Entry = (u64, u64, u64, Vec<String>, String, String);
    let log: Vec<Entry> = raw.ask("SLOWLOG GET 100000").await;
    let keys = |words: &[String]| words.get(2).and_then(|keys| keys.parse::<usize>().ok());
    let is_group = |words: &&Vec<String>| {
        words[0].to_lowercase().starts_with("eval") && keys(words).is_some_and(|keys| keys > 3)
    };
    log.iter()
        .map(|(.., words, _, _)| words)
        .filter(is_group)
        .count()
}

const NAMES: usize = 8;
const TASKS: u64 = 16;
const LEASE: Duration = Duration::from_secs(2);

/// Takes and gives back locks in every way, and notes when it had them.
async fn contender(
    provider: Arc<RedisProvider>,
    history: Arc<History>,
    who: String,
    mut rng: Rng,
    over: impl Fn() -> bool,
) {
    while !over() {
        let name = format!("n{}", rng.below(NAMES));
        let lock = lock(&provider, &name);
        let lock = match rng.below(3) {
            0 => lock.release_in_background(),
            _ => lock,
        };
        let patience = rng.millis(1..400);
        let guard = match rng.below(4) {
            0 => lock.try_acquire().await.ok().flatten(),
            1 => lock.try_acquire_for(patience).await.ok().flatten(),
            2 => tokio::time::timeout(patience, lock.acquire())
                .await
                .ok()
                .and_then(Result::ok),
            _ => lock.acquire_for(BOUND).await.ok(),
        };
        let Some(guard) = guard else { continue };
        let from = boot_nanos();
        match rng.below(3) {
            0 => tokio::time::sleep(rng.millis(1..4)).await,
            _ => tokio::task::yield_now().await,
        }
        let until = boot_nanos();
        let token = guard.fencing_token().map(lock_runtime::FencingToken::get);
        if !guard.is_lost() {
            history.record(Held {
                name,
                holder: who.clone(),
                from,
                until,
                token,
            });
        }
        match rng.below(2) {
            0 => drop(guard),
            _ => drop(guard.release().await),
        }
    }
}

async fn break_things(
    proxies: Vec<FaultProxy>,
    raw: Raw,
    mut rng: Rng,
    over: impl Fn() -> bool,
) -> [usize; 7] {
    let mut injected = [0; 7];
    while !over() {
        tokio::time::sleep(rng.millis(5..80)).await;
        let proxy = &proxies[rng.below(proxies.len())];
        let fault = rng.below(injected.len());
        injected[fault] += 1;
        match fault {
            0 => proxy.reset(),
            1 => proxy.set(|fault| fault.to_client = Flow::Hold),
            2 => proxy.set(|fault| fault.to_server = Flow::Delay(Duration::from_millis(5))),
            3 => proxy.set(|fault| fault.to_client = Flow::Swallow),
            4 => drop(raw.ask::<u64>("CLIENT KILL TYPE pubsub").await),
            5 => drop(raw.ask::<String>("SCRIPT FLUSH").await),
            _ => drop(raw.ask::<u8>("DEL lk1:fence").await),
        }
        if (1..4).contains(&fault) {
            tokio::time::sleep(rng.millis(1..300)).await;
            proxy.heal();
        }
    }
    proxies.iter().for_each(FaultProxy::heal);
    // They go on until their clients are done.
    std::mem::forget(proxies);
    injected
}

async fn survive(seed: u64, length: Duration) {
    let Some(server) = lock_tests::RedisServer::start_plain() else {
        return;
    };
    let server = Server::of(server).await;
    write_down_all(&server.raw).await;
    let mut rng = Rng::new(seed);
    let history = Arc::<History>::default();
    let over = after(length);
    let (mut proxies, mut tasks) = (Vec::new(), Vec::new());
    for place in 0..2 {
        let proxy = proxy_of(&server).await;
        let builder = builder_behind(&proxy)
            .lease(LEASE)
            .response_timeout(SHORT_TIMEOUT);
        let provider = connected(builder).await;
        proxies.push(proxy);
        for task in 0..TASKS {
            tasks.push(tokio::spawn(contender(
                provider.clone(),
                history.clone(),
                format!("{place}:{task}"),
                Rng::new(rng.number()),
                over.clone(),
            )));
        }
    }
    let breaking = break_things(proxies, server.raw.clone(), rng, over);
    let breaking = tokio::spawn(breaking);
    ended(tasks).await;
    let injected = breaking.await.expect("no panic");
    let groups = groups(&server.raw).await;
    println!(
        "groups, seed {seed}: {} grants, {} changes of holder, {groups} groups, faults {injected:?}",
        history.len(),
        history.changes_of_holder(),
    );
    history.check();
    assert!(history.len() > 200 && history.changes_of_holder() > 50);
    assert!(groups > 20, "{groups} groups");
    assert!(injected.iter().sum::<usize>() > 10, "{injected:?}");
    eventually("only the counter is left", LEASE * 2 + BOUND, || async {
        let keys: Vec<String> = server.raw.ask("KEYS *").await;
        keys.iter().all(|key| key == "lk1:fence")
    })
    .await;
}

/// Tasks of two providers take and release the same names while all kinds of things break. It is
/// as long as the environment says: see [`lock_tests::nemesis`].
#[test]
fn nothing_breaks_in_groups_under_random_faults() {
    for_each_seed(6, Duration::from_secs(60), survive);
}
