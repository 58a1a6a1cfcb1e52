//! What the .NET library `DistributedLock` does on the server: its conditions, as plain commands of
//! another client.

use redis::Script;
use redis::aio::MultiplexedConnection;

/// What its waiting writer puts in the writer's place.
pub(crate) const MARK: &str = "_WRITERWAITING";

/// A reader enters unless there is a value in the writer's place.
const READ: &str = "
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1";

/// A writer enters if its place is empty, or marked by itself, and nobody reads.
const WRITE: &str = "
local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[1] .. '_WRITERWAITING' then return 0 end
if redis.call('SCARD', KEYS[2]) == 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 1
end
if there then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0";

/// It has a permit if there are fewer than so many.
const PERMIT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000.0 + time[2] / 1000.0
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 3 * ARGV[2] then redis.call('PEXPIRE', KEYS[1], 3 * ARGV[2]) end
return 1";

/// A client of the .NET library.
#[derive(Clone)]
pub(crate) struct DotNet {
    server: MultiplexedConnection,
    name: String,
}

impl DotNet {
    pub(crate) fn new(server: MultiplexedConnection, name: &str) -> Self {
        let name = name.to_owned();
        Self { server, name }
    }

    fn writer(&self) -> String {
        format!("{}.writer", self.name)
    }

    fn readers(&self) -> String {
        format!("{}.readers", self.name)
    }

    async fn run(&self, text: &str, args: &[&str]) -> bool {
        let script = Script::new(text);
        let mut invocation = script.prepare_invoke();
        match text {
            PERMIT => invocation.key(&self.name),
            _ => invocation.key(self.writer()).key(self.readers()),
        };
        for argument in args {
            invocation.arg(*argument);
        }
        let done: u8 = invocation
            .invoke_async(&mut self.server.clone())
            .await
            .expect("the script runs");
        done == 1
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        let answer = command.query_async(&mut self.server.clone()).await;
        answer.expect("the server answers")
    }

    pub(crate) async fn read(&self, owner: &str, lease: u64) -> bool {
        self.run(READ, &[owner, &lease.to_string()]).await
    }

    pub(crate) async fn release_read(&self, owner: &str) {
        let _: u8 = self.ask(&["SREM", &self.readers(), owner]).await;
    }

    pub(crate) async fn write(&self, owner: &str, lease: u64) -> bool {
        self.run(WRITE, &[owner, &lease.to_string()]).await
    }

    /// Marks the writer's place, unless there is a value, as a writer does that waits.
    pub(crate) async fn mark(&self, owner: &str, lease: u64) -> bool {
        let mark = format!("{owner}{MARK}");
        let lease = lease.to_string();
        let words = ["SET", &self.writer(), &mark, "NX", "PX", &lease];
        self.ask::<Option<String>>(&words).await.is_some()
    }

    /// Deletes what stands in the writer's place, if it is this.
    pub(crate) async fn release_write(&self, value: &str) {
        let there: Option<String> = self.ask(&["GET", &self.writer()]).await;
        if there.as_deref() == Some(value) {
            let _: u8 = self.ask(&["DEL", &self.writer()]).await;
        }
    }

    pub(crate) async fn permit(&self, owner: &str, lease: u64, limit: u32) -> bool {
        let args = [owner, &lease.to_string(), &limit.to_string()];
        self.run(PERMIT, &args).await
    }

    pub(crate) async fn release_permit(&self, owner: &str) {
        let _: u8 = self.ask(&["ZREM", &self.name, owner]).await;
    }
}
