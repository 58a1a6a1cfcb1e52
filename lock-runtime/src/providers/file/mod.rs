//! Locks between the processes of one machine, as files.

mod counter;
mod directory;
mod lock_file;
mod name;
#[cfg(test)]
mod tests;
mod url;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::directory::Directory;
use self::lock_file::{LockFile, Opened};
use crate::provider::{AcquireRequest, BoxFuture, Capabilities, Grant, LockProvider};
use crate::{FencingToken, LockError, LockErrorKind, Timestamp};

/// A waiter looks again after 1 ms at first, later after an eighth of the time it has waited, so
/// that looking costs little and a hand-over takes little longer than the wait was anyway.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long after a waiter of another process said it would look again it may still come.
const YIELD_SLACK: Duration = Duration::from_millis(2);

/// The fencing counter is locked for microseconds; after this long its holder must be stopped.
const COUNTER_PATIENCE: Duration = Duration::from_secs(2);

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
///   processes there is no strict order; a process that releases a lock for which another one waits lets that
///   one look before it takes the lock again.
/// * A lock's file exists while the lock is held; the release removes it. A file that a
///   crashed process left is no obstacle, and goes with the next release of that name.
/// * Fencing tokens come from sixteen small counter files in the directory, `.lk1-fence-0` to
///   `.lk1-fence-f`, by the name's hash. A token is never below the wall clock in microseconds, so
///   tokens go on growing when somebody deletes the counters, unless the clock was also set back.
///   Locks that other programs take move no counter.
///
/// The directory is created when the first lock is acquired. It must be on a file system of
/// this machine: network file systems (NFS, SMB, 9P and the like) are refused with
/// [`Unsupported`](LockErrorKind::Unsupported) on Linux, which can tell them apart, except for
/// those that run through FUSE, where nobody can.
///
/// Everybody who takes part needs the right to write in the directory, and to its files.
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
    directory: Arc<Directory>,
    key_prefix: String,
    /// Until when this process leaves a file that it released to another one's waiter.
    yields: Mutex<HashMap<Box<str>, Timestamp>>,
}

impl FileProvider {
    /// Locks in this directory, which is created with the first lock.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Arc::new(Directory::new(directory.into())),
            key_prefix: String::new(),
            yields: Mutex::default(),
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
    /// The path is percent-decoded. The one parameter is `key_prefix`.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](LockErrorKind::InvalidConfig) for another scheme, a host, no path, an
    /// unknown or repeated parameter, or a malformed percent sequence.
    pub fn from_url(url: &str) -> Result<Self, LockError> {
        let settings = url::parse(url)?;
        Ok(Self::new(settings.directory).key_prefix(settings.key_prefix))
    }

    /// Waits while another process's waiter is expected to take the lock that this one released.
    async fn let_others_look(&self, file_name: &str, request: &AcquireRequest) {
        let until = self.yields().remove(file_name);
        if let Some(until) = until {
            let _ = tokio::time::timeout(until.remaining(), request.abandoned()).await;
        }
    }

    fn yields(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Timestamp>> {
        self.yields.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn acquire_file(&self, request: &AcquireRequest) -> Result<Grant, LockError> {
        let file_name = name::file_name(&format!("{}{}", self.key_prefix, request.name()));
        if request.waits() {
            self.let_others_look(&file_name, request).await;
        }
        let began = Timestamp::now();
        loop {
            let pause = pause_after(Timestamp::now().since(began));
            let asked_at = Timestamp::now();
            let next_look = request.waits().then(|| asked_at + pause);
            match self.look(&file_name, next_look).await? {
                Some(file) => {
                    let tokens = request.tokens_wanted();
                    let (file, first) = self.take_tokens(&file_name, file, tokens, request).await?;
                    let held = Held {
                        file_name: file_name.into(),
                        file: Mutex::new(Some(file)),
                    };
                    return Ok(Grant::new(request, asked_at)
                        .with_tokens(first, tokens)
                        .with_state(held));
                }
                None if !request.waits() => return Err(LockErrorKind::Contended.into()),
                None => {}
            }
            if tokio::time::timeout(pause, request.abandoned())
                .await
                .is_ok()
            {
                return Err(LockErrorKind::Contended.into());
            }
        }
    }

    /// Tries the lock once. A caller that will look again says when, for the holder to read.
    async fn look(
        &self,
        file_name: &str,
        next_look: Option<Timestamp>,
    ) -> Result<Option<LockFile>, LockError> {
        let directory = self.directory.clone();
        let file_name = file_name.to_owned();
        blocking(move || match directory.try_lock(&file_name)? {
            Opened::Locked(file) => Ok(Some(file)),
            Opened::Busy(file) => {
                if let Some(next_look) = next_look {
                    lock_file::announce(&file, next_look);
                }
                Ok(None)
            }
        })
        .await
    }

    async fn take_tokens(
        &self,
        file_name: &str,
        mut file: LockFile,
        tokens: NonZeroU32,
        request: &AcquireRequest,
    ) -> Result<(LockFile, FencingToken), LockError> {
        let counter: Arc<str> = counter::file_name(file_name).into();
        let give_up_at = Timestamp::now() + COUNTER_PATIENCE;
        loop {
            let (directory, name) = (self.directory.clone(), counter.clone());
            // A closure that fails drops the file, which frees the lock.
            let (kept, first) = blocking(move || {
                let answer = counter::reserve(&directory, &name, tokens);
                if !matches!(answer, Ok(Some(_))) && give_up_at.has_passed() {
                    let _ = file.release();
                    let busy = LockError::new(LockErrorKind::ProviderUnavailable).with_detail(format!(
                        "{} has been locked by another process for {COUNTER_PATIENCE:?}; is it stopped?",
                        directory.path_of(&name).display(),
                    ));
                    return Err(answer.err().unwrap_or(busy));
                }
                match answer {
                    Ok(first) => Ok((file, first)),
                    Err(error) => {
                        let _ = file.release();
                        Err(error)
                    }
                }
            })
            .await?;
            file = kept;
            if let Some(first) = first {
                return Ok((file, first));
            }
            if tokio::time::timeout(SHORTEST_PAUSE, request.abandoned())
                .await
                .is_ok()
            {
                blocking(move || Ok(drop(file.release()))).await?;
                return Err(LockErrorKind::Contended.into());
            }
        }
    }

    async fn release_file(&self, grant: &Grant) -> Result<(), LockError> {
        let held = grant
            .state::<Held>()
            .and_then(|held| Some((held, held.take()?)));
        let Some((held, file)) = held else {
            return Err(LockErrorKind::Lost.into());
        };
        let directory = self.directory.clone();
        let next_look = blocking(move || {
            let next_look = file.awaited_until();
            match file.release() {
                Ok(true) => Ok(next_look),
                Ok(false) => Err(LockError::new(LockErrorKind::Lost)
                    .with_detail("somebody removed or replaced the lock's file")),
                Err(error) => Err(directory.error(&error, "remove a lock's file in")),
            }
        })
        .await?;
        let now = Timestamp::now();
        let mut yields = self.yields();
        yields.retain(|_, until| *until > now);
        // A note that was left before a restart of the machine may name any time.
        if let Some(next_look) = next_look.filter(|at| *at > now && *at < now + LONGEST_PAUSE * 2) {
            yields.insert(held.file_name.clone(), next_look + YIELD_SLACK);
        }
        Ok(())
    }
}

/// The entry in the table of URL schemes.
pub(crate) async fn connect(url: String) -> Result<Arc<dyn LockProvider>, LockError> {
    Ok(Arc::new(FileProvider::from_url(&url)?))
}

impl LockProvider for FileProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("file")
            .with_fencing_tokens()
            .with_local_hand_over()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(self.acquire_file(request))
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(self.release_file(grant))
    }
}

impl fmt::Debug for FileProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileProvider")
            .field("directory", &self.directory.path())
            .field("key_prefix", &self.key_prefix)
            .finish_non_exhaustive()
    }
}

/// What a grant keeps: the open file, which is the lock.
struct Held {
    file_name: Box<str>,
    file: Mutex<Option<LockFile>>,
}

impl Held {
    fn take(&self) -> Option<LockFile> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// How long to wait before looking again, with jitter so that waiters do not march in step.
fn pause_after(waited: Duration) -> Duration {
    let pause = (waited / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    // Without random numbers there is no jitter, and no harm.
    pause / 2 + (pause / 2).mul_f64(f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
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
