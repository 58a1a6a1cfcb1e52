//! Giving a lock back, and letting another process have it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::acquire::LONGEST_PAUSE;
use super::watch::{Held, NOT_IN_PLACE};
use super::{FileProvider, blocking};
use crate::provider::Grant;
use crate::{LockError, LockErrorKind, Timestamp};

/// How long after a waiter of another process said it would look again it may still come.
const SLACK: Duration = Duration::from_millis(2);

/// By file, until when this process leaves a lock that it has released to a waiter of another one.
/// Without that, a process that releases and asks again would always be faster than those that
/// only look now and then.
#[derive(Default)]
pub(super) struct Yields(Mutex<HashMap<String, Timestamp>>);

impl Yields {
    pub(super) fn take(&self, file_name: &str) -> Option<Timestamp> {
        self.lock().remove(file_name)
    }

    /// Adds one, and forgets those that are over, so that there are only ever a few.
    fn add(&self, file_name: &str, until: Timestamp) {
        let mut yields = self.lock();
        yields.retain(|_, until| !until.has_passed());
        yields.insert(file_name.to_owned(), until);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn release(provider: &FileProvider, grant: &Grant) -> Result<(), LockError> {
    let held = grant.state::<Arc<Held>>();
    let Some((held, file)) = held.and_then(|held| Some((held, held.take()?))) else {
        return Err(LockErrorKind::Lost.into());
    };
    let (shared, file_name) = (Arc::clone(&provider.shared), held.file_name.clone());
    let next_look = blocking(move || {
        let next_look = file.next_look();
        match file.release() {
            Ok(true) => Ok(next_look),
            Ok(false) => Err(LockError::new(LockErrorKind::Lost).with_detail(NOT_IN_PLACE)),
            Err(error) => Err(shared.directory.file_error(&error, &file_name, "remove")),
        }
    })
    .await?;
    let now = Timestamp::now();
    // A note that was left before the machine was started again may name any time.
    if let Some(next_look) = next_look.filter(|at| *at > now && *at <= now + LONGEST_PAUSE) {
        provider
            .shared
            .yields
            .add(&held.file_name, next_look + SLACK);
    }
    Ok(())
}
