//! Giving a lock back.

use std::sync::Arc;

use super::blocking::blocking;
use super::shared::Shared;
use super::watch::{Held, NOT_IN_PLACE};
use crate::provider::Grant;
use crate::providers::kit::error::lost;
use crate::sending::unsent;
use crate::{LockError, LockErrorKind};

pub(super) async fn release(shared: &Arc<Shared>, grant: &Grant) -> Result<(), LockError> {
    let held = grant.state::<Arc<Held>>();
    let Some((held, file)) = held.and_then(|held| Some((held, held.take()?))) else {
        return Err(LockErrorKind::Lost.into());
    };
    let (directory_of, file_name) = (Arc::clone(shared), held.file_name.clone());
    // What ends with the process is the lock. The file would stay, so it counts until it is gone.
    let unsent = unsent();
    let next_look = blocking(move || {
        let next_look = file.next_look();
        let released = file.release();
        drop(unsent);
        match released {
            Ok(true) => Ok(next_look),
            Ok(false) => Err(lost(NOT_IN_PLACE)),
            Err(error) => {
                let directory = &directory_of.directory;
                Err(directory.file_error(&error, &file_name, "remove"))
            }
        }
    })
    .await?;
    shared.yields.add(&held.file_name, next_look);
    Ok(())
}
