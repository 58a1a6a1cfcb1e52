//! The kernel's list of all locks, `/proc/locks`.
//!
//! The kernel gives a long list in parts. While others lock and unlock between two of them, a lock
//! that is held all the time may move from one that is to come to one that was given, and be in
//! none. Locks keep their order, though. So each part is asked for from before the end of the one
//! ahead: if they have a lock in common, nothing between them was skipped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The kernel gives a page at most, and the rest of a line ahead of it.
const PART: usize = 1 << 16;
/// How much of a part is asked for again with the next one.
const AGAIN: usize = 2_048;
/// How many readings are wanted whose parts fit together. One may deceive: a lock that is released
/// and taken again between two parts is in both, and has changed its place.
const WHOLE: u32 = 2;
/// How often the list is read at most.
const READINGS: u32 = 16;

/// Returns the lines of the list, without their numbers. Each lock that is held all the time is
/// among them, unless the list does not hold still for long.
pub(super) fn lines() -> io::Result<BTreeSet<String>> {
    let file = File::open("/proc/locks")?;
    let mut lines = BTreeSet::new();
    let mut whole = 0;
    for _ in 0..READINGS {
        whole += u32::from(is_whole(&file, &mut lines)?);
        if whole == WHOLE {
            break;
        }
    }
    Ok(lines)
}

/// Reads the list once, and tells whether its parts fit together.
fn is_whole(file: &File, lines: &mut BTreeSet<String>) -> io::Result<bool> {
    let mut buffer = vec![0; PART];
    let mut before: Vec<String> = Vec::new();
    let mut from = 0;
    loop {
        let length = file.read_at(&mut buffer, from as u64)?;
        let part = String::from_utf8_lossy(&buffer[..length]);
        // It begins in the middle of a line.
        let cut = if from == 0 { Some(0) } else { part.find('\n') };
        let part: Vec<_> = part[cut.unwrap_or(length)..]
            .lines()
            .filter_map(|line| Some(line.split_once(": ")?.1.to_owned()))
            .collect();
        lines.extend(part.iter().cloned());
        if from > 0 && !part.iter().any(|line| before.contains(line)) {
            return Ok(false);
        }
        if length < AGAIN + AGAIN / 2 {
            return Ok(true);
        }
        before = part;
        from += length - AGAIN;
    }
}
