//! The grants of a test, and the check that no two overlapped.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Returns the nanoseconds since the machine started. The clock is the one that all processes share
/// and that also counts suspend.
pub fn boot_nanos() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// One grant as its holder saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The name of the lock.
    pub name: String,
    /// The holder, for the message.
    pub holder: String,
    /// The time that was read after the acquisition answered.
    pub from: u64,
    /// The time that was read before the release was asked for, or when the holder was told of the
    /// loss.
    pub until: u64,
    /// The fencing token, where there is one.
    pub token: Option<u64>,
}

/// The grants of a test, from any number of tasks and processes.
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<Held>>);

impl History {
    /// Adds one grant that is over.
    pub fn record(&self, held: Held) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(held);
    }

    /// Returns how many grants there were.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Tells whether there was no grant, which a test should not call proof of anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how often the lock went from one holder to another one, over all names.
    pub fn changes_of_holder(&self) -> usize {
        let by_name = self.by_name();
        let changes = |grants: &Vec<Held>| {
            grants
                .windows(2)
                .filter(|pair| pair[0].holder != pair[1].holder)
                .count()
        };
        by_name.values().map(changes).sum()
    }

    /// Checks that no two grants of a name overlapped and that their tokens grew strictly.
    ///
    /// # Panics
    ///
    /// If two did, or a token did not grow. The message shows the two grants.
    pub fn check(&self) {
        self.check_but_for(Duration::ZERO);
    }

    /// Checks the same where a holder may hear this late that its grant has ended.
    ///
    /// # Panics
    ///
    /// As [`check`](Self::check) does.
    pub fn check_but_for(&self, notice: Duration) {
        if let Err(why) = self.judge(notice.as_nanos() as u64) {
            panic!("{why}");
        }
    }

    /// Returns when the first grant with a later token began, if there was one.
    pub fn next_after(&self, name: &str, token: u64) -> Option<u64> {
        let grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let later = grants
            .iter()
            .filter(|grant| grant.name == name && grant.token > Some(token));
        later.map(|grant| grant.from).min()
    }

    fn judge(&self, notice: u64) -> Result<(), String> {
        for grants in self.by_name().values() {
            // The one with the latest end so far: a long grant can overlap many after it.
            let mut latest: Option<&Held> = None;
            for grant in grants {
                if let Some(earlier) = latest.filter(|earlier| earlier.until > grant.from + notice)
                {
                    return Err(format!("two held it at once: {earlier:?} and {grant:?}"));
                }
                if latest.is_none_or(|earlier| grant.until >= earlier.until) {
                    latest = Some(grant);
                }
            }
            let with_token: Vec<_> = grants
                .iter()
                .filter(|grant| grant.token.is_some())
                .collect();
            for pair in with_token.windows(2) {
                // One that hears late of its end may begin after its successor, and fences itself.
                let ends_soon = pair[1].until < pair[0].from + notice;
                let is_stale = ends_soon && pair[0].token != pair[1].token;
                if pair[0].token >= pair[1].token && !is_stale {
                    return Err(format!(
                        "tokens did not grow: {:?} and {:?}",
                        pair[0], pair[1]
                    ));
                }
            }
        }
        Ok(())
    }

    fn by_name(&self) -> HashMap<String, Vec<Held>> {
        let grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for grant in grants.iter() {
            by_name
                .entry(grant.name.clone())
                .or_default()
                .push(grant.clone());
        }
        for grants in by_name.values_mut() {
            grants.sort_by_key(|grant| (grant.from, grant.until));
        }
        by_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(grants: &[(&str, u64, u64, Option<u64>)]) -> History {
        let history = History::default();
        for &(name, from, until, token) in grants {
            let holder = format!("{from}");
            history.record(Held {
                name: name.to_owned(),
                holder,
                from,
                until,
                token,
            });
        }
        history
    }

    #[test]
    fn neighbours_and_other_names_are_fine() {
        history(&[
            ("a", 5, 9, Some(2)),
            ("a", 1, 5, Some(1)),
            ("b", 2, 6, Some(1)),
        ])
        .check();
    }

    #[test]
    fn overlap_is_seen_behind_a_shorter_grant() {
        let judged =
            history(&[("a", 1, 20, None), ("a", 20, 21, None), ("a", 3, 4, None)]).judge(0);
        assert!(judged.is_err_and(|why| why.starts_with("two held it")));
        let judged = history(&[("a", 1, 20, None), ("a", 19, 21, None)]).judge(0);
        assert!(judged.is_err_and(|why| why.starts_with("two held it")));
    }

    #[test]
    fn a_holder_may_hear_of_the_end_a_little_late() {
        let grants = history(&[("a", 1, 20, Some(1)), ("a", 15, 30, Some(2))]);
        assert!(grants.judge(5).is_ok());
        assert!(grants.judge(4).is_err());
        assert_eq!(grants.next_after("a", 1), Some(15));
        assert_eq!(grants.next_after("a", 2), None);
        assert_eq!(grants.next_after("b", 1), None);
    }

    #[test]
    fn a_holder_may_begin_late_that_has_lost_its_grant_by_then() {
        let grants = history(&[("a", 10, 11, Some(2)), ("a", 12, 14, Some(1))]);
        assert!(grants.judge(5).is_ok());
        assert!(grants.judge(4).is_err());
        let equal = history(&[("a", 10, 11, Some(1)), ("a", 12, 14, Some(1))]);
        assert!(equal.judge(5).is_err());
    }

    #[test]
    fn equal_tokens_do_not_grow() {
        let judged = history(&[("a", 1, 2, Some(7)), ("a", 3, 4, Some(7))]).judge(0);
        assert!(judged.is_err_and(|why| why.starts_with("tokens did not grow")));
    }
}
