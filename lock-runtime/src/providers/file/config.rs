//! Settings of a file provider.

use std::path::PathBuf;

use super::FileProvider;
use crate::{LockError, LockErrorKind};

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

    pub(super) fn check(&self) -> Result<(), LockError> {
        if let Some(mode) = self
            .mode
            .filter(|mode| mode & !0o666 != 0 || mode & 0o600 != 0o600)
        {
            return Err(wrong(format!(
                "expected a mode in which the owner may read and write and nobody may execute, \
                 such as 0660, got {mode:04o}"
            )));
        }
        if self.token_floor > HIGHEST_FLOOR {
            return Err(wrong(format!(
                "expected a token_floor of at most {HIGHEST_FLOOR}, got {}",
                self.token_floor
            )));
        }
        Ok(())
    }
}

pub(super) fn wrong(detail: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::InvalidConfig).with_detail(detail)
}

/// Settings of a [`FileProvider`]; see [`FileProvider::builder`].
///
/// # Examples
///
/// ```no_run
/// use lock_runtime::FileProvider;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // For all users of the directory's group.
/// let provider = FileProvider::builder("/var/lock/billing").mode(0o660).build()?;
/// lock_runtime::register(provider)?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct FileProviderBuilder {
    settings: Settings,
}

impl FileProviderBuilder {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            settings: Settings::new(directory),
        }
    }

    /// Puts this text before every lock name. Empty by default.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.key_prefix = prefix.into();
        self
    }

    /// Gives every file this mode, in spite of the umask, so that other users can take part:
    /// `0o660` for the files' group, `0o666` for everybody. A directory that is created gets it too, with
    /// the right to search for whoever may read. By default the umask decides.
    pub fn mode(mut self, mode: u32) -> Self {
        self.settings.mode = Some(mode);
        self
    }

    /// Gives only fencing tokens above this one, as after a change from a provider whose tokens
    /// were higher. 0 by default; at most half of the highest `i64`.
    pub fn token_floor(mut self, floor: u64) -> Self {
        self.settings.token_floor = floor;
        self
    }

    /// Creates the directory if it is missing, and checks that locks can be kept there. Blocks for
    /// as long as the file system takes.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](LockErrorKind::InvalidConfig) for a setting that cannot be used, or a
    /// directory that is none or in which this process may not write;
    /// [`Unsupported`](LockErrorKind::Unsupported) for one on a network file system;
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable) if the file system fails.
    pub fn build(self) -> Result<FileProvider, LockError> {
        self.settings.check()?;
        let provider = FileProvider::of(self.settings);
        provider.shared.directory.check()?;
        Ok(provider)
    }
}
