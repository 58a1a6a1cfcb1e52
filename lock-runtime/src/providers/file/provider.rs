//! What the core asks of files: which part of the provider answers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::acquire::{RESPONSE_TIMEOUT, acquire};
use super::blocking::blocking;
#[cfg(target_os = "linux")]
use super::inspect::inspect;
use super::look::is_barred;
use super::name;
use super::release::release;
use super::settings::Settings;
use super::shared::Shared;
use super::url;
use super::wanted::Wanted;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, LockKind, LockProvider, LockState, describe,
};
use crate::{LockError, LockName};

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
/// * Readers lock the same file as shared. A writer that waits locks a second one, which ends in
///   `.lk1-writer`, and holds new readers back.
/// * Each permit of a semaphore is a lock file of its own. A limit may be as high as you like: a
///   look takes in no more permits than twice the number of files in the directory, and 64. Each
///   permit that a process has needs an open file.
/// * Fencing tokens come from sixteen small counter files in the directory, `.lk1-fence-0` to
///   `.lk1-fence-f`, by the name's hash. A token is never below the wall clock in microseconds, so
///   tokens go on growing when somebody deletes the counters, unless the clock was also set back.
///   Locks that other programs take move no counter.
/// * Who holds a lock is what the kernel says: on Linux, processes of the same process namespace, and
///   of a semaphore the first 1,024 permits.
/// * A lock whose file somebody removes or replaces while it is held, alone or with its directory,
///   is [lost](crate::LockGuard::lost): the next one gets a new file. The holder hears of it within
///   a second.
///
/// The directory is created when it is [connected to](crate::connect) or
/// [built](crate::FileProviderBuilder::build), or with the first lock; its parent must exist. It
/// must be on a file system of this machine. Network file systems (NFS, SMB, 9P and the like) are
/// refused with [`Unsupported`](crate::LockErrorKind::Unsupported) on Linux, which can tell them
/// apart. Those that run through FUSE cannot be told apart, and are not refused.
///
/// Everybody who takes part needs the right to write in the directory and to read its files, and
/// that to write to the counters. Where several users take part, each sets the same
/// [`mode`](crate::FileProviderBuilder::mode).
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
    pub(super) shared: Arc<Shared>,
    pub(super) key_prefix: String,
}

impl FileProvider {
    /// Keeps locks in this directory, which is created with the first lock. A relative path begins
    /// at the working directory of this moment. [`builder`](Self::builder) sets more, and finds out
    /// at once whether the directory can be used.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self::of(Settings::new(directory.into()))
    }

    pub(super) fn of(settings: Settings) -> Self {
        Self {
            shared: Shared::new(&settings),
            key_prefix: settings.key_prefix,
        }
    }

    /// Puts this text before every lock name. Empty by default.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.key_prefix = prefix.into();
        self
    }

    /// Makes a provider of a URL: `file:/var/lock/billing?key_prefix=MyApp1:`, also as
    /// `file:///var/lock/billing`, or `file:locks` relative to the working directory.
    ///
    /// The path is percent-decoded. The parameters `key_prefix`, `mode` (octal, as in `mode=0660`)
    /// and `token_floor` set what the builder's methods of that name set. The directory is not
    /// looked at: [`connect`](crate::connect) does that.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::LockErrorKind::InvalidConfig) for another scheme, a host, no path,
    /// an unknown or repeated parameter, a value that is none, or a malformed percent sequence.
    pub fn from_url(url: &str) -> Result<Self, LockError> {
        Ok(Self::of(url::parse(url)?))
    }
}

impl LockProvider for FileProvider {
    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::new("file")
            .with_fencing_tokens()
            .with_local_hand_over()
            .with_contention_reports()
            .with_read_write()
            .with_many_permits()
            .with_response_timeout(RESPONSE_TIMEOUT);
        // Elsewhere the kernel does not tell.
        match cfg!(target_os = "linux") {
            true => capabilities.with_holders(),
            false => capabilities,
        }
    }

    fn describe(&self) -> String {
        let directory = self.shared.directory.path().display().to_string();
        describe("file", &directory, &self.key_prefix, None)
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        let wanted = Wanted::of(format!("{}{}", self.key_prefix, request.name()), request);
        Box::pin(async move { acquire(&self.shared, wanted?, request).await })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(release(&self.shared, grant))
    }

    #[cfg(target_os = "linux")]
    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        let key = format!("{}{name}", self.key_prefix);
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || inspect(&shared.directory, &key, kind)))
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        let file_name = name::file_name(&format!("{}{}", self.key_prefix, grant.name()));
        let shared = Arc::clone(&self.shared);
        Box::pin(blocking(move || {
            is_barred(&shared, &name::writer_file_name(&file_name)).map(|barred| !barred)
        }))
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
