//! Who holds a lock file, as the kernel says in `/proc/locks`.
//!
//! A note in the file would cost each acquisition a write, and would stay when its writer has
//! crashed. The kernel's list costs nothing until somebody asks, and names every reader.

use std::os::unix::fs::MetadataExt;

use super::directory::Directory;
use super::{listing, name};
use crate::provider::{Holder, LockKind, LockMode, LockState};
use crate::providers::kit::error::unavailable;
use crate::{LockError, host};

/// How many files of permits are looked for.
const MOST_PERMITS: u32 = 1_024;

/// Tells who holds the lock of this key.
pub(super) fn inspect(
    directory: &Directory,
    key: &str,
    kind: LockKind,
) -> Result<LockState, LockError> {
    let list = listing::lines()
        .map_err(|error| unavailable("cannot read `/proc/locks`").with_source(error))?;
    let locks: Vec<_> = list.iter().filter_map(|line| Lock::parse(line)).collect();
    let files = match kind {
        LockKind::Mutex | LockKind::RwLock => vec![name::file_name(key)],
        LockKind::Semaphore => (0..MOST_PERMITS)
            .map(|slot| name::permit_file_name(key, slot))
            .collect(),
    };
    let mut holders = Vec::new();
    for file in files {
        // A file that is not there is locked by nobody.
        let Ok(found) = std::fs::metadata(directory.path_of(&file)) else {
            continue;
        };
        let file = (found.dev(), found.ino());
        let held = locks.iter().filter(|lock| lock.file == file);
        holders.extend(held.map(|lock| match kind {
            LockKind::Mutex => lock.holder().with_mode(LockMode::Exclusive),
            LockKind::RwLock if lock.is_shared => lock.holder().with_mode(LockMode::Read),
            LockKind::RwLock => lock.holder().with_mode(LockMode::Write),
            LockKind::Semaphore => lock.holder().with_permits(1),
        }));
    }
    Ok(LockState::new(holders))
}

/// A line of `/proc/locks` without its number, as `proc_locks(5)` describes it, if it is about `flock(2)`.
struct Lock {
    /// The device and the inode.
    file: (u64, u64),
    process: u32,
    is_shared: bool,
}

impl Lock {
    fn parse(line: &str) -> Option<Self> {
        // FLOCK ADVISORY WRITE 4711 fe:00:10027043 0 EOF; those who wait have `->` in front.
        let mut words = line.split_whitespace();
        if words.next()? != "FLOCK" {
            return None;
        }
        let access = words.nth(1)?;
        let process = words.next()?.parse().ok()?;
        let mut file = words.next()?.split(':');
        let (major, minor, inode) = (file.next()?, file.next()?, file.next()?);
        let number = |text| u32::from_str_radix(text, 16).ok();
        let device = rustix::fs::makedev(number(major)?, number(minor)?);
        Some(Self {
            file: (device, inode.parse().ok()?),
            process,
            is_shared: access == "READ",
        })
    }

    fn holder(&self) -> Holder {
        match self.process == std::process::id() {
            true => Holder::here(),
            false => Holder::new(host::label(host::name(), self.process)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let lock = Lock::parse("FLOCK  ADVISORY  WRITE 4711 fe:01:10027043 0 EOF").unwrap();
        assert_eq!(lock.file, (rustix::fs::makedev(0xfe, 1), 10_027_043));
        assert_eq!((lock.process, lock.is_shared), (4_711, false));
        assert!(
            Lock::parse("FLOCK ADVISORY READ 1 00:2a:7 0 EOF")
                .unwrap()
                .is_shared
        );
        for other in [
            "-> FLOCK  ADVISORY  WRITE 4711 fe:01:10027043 0 EOF",
            "POSIX  ADVISORY  READ  1 fe:00:7 1 2",
            "FLOCK  ADVISORY  WRITE x fe:01:7 0 EOF",
            "FLOCK ADVISORY",
            "",
        ] {
            assert!(Lock::parse(other).is_none(), "{other}");
        }
    }
}
