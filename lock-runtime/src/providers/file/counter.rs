//! Fencing tokens that outlive every lock file and every process.
//!
//! A counter of its own for each name would leave a file for every name ever used. One counter for
//! all would let a process that is stopped while it counts stop everybody. So there are sixteen,
//! each for the names whose hash begins alike.
//!
//! A counter is two records, written in turns under the counter's own lock. A record holds the last
//! token twice; one that was only half written disagrees with itself and is ignored, and the token
//! it was for was never given to anybody. Nothing is synced to the disk. The death of a process
//! loses nothing; after the death of the machine, which ends every lock, the clock is ahead of
//! every token given before.

use std::fs::File;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::directory::Directory;
use super::lock_file::{Access, Opened};
use super::name::HASH_AND_EXTENSION;
use crate::clock::since_epoch;
use crate::{FencingToken, LockError};

const STRIPES: u8 = 16;

/// 20 digits, a blank, the same 20 digits, a line end.
const RECORD: usize = 42;

/// How long to stay on the thread for a counter that another process is just using.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_micros(50);

/// Names the counter of a lock file.
pub(super) fn file_name(lock_file_name: &str) -> String {
    format!(".lk1-fence-{:x}", stripe(lock_file_name))
}

/// Chooses by the first character of the hash in its name.
fn stripe(lock_file_name: &str) -> u8 {
    let hash = &lock_file_name[lock_file_name.len() - HASH_AND_EXTENSION..];
    hash.as_bytes()[0] & (STRIPES - 1)
}

/// The counters, as the threads of this process take turns at them.
pub(super) struct Counters {
    /// No token is as low as this.
    floor: u64,
    /// Whether other processes kept it locked when it was last tried.
    stuck: [Mutex<bool>; STRIPES as usize],
}

impl Counters {
    pub(super) fn new(floor: u64) -> Self {
        Self {
            floor,
            stuck: Default::default(),
        }
    }

    /// Reserves as many tokens as `count` for the lock of this file and returns the first, or
    /// `None` if others keep the counter locked.
    pub(super) fn reserve(
        &self,
        directory: &Directory,
        lock_file_name: &str,
        count: NonZeroU32,
    ) -> Result<Option<FencingToken>, LockError> {
        // Held for microseconds; threads that take turns do not count as others.
        let stuck = &self.stuck[usize::from(stripe(lock_file_name))];
        let mut stuck = stuck.lock().unwrap_or_else(PoisonError::into_inner);
        let file_name = file_name(lock_file_name);
        let count = u64::from(count.get());
        // While one is stuck, nobody's thread is kept.
        let tries = if *stuck { 1 } else { TRIES };
        for attempt in 0..tries {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            if let Opened::Locked(counter) = directory.try_lock(&file_name, Access::Exclusive)? {
                *stuck = false;
                let counted = advance(counter.file(), count, self.floor);
                let in_place = counter.is_in_place();
                counter.unlock();
                let first = counted
                    .map_err(|error| directory.file_error(&error, &file_name, "count in"))?;
                // If somebody has removed it meanwhile, others do not know of this token.
                if matches!(in_place, Ok(true)) {
                    return Ok(Some(FencingToken::new(first)));
                }
            }
        }
        *stuck = true;
        Ok(None)
    }
}

/// Moves the counter in this file, which the caller has locked, and returns the first of `count`
/// new tokens, which are above the floor.
pub(super) fn advance(file: &File, count: u64, floor: u64) -> std::io::Result<u64> {
    let mut records = [[0; RECORD]; 2];
    for (place, record) in (0..).zip(&mut records) {
        // Whatever is missing or broken counts as zero.
        let _ = file.read_exact_at(record, place * RECORD as u64);
    }
    let [one, two] = records.map(|record| parse(&record).unwrap_or(0));
    let clock = u64::try_from(since_epoch().as_micros()).unwrap_or(0);
    let next = one.max(two).max(floor).checked_add(1);
    let first = next.map(|next| clock.max(next));
    let last = first.and_then(|first| first.checked_add(count - 1));
    let (Some(first), Some(last)) = (first, last) else {
        // Never a lower one than was given before.
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it has reached the highest number, so that no token is left",
        ));
    };
    // The record with the highest token so far stays.
    let place = if one > two { RECORD as u64 } else { 0 };
    file.write_all_at(format!("{last:020} {last:020}\n").as_bytes(), place)?;
    Ok(first)
}

fn parse(record: &[u8; RECORD]) -> Option<u64> {
    let (once, again) = std::str::from_utf8(record)
        .ok()?
        .trim_end()
        .split_once(' ')?;
    if once == again {
        once.parse().ok()
    } else {
        None
    }
}
