//! The scripts of reader–writer locks and semaphores under random interleavings, on a real server:
//! no conflict, arrival order, growing tokens, everybody served, nothing left. Faults that are
//! planted in the scripts are found.

mod directed;
mod dotnet;
mod ending;
mod judge;
mod moves;
pub(crate) mod scripts;
mod upgrades;
mod world;

use std::time::Duration;

use lock_tests::RedisServer;

use self::judge::Verdict;
use self::scripts::{Fault, Scripts};
use self::world::{Kind, World};

const STEPS: u32 = 600;
const RUNS: u64 = 6;
/// Seeds of a longer run: `LOCK_INTERLEAVINGS=200`.
const VARIABLE: &str = "LOCK_INTERLEAVINGS";
const LONGEST: Duration = Duration::from_secs(600);

/// Runs seeds one after another, on a server that is empty each time, until one breaks something.
async fn judge(scripts: &Scripts, kind: Kind, dotnet: usize, seeds: u64) -> Option<Verdict> {
    let server = RedisServer::start_plain()?;
    let client = redis::Client::open(server.url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    for seed in 0..seeds {
        let () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
        let world = World::new(scripts, kind, &server.url(), dotnet, seed).await;
        if let Err(broken) = world.play(STEPS).await {
            return Some(Err(format!("seed {seed}: {broken}")));
        }
    }
    Some(Ok(()))
}

fn nothing_breaks(kind: Kind, dotnet: usize) {
    lock_tests::run(LONGEST, async move {
        let seeds = std::env::var(VARIABLE).ok().and_then(|it| it.parse().ok());
        let seeds = seeds.unwrap_or(RUNS);
        if let Some(verdict) = judge(&Scripts::real(), kind, dotnet, seeds).await {
            assert_eq!(verdict, Ok(()));
        }
    });
}

fn is_found(kind: Kind, faults: &'static [Fault], expected: &'static str) {
    lock_tests::run(LONGEST, async move {
        let scripts = Scripts::with(faults);
        if let Some(verdict) = judge(&scripts, kind, 0, 3 * RUNS).await {
            let broken = verdict.expect_err("the fault is found");
            assert!(broken.contains(expected), "{broken}");
        }
    });
}

#[test]
fn readers_and_writers_of_ours() {
    nothing_breaks(Kind::ReadWrite, 0);
}

#[test]
fn readers_and_writers_beside_dotnet() {
    nothing_breaks(Kind::ReadWrite, 2);
}

#[test]
fn permits_of_ours() {
    nothing_breaks(Kind::Permits, 0);
}

#[test]
fn permits_beside_dotnet() {
    nothing_breaks(Kind::Permits, 2);
}

#[test]
fn a_reader_that_ignores_the_queue_is_found() {
    is_found(
        Kind::ReadWrite,
        &[(
            "read_write_acquire.lua",
            "redis.call('EXISTS', KEYS[1], KEYS[2]) == 0",
            "string.sub(redis.call('GET', KEYS[1]) or '_WRITERWAITING', -14) == '_WRITERWAITING'",
        )],
        "came before",
    );
}

#[test]
fn a_writer_that_does_not_count_readers_is_found() {
    is_found(
        Kind::ReadWrite,
        &[(
            "read_write.lua",
            "mode == 'r' or redis.call('SCARD', readers) == 0",
            "true",
        )],
        "beside",
    );
}

#[test]
fn several_that_may_upgrade_are_found() {
    is_found(
        Kind::ReadWrite,
        &[(
            "read_write.lua",
            "if mode == 'u' then return not upgrader() end",
            "if mode == 'u' then return true end",
        )],
        "",
    );
}

#[test]
fn an_upgrade_that_counts_no_readers_is_found() {
    is_found(
        Kind::ReadWrite,
        &[(
            "upgrade.lua",
            "is_open and redis.call('SCARD', readers) == 1",
            "is_open",
        )],
        "beside",
    );
}

#[test]
fn a_token_that_is_not_drawn_is_found() {
    is_found(
        Kind::ReadWrite,
        &[(
            "read_write.lua",
            "return take_tokens(tonumber(tokens))",
            "return read_counter(fence) or clock(), 1",
        )],
        "after",
    );
}

#[test]
fn a_crashed_reader_that_nobody_drops_is_found() {
    is_found(
        Kind::ReadWrite,
        &[
            (
                "read_write.lua",
                "if #ended == 0 then return any end",
                "do return any end",
            ),
            (
                "read_write_acquire.lua",
                "#redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', at, 'LIMIT', 0, 1) == 0",
                "true",
            ),
        ],
        "",
    );
}

#[test]
fn a_release_of_whatever_is_there_is_found() {
    is_found(
        Kind::ReadWrite,
        &[
            (
                "read_write_release.lua",
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end",
                "",
            ),
            (
                "read_write.lua",
                "if redis.pcall('GET', lock) == owner then",
                "if redis.pcall('GET', lock) then",
            ),
        ],
        "",
    );
}

#[test]
fn permits_that_are_counted_once_for_all_that_are_taken_are_found() {
    is_found(
        Kind::Permits,
        &[(
            "permits.lua",
            "redis.call('ZCARD', lock) + take <= limit",
            "redis.call('ZCARD', lock) + 1 <= limit",
        )],
        "beside",
    );
}

#[test]
fn a_permit_that_is_counted_twice_is_found() {
    is_found(
        Kind::Permits,
        &[(
            "permits.lua",
            "redis.call('ZCARD', lock) + take <= limit",
            "redis.call('ZCARD', lock) + 2 * take <= limit",
        )],
        "waits for ever",
    );
    // By a request that is made twice.
    is_found(
        Kind::Permits,
        &[(
            "enter.lua",
            "if extend(owner, lease, mode) then",
            "if false then",
        )],
        "was refused what it has",
    );
}

#[test]
fn permits_that_are_handed_out_of_turn_are_found() {
    is_found(
        Kind::Permits,
        &[(
            "permits_acquire.lua",
            "redis.call('EXISTS', KEYS[2]) == 0",
            "true",
        )],
        "came before",
    );
}
