//! Grants that other processes publish for the waiters of this one.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::sync::Notify;

use crate::clock::Timestamp;

/// An answer and a grant that come together are read within moments of each other. Much more is for
/// waiters that have gone away, and of them there may be many.
const LONGEST_UNCLAIMED: Duration = Duration::from_secs(10);

/// The waiters of one provider instance, by owner.
pub(super) struct Grants {
    letters: Mutex<Letters>,
    /// How long letters are kept that come before their owner expects any: as long as a request
    /// may take, since one that was not answered in this time is repeated, and finds the grant; and
    /// no longer than [`LONGEST_UNCLAIMED`].
    keeps_unclaimed: Duration,
}

#[derive(Default)]
struct Letters {
    expected: HashMap<Arc<str>, Arc<Letterbox>>,
    /// A grant may be read in the same moment as the answer that its waiter is in the queue, and
    /// so before the waiter has seen that answer. There are as many as requests were on their way,
    /// be it thousands.
    unclaimed: HashMap<Arc<str>, (Letter, Timestamp)>,
    /// The owners of the unclaimed, and of some that were claimed, as they came.
    ages: VecDeque<(Timestamp, Arc<str>)>,
}

/// One waiter's entry; it is taken out when this is dropped.
pub(super) struct Expected {
    grants: Arc<Grants>,
    owner: Arc<str>,
    letterbox: Arc<Letterbox>,
}

struct Letterbox {
    latest: Mutex<Option<Letter>>,
    arrived: Notify,
}

/// What is published to a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letter {
    /// The lock is the waiter's, with these fencing tokens.
    Granted { first: u64, count: NonZeroU32 },
    /// It is at the head of the queue now, behind a holder that will hand nothing over.
    Look,
}

impl Grants {
    pub(super) fn new(response_timeout: Duration) -> Self {
        Self {
            letters: Mutex::default(),
            keeps_unclaimed: response_timeout.min(LONGEST_UNCLAIMED),
        }
    }

    /// From here on grants for this owner are kept for it, and the one that has just come.
    pub(super) fn expect(self: &Arc<Self>, owner: &str) -> Expected {
        let mut letters = self.lock();
        letters.drop_old(self.keeps_unclaimed);
        let latest = letters.unclaimed.remove(owner).map(|(letter, _)| letter);
        let owner: Arc<str> = owner.into();
        let letterbox = Arc::new(Letterbox {
            latest: Mutex::new(latest),
            arrived: Notify::new(),
        });
        letters
            .expected
            .insert(Arc::clone(&owner), Arc::clone(&letterbox));
        drop(letters);
        Expected {
            grants: Arc::clone(self),
            owner,
            letterbox,
        }
    }

    /// Takes a message of the channel: `owner|first_token|tokens`.
    ///
    /// A grant that nobody comes to expect is left alone: whoever gave up waiting takes it back
    /// together with the entry in the queue, and whoever had to ask twice expects it for a while.
    pub(super) fn deliver(&self, message: &[Value]) {
        let Some((owner, letter)) = message.get(1).and_then(read) else {
            return;
        };
        let mut letters = self.lock();
        let Some(letterbox) = letters.expected.get(owner).cloned() else {
            letters.drop_old(self.keeps_unclaimed);
            letters.keep(owner.into(), letter);
            return;
        };
        drop(letters);
        *letterbox
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(letter);
        letterbox.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Letters {
    fn keep(&mut self, owner: Arc<str>, letter: Letter) {
        let now = Timestamp::now();
        self.unclaimed.insert(Arc::clone(&owner), (letter, now));
        self.ages.push_back((now, owner));
    }

    fn drop_old(&mut self, age: Duration) {
        while let Some((came, owner)) = self.ages.front()
            && (*came + age).has_passed()
        {
            // A later one of the same owner stays.
            if self.unclaimed.get(owner).is_some_and(|(_, at)| at <= came) {
                self.unclaimed.remove(owner);
            }
            self.ages.pop_front();
        }
    }
}

fn read(payload: &Value) -> Option<(&str, Letter)> {
    let Value::BulkString(bytes) = payload else {
        return None;
    };
    let mut parts = std::str::from_utf8(bytes).ok()?.split('|');
    let (owner, first, count) = (parts.next()?, parts.next()?, parts.next()?);
    let letter = match NonZeroU32::new(count.parse().ok()?) {
        Some(count) => Letter::Granted {
            first: first.parse().ok()?,
            count,
        },
        None => Letter::Look,
    };
    Some((owner, letter))
}

impl Expected {
    /// Resolves when something was published for the owner.
    pub(super) async fn arrives(&self) -> Letter {
        loop {
            let latest = self
                .letterbox
                .latest
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(letter) = latest {
                return letter;
            }
            self.letterbox.arrived.notified().await;
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut letters = self.grants.lock();
        // Somebody else may have come to expect them since.
        if let Some(letterbox) = letters.expected.get(&self.owner)
            && Arc::ptr_eq(letterbox, &self.letterbox)
        {
            letters.expected.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> Vec<Value> {
        vec![
            Value::BulkString(b"channel".to_vec()),
            Value::BulkString(payload.into()),
        ]
    }

    #[test]
    fn a_message_is_a_grant_or_a_nudge() {
        let granted = Letter::Granted {
            first: 17,
            count: NonZeroU32::new(3).unwrap(),
        };
        assert_eq!(read(&message("a:b|17|3")[1]), Some(("a:b", granted)));
        assert_eq!(read(&message("a:b|0|0")[1]), Some(("a:b", Letter::Look)));
        for wrong in ["", "a:b", "a:b|17", "a:b|x|1", "a:b|1|-1"] {
            assert_eq!(read(&message(wrong)[1]), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_grant_may_come_before_it_is_expected() {
        let grants = Arc::new(Grants::new(Duration::from_secs(60)));
        grants.deliver(&message("a|17|1"));
        grants.deliver(&message("b|18|1"));
        let expected = grants.expect("a");
        let one = NonZeroU32::MIN;
        assert_eq!(
            expected.arrives().await,
            Letter::Granted {
                first: 17,
                count: one
            }
        );
        grants.deliver(&message("a|19|1"));
        assert_eq!(
            expected.arrives().await,
            Letter::Granted {
                first: 19,
                count: one
            }
        );
        drop(expected);
        assert!(grants.lock().expected.is_empty());
    }

    #[test]
    fn what_nobody_claims_is_dropped_in_time() {
        let age = Duration::from_millis(500);
        let grants = Arc::new(Grants::new(age));
        for number in 0..1_000 {
            grants.deliver(&message(&format!("{number}|17|1")));
        }
        std::thread::sleep(age);
        grants.deliver(&message("1000|17|1"));
        let letters = grants.lock();
        assert_eq!((letters.unclaimed.len(), letters.ages.len()), (1, 1));
        drop(letters);
        std::thread::sleep(age);
        drop(grants.expect("another"));
        assert!(grants.lock().unclaimed.is_empty());
    }
}
