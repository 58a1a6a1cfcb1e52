//! What random interleavings seldom show, in an order that shows it: by the real scripts, and by
//! ones with a fault.

use lock_tests::RedisServer;
use redis::Value;
use redis::aio::MultiplexedConnection;

use super::judge::Verdict;
use super::scripts::{Fault, Scripts};
use crate::common::DEADLINE;
use crate::dotnet::DotNet;

const KEYS: [&str; 6] = [
    "order.writer",
    "{order}:lk1:rw",
    "lk1:fence",
    "order.readers",
    "{order}:lk1:readers",
    "{order}:lk1:upgrader",
];
const LEASE: &str = "60000";

struct Table {
    scripts: Scripts,
    server: MultiplexedConnection,
    dotnet: DotNet,
}

impl Table {
    async fn run(&self, name: &str, args: &[&str]) -> Value {
        let keys = KEYS.map(str::to_owned);
        self.scripts.run(&self.server, name, &keys, args).await
    }

    /// Asks for the lock, and says whether the owner waits.
    async fn waits(&self, owner: &str, mode: &str) -> bool {
        let args = [owner, LEASE, "1", "lk1:grants:all", mode];
        let answer = self.run("READ_WRITE_ACQUIRE", &args).await;
        matches!(answer, Value::Array(parts) if parts.len() == 5)
    }

    /// Returns how many messages were published.
    async fn published(&self) -> u64 {
        let mut server = self.server.clone();
        let command = redis::cmd("INFO")
            .arg("commandstats")
            .query_async(&mut server)
            .await;
        let stats: String = command.expect("the server answers");
        let calls = stats.split_once("cmdstat_publish:calls=");
        let calls = calls.and_then(|(_, rest)| rest.split_once(',')?.0.parse().ok());
        calls.unwrap_or_default()
    }

    async fn get(&self, key: &str) -> Option<String> {
        let mut server = self.server.clone();
        let value = redis::cmd("GET").arg(key).query_async(&mut server).await;
        value.expect("the server answers")
    }
}

fn demand(holds: bool, what: &str) -> Verdict {
    holds.then_some(()).ok_or_else(|| what.to_owned())
}

/// Checks that the real scripts do what is demanded, and those with the fault do not.
fn holds_but_with<F: Future<Output = Verdict> + Send>(
    faults: &'static [Fault],
    demanded: impl Fn(Table) -> F + Send + 'static,
) {
    lock_tests::run(DEADLINE, async move {
        for faults in [&[], faults] {
            let Some(server) = RedisServer::start_plain() else {
                return;
            };
            let client = redis::Client::open(format!("{}?protocol=resp3", server.url())).unwrap();
            let config = redis::AsyncConnectionConfig::new()
                .set_push_sender(|_| -> Result<(), std::convert::Infallible> { Ok(()) });
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.unwrap();
            connection.subscribe("lk1:grants:all").await.unwrap();
            let verdict = demanded(Table {
                scripts: Scripts::with(faults),
                dotnet: DotNet::new(connection.clone(), "order"),
                server: connection,
            })
            .await;
            assert_eq!(verdict.is_ok(), faults.is_empty(), "{verdict:?}");
        }
    });
}

#[test]
fn a_waiting_writer_holds_back_dotnet_readers() {
    holds_but_with(
        &[(
            "read_write.lua",
            "redis.call('SET', lock, owner .. MARK, 'PX', string.format('%.0f', lasts))",
            "",
        )],
        |table| async move {
            assert!(table.dotnet.read("net1", 60_000).await);
            assert!(table.waits("lk1:h:1:a", "w").await);
            let entered = table.dotnet.read("net2", 60_000).await;
            demand(!entered, "a reader came past a writer that waits")
        },
    );
}

#[test]
fn a_writer_that_leaves_takes_its_mark_along() {
    holds_but_with(
        &[(
            "read_write.lua",
            "if not is_closed() then redis.call('DEL', lock) end",
            "",
        )],
        |table| async move {
            assert!(table.dotnet.read("net1", 60_000).await);
            assert!(table.waits("lk1:h:1:a", "w").await);
            let mark = table.get("order.writer").await;
            assert_eq!(mark.as_deref(), Some("lk1:h:1:a_WRITERWAITING"));
            table.run("READ_WRITE_CLEANUP", &["lk1:h:1:a", "w"]).await;
            demand(
                table.get("order.writer").await.is_none(),
                "the mark of a writer that has gone stays",
            )
        },
    );
}

/// The caller gave up when the answer would have said that it is the writer.
#[test]
fn an_upgrade_that_is_taken_back_leaves_the_reader() {
    holds_but_with(
        &[(
            "upgrade_withdraw.lua",
            "if ARGV[4] ~= '' then let_in(owner, ARGV[4], 'u') end",
            "",
        )],
        |table| async move {
            assert!(!table.waits("lk1:h:1:a", "u").await);
            let args = ["lk1:h:1:b", LEASE, "1", "", "lk1:h:1:a", "7"];
            table.run("UPGRADE", &args).await;
            let writer = table.get("order.writer").await;
            assert_eq!(writer.as_deref(), Some("lk1:h:1:b"));
            let args = ["lk1:h:1:b", "lk1:h:1:a", "7", LEASE];
            table.run("UPGRADE_WITHDRAW", &args).await;
            assert_eq!(table.get("order.writer").await, None);
            let renewed = table.run("READ_RENEW", &["lk1:h:1:a", LEASE, "u"]).await;
            demand(renewed == Value::Int(1), "the reader is gone")
        },
    );
}

#[test]
fn an_upgrade_that_waits_holds_new_readers_back() {
    holds_but_with(
        &[(
            "upgrade.lua",
            "if is_open then redis.call('SET', lock, writer .. UPGRADE, 'PX', lease) end",
            "",
        )],
        |table| async move {
            assert!(!table.waits("lk1:h:1:a", "u").await);
            assert!(!table.waits("lk1:h:1:c", "r").await);
            let ask = ["lk1:h:1:b", LEASE, "1", "lk1:grants:all", "lk1:h:1:a", "7"];
            table.run("UPGRADE", &ask).await;
            let came_past = table.dotnet.read("net1", 60_000).await;
            demand(
                !came_past && table.waits("lk1:h:1:d", "r").await,
                "a reader came past an upgrade that waits",
            )
        },
    );
}

#[test]
fn a_late_request_does_not_begin_an_upgrade_again() {
    holds_but_with(
        &[(
            "upgrade.lua",
            "tonumber(ARGV[6]) < tonumber(begun)",
            "false",
        )],
        |table| async move {
            assert!(!table.waits("lk1:h:1:a", "u").await);
            assert!(!table.waits("lk1:h:1:c", "r").await);
            let ask = ["lk1:h:1:b", LEASE, "1", "lk1:grants:all", "lk1:h:1:a", "7"];
            assert_ne!(table.run("UPGRADE", &ask).await, Value::Int(0));
            let take_back = ["lk1:h:1:b", "lk1:h:1:a", "7", LEASE];
            table.run("UPGRADE_WITHDRAW", &take_back).await;
            let late = table.run("UPGRADE", &ask).await;
            demand(late == Value::Int(0), "an upgrade is begun again")
        },
    );
}

/// Nobody else tells the upgrade that it is alone.
#[test]
fn the_last_reader_to_leave_tells_who_waits_to_write() {
    holds_but_with(
        &[(
            "serve.lua",
            "if owner then tell_to_look(owner, channel) end",
            "",
        )],
        |table| async move {
            assert!(!table.waits("lk1:h:1:a", "u").await);
            assert!(!table.waits("lk1:h:1:c", "r").await);
            let args = ["lk1:h:1:b", LEASE, "1", "lk1:grants:all", "lk1:h:1:a", "7"];
            table.run("UPGRADE", &args).await;
            let before = table.published().await;
            table.run("READ_WRITE_RELEASE", &["lk1:h:1:c", "r"]).await;
            demand(table.published().await > before, "nobody is told")
        },
    );
}

#[test]
fn a_release_ends_nobody_elses_lock() {
    holds_but_with(
        &[(
            "read_write_release.lua",
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end",
            "",
        )],
        |table| async move {
            assert!(table.dotnet.write("net1", 60_000).await);
            table.run("READ_WRITE_RELEASE", &["lk1:h:1:a", "w"]).await;
            demand(
                table.get("order.writer").await.as_deref() == Some("net1"),
                "a release ended another's lock",
            )
        },
    );
}
