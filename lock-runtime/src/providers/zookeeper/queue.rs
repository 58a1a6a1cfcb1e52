//! Who holds a lock, and whom the others wait for, by the names of the nodes that queue. They are
//! those of the .NET `DistributedLock` library (its version 2.8).

use crate::provider::{LockKind, LockMode};

/// How many digits a sequence number has.
pub(super) const SEQUENCE: usize = 10;

/// Returns what the node's name begins with by which a holder or waiter of this mode queues.
pub(super) const fn word(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "lock-",
        LockMode::Read => "read-",
        LockMode::Write | LockMode::Upgradeable => "write-",
        LockMode::Permits { .. } => "semaphore-",
    }
}

/// Says whether a child stands for somebody who writes.
pub(super) fn is_writer(child: &str) -> bool {
    child.starts_with(word(LockMode::Write))
}

/// Returns how many nodes somebody needs who queues in this mode.
pub(super) fn places(mode: LockMode) -> usize {
    match mode {
        LockMode::Permits { take, .. } => usize::try_from(take.get()).unwrap_or(usize::MAX),
        _ => 1,
    }
}

/// Returns the sequence number of a child that queues for a lock of this kind. Kinds have other
/// words, and may sit below the same node without seeing each other.
pub(super) fn sequence(kind: LockKind, child: &str) -> Option<i64> {
    let words: &[LockMode] = match kind {
        LockKind::Mutex => &[LockMode::Exclusive],
        LockKind::RwLock => &[LockMode::Read, LockMode::Write],
        LockKind::Semaphore => return number(child, "semaphore-"),
    };
    words.iter().find_map(|mode| number(child, word(*mode)))
}

fn number(child: &str, word: &str) -> Option<i64> {
    child.strip_prefix(word)?.parse().ok()
}

/// Says whether this child's number is beyond the last one. The server counts in 32 bits, and goes
/// on below zero for some of the nodes that are created at the same time. Such numbers say nothing
/// about who came first.
pub(super) fn is_beyond_the_last(kind: LockKind, child: &str) -> bool {
    sequence(kind, child).is_some_and(|sequence| sequence < 0)
}

/// What a list of the children says about the nodes with which somebody queues.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing<'a> {
    /// The lock is theirs.
    Holds,
    /// It is not before this one is gone, or, of a semaphore, has its permits.
    Behind(&'a str),
    /// It is theirs when enough of those before them are gone, whichever these are.
    Among(Vec<&'a str>),
    /// One of them is missing.
    Gone,
}

/// Says how somebody stands who queues in this mode with these nodes, whose numbers follow each
/// other.
pub(super) fn standing<'a>(mode: LockMode, children: &'a [String], own: &[String]) -> Standing<'a> {
    let number = |own: Option<&String>| sequence(mode.kind(), own?);
    let (Some(first), Some(last)) = (number(own.first()), number(own.last())) else {
        return Standing::Gone;
    };
    let there = children.iter().filter(|child| {
        let number = sequence(mode.kind(), child);
        child.starts_with(word(mode)) && (Some(first)..=Some(last)).contains(&number)
    });
    if there.count() < places(mode) {
        return Standing::Gone;
    }
    let before = before(mode, children, own);
    let Some(nearest) = before.last() else {
        return Standing::Holds;
    };
    let LockMode::Permits { limit, take } = mode else {
        return Standing::Behind(nearest);
    };
    let (limit, take) = (u64::from(limit.get()), u64::from(take.get()));
    let taken = before.len() as u64;
    if taken + take <= limit {
        Standing::Holds
    } else if taken <= limit {
        // All before them may have theirs.
        Standing::Among(before)
    } else {
        Standing::Behind(nearest)
    }
}

/// Returns the children that are in the way of somebody who queues in this mode with these nodes,
/// the nearest last. A reader has no other readers in its way.
pub(super) fn before<'a>(mode: LockMode, children: &'a [String], own: &[String]) -> Vec<&'a str> {
    let first = own.first().and_then(|own| sequence(mode.kind(), own));
    let numbered = children.iter().filter_map(|child| {
        let is_in_the_way = mode != LockMode::Read || is_writer(child);
        let number = sequence(mode.kind(), child).filter(|number| Some(*number) < first);
        number
            .filter(|_| is_in_the_way)
            .map(|number| (number, child.as_str()))
    });
    let mut before: Vec<_> = numbered.collect();
    before.sort_unstable();
    before.into_iter().map(|(_, child)| child).collect()
}

/// Says whether a writer queues behind the reader that has this node.
pub(super) fn a_writer_waits_behind(children: &[String], own: &[String]) -> bool {
    let number = |child: &String| sequence(LockKind::RwLock, child);
    let own = own.first().and_then(number);
    let mut writers = children.iter().filter(|child| is_writer(child));
    writers.any(|writer| number(writer) > own)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> [String; N] {
        names.map(str::to_owned)
    }

    fn permits(take: u32, limit: u32) -> LockMode {
        let number = |number| NonZeroU32::new(number).expect("above zero");
        LockMode::Permits {
            limit: number(limit),
            take: number(take),
        }
    }

    #[test]
    fn the_queue_is_in_the_order_of_sequence_numbers() {
        let children = names([
            "lock-0000000010",
            "read-0000000001",
            "lock-0000000009",
            "lock-",
            "lock-x",
            "semaphore-0000000000",
            "lock-0000000012",
        ]);
        let stands = |own: &str| standing(LockMode::Exclusive, &children, &names([own]));
        assert_eq!(stands("lock-0000000009"), Standing::Holds);
        assert_eq!(
            stands("lock-0000000010"),
            Standing::Behind("lock-0000000009")
        );
        assert_eq!(
            stands("lock-0000000012"),
            Standing::Behind("lock-0000000010")
        );
        assert_eq!(stands("lock-0000000011"), Standing::Gone);
    }

    #[test]
    fn a_reader_waits_for_writers_alone() {
        let children = names([
            "read-0000000003",
            "write-0000000005",
            "read-0000000006",
            "lock-0000000002",
            "semaphore-0000000001",
            "read-0000000009",
            "write-0000000008",
            "write-0000000010",
        ]);
        let reads = |own: &str| standing(LockMode::Read, &children, &names([own]));
        let writes = |own: &str| standing(LockMode::Write, &children, &names([own]));
        assert_eq!(reads("read-0000000003"), Standing::Holds);
        assert_eq!(
            writes("write-0000000005"),
            Standing::Behind("read-0000000003")
        );
        assert_eq!(
            reads("read-0000000006"),
            Standing::Behind("write-0000000005")
        );
        assert_eq!(
            writes("write-0000000008"),
            Standing::Behind("read-0000000006")
        );
        assert_eq!(
            reads("read-0000000009"),
            Standing::Behind("write-0000000008")
        );
        assert_eq!(
            writes("write-0000000010"),
            Standing::Behind("read-0000000009")
        );
        assert_eq!(reads("read-0000000004"), Standing::Gone);
        assert_eq!(writes("write-0000000003"), Standing::Gone);
        assert!(a_writer_waits_behind(
            &children,
            &names(["read-0000000009"])
        ));
        assert!(!a_writer_waits_behind(
            &children[..4],
            &names(["read-0000000006"])
        ));
        let alone = names(["write-0000000000"]);
        assert_eq!(standing(LockMode::Write, &alone, &alone), Standing::Holds);
    }

    #[test]
    fn so_many_hold_permits_and_no_more() {
        let children = names([
            "semaphore-0000000004",
            "semaphore-0000000001",
            "lock-0000000000",
            "semaphore-0000000003",
            "semaphore-0000000002",
        ]);
        let (one, two) = ("semaphore-0000000001", "semaphore-0000000002");
        let (three, four) = ("semaphore-0000000003", "semaphore-0000000004");
        let stands = |limit, own: &str| standing(permits(1, limit), &children, &names([own]));
        assert_eq!(stands(1, one), Standing::Holds);
        assert_eq!(stands(2, two), Standing::Holds);
        assert_eq!(stands(1, two), Standing::Among(vec![one]));
        assert_eq!(stands(2, three), Standing::Among(vec![one, two]));
        assert_eq!(stands(1, three), Standing::Behind(two));
        assert_eq!(stands(2, four), Standing::Behind(three));
        assert_eq!(stands(4, four), Standing::Holds);
        let both = |limit| standing(permits(2, limit), &children, &names([three, four]));
        assert_eq!(both(4), Standing::Holds);
        assert!(matches!(both(3), Standing::Among(before) if before.len() == 2));
        assert!(matches!(both(2), Standing::Among(_)));
        // One of them is missing.
        let half = standing(permits(2, 4), &children[1..], &names([three, four]));
        assert_eq!(half, Standing::Gone);
        let half = standing(permits(2, 4), &children, &names([four]));
        assert_eq!(half, Standing::Gone);
    }

    /// The server counts in 32 bits, and fills up with zeros behind the sign.
    #[test]
    fn numbers_beyond_the_last_one_are_known() {
        for (kind, last) in [
            (LockKind::Mutex, "lock-2147483647"),
            (LockKind::Mutex, "lock-0000000000"),
            (LockKind::Mutex, "lock-x"),
            (LockKind::Mutex, "read--000000001"),
            (LockKind::RwLock, "write-2147483647"),
            (LockKind::Semaphore, "write--000000001"),
        ] {
            assert!(!is_beyond_the_last(kind, last), "{last}");
        }
        for (kind, beyond) in [
            (LockKind::Mutex, "lock--2147483648"),
            (LockKind::Mutex, "lock--000000001"),
            (LockKind::RwLock, "read--000000001"),
            (LockKind::RwLock, "write--2147483648"),
            (LockKind::Semaphore, "semaphore--000000001"),
        ] {
            assert!(is_beyond_the_last(kind, beyond), "{beyond}");
        }
    }
}
