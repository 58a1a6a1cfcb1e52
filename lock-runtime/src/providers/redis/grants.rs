//! Grants that other processes publish for the waiters of this one.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::Value;
use tokio::sync::Notify;

/// How many letters are kept that came before their owner expected any.
const UNCLAIMED: usize = 256;

/// The waiters of one provider instance, by owner.
#[derive(Default)]
pub(super) struct Grants(Mutex<Letters>);

#[derive(Default)]
struct Letters {
    expected: HashMap<Arc<str>, Arc<Letterbox>>,
    /// A grant may be read in the same moment as the answer that its waiter is in the queue, and
    /// so before the waiter has seen that answer. Should one be dropped, its waiter finds the
    /// grant when it looks again.
    unclaimed: VecDeque<(Box<str>, Letter)>,
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
    /// From here on grants for this owner are kept for it, and the one that has just come.
    pub(super) fn expect(self: &Arc<Self>, owner: &str) -> Expected {
        let mut letters = self.lock();
        let early = letters.unclaimed.iter().position(|(of, _)| **of == *owner);
        let latest = early
            .and_then(|at| letters.unclaimed.remove(at))
            .map(|(_, letter)| letter);
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
            if letters.unclaimed.len() == UNCLAIMED {
                letters.unclaimed.pop_front();
            }
            letters.unclaimed.push_back((owner.into(), letter));
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let grants = Arc::<Grants>::default();
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
        let grants = Arc::<Grants>::default();
        for number in 0..1_000 {
            grants.deliver(&message(&format!("{number}|17|1")));
        }
        assert_eq!(grants.lock().unclaimed.len(), UNCLAIMED);
    }
}
