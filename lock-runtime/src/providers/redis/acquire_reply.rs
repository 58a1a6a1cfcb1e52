//! What the server answers to an acquisition: a grant, a holder, or a place in its queue, and when
//! it is time to look again.

use std::num::NonZeroU32;
use std::time::Duration;

use redis::{RedisResult, Value};

use super::error::no_lock;
use super::keys::Naming;
use super::residue::Residue;
use crate::provider::Holder;
use crate::providers::kit::backoff::{doubled, jittered};
use crate::providers::kit::holder::OURS;
use crate::{LockError, LockErrorKind};

/// A foreign holder hands nothing over: the head of the queue looks this often at first and later,
/// a little apart from the heads of other queues.
const FIRST_POLL: Duration = Duration::from_millis(25);
const LATER_POLLS: Duration = Duration::from_millis(100);
/// Where a holder crashed, the head of the queue looks as soon as its lease ends. Each one behind
/// it looks this much later, in case those before are dead too.
const APART: Duration = Duration::from_millis(20);
/// A connection may be dead without a sign, and then no grant comes: a waiter asks this often at
/// least, however long its lease.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What the server answered.
pub(super) enum Answer {
    /// The first fencing token, and how many.
    Granted(u64, NonZeroU32),
    /// The lock is held, and the caller is not in the queue.
    Held(HeldBy),
    Queued(QueuePosition),
    /// There is no such reader that could upgrade.
    NoReader,
}

/// What the server says of the value under the lock's key.
pub(super) struct HeldBy {
    /// The server cuts it off after the length that any owner of ours has.
    value: Vec<u8>,
    /// What is left of its lease. It is negative if that is not known or there is none.
    remaining_ms: i64,
}

/// A waiter's place in the queue.
pub(super) struct QueuePosition {
    pub(super) holder: HeldBy,
    place: u32,
    /// The last token that was given out when the entry was refreshed.
    pub(super) last_token: u64,
    /// The entry itself.
    pub(super) entry: String,
}

impl HeldBy {
    /// Returns the owner that this process has left there, and takes back, if it is one.
    pub(super) fn residue(&self) -> Option<String> {
        let holder = std::str::from_utf8(&self.value).ok()?;
        // A permit is numbered, if its owner has several.
        let (owner, _) = holder.split_once('#').unwrap_or((holder, ""));
        Residue::has(owner).then(|| owner.to_owned())
    }

    /// Says why the lock is not to be had: it is held, or what stands under its key is no lock.
    pub(super) fn refusal(&self, naming: &Naming, key: &str) -> LockError {
        match self.remaining_ms {
            -1 => no_lock(key, "a value that never expires; no lock does"),
            -3 => no_lock(key, "a value of another type than a lock has"),
            -4 => no_lock(key, "a semaphore, or another sorted set, and no mutex"),
            -5 => no_lock(key, "a mutex, or another string, and no semaphore"),
            _ => LockError::new(LockErrorKind::Contended).with_holder(self.holder(naming)),
        }
    }

    /// Describes the holder.
    pub(super) fn holder(&self, naming: &Naming) -> Holder {
        let holder = naming.holder(&self.value);
        match u64::try_from(self.remaining_ms) {
            Ok(left) => holder.with_expires_in(Duration::from_millis(left)),
            Err(_) => holder,
        }
    }

    /// Says whether it is another client's, which hands nothing over.
    fn is_foreign(&self) -> bool {
        !self.value.starts_with(OURS.as_bytes())
    }
}

impl QueuePosition {
    /// Returns when a waiter with this lease looks again, unless a grant comes before.
    pub(super) fn look_again_after(&self, lease: Duration, polls: &mut u32) -> Duration {
        // A longer pause would let the entry expire, and the waiter pass for dead.
        let refresh = (lease / 3).min(LONGEST_WAIT);
        if self.holder.is_foreign() && self.place == 0 {
            let poll = doubled(FIRST_POLL, *polls / 4, LATER_POLLS);
            *polls += 1;
            return jittered(poll).min(refresh);
        }
        match u64::try_from(self.holder.remaining_ms) {
            Ok(remaining) => {
                let ends = Duration::from_millis(remaining + 1);
                (ends + jittered(APART * self.place)).min(refresh)
            }
            Err(_) => refresh,
        }
    }
}

pub(super) fn read(answer: Value) -> RedisResult<Answer> {
    Ok(match answer {
        token @ Value::BulkString(_) => {
            Answer::Granted(redis::from_redis_value(token)?, NonZeroU32::MIN)
        }
        Value::Int(0) => Answer::NoReader,
        Value::Array(parts) if parts.len() == 2 => {
            let (first, count): (u64, u32) = redis::from_redis_value(Value::Array(parts))?;
            Answer::Granted(first, NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
        }
        Value::Array(parts) if parts.len() == 3 => {
            let (_, remaining_ms, value): (String, i64, Vec<u8>) =
                redis::from_redis_value(Value::Array(parts))?;
            Answer::Held(HeldBy {
                value,
                remaining_ms,
            })
        }
        answer => {
            let (remaining_ms, place, value, last_token, entry): (i64, u32, Vec<u8>, u64, String) =
                redis::from_redis_value(answer)?;
            Answer::Queued(QueuePosition {
                holder: HeldBy {
                    value,
                    remaining_ms,
                },
                place,
                last_token,
                entry,
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_asks_now_and_then_however_long_the_lease() {
        let hour = 3_600_000;
        for (remaining_ms, value) in [(24 * hour, "lk1:h:1:a"), (24 * hour, "a"), (-2, "a")] {
            let position = QueuePosition {
                holder: HeldBy {
                    value: value.into(),
                    remaining_ms,
                },
                place: 3,
                last_token: 0,
                entry: String::new(),
            };
            let pause = position.look_again_after(Duration::from_secs(24 * 3_600), &mut 0);
            assert_eq!(pause, LONGEST_WAIT);
            // Its entry must not expire meanwhile.
            let pause = position.look_again_after(Duration::from_secs(6), &mut 0);
            assert_eq!(pause, Duration::from_secs(2));
        }
    }
}
