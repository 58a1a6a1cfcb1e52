//! The commands that any lock on Redis needs at least. They use a multiplexed connection whose driver
//! runs on the caller's own runtime, as in a plain program that knows nothing better: of all ways to
//! connect, that is the fastest here.

use std::future::Future;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, ProtocolVersion, PushInfo};
use redis::{PushKind, Value};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::lock::{LEASE, Lock};

const COUNTER: &str = "raw:counter";
const OWNER: &str = "raw:owner:0123456789abcdef0123456789abcdef";

const SET_AND_COUNT: &str = "\
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return redis.call('INCR', KEYS[2])
end
return 0";
const COMPARE_AND_DELETE: &str = "\
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";
/// What a reader of the .NET library does: it enters unless there is a value in the writer's place.
const READ: &str = "\
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1";
const LEAVE: &str = "return redis.call('SREM', KEYS[1], ARGV[1])";

#[derive(Clone)]
pub(crate) struct Raw {
    connection: MultiplexedConnection,
    set_and_count: String,
    compare_and_delete: String,
    read: String,
    leave: String,
}

impl Raw {
    pub(crate) async fn connect(url: &str) -> Self {
        let (raw, _) = Self::connect_with_pushes(url).await;
        raw
    }

    async fn connect_with_pushes(url: &str) -> (Self, UnboundedReceiver<PushInfo>) {
        let info = url.into_connection_info().expect("the server's own URL");
        let settings = info.redis_settings().clone();
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).expect("a URL for a client");
        let (push, pushes) = unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(push);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await.expect("the server answers");
        let load = |script| {
            let mut connection = connection.clone();
            async move {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(script);
                load.query_async(&mut connection).await.expect("its hash")
            }
        };
        let raw = Self {
            set_and_count: load(SET_AND_COUNT).await,
            compare_and_delete: load(COMPARE_AND_DELETE).await,
            read: load(READ).await,
            leave: load(LEAVE).await,
            connection,
        };
        (raw, pushes)
    }

    /// Makes a lock, whose grants are counted if `counts` says so.
    pub(crate) fn lock(&self, number: u64, counts: bool) -> impl Lock {
        RawLock {
            raw: self.clone(),
            key: format!("raw:{number}"),
            counts,
        }
    }

    pub(crate) fn read(&self, number: u64) -> impl Lock {
        RawRead {
            raw: self.clone(),
            writer: format!("raw:{number}.writer"),
            readers: format!("raw:{number}.readers"),
        }
    }

    pub(crate) async fn query(&mut self, command: &Cmd) -> Value {
        let answer = self.connection.send_packed_command(command).await;
        answer.expect("the server answers")
    }

    /// Counts the members of a sorted set.
    pub(crate) async fn members(&mut self, key: &str) -> u32 {
        let answer = self.query(redis::cmd("ZCARD").arg(key)).await;
        redis::from_redis_value(answer).expect("a number")
    }

    pub(crate) async fn info(&mut self, section: &str) -> String {
        let answer = self.query(redis::cmd("INFO").arg(section)).await;
        redis::from_redis_value(answer).expect("a text")
    }

    pub(crate) async fn publish(&mut self, channel: &str, message: &str) {
        let mut command = redis::cmd("PUBLISH");
        let answer = self.query(command.arg(channel).arg(message)).await;
        assert_eq!(answer, Value::Int(1), "nobody listens");
    }
}

struct RawLock {
    raw: Raw,
    key: String,
    counts: bool,
}

impl Lock for RawLock {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let lease = LEASE.as_millis() as u64;
        let mut set = Cmd::new();
        if self.counts {
            set.arg("EVALSHA").arg(&self.raw.set_and_count).arg(2);
            set.arg(&self.key).arg(COUNTER).arg(OWNER).arg(lease);
        } else {
            set.arg("SET").arg(&self.key).arg(OWNER);
            set.arg("NX").arg("PX").arg(lease);
        }
        let answer = self.raw.query(&set).await;
        assert!(
            matches!(answer, Value::Okay | Value::Int(1..)),
            "it is free"
        );
        section.await;
        let mut delete = Cmd::new();
        delete.arg("EVALSHA").arg(&self.raw.compare_and_delete);
        delete.arg(1).arg(&self.key).arg(OWNER);
        assert_eq!(self.raw.query(&delete).await, Value::Int(1), "it was held");
    }
}

struct RawRead {
    raw: Raw,
    writer: String,
    readers: String,
}

impl Lock for RawRead {
    async fn with(&mut self, section: impl Future<Output = ()> + Send) {
        let mut read = Cmd::new();
        read.arg("EVALSHA").arg(&self.raw.read).arg(2);
        read.arg(&self.writer).arg(&self.readers);
        read.arg(OWNER).arg(LEASE.as_millis() as u64);
        assert_eq!(self.raw.query(&read).await, Value::Int(1), "nobody writes");
        section.await;
        let mut leave = Cmd::new();
        leave.arg("EVALSHA").arg(&self.raw.leave);
        leave.arg(1).arg(&self.readers).arg(OWNER);
        assert_eq!(self.raw.query(&leave).await, Value::Int(1), "it was held");
    }
}

/// A subscription to one channel.
pub(crate) struct Channel(Mutex<UnboundedReceiver<PushInfo>>, Raw);

impl Channel {
    pub(crate) async fn subscribe(url: &str, channel: &str) -> Self {
        let (mut raw, pushes) = Raw::connect_with_pushes(url).await;
        let subscribed = raw.connection.subscribe(channel).await;
        subscribed.expect("the server answers");
        Self(Mutex::new(pushes), raw)
    }

    /// Waits for a message.
    pub(crate) async fn hear(&self) {
        let mut pushes = self.0.lock().await;
        while let Some(push) = pushes.recv().await {
            if push.kind == PushKind::Message {
                return;
            }
        }
        // The connection lives as long as its handle.
        panic!("disconnected: {:?}", self.1.connection);
    }
}
