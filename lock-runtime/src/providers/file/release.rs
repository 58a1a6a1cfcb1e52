//! Giving a lock back.

use std::sync::Arc;

use super::blocking::blocking;
use super::lock_file::{Access, LockFile};
use super::shared::Shared;
use super::watch::{Held, NOT_IN_PLACE};
use crate::provider::Grant;
use crate::providers::kit::error::lost;
use crate::sending::unsent;
use crate::{LockError, LockErrorKind, Timestamp};

pub(super) async fn release(shared: &Arc<Shared>, grant: &Grant) -> Result<(), LockError> {
    let held = grant.state::<Arc<Held>>();
    let files = held.map(|held| held.take()).unwrap_or_default();
    if files.is_empty() {
        return Err(LockErrorKind::Lost.into());
    }
    let directory_of = Arc::clone(shared);
    // What ends with the process is the lock. The file would stay, so it counts until it is gone.
    let unsent = unsent();
    let left = blocking(move || {
        // All of them, whatever becomes of one.
        let released: Vec<_> = files
            .into_iter()
            .map(|file| release_one(&directory_of, file))
            .collect();
        drop(unsent);
        released.into_iter().collect::<Result<Vec<_>, _>>()
    })
    .await?;
    for (file_name, next_look) in left {
        shared.yields.add(&file_name, next_look);
    }
    Ok(())
}

/// Releases one file, and returns its name with the time at which a waiter will look at it.
fn release_one(shared: &Shared, file: LockFile) -> Result<(String, Option<Timestamp>), LockError> {
    let name = file.name().to_owned();
    // Whoever waits for readers holds new ones back by itself.
    let next_look = match file.access() {
        Access::Exclusive => file.next_look(),
        Access::Shared => None,
    };
    match file.release() {
        Ok(true) => Ok((name, next_look)),
        Ok(false) => Err(lost(NOT_IN_PLACE)),
        Err(error) => Err(shared.directory.file_error(&error, &name, "remove")),
    }
}
