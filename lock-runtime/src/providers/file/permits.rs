//! The permits of a semaphore: looking for free ones among as many files as there may be.

use super::lock_file::{Access, LockFile, Opened, announce, marked_at};
use super::name::permit_file_name;
use super::shared::Shared;
use super::wanted::{Found, Slots};
use crate::{LockError, Timestamp};

/// Up to so many permits are all looked at, without counting files first.
const FEW: u32 = 64;

/// Adds free permits to those that are collected already, until there are enough.
///
/// A free permit has no file, or a file that nobody has locked. So among more permits than the
/// directory has files there is a free one, however many permits there may be.
///
/// Others take and give back permits meanwhile, so that each may be taken when it is looked at,
/// although there is always a free one. So whoever gets permits marks them with the time. All are
/// out only if each was marked before the search began and is still taken.
pub(super) fn collect(
    shared: &Shared,
    slots: &Slots,
    collected: &mut Vec<LockFile>,
    next_look: Option<Timestamp>,
) -> Result<Found, LockError> {
    let (mut seen, mut bound) = (0, slots.limit.min(FEW));
    let began = Timestamp::now();
    let (mut unclear, mut moving, mut told) = (false, false, false);
    loop {
        while seen < bound {
            let name = permit_file_name(&slots.key, slots.at(seen));
            seen += 1;
            let is_ours = collected.iter().any(|file| file.name() == name);
            if is_ours || next_look.is_some() && shared.yields.leaves(&name) {
                continue;
            }
            match shared.directory.try_lock(&name, Access::Exclusive)? {
                Opened::Locked(file) => {
                    collected.push(file);
                    if collected.len() == slots.take {
                        collected.iter().for_each(LockFile::mark);
                        return Ok(Found::All);
                    }
                }
                Opened::Busy(Some(file)) => {
                    moving |= marked_at(&file).is_none_or(|at| at >= began);
                    // It is enough to tell one.
                    if let (Some(next_look), false) = (next_look, told) {
                        announce(&file, next_look);
                        told = true;
                    }
                }
                Opened::Busy(None) => {}
                Opened::Replaced => unclear = true,
            }
        }
        if seen == slots.limit {
            return Ok(match (unclear, moving) {
                (true, _) => Found::Unclear,
                (false, true) => Found::Passing,
                (false, false) => Found::Held,
            });
        }
        // Twice as many, since others go on meanwhile.
        let worth = shared
            .directory
            .count()?
            .saturating_mul(2)
            .saturating_add(FEW);
        bound = slots.limit.min(worth);
        if seen >= bound {
            // Each was taken when it was looked at, and yet there are more than are taken.
            return Ok(Found::Unclear);
        }
    }
}

impl Slots {
    /// Returns the permit that is looked at after this number of others.
    fn at(&self, seen: u32) -> u32 {
        let place = (u64::from(self.start) + u64::from(seen)) % u64::from(self.limit);
        // Below the limit, so it fits.
        place as u32
    }
}
