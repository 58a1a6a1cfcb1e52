//! The directory of the locks: made when first needed, checked once.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::lock_file::{Access, LockFile, NoFile, Opened};
use crate::providers::kit::error::{invalid, unsupported};
use crate::{LockError, LockErrorKind};

pub(super) struct Directory {
    path: PathBuf,
    /// Of every file in it, in spite of the umask.
    mode: Option<u32>,
    /// Set once it is known that its file system keeps locks.
    checked: OnceLock<()>,
}

impl Directory {
    pub(super) fn new(path: PathBuf, mode: Option<u32>) -> Self {
        // Fixed now: the program may change its working directory, and the locks must not move.
        // It fails only for an empty path, or without a working directory; then creating it
        // does too.
        let path = std::path::absolute(&path).unwrap_or(path);
        Self {
            path,
            mode,
            checked: OnceLock::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path_of(&self, file_name: &str) -> PathBuf {
        self.path.join(file_name)
    }

    /// Makes sure that locks can be here: creates the directory if it is missing, and looks at its
    /// file system.
    pub(super) fn prepare(&self) -> Result<(), LockError> {
        if self.checked.get().is_none() {
            self.create()?;
            self.check_file_system()?;
            let _ = self.checked.set(());
        }
        Ok(())
    }

    /// Makes sure also that this process may create files here.
    pub(super) fn check(&self) -> Result<(), LockError> {
        self.prepare()?;
        use rustix::fs::{Access, AtFlags, CWD};
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::accessat(CWD, &self.path, wanted, AtFlags::EACCESS)
            .map_err(|error| self.error(&error.into(), "create files in"))
    }

    /// Tries to lock one of its files, which is created if it is missing.
    pub(super) fn try_lock(&self, file_name: &str, access: Access) -> Result<Opened, LockError> {
        self.prepare()?;
        let path = self.path_of(file_name);
        let mut answer = LockFile::try_lock(path.clone(), self.mode, access);
        if matches!(&answer, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            // Somebody removed the whole directory.
            self.create()?;
            answer = LockFile::try_lock(path, self.mode, access);
        }
        answer.map_err(|error| self.file_error(&error, file_name, "lock"))
    }

    /// Tries to lock one of its files; `None` if there is no such file.
    pub(super) fn try_lock_existing(
        &self,
        file_name: &str,
        access: Access,
    ) -> Result<Option<Opened>, LockError> {
        self.prepare()?;
        match LockFile::try_lock_existing(self.path_of(file_name), access) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.file_error(&error, file_name, "lock")),
        }
    }

    /// Counts the files that may be locks.
    pub(super) fn count(&self) -> Result<u32, LockError> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| self.error(&error, "read"))?;
        Ok(u32::try_from(entries.count()).unwrap_or(u32::MAX))
    }

    /// Makes the error of a call about the directory.
    fn error(&self, error: &io::Error, doing: &str) -> LockError {
        LockError::new(kind_of(error)).with_detail(format!(
            "could not {doing} the lock directory `{}`: {error}",
            self.path.display()
        ))
    }

    /// Makes the error of a call about one of its files.
    pub(super) fn file_error(&self, error: &io::Error, file_name: &str, doing: &str) -> LockError {
        let path = self.path_of(file_name);
        let (kind, reason) = match NoFile::at(&path) {
            Some(other) => (LockErrorKind::InvalidConfig, other.to_string()),
            None => (kind_of(error), error.to_string()),
        };
        LockError::new(kind)
            .with_detail(format!("could not {doing} `{}`: {reason}", path.display()))
    }

    fn create(&self) -> Result<(), LockError> {
        let created = match self.mode {
            None => self.made(std::fs::create_dir(&self.path)),
            Some(mode) => self.create_with(mode),
        };
        created.map_err(|error| {
            let kind = error.kind();
            // `mkdir` says "exists" of a file, too.
            if kind == io::ErrorKind::AlreadyExists || kind == io::ErrorKind::NotADirectory {
                return invalid(format!(
                    "the lock directory `{}` is not a directory",
                    self.path.display()
                ));
            }
            if let Some(parent) = self.path.parent().filter(|parent| !parent.is_dir())
                && kind == io::ErrorKind::NotFound
            {
                return invalid(format!(
                    "could not create the lock directory `{}`: `{}` does not exist",
                    self.path.display(),
                    parent.display()
                ));
            }
            self.error(&error, "create")
        })
    }

    /// Creates the directory so that those who may read a file may look into it, too. One that
    /// exists keeps its mode.
    fn create_with(&self, mode: u32) -> io::Result<()> {
        let mode = mode | ((mode & 0o444) >> 2);
        match std::fs::DirBuilder::new().mode(mode).create(&self.path) {
            Ok(()) => std::fs::set_permissions(&self.path, Permissions::from_mode(mode)),
            failed => self.made(failed),
        }
    }

    /// Takes it for no failure that the directory exists already, whatever `mkdir` says of it. Only
    /// the directory itself is made: a path that is mistyped, or not mounted, must not make a
    /// second place.
    fn made(&self, created: io::Result<()>) -> io::Result<()> {
        created.or_else(|error| self.path.is_dir().then_some(()).ok_or(error))
    }

    #[cfg(target_os = "linux")]
    fn check_file_system(&self) -> Result<(), LockError> {
        let status =
            rustix::fs::statfs(&self.path).map_err(|error| self.error(&error.into(), "look at"))?;
        match network_file_system(status.f_type) {
            None => Ok(()),
            Some(kind) => Err(unsupported(format!(
                "the lock directory `{}` is on a network file system ({kind}), where locks of \
                 several machines do not exclude each other reliably; expected a local one",
                self.path.display()
            ))),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn check_file_system(&self) -> Result<(), LockError> {
        Ok(())
    }
}

fn kind_of(error: &io::Error) -> LockErrorKind {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename => LockErrorKind::InvalidConfig,
        ErrorKind::Unsupported => LockErrorKind::Unsupported,
        _ => LockErrorKind::ProviderUnavailable,
    }
}

/// Names a file system that other machines may write to at the same time, by the magic numbers of
/// `statfs(2)`.
#[cfg(target_os = "linux")]
pub(super) fn network_file_system(magic: rustix::fs::FsWord) -> Option<&'static str> {
    // Some numbers have their highest bit set, and the type's sign depends on the machine.
    Some(match (magic as u64) & 0xFFFF_FFFF {
        0x6969 => "NFS",
        0x517B => "SMB",
        0xFE53_4D42 => "SMB2",
        0xFF53_4D42 => "CIFS",
        0x0102_1997 => "9P",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x564C => "NCP",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        0x4750_4653 => "GPFS",
        0x786F_4256 => "VirtualBox shared folder",
        _ => return None,
    })
}
