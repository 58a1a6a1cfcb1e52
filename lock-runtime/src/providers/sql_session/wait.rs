//! Waiting for a lock that somebody else has, again and again until it is granted.

use std::time::Duration;

use super::acquisition::{Acquisition, FIRST_POLL, LAST_POLL, WaitPlace};
use super::traits::LockSession;
use crate::clock::Timestamp;
use crate::future::select;
use crate::provider::Grant;
use crate::providers::kit::backoff::jittered;
use crate::{LockError, LockErrorKind};

/// A wait that lasted this long did not fail at once.
const LONG_WAIT: Duration = Duration::from_secs(1);

impl<S: LockSession> Acquisition<'_, S> {
    /// Waits at this place first, and then in the server's queue, until the lock is granted.
    pub(super) async fn wait(mut self, mut place: WaitPlace) -> Result<Grant, LockError> {
        let key = self.key;
        let mut poll = FIRST_POLL;
        loop {
            if self.request.is_abandoned() {
                return Err(LockErrorKind::Contended.into());
            }
            let began = Timestamp::now();
            let waited = match place {
                WaitPlace::Queue => self.wait_in_queue(key).await,
                WaitPlace::Notice => self.wait_for_notice(key, false).await,
                WaitPlace::NoticeAfterOthers => self.wait_for_notice(key, true).await,
            };
            if let Some(grant) = waited? {
                return Ok(grant);
            }
            place = WaitPlace::Queue;
            poll = match (began + LONG_WAIT).has_passed() {
                true => FIRST_POLL,
                false => (poll * 2).min(LAST_POLL),
            };
            let pause = tokio::time::sleep(jittered(poll));
            select(self.request.abandoned(), pause).await;
        }
    }
}
