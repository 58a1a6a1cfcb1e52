//! One locked file: how it is opened, known to be the right one, and released.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::Timestamp;

/// How often a file may turn out to be another one than its path names before the lock counts as
/// held: then somebody else takes and releases it all the time.
const STALE_FILES: usize = 16;

/// What a waiter writes into the file of the holder: when it will look again.
const NOTE: usize = 20;

/// A file that this process has locked and that its path named when it was locked. Dropping it
/// frees the lock.
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

pub(super) enum Opened {
    Locked(LockFile),
    /// Somebody else has locked it.
    Busy(File),
}

impl LockFile {
    /// Opens or creates the file and tries to lock it.
    ///
    /// Whoever releases a lock removes its file, so a file may be gone from its path between
    /// being opened and being locked, and another process may hold the one that took its place:
    /// only a locked file that its path still names is the lock.
    pub(super) fn try_lock(path: PathBuf) -> io::Result<Opened> {
        let mut stale = 0;
        loop {
            // std sets close-on-exec as part of the same system call. A link has no place here:
            // it could point at a file that somebody else locks for another reason.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if names(&path, &file)? => return Ok(Opened::Locked(Self { file, path })),
                Ok(()) if stale == STALE_FILES => return Ok(Opened::Busy(file)),
                Ok(()) => stale += 1,
                Err(Errno::WOULDBLOCK) => return Ok(Opened::Busy(file)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// When the next waiter of another process will look, as far as one has told.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        read_note(&self.file)
    }

    /// Removes the file and frees the lock. Answers whether the path still named the file; if
    /// not, somebody removed it, and the lock may have been held twice.
    pub(super) fn release(self) -> io::Result<bool> {
        // Removed while it is locked: nobody else can have this file as a valid lock.
        let held = names(&self.path, &self.file);
        let removed = match held {
            Ok(true) => std::fs::remove_file(&self.path).map(|()| true),
            other => other,
        };
        self.unlock();
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            answer => answer,
        }
    }

    /// Frees the lock and leaves the file.
    pub(super) fn unlock(self) {
        // Closing is not enough: a process that is being forked off shares the open file until
        // it executes its program.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Whether the path names this very file.
fn names(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok(named.dev() == ours.dev() && named.ino() == ours.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells the holder when this waiter will look again, unless another waiter looks earlier. A
/// courtesy: what is written here decides nothing about who holds the lock, and every other
/// program ignores it.
pub(super) fn announce(file: &File, next_look: Timestamp) {
    let earlier = read_note(file).is_some_and(|noted| !noted.has_passed() && noted <= next_look);
    if !earlier {
        let _ = file.write_all_at(format!("{:0NOTE$}", next_look.as_nanos()).as_bytes(), 0);
    }
}

fn read_note(file: &File) -> Option<Timestamp> {
    let mut note = [0; NOTE];
    file.read_exact_at(&mut note, 0).ok()?;
    std::str::from_utf8(&note)
        .ok()?
        .parse()
        .ok()
        .map(Timestamp::from_nanos)
}
