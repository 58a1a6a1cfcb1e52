//! The builder, and the checks that come before the first lock.

use std::path::PathBuf;
use std::sync::Arc;

use super::blocking::blocking;
use super::provider::FileProvider;
use super::settings::Settings;
use crate::LockError;
use crate::background::run_here;
use crate::provider::LockProvider;

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
    /// `0o660` for the files' group, `0o666` for everybody. A directory that is created gets it
    /// too, with the right to search for whoever may read. By default the umask decides.
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
    /// * [`InvalidConfig`](crate::LockErrorKind::InvalidConfig): a setting cannot be used, or the
    ///   directory is none, or this process may not write there;
    /// * [`Unsupported`](crate::LockErrorKind::Unsupported): it is on a network file system;
    /// * [`ProviderUnavailable`](crate::LockErrorKind::ProviderUnavailable): the file system fails.
    pub fn build(self) -> Result<FileProvider, LockError> {
        self.settings.check()?;
        let provider = FileProvider::of(self.settings);
        provider.shared.directory.check()?;
        Ok(provider)
    }
}

impl FileProvider {
    /// Begins the settings for locks in this directory.
    pub fn builder(directory: impl Into<PathBuf>) -> FileProviderBuilder {
        FileProviderBuilder::new(directory.into())
    }
}

pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    let provider = FileProvider::from_url(&url)?;
    let shared = Arc::clone(&provider.shared);
    // The caller may have another runtime, or none.
    run_here(blocking(move || shared.directory.check())).await??;
    Ok(Arc::new(provider))
}
