//! What the provider goes by.

use std::path::PathBuf;

use crate::LockError;
use crate::providers::kit::error::invalid;

/// Tokens above this would soon not fit the columns of databases, which hold an `i64`.
const HIGHEST_FLOOR: u64 = i64::MAX as u64 / 2;

pub(super) struct Settings {
    pub(super) directory: PathBuf,
    pub(super) key_prefix: String,
    pub(super) mode: Option<u32>,
    pub(super) token_floor: u64,
}

impl Settings {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            key_prefix: String::new(),
            mode: None,
            token_floor: 0,
        }
    }

    /// Refuses what cannot be used.
    pub(super) fn check(&self) -> Result<(), LockError> {
        if let Some(mode) = self
            .mode
            .filter(|mode| mode & !0o666 != 0 || mode & 0o600 != 0o600)
        {
            return Err(invalid(format!(
                "expected a mode in which the owner may read and write and nobody may execute, \
                 such as 0660, got {mode:04o}"
            )));
        }
        if self.token_floor > HIGHEST_FLOOR {
            return Err(invalid(format!(
                "expected a token_floor of at most {HIGHEST_FLOOR}, got {}",
                self.token_floor
            )));
        }
        Ok(())
    }
}
