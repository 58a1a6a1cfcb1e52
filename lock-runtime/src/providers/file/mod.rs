//! Locks between the processes of one machine, as files.

mod acquire;
mod config;
mod counter;
mod directory;
mod lock_file;
mod name;
mod release;
#[cfg(test)]
mod tests;
mod url;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

pub use self::config::FileProviderBuilder;
use self::config::Settings;
use self::counter::Counters;
use self::directory::Directory;
use self::release::Yields;
use self::watch::Watch;
use crate::keeper::run_on_keeper;
use crate::provider::{AcquireRequest, BoxFuture, Capabilities, Grant, LockProvider, describe};
use crate::{LockError, LockErrorKind};

/// Locks between the processes of one machine: each lock is a file in a directory, held by
/// `flock(2)`.
///
/// The files are those of the .NET `DistributedLock` library's file locks, so programs of both
/// kinds exclude each other when they share a directory and its key prefix.
///
/// * There is no lease: a lock is held until its guard is released or its process ends, however it
///   ends. A process that is stopped (`SIGSTOP`) goes on holding. Child processes do not inherit
///   the lock.
/// * A waiter looks again and again, at first after 1 ms, later after up to 50 ms. Between
///   processes there is no strict order; a process that releases a lock for which another one waits
///   lets that one look before it takes the lock again.
/// * A lock's file exists while the lock is held; the release removes it. A file that a
///   crashed process left is no obstacle, and goes with the next release of that name.
/// * Fencing tokens come from sixteen small counter files in the directory, `.lk1-fence-0` to
///   `.lk1-fence-f`, by the name's hash. A token is never below the wall clock in microseconds, so
///   tokens go on growing when somebody deletes the counters, unless the clock was also set back.
///   Locks that other programs take move no counter.
/// * A lock whose file somebody removes or replaces while it is held, alone or with its directory,
///   is [lost](crate::LockGuard::lost): the next one gets a new file. The holder hears of it within a
///   second.
///
/// The directory is created when it is [connected to](crate::connect) or
/// [built](FileProviderBuilder::build), or with the first lock; its parent must exist. It must be on a file system of
/// this machine: network file systems (NFS, SMB, 9P and the like) are refused with
/// [`Unsupported`](LockErrorKind::Unsupported) on Linux, which can tell them apart, except for
/// those that run through FUSE, where nobody can.
///
/// Everybody who takes part needs the right to write in the directory and to read its files, and
/// that to write to the counters. Where several users take part, each sets the same
/// [`mode`](FileProviderBuilder::mode).
///
/// # Examples
///
/// ```no_run
/// use lock_runtime::FileProvider;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// lock_runtime::register(FileProvider::new("/var/lock/billing").key_prefix("MyApp1:"))?;
/// # Ok(())
/// # }
/// ```
pub struct FileProvider {
    shared: Arc<Shared>,
    key_prefix: String,
}

/// What the calls of a provider have in common.
struct Shared {
    directory: Directory,
    counters: Counters,
    yields: Yields,
    watch: Arc<Watch>,
    /// Looks at files that are under way.
    looks: Semaphore,
}

/// At a time. A directory takes one change at once, so that more gain nothing.
const LOOKS: usize = 4;

impl FileProvider {
    /// Locks in this directory, which is created with the first lock. A relative path begins at
    /// the working directory of this moment. [`builder`](Self::builder) sets more, and finds out at
    /// once whether the directory can be used.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::of(Settings::new(directory.into()))
    }

    /// Settings for locks in this directory.
    pub fn builder(directory: impl Into<PathBuf>) -> FileProviderBuilder {
        FileProviderBuilder::new(directory.into())
    }

    fn of(settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared {
                directory: Directory::new(settings.directory, settings.mode),
                counters: Counters::new(settings.token_floor),
                yields: Yields::default(),
                watch: Arc::default(),
                looks: Semaphore::new(LOOKS),
            }),
            key_prefix: settings.key_prefix,
        }
    }

    /// Puts this text before every lock name. Empty by default.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// A provider from a URL: `file:/var/lock/billing?key_prefix=MyApp1:`, also as
    /// `file:///var/lock/billing`, or `file:locks` relative to the working directory.
    ///
    /// The path is percent-decoded. The parameters `key_prefix`, `mode` (octal, as in `mode=0660`)
    /// and `token_floor` set what the builder's methods of that name set. The directory is not
    /// looked at: [`connect`](crate::connect) does that.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](LockErrorKind::InvalidConfig) for another scheme, a host, no path, an
    /// unknown or repeated parameter, a value that is none, or a malformed percent sequence.
    pub fn from_url(url: &str) -> Result<Self, LockError> {
        Ok(Self::of(url::parse(url)?))
    }
}

/// The entry in the table of URL schemes.
pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    let provider = FileProvider::from_url(&url)?;
    let shared = Arc::clone(&provider.shared);
    // The caller may have another runtime, or none.
    run_on_keeper(blocking(move || shared.directory.check())).await??;
    Ok(Arc::new(provider))
}

impl LockProvider for FileProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("file")
            .with_fencing_tokens()
            .with_local_hand_over()
            .with_contention_reports()
            .with_response_timeout(acquire::RESPONSE_TIMEOUT)
    }

    fn describe(&self) -> String {
        let directory = self.shared.directory.path().display().to_string();
        describe("file", &directory, &self.key_prefix, None)
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(acquire::acquire(self, request))
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(release::release(self, grant))
    }
}

impl fmt::Debug for FileProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileProvider")
            .field("directory", &self.shared.directory.path())
            .field("key_prefix", &self.key_prefix)
            .finish_non_exhaustive()
    }
}

/// Runs file calls, which may block for a disk, where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LockError> + Send + 'static,
) -> Result<T, LockError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(LockError::new(LockErrorKind::ProviderUnavailable).with_source(error))
        })
}
