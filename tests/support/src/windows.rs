//! The windows of grants of all modes, as tasks and processes tell them, and the judge of those.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lock_runtime::LockMode;

use crate::any_lock::ModeWord;

/// One grant as its holder saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The name of the lock.
    pub name: String,
    /// The holder, for the message.
    pub holder: String,
    /// What was granted.
    pub mode: LockMode,
    /// The time that was read after the acquisition answered.
    pub from: u64,
    /// The time that was read before the release was asked for, or when it was last known to be
    /// held.
    pub until: u64,
    /// The fencing token, where there is one.
    pub token: Option<u64>,
}

impl Window {
    /// Reads a line `window NAME MODE FROM UNTIL TOKEN` of a process.
    ///
    /// # Panics
    ///
    /// If it is another line.
    pub fn parse(holder: &str, line: &str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let ["window", name, mode, from, until, token] = words[..] else {
            panic!("{holder} said: {line}");
        };
        let number = |word: &str| word.parse().expect("a number");
        Self {
            name: name.to_owned(),
            holder: holder.to_owned(),
            mode: ModeWord::parse(mode),
            from: number(from),
            until: number(until),
            token: Some(number(token)).filter(|token| *token > 0),
        }
    }

    /// Returns the line that [`parse`](Self::parse) reads.
    pub fn line(&self) -> String {
        let mode = ModeWord(self.mode);
        let token = self.token.unwrap_or(0);
        let Self {
            name, from, until, ..
        } = self;
        format!("window {name} {mode} {from} {until} {token}")
    }
}

/// The windows of a test, from any number of tasks and processes.
#[derive(Debug, Default)]
pub struct Windows(Mutex<Vec<Window>>);

/// What happened, for the check that a history shows anything at all.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How many grants there were, by their modes.
    pub grants: BTreeMap<String, usize>,
    /// The most who read at once.
    pub most_readers: usize,
    /// The most permits that were out at once.
    pub most_permits: u64,
    /// How often one holder was followed by another one, over all names.
    pub changes_of_holder: usize,
}

impl Windows {
    /// Adds one window that is over.
    pub fn record(&self, window: Window) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(window);
    }

    /// Adds what a process said.
    ///
    /// # Panics
    ///
    /// If one of the lines is none of a window.
    pub fn record_lines(&self, holder: &str, lines: &[String]) {
        for line in lines {
            self.record(Window::parse(holder, line));
        }
    }

    /// Checks that writes overlapped nothing, reads only reads and one that could upgrade, that no more permits were out than
    /// the largest limit among those that were, and that tokens of conflicting grants grew
    /// strictly.
    ///
    /// # Panics
    ///
    /// If anything was otherwise. The message shows the windows.
    pub fn check(&self) -> Seen {
        self.check_but_for(Duration::ZERO)
    }

    /// Checks the same where a holder may hear this late that its grant has ended.
    ///
    /// # Panics
    ///
    /// As [`check`](Self::check) does.
    pub fn check_but_for(&self, notice: Duration) -> Seen {
        match self.judge(notice) {
            Ok(seen) => seen,
            Err(why) => panic!("{why}"),
        }
    }

    /// Returns what [`check`](Self::check) panics with.
    ///
    /// # Errors
    ///
    /// What was wrong, if anything was.
    pub fn judge(&self, notice: Duration) -> Result<Seen, String> {
        let notice = notice.as_nanos() as u64;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_name: BTreeMap<&str, Vec<&Window>> = BTreeMap::new();
        let mut seen = Seen::default();
        for window in all.iter() {
            by_name.entry(&window.name).or_default().push(window);
            let mode = ModeWord(window.mode).to_string();
            *seen.grants.entry(mode).or_default() += 1;
        }
        for windows in by_name.values_mut() {
            windows.sort_by_key(|window| (window.from, window.until));
            judge_alone(windows, notice)?;
            let (readers, permits) = judge_together(windows, notice)?;
            seen.most_readers = seen.most_readers.max(readers);
            seen.most_permits = seen.most_permits.max(permits);
            let pairs = windows.windows(2);
            seen.changes_of_holder += pairs
                .filter(|pair| pair[0].holder != pair[1].holder)
                .count();
        }
        Ok(seen)
    }
}

/// Tells whether two grants of one name exclude each other, whatever the number of permits.
fn conflict(one: LockMode, other: LockMode) -> bool {
    !matches!(
        (one, other),
        (LockMode::Read, LockMode::Read | LockMode::Upgradeable)
            | (LockMode::Upgradeable, LockMode::Read)
            | (LockMode::Permits { .. }, LockMode::Permits { .. })
    )
}

/// Of the windows of one mode so far, the one with the latest end and the one with the highest
/// token.
#[derive(Clone, Copy)]
struct Side<'a> {
    mode: LockMode,
    latest: &'a Window,
    highest: Option<&'a Window>,
}

/// Judges windows that are sorted by their beginning.
fn judge_alone(windows: &[&Window], notice: u64) -> Result<(), String> {
    let mut sides: Vec<Side<'_>> = Vec::new();
    for window in windows {
        for side in sides.iter().filter(|side| conflict(side.mode, window.mode)) {
            // The one with the latest end: a long window can overlap many after it.
            if side.latest.until > window.from + notice {
                return Err(format!("they overlap: {:?} and {window:?}", side.latest));
            }
            if let Some(highest) = side.highest
                && window.token.is_some()
                && highest.token >= window.token
            {
                return Err(format!(
                    "the token did not grow: {highest:?} and {window:?}"
                ));
            }
        }
        let at = sides.iter().position(|side| side.mode == window.mode);
        let at = at.unwrap_or_else(|| {
            sides.push(Side {
                mode: window.mode,
                latest: window,
                highest: None,
            });
            sides.len() - 1
        });
        let side = &mut sides[at];
        if side.latest.until <= window.until {
            side.latest = window;
        }
        if window.token > side.highest.and_then(|highest| highest.token) {
            side.highest = Some(window);
        }
    }
    Ok(())
}

/// Judges how many permits were out. Returns the most readers and permits at once.
///
/// Of those that were out, the one that came last found no more than its own limit, and what came
/// before it is no more since. So at no moment are there more than the largest limit among them.
fn judge_together(windows: &[&Window], notice: u64) -> Result<(usize, u64), String> {
    let mut changes: Vec<(u64, bool, &Window)> = Vec::new();
    for window in windows {
        changes.push((window.from, true, *window));
        let until = window.until.saturating_sub(notice).max(window.from);
        changes.push((until, false, *window));
    }
    // Of one moment, what was given back comes first, but for a window that is nothing else.
    changes.sort_by_key(|&(at, begins, window)| (at, begins && window.from < window.until));
    let (mut readers, mut most_readers, mut most_permits) = (0_usize, 0, 0);
    let mut out: Vec<&Window> = Vec::new();
    for (at, begins, window) in changes {
        let LockMode::Permits { .. } = window.mode else {
            if window.mode == LockMode::Read {
                readers = if begins {
                    readers + 1
                } else {
                    readers.saturating_sub(1)
                };
                most_readers = most_readers.max(readers);
            }
            continue;
        };
        if !begins {
            out.retain(|other| !std::ptr::eq(*other, window));
            continue;
        }
        if window.from >= window.until.saturating_sub(notice) {
            // Over as it begins, so that it is beside nothing for sure.
            continue;
        }
        out.push(window);
        let (mut taken, mut largest) = (0, 0);
        for other in &out {
            if let LockMode::Permits { limit, take } = other.mode {
                taken += u64::from(take.get());
                largest = largest.max(u64::from(limit.get()));
            }
        }
        if taken > largest {
            return Err(format!(
                "{taken} of {largest} permits were out at {at}: {out:?}"
            ));
        }
        most_permits = most_permits.max(taken);
    }
    Ok((most_readers, most_permits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &[&str]) -> Result<Seen, String> {
        judge_but_for(0, lines)
    }

    fn judge_but_for(notice: u64, lines: &[&str]) -> Result<Seen, String> {
        let windows = Windows::default();
        for (place, line) in lines.iter().enumerate() {
            let window = Window::parse(&place.to_string(), &format!("window {line}"));
            assert_eq!(window.line(), format!("window {line}"));
            windows.record(window);
        }
        windows.judge(Duration::from_nanos(notice))
    }

    #[track_caller]
    fn is_found(lines: &[&str], what: &str) {
        let why = judge(lines).expect_err("it is found");
        assert!(why.starts_with(what), "{why}");
    }

    const FINE: [&str; 6] = [
        "a write 0 9 1",
        "a read 9 20 2",
        "a read 10 12 3",
        "a read 11 30 2",
        "a write 30 31 4",
        "b write 1 40 9",
    ];

    #[test]
    fn readers_overlap_and_writers_do_not() {
        let seen = judge(&FINE).unwrap();
        assert_eq!(seen.most_readers, 3);
        assert_eq!(seen.grants["read"], 3);
        assert_eq!(seen.grants["write"], 3);
        assert_eq!(seen.changes_of_holder, 4);
        // The order in which they are told does not matter.
        let mut backwards = FINE;
        backwards.reverse();
        assert_eq!(judge(&backwards).unwrap().most_readers, 3);
    }

    #[test]
    fn one_that_may_upgrade_overlaps_readers_alone() {
        let fine = [
            "a upgradeable 0 9 1",
            "a read 1 20 2",
            "a read 0 3 1",
            "a upgradeable 9 12 2",
            "a write 20 30 3",
        ];
        assert_eq!(judge(&fine).unwrap().grants["upgradeable"], 2);
        for wrong in [
            "a upgradeable 8 10 2",
            "a write 11 12 3",
            "a exclusive 0 1 1",
        ] {
            is_found(&[&fine[..], &[wrong]].concat(), "they overlap");
        }
        is_found(
            &["a upgradeable 0 5 7", "a write 5 6 7"],
            "the token did not grow",
        );
    }

    #[test]
    fn a_write_beside_anything_is_found() {
        for wrong in [
            "a write 5 40 9",
            "a write 29 40 9",
            "a read 8 10 9",
            "a exclusive 15 16 9",
            "a 1/5 15 16 0",
            "a write 1 2 9",
        ] {
            is_found(&[&FINE[..], &[wrong]].concat(), "they overlap");
        }
        // Behind reads that ended sooner.
        is_found(
            &["a read 0 50 1", "a read 10 11 1", "a write 30 31 2"],
            "they overlap",
        );
    }

    #[test]
    fn tokens_of_conflicting_grants_grow() {
        for wrong in [
            // A write that does not see the highest of several reads.
            &["a read 0 5 7", "a read 1 6 3", "a write 6 7 7"][..],
            // A read that has the token of the write before it.
            &["a write 0 5 7", "a read 6 7 7"],
            // The same behind other reads.
            &["a write 0 5 7", "a read 6 7 8", "a read 7 8 6"],
            &["a write 0 1 7", "a write 1 2 6"],
            &["a exclusive 0 1 7", "a exclusive 1 2 7"],
        ] {
            is_found(wrong, "the token did not grow");
        }
        // Tokens of reads among each other may stand in any order.
        judge(&[
            "a read 0 5 7",
            "a read 1 6 3",
            "a read 6 7 3",
            "a write 7 8 8",
        ])
        .unwrap();
        // And somebody may have none.
        judge(&["a write 0 5 7", "a write 5 6 0", "a write 6 7 8"]).unwrap();
        is_found(
            &["a write 0 5 7", "a write 5 6 0", "a write 6 7 6"],
            "the token did not grow",
        );
    }

    #[test]
    fn permits_add_up_to_the_largest_limit_in_use() {
        let fine = ["a 2/3 0 9 0", "a 1/3 3 5 0", "a 3/3 9 10 0", "b 1/1 0 9 0"];
        assert_eq!(judge(&fine).unwrap().most_permits, 3);
        is_found(&[&fine[..], &["a 1/2 4 6 0"]].concat(), "4 of 3 permits");
        is_found(&[&fine[..], &["b 1/1 8 10 0"]].concat(), "2 of 1 permits");
        let mixed = ["a 3/3 0 9 0", "a 2/5 3 5 0"];
        assert_eq!(judge(&mixed).unwrap().most_permits, 5);
        // A limit that was in use before is none now.
        is_found(
            &["a 1/5 0 1 0", "a 3/3 1 9 0", "a 1/3 5 6 0"],
            "4 of 3 permits",
        );
        // One that is counted twice, or not at all.
        is_found(&["a 1/1 0 9 0", "a 1/1 1 2 0"], "2 of 1 permits");
    }

    #[test]
    fn a_holder_may_hear_of_the_end_a_little_late() {
        for lines in [
            ["a write 1 20 1", "a write 15 30 2"],
            ["a read 1 20 1", "a write 15 30 2"],
            ["a 3/3 1 20 0", "a 1/3 15 30 0"],
        ] {
            assert!(judge_but_for(5, &lines).is_ok(), "{lines:?}");
            assert!(judge_but_for(4, &lines).is_err(), "{lines:?}");
        }
    }
}
