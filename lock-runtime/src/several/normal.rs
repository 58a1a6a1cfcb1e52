//! The normal form of several locks: each name once, in the order in which all processes take them.

use super::part::{Part, Wish};
use crate::clock::Span;
use crate::error::{LockError, LockErrorKind};
use crate::gate::ReleaseMode;
use crate::kind::Permits;

/// How many locks may be taken together.
const MOST: usize = 64;

/// Sorts the locks by the bytes of their names, and leaves each name once: with the stronger mode,
/// the higher number of permits, the longer spans.
///
/// The order is a contract between processes. It is that of names and not of keys, which differ
/// with the provider's version.
///
/// # Errors
///
/// [`InvalidConfig`](LockErrorKind::InvalidConfig) if there is no lock, if there are too many, or if
/// they are not of one lock space.
pub(crate) fn in_order(mut parts: Vec<Part>) -> Result<Vec<Part>, LockError> {
    let Some(first) = parts.first() else {
        return Err(wrong_number(0));
    };
    let space = first.slot.space;
    if let Some(other) = parts.iter().find(|part| part.slot.space != space) {
        let detail = "expected locks of one lock space, since only these can be taken together";
        let error = other.slot.error(LockErrorKind::InvalidConfig);
        return Err(error.with_detail(detail));
    }
    parts.sort_by(|one, other| one.slot.name.as_str().cmp(other.slot.name.as_str()));
    parts.dedup_by(|later, earlier| {
        let is_same = later.slot.address() == earlier.slot.address();
        if is_same {
            earlier.merge(later);
        }
        is_same
    });
    match parts.len() {
        ..=MOST => Ok(parts),
        more => Err(wrong_number(more)),
    }
}

fn wrong_number(number: usize) -> LockError {
    let detail = format!("expected 1 to {MOST} names of locks to be taken together, got {number}");
    LockError::new(LockErrorKind::InvalidConfig).with_detail(detail)
}

impl Part {
    /// Wants what the other one wants, too, of the same lock.
    fn merge(&mut self, other: &Self) {
        self.wish = match (self.wish, other.wish) {
            (Wish::Read, Wish::Write) => Wish::Write,
            (Wish::Permits(one), Wish::Permits(other)) => Wish::Permits(Permits {
                limit: one.limit.min(other.limit),
                take: one.take.max(other.take),
            }),
            (wish, _) => wish,
        };
        let (wanted, other) = (&mut self.wanted, &other.wanted);
        wanted.lease = longer(wanted.lease, other.lease);
        wanted.min_hold = longer(wanted.min_hold, other.min_hold);
        if other.release == ReleaseMode::Confirmed {
            wanted.release = ReleaseMode::Confirmed;
        }
    }
}

fn longer(one: Span, other: Span) -> Span {
    // `None` is the shortest.
    Span::maybe(one.get().max(other.get()))
}
