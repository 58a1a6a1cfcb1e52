//! The examples that need a server do what they say.

use lock_tests::ClosedPort;
use lock_tests::example::{printed, printed_without, run};

use crate::common::with_server;

const VARIABLE: &str = "REDIS_URL";

/// Returns the tick, the replica and the token of a line such as `1.52 s tick 3: replica 2 is at it
/// (fencing token 17…)`.
fn at_it(line: &str) -> Option<(usize, usize, u64)> {
    let (_, rest) = line.split_once("  tick ")?;
    let (tick, rest) = rest.split_once(": replica ")?;
    let (replica, rest) = rest.split_once(" is at it (fencing token ")?;
    let token = rest.strip_suffix(')')?;
    Some((
        tick.parse().ok()?,
        replica.parse().ok()?,
        token.parse().ok()?,
    ))
}

#[test]
fn workers_do_each_tick_once_although_one_is_killed() {
    with_server(|server| async move {
        let program = env!("CARGO_BIN_EXE_example-workers");
        let text = printed(
            program,
            &["--replicas", "3"],
            (VARIABLE, server.process.url()),
        )
        .await;
        let begun: Vec<_> = text.lines().filter_map(at_it).collect();
        let ticks: Vec<_> = begun.iter().map(|&(tick, ..)| tick).collect();
        // The fourth is begun by one who is killed, and by another one after that.
        assert_eq!(ticks, [1, 2, 3, 4, 4, 5, 6, 7, 8], "{text}");
        let killed = format!("replica {} is KILLED while it holds the lock", begun[3].1);
        assert!(text.contains(&killed), "{text}");
        assert!(
            begun[4..]
                .iter()
                .all(|&(_, replica, _)| replica != begun[3].1),
            "{text}"
        );
        assert!(begun.is_sorted_by(|a, b| a.2 < b.2), "tokens grow: {text}");
        for tick in 1..=8 {
            let found = format!("tick {tick}: done; all others found it so");
            assert_eq!(text.matches(&found).count(), 1, "{text}");
        }
        assert!(text.contains("The record holds 8 ticks."), "{text}");
    });
}

#[test]
fn two_instances_share_a_balance_and_a_report() {
    with_server(|server| async move {
        let program = env!("CARGO_BIN_EXE_example-redis");
        let text = printed(program, &[], (VARIABLE, server.process.url())).await;
        assert!(text.contains("the balance is 4000 of 4000"), "{text}");
        assert!(text.contains("handed over by push"), "{text}");
        let reports = ["one: sent", "the other: sent"];
        let sent = reports.iter().filter(|report| text.contains(**report));
        assert_eq!(sent.count(), 1, "{text}");
        assert_eq!(text.matches(": skipped").count(), 1, "{text}");
        let left: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(left, ["lock-runtime-example:lk1:fence"]);
    });
}

#[test]
fn readers_run_together_and_the_refresher_alone() {
    let program = env!("CARGO_BIN_EXE_example-cache");
    let judge = |text: &str| {
        assert_eq!(text.matches("then was alone").count(), 8, "{text}");
        assert!(text.contains("Every read found one version"), "{text}");
    };
    judge(&printed_without(program, VARIABLE));
    with_server(move |server| async move {
        judge(&printed(program, &[], (VARIABLE, server.process.url())).await);
        let left: Vec<String> = server.raw.ask("KEYS *").await;
        assert_eq!(left, ["lock-runtime-example:lk1:fence"]);
    });
}

#[test]
fn replicas_call_no_more_than_the_partner_bears() {
    let program = env!("CARGO_BIN_EXE_example-rate");
    let judge = |text: &str| {
        assert!(!text.contains("; 4 of 3 now"), "{text}");
        assert!(text.contains("Calls that count 24 have begun"), "{text}");
    };
    judge(&printed_without(program, VARIABLE));
    with_server(move |server| async move {
        judge(&printed(program, &[], (VARIABLE, server.process.url())).await);
    });
}

#[test]
fn examples_say_that_they_need_a_server_and_no_password() {
    let black_hole = ClosedPort::new();
    let url = format!("redis://:secret@{}/0", black_hole.address());
    for program in [
        env!("CARGO_BIN_EXE_example-redis"),
        env!("CARGO_BIN_EXE_example-workers"),
    ] {
        let output = run(program, &[], (VARIABLE, &url));
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("needs a Redis server"), "{errors}");
        assert!(!errors.contains("secret"), "{errors}");
    }
    for program in [
        env!("CARGO_BIN_EXE_example-cache"),
        env!("CARGO_BIN_EXE_example-rate"),
    ] {
        let output = run(program, &[], (VARIABLE, &url));
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.matches("error: ").count(), 1, "{errors}");
        assert!(!errors.contains("secret"), "{errors}");
    }
}
