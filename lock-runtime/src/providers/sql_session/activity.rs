//! What a session has been asked, and when the server answered.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::Timestamp;

/// The requests and answers of one session.
pub(crate) struct Activity {
    /// The server has answered a request that was sent at this time.
    confirmed_at: AtomicU64,
    /// The server's last answer came at this time.
    heard_at: AtomicU64,
    under_way: AtomicU32,
}

/// A request that is under way until this is dropped.
pub(crate) struct RequestUnderWay<'a>(&'a Activity);

impl Activity {
    /// Starts with the answer to a request that was sent at this time.
    pub(crate) fn new(sent_at: Timestamp) -> Self {
        Self {
            confirmed_at: AtomicU64::new(sent_at.as_nanos()),
            heard_at: AtomicU64::new(sent_at.as_nanos()),
            under_way: AtomicU32::new(0),
        }
    }

    /// Counts a request as under way until what this returns is dropped.
    pub(crate) fn begin(&self) -> RequestUnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        RequestUnderWay(self)
    }

    /// Returns the latest time at which a request was sent that has been answered.
    pub(super) fn confirmed_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.confirmed_at.load(Ordering::Relaxed))
    }

    /// Returns when the last answer came.
    pub(super) fn heard_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.heard_at.load(Ordering::Relaxed))
    }

    /// Returns how many requests are under way.
    pub(super) fn requests_under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }
}

impl RequestUnderWay<'_> {
    /// Notes that the answer has come to what was sent at this time.
    pub(crate) fn answered(&self, sent_at: Timestamp) {
        let now = Timestamp::now().as_nanos();
        self.0.heard_at.store(now, Ordering::Relaxed);
        self.0
            .confirmed_at
            .fetch_max(sent_at.as_nanos(), Ordering::Relaxed);
    }
}

impl Drop for RequestUnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
