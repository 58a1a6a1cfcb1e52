//! Grants that other processes publish for the waiters of this one.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::sync::watch;

use crate::clock::Timestamp;

/// An answer and a grant that come together are read within moments of each other. What comes much
/// earlier is for waiters that have gone away, and there may be many of them.
const LONGEST_UNCLAIMED: Duration = Duration::from_secs(10);

/// The waiters of one provider instance, by owner.
pub(super) struct Notifications {
    inboxes: Mutex<Inboxes>,
    /// How long what comes before its owner subscribes is kept: as long as a request may take, but
    /// no longer than [`LONGEST_UNCLAIMED`]. A request that was not answered in this time is
    /// repeated, and finds the grant.
    keeps_unclaimed: Duration,
}

#[derive(Default)]
struct Inboxes {
    subscribed: HashMap<Arc<str>, watch::Sender<Option<Notification>>>,
    /// A grant may be read in the same moment as the answer that its waiter is in the queue, and
    /// so before the waiter has seen that answer. There are as many as requests were on their way,
    /// be it thousands.
    unclaimed: HashMap<Arc<str>, (Notification, Timestamp)>,
    /// The owners of the unclaimed, and of some that were claimed, as they came.
    ages: VecDeque<(Timestamp, Arc<str>)>,
}

/// Where what is published to one owner arrives, until this is dropped.
pub(super) struct Inbox {
    notifications: Arc<Notifications>,
    owner: Arc<str>,
    sender: watch::Sender<Option<Notification>>,
    /// It keeps only the latest.
    receiver: watch::Receiver<Option<Notification>>,
}

/// What is published to a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notification {
    /// The lock is the waiter's, with these fencing tokens.
    Granted { first: u64, count: NonZeroU32 },
    /// It is at the head of the queue now, behind a holder that will hand nothing over.
    Look,
}

impl Notifications {
    pub(super) fn new(response_timeout: Duration) -> Self {
        Self {
            inboxes: Mutex::default(),
            keeps_unclaimed: response_timeout.min(LONGEST_UNCLAIMED),
        }
    }

    /// Keeps what is published for this owner from here on, and what has just come.
    pub(super) fn subscribe(self: &Arc<Self>, owner: &str) -> Inbox {
        let mut inboxes = self.lock();
        inboxes.drop_old(self.keeps_unclaimed);
        let (sender, receiver) = watch::channel(None);
        if let Some((latest, _)) = inboxes.unclaimed.remove(owner) {
            sender.send_replace(Some(latest));
        }
        let owner: Arc<str> = owner.into();
        inboxes
            .subscribed
            .insert(Arc::clone(&owner), sender.clone());
        drop(inboxes);
        Inbox {
            notifications: Arc::clone(self),
            owner,
            sender,
            receiver,
        }
    }

    /// Takes a message of the channel: `owner|first_token|tokens`.
    ///
    /// A grant to which nobody subscribes is left alone. Whoever gave up waiting takes it back
    /// together with the entry in the queue. Whoever had to ask twice subscribes for a while.
    pub(super) fn deliver(&self, message: &[Value]) {
        let Some((owner, notification)) = message.get(1).and_then(read) else {
            return;
        };
        let mut inboxes = self.lock();
        let Some(inbox) = inboxes.subscribed.get(owner).cloned() else {
            inboxes.drop_old(self.keeps_unclaimed);
            inboxes.keep(owner.into(), notification);
            return;
        };
        drop(inboxes);
        inbox.send_replace(Some(notification));
    }

    fn lock(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inboxes {
    fn keep(&mut self, owner: Arc<str>, notification: Notification) {
        let now = Timestamp::now();
        self.unclaimed
            .insert(Arc::clone(&owner), (notification, now));
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

fn read(payload: &Value) -> Option<(&str, Notification)> {
    let Value::BulkString(bytes) = payload else {
        return None;
    };
    let mut parts = std::str::from_utf8(bytes).ok()?.split('|');
    let (owner, first, count) = (parts.next()?, parts.next()?, parts.next()?);
    let notification = match NonZeroU32::new(count.parse().ok()?) {
        Some(count) => Notification::Granted {
            first: first.parse().ok()?,
            count,
        },
        None => Notification::Look,
    };
    Some((owner, notification))
}

impl Inbox {
    /// Waits until something is published for the owner that was not received yet.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(super) async fn recv(&mut self) -> Notification {
        loop {
            // It cannot end: this has a sender too.
            let _ = self.receiver.changed().await;
            if let Some(latest) = *self.receiver.borrow_and_update() {
                return latest;
            }
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut inboxes = self.notifications.lock();
        // Somebody else may have subscribed since.
        if let Some(sender) = inboxes.subscribed.get(&self.owner)
            && sender.same_channel(&self.sender)
        {
            inboxes.subscribed.remove(&self.owner);
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
        let granted = Notification::Granted {
            first: 17,
            count: NonZeroU32::new(3).unwrap(),
        };
        assert_eq!(read(&message("a:b|17|3")[1]), Some(("a:b", granted)));
        assert_eq!(
            read(&message("a:b|0|0")[1]),
            Some(("a:b", Notification::Look))
        );
        for wrong in ["", "a:b", "a:b|17", "a:b|x|1", "a:b|1|-1"] {
            assert_eq!(read(&message(wrong)[1]), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_grant_may_come_before_its_waiter_subscribes() {
        let notifications = Arc::new(Notifications::new(Duration::from_secs(60)));
        notifications.deliver(&message("a|17|1"));
        notifications.deliver(&message("b|18|1"));
        let mut inbox = notifications.subscribe("a");
        let one = NonZeroU32::MIN;
        assert_eq!(
            inbox.recv().await,
            Notification::Granted {
                first: 17,
                count: one
            }
        );
        notifications.deliver(&message("a|19|1"));
        assert_eq!(
            inbox.recv().await,
            Notification::Granted {
                first: 19,
                count: one
            }
        );
        drop(inbox);
        assert!(notifications.lock().subscribed.is_empty());
    }

    #[test]
    fn what_nobody_claims_is_dropped_in_time() {
        let age = Duration::from_millis(500);
        let notifications = Arc::new(Notifications::new(age));
        for number in 0..1_000 {
            notifications.deliver(&message(&format!("{number}|17|1")));
        }
        std::thread::sleep(age);
        notifications.deliver(&message("1000|17|1"));
        let inboxes = notifications.lock();
        assert_eq!((inboxes.unclaimed.len(), inboxes.ages.len()), (1, 1));
        drop(inboxes);
        std::thread::sleep(age);
        drop(notifications.subscribe("another"));
        assert!(notifications.lock().unclaimed.is_empty());
    }
}
