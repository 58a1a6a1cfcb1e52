//! The directory of the locks: made when first needed, checked once, named in every error.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::lock_file::{LockFile, Opened};
use crate::{LockError, LockErrorKind};

pub(super) struct Directory {
    path: PathBuf,
    /// Set once it is known that its file system keeps locks.
    checked: OnceLock<()>,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        // Fixed now: the program may change its working directory, and the locks must not move.
        // It fails only for an empty path, or without a working directory; then creating it does too.
        let path = std::path::absolute(&path).unwrap_or(path);
        Self {
            path,
            checked: OnceLock::new(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn path_of(&self, file_name: &str) -> PathBuf {
        self.path.join(file_name)
    }

    /// Tries to lock one of its files.
    pub(super) fn try_lock(&self, file_name: &str) -> Result<Opened, LockError> {
        if self.checked.get().is_none() {
            self.create()?;
            self.check_file_system()?;
            let _ = self.checked.set(());
        }
        let path = self.path_of(file_name);
        let mut answer = LockFile::try_lock(path.clone());
        if matches!(&answer, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            // Somebody removed the whole directory.
            self.create()?;
            answer = LockFile::try_lock(path);
        }
        answer.map_err(|error| self.error(&error, "lock a file in"))
    }

    /// The error of a file call, naming the directory.
    pub(super) fn error(&self, error: &io::Error, doing: &str) -> LockError {
        use io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename => LockErrorKind::InvalidConfig,
            ErrorKind::Unsupported => LockErrorKind::Unsupported,
            _ => LockErrorKind::ProviderUnavailable,
        };
        LockError::new(kind).with_detail(format!(
            "could not {doing} the lock directory `{}`: {error}",
            self.path.display()
        ))
    }

    fn create(&self) -> Result<(), LockError> {
        std::fs::create_dir_all(&self.path).map_err(|error| {
            let kind = error.kind();
            // `mkdir` says "exists" of a file, too.
            if kind == io::ErrorKind::AlreadyExists || kind == io::ErrorKind::NotADirectory {
                return LockError::new(LockErrorKind::InvalidConfig).with_detail(format!(
                    "the lock directory `{}` is not a directory",
                    self.path.display()
                ));
            }
            self.error(&error, "create")
        })
    }

    #[cfg(target_os = "linux")]
    fn check_file_system(&self) -> Result<(), LockError> {
        let status =
            rustix::fs::statfs(&self.path).map_err(|error| self.error(&error.into(), "look at"))?;
        match network_file_system(status.f_type) {
            None => Ok(()),
            Some(kind) => Err(
                LockError::new(LockErrorKind::Unsupported).with_detail(format!(
                    "the lock directory `{}` is on a network file system ({kind}), where locks of \
                 several machines do not exclude each other reliably; expected a local one",
                    self.path.display()
                )),
            ),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn check_file_system(&self) -> Result<(), LockError> {
        Ok(())
    }
}

/// The name of a file system that other machines may write to at the same time, by the magic
/// numbers of `statfs(2)`.
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
