//! One locked file: how it is opened, known to be the right one, and released.

use std::fmt;
use std::fs::{File, FileType, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::listing;
use crate::Timestamp;

/// How often in a row a file may turn out to be another one than its path names: then others take
/// and release the lock all the time.
const REPLACED_FILES: usize = 16;

/// What a waiter writes into the file of the holder: when it will look again.
const NOTE: usize = 20;

/// After the note there may be a mark: when somebody did something with the file that its lock does
/// not tell. A mark of somebody who passes by or waits counts for so long.
const MARK_COUNTS: Duration = Duration::from_millis(100);

/// Whether others may have the file locked, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Exclusive,
    Shared,
}

/// A file that this process has locked and that its path named when it was locked. Dropping it
/// frees the lock.
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
    access: Access,
}

pub(super) enum Opened {
    Locked(LockFile),
    /// Somebody else has locked it in a way that excludes this one; the file, if it could be opened.
    Busy(Option<File>),
    /// It was replaced again and again, so nobody was seen to hold it, and nobody knows.
    Replaced,
}

impl LockFile {
    /// Opens or creates the file and tries to lock it. With a `mode`, the file gets that.
    ///
    /// Whoever releases a lock removes its file. So a file may be gone from its path between being
    /// opened and being locked, and another process may hold the one that took its place. Only a
    /// locked file that its path still names is the lock.
    pub(super) fn try_lock(path: PathBuf, mode: Option<u32>, access: Access) -> io::Result<Opened> {
        Self::try_lock_as(path, mode, access, true)
    }

    /// Does the same with a file that exists. If there is none, it fails with `NotFound`.
    pub(super) fn try_lock_existing(path: PathBuf, access: Access) -> io::Result<Opened> {
        Self::try_lock_as(path, None, access, false)
    }

    fn try_lock_as(
        path: PathBuf,
        mode: Option<u32>,
        access: Access,
        create: bool,
    ) -> io::Result<Opened> {
        let mut replaced = 0;
        loop {
            let file = match open(&path, mode, create) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    // Who may not even read it may still be told that somebody holds it.
                    return match is_locked(&path, access) {
                        true => Ok(Opened::Busy(None)),
                        false => Err(error),
                    };
                }
                opened => opened?,
            };
            let status = file.metadata()?;
            if !status.is_file() {
                return Err(io::Error::other(NoFile(kind_of(status.file_type()))));
            }
            if let Some(mode) = mode.filter(|mode| status.mode() & 0o7777 != *mode) {
                // In spite of the umask. Refused if it belongs to somebody else.
                let _ = file.set_permissions(Permissions::from_mode(mode));
            }
            match Self::lock_opened(&path, file, status, access)? {
                Opened::Replaced if replaced < REPLACED_FILES => replaced += 1,
                answer => return Ok(answer),
            }
        }
    }

    /// Tries to lock a file that was opened at this path. Whoever holds a file that the path does
    /// not name any more is just releasing it, and does not hold the lock.
    pub(super) fn lock_opened(
        path: &Path,
        file: File,
        status: Metadata,
        access: Access,
    ) -> io::Result<Opened> {
        let locked = lock(&file, access)?;
        Ok(match (is_named(path, &status)?, locked) {
            (false, _) => Opened::Replaced,
            (true, false) => Opened::Busy(Some(file)),
            (true, true) => Opened::Locked(Self {
                file,
                path: path.to_owned(),
                access,
            }),
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the name in its directory.
    pub(super) fn name(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str());
        // The provider makes these names, of characters.
        name.unwrap_or_default()
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// Reads when the next waiter of another process will look, as far as one has told.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        read_note(&self.file)
    }

    /// Marks the file for those who find it locked.
    pub(super) fn mark(&self) {
        write_time(&self.file, NOTE, Timestamp::now());
    }

    /// Takes a mark away that others have left.
    pub(super) fn unmark(&self) {
        if read_time(&self.file, NOTE).is_some() {
            let _ = self.file.write_all_at(&[0; NOTE], NOTE as u64);
        }
    }

    /// Says whether its path still names the file. If not, somebody has removed or replaced it, and
    /// others may hold the lock too.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        is_named(&self.path, &self.file.metadata()?)
    }

    /// Frees the lock, and removes the file unless others share it. Says whether the path still
    /// named the file; if not, somebody removed it, and the lock may have been held twice.
    pub(super) fn release(self) -> io::Result<bool> {
        // Removed while it is locked: nobody else can have this file as a valid lock.
        let removed = match self.is_in_place() {
            Ok(true) => self.remove_unless_shared(),
            other => other,
        };
        self.unlock();
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // In a directory with the sticky bit only its owner may; a file that is left is no
            // obstacle.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
            answer => answer,
        }
    }

    /// Removes the file, which its path names, if nobody else has it locked.
    fn remove_unless_shared(&self) -> io::Result<bool> {
        if self.access == Access::Shared {
            // Another reader must not take this one for a writer while it removes the file.
            self.mark();
            // If it fails, the shared lock is gone all the same, which is what a release wants.
            if !lock(&self.file, Access::Exclusive)? {
                return Ok(true);
            }
            // Between the two locks there may have been none, and the path may name another one's
            // file by now. Whoever removed this one had it locked after us.
            if !self.is_in_place()? {
                return Ok(true);
            }
        }
        std::fs::remove_file(&self.path).map(|()| true)
    }

    /// Frees the lock and leaves the file.
    pub(super) fn unlock(self) {
        // Closing is not enough: a process that is being forked off shares the open file until
        // it executes its program.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Tries to lock an open file, in place of the lock that it has. Says whether it could.
fn lock(file: &File, access: Access) -> io::Result<bool> {
    let operation = match access {
        Access::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Access::Shared => FlockOperation::NonBlockingLockShared,
    };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens the file for as much as this user may; a lock needs no right to write.
fn open(path: &Path, mode: Option<u32>, may_create: bool) -> io::Result<File> {
    let open = |create, write| {
        // std sets close-on-exec as part of the same system call. A link has no place here: it
        // could point at a file that somebody else locks for another reason. A FIFO must not make
        // the thread wait.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(create);
        options.custom_flags(flags.bits().cast_signed());
        if let Some(mode) = mode {
            options.mode(mode);
        }
        options.open(path)
    };
    let mut answer = open(may_create, true);
    // The system may refuse to create, in a directory for everybody, what exists already.
    for (create, write) in [(false, true), (false, false)] {
        match answer {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                answer = open(create, write).or(Err(error));
            }
            _ => break,
        }
    }
    answer
}

/// Says whether the path names this very file.
fn is_named(path: &Path, ours: &Metadata) -> io::Result<bool> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok(named.dev() == ours.dev() && named.ino() == ours.ino()),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says whether the system lists the file among those that are locked in a way that excludes this
/// access. No right to the file is needed.
fn is_locked(path: &Path, access: Access) -> bool {
    let Ok(status) = std::fs::symlink_metadata(path) else {
        return false;
    };
    let device = status.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let id = format!("{major:02x}:{minor:02x}:{}", status.ino());
    let is_it = |line: &String| {
        let mut words = line.split_ascii_whitespace();
        words.any(|word| word == "FLOCK")
            && (access == Access::Exclusive || words.any(|word| word == "WRITE"))
            && words.any(|word| word == id)
    };
    listing::lines().is_ok_and(|lines| lines.iter().any(is_it))
}

/// Something that is no file stands where a file belongs.
#[derive(Debug)]
pub(super) struct NoFile(&'static str);

impl NoFile {
    /// Says what stands there, if it is the reason why it could not be opened.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let status = std::fs::symlink_metadata(path).ok()?;
        (!status.is_file()).then(|| Self(kind_of(status.file_type())))
    }
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is {}, no file; no lock is", self.0)
    }
}

impl std::error::Error for NoFile {}

fn kind_of(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a link",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Tells the holder when this waiter will look again, unless another waiter looks earlier. A
/// courtesy: what is written here decides nothing about who holds the lock, and every other
/// program ignores it.
pub(super) fn announce(file: &File, next_look: Timestamp) {
    let earlier = read_note(file).is_some_and(|noted| !noted.has_passed() && noted <= next_look);
    if !earlier {
        write_time(file, 0, next_look);
    }
}

/// Reads when the file was marked.
pub(super) fn marked_at(file: &File) -> Option<Timestamp> {
    read_time(file, NOTE)
}

/// Says whether the file was marked just now.
pub(super) fn is_marked(file: &File) -> bool {
    marked_at(file).is_some_and(|at| {
        let now = Timestamp::now();
        at <= now && now.since(at) < MARK_COUNTS
    })
}

fn read_note(file: &File) -> Option<Timestamp> {
    read_time(file, 0)
}

/// Writes a time at this place, if this user may write to the file.
fn write_time(file: &File, place: usize, time: Timestamp) {
    let _ = file.write_all_at(
        format!("{:0NOTE$}", time.as_nanos()).as_bytes(),
        place as u64,
    );
}

fn read_time(file: &File, place: usize) -> Option<Timestamp> {
    let mut note = [0; NOTE];
    file.read_exact_at(&mut note, place as u64).ok()?;
    std::str::from_utf8(&note)
        .ok()?
        .parse()
        .ok()
        .map(Timestamp::from_nanos)
}
