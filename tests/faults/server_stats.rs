//! Numbers that a server has counted, and checks that a guard and its key agree.

use std::time::Duration;

use lock_runtime::LockGuard;
use lock_tests::eventually;

use crate::common::{BOUND, Raw};

/// Returns how often a command was called, inside scripts too.
pub(crate) async fn calls(raw: &Raw, command: &str) -> u64 {
    field(raw, &format!("cmdstat_{command}:calls=")).await
}

/// Returns how often a script was asked for that the server did not know.
pub(crate) async fn forgotten_scripts(raw: &Raw) -> u64 {
    field(raw, "errorstat_NOSCRIPT:count=").await
}

async fn field(raw: &Raw, start: &str) -> u64 {
    let text: String = raw.ask("INFO everything").await;
    let digits = text
        .lines()
        .find_map(|line| line.strip_prefix(start))
        .map(|rest| rest.split(',').next().unwrap_or(rest));
    // What was never counted is not listed.
    digits.map_or(0, |digits| digits.parse().expect("a number"))
}

/// Makes the server write down what it is asked from here on.
pub(crate) async fn write_down_all(raw: &Raw) {
    raw.ask::<()>("CONFIG SET slowlog-max-len 100000").await;
    raw.ask::<()>("CONFIG SET slowlog-log-slower-than 0").await;
}

/// Returns the scripts that were asked for with this key or argument, the latest first: when, by
/// whom, and with what.
///
/// An owner is a better argument than a key. Ports of servers that have ended are used again, and
/// another test's provider may still look for its lock of the same name there.
pub(crate) async fn scripts_about(raw: &Raw, text: &str) -> Vec<String> {
    type Entry = (u64, u64, u64, Vec<String>, String, String);
    let log: Vec<Entry> = raw.ask("SLOWLOG GET 100000").await;
    log.into_iter()
        .filter(|(.., words, _, _)| words[0].to_lowercase().starts_with("eval"))
        .filter(|(.., words, _, _)| words.iter().any(|word| word == text))
        .map(|(_, at, _, words, client, _)| format!("{at} {client} {}", words.join(" ")))
        .collect()
}

/// Returns what is left of a key's life. It is negative where the key has none.
pub(crate) async fn life(raw: &Raw, key: &str) -> i64 {
    raw.ask(&format!("PTTL {key}")).await
}

/// Waits until the server gives the key up. The guard must be lost by then, however late this task
/// looks.
pub(crate) async fn until_lost_and_gone(guard: &LockGuard, raw: &Raw, key: &str, bound: Duration) {
    eventually("the key is gone", bound, || async {
        let gone = raw.get(key).await.is_none();
        assert!(
            !gone || guard.is_lost(),
            "the server gave the lock up, and its holder believes to have it"
        );
        gone
    })
    .await;
}

/// Takes the key as a client of another kind, as soon as it is free.
pub(crate) async fn take_as_foreigner(raw: &Raw, key: &str) {
    eventually("the key is free", BOUND, || async {
        raw.set_nx(key, "foreign").await
    })
    .await;
}
