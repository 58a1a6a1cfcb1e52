//! How keys, channels and owners are named on the server. Versions of this library must agree.

use crate::provider::{Holder, LockKind, OwnerId};
use crate::providers::kit::error::invalid;
use crate::providers::kit::holder::{Names, OURS};
use crate::{LockError, LockName};

/// What the value of a lock ends with that is kept although its owner has released it.
const KEPT: &str = ":kept";

/// What the keys end with that stand beside a lock.
const WAITERS: &str = ":lk1:waiters";
const READERS_AND_WRITERS: &str = ":lk1:rw";
const ENDS_OF_READERS: &str = ":lk1:readers";
const UPGRADER: &str = ":lk1:upgrader";
const WAITERS_FOR_PERMITS: &str = ":lk1:permits";

/// Keys of these endings are our own, so a lock of such a name is kept beside them.
const COMPANIONS: [&str; 6] = [
    "lk1:fence",
    WAITERS,
    READERS_AND_WRITERS,
    ENDS_OF_READERS,
    WAITERS_FOR_PERMITS,
    UPGRADER,
];

/// What the .NET library's keys of a reader–writer lock end with.
const WRITER: &str = ".writer";
const READERS: &str = ".readers";

/// The names that every lock of a provider shares.
pub(super) struct Naming {
    names: Names,
    /// The counter of fencing tokens.
    pub(super) fence: String,
    /// Where grants for this provider instance are published.
    pub(super) channel: String,
}

/// The keys of one lock.
#[derive(Clone)]
pub(super) struct Keys {
    /// What the holder's value is in: of a reader–writer lock the writer's, of a semaphore the set
    /// of permits that are out.
    pub(super) lock: String,
    pub(super) waiters: String,
    /// The readers, the ends of those that are ours, and the one that may upgrade.
    readers: Option<Box<[String; 3]>>,
    kind: LockKind,
}

/// The keys that a script is given, in its order.
pub(super) struct ScriptKeys<'a> {
    keys: [&'a str; 6],
    count: usize,
}

impl Naming {
    pub(super) fn new(prefix: &str) -> Result<Self, LockError> {
        // The scripts' texts end at a NUL, and it keeps keys apart, below.
        if prefix.contains('\0') {
            return Err(invalid("expected a key prefix without NUL characters"));
        }
        Ok(Self {
            names: Names::new(prefix),
            fence: format!("{prefix}{OURS}fence"),
            channel: format!("{prefix}{OURS}grants:{}", OwnerId::random()?),
        })
    }

    /// Returns the keys of a lock of this kind.
    ///
    /// The queue is in its lock's hash slot, unless the key has a `}` and no tag. A tag ends at the
    /// first `}`, so none spans such a key. The fencing counter, one for all names, is in a slot of
    /// its own. Clusters are refused anyway.
    pub(super) fn keys(&self, name: &LockName, kind: LockKind) -> Keys {
        let mut key = self.names.key(name);
        if COMPANIONS.iter().any(|companion| key.ends_with(companion)) {
            // No name holds this character, so no other name comes to this key.
            key.push('\0');
        }
        let waiters = match kind {
            LockKind::Mutex => WAITERS,
            LockKind::RwLock => READERS_AND_WRITERS,
            LockKind::Semaphore => WAITERS_FOR_PERMITS,
        };
        let waiters = companion(&key, waiters);
        let mut readers = None;
        if kind == LockKind::RwLock {
            let ends = companion(&key, ENDS_OF_READERS);
            let upgrader = companion(&key, UPGRADER);
            readers = Some(Box::new([format!("{key}{READERS}"), ends, upgrader]));
            key.push_str(WRITER);
        }
        Keys {
            lock: key,
            waiters,
            readers,
            kind,
        }
    }

    /// Returns the value of the lock's key while this owner holds it.
    pub(super) fn owner(&self, id: OwnerId) -> String {
        self.names.owner(id)
    }

    /// Returns the holder that this value of a lock's key, or member of its sets, tells of.
    pub(super) fn holder(&self, value: &[u8]) -> Holder {
        let value = std::str::from_utf8(value).unwrap_or_default();
        // A permit is numbered, if its owner has several.
        let (owner, _) = value.split_once('#').unwrap_or((value, ""));
        self.names.holder(owner.strip_suffix(KEPT).unwrap_or(owner))
    }

    /// Returns the keys of a script that may change who holds a lock.
    pub(super) fn of_script<'a>(&'a self, keys: &'a Keys) -> ScriptKeys<'a> {
        let (lock, waiters) = (keys.lock.as_str(), keys.waiters.as_str());
        let mut all = [lock, waiters, &self.fence, "", "", ""];
        let count = match keys.kind {
            LockKind::Semaphore => 2,
            LockKind::Mutex => 3,
            LockKind::RwLock => {
                for (key, readers) in all[3..]
                    .iter_mut()
                    .zip(keys.readers.iter().flat_map(|it| &**it))
                {
                    *key = readers;
                }
                6
            }
        };
        ScriptKeys { keys: all, count }
    }

    /// Returns the value of the lock's key from this owner's release until the lock is free.
    pub(super) fn kept(owner: &str) -> String {
        format!("{owner}{KEPT}")
    }
}

impl Keys {
    pub(super) fn kind(&self) -> LockKind {
        self.kind
    }
}

impl<'a> ScriptKeys<'a> {
    pub(super) fn as_slice(&self) -> &[&'a str] {
        &self.keys[..self.count]
    }
}

/// Returns the key that stands beside a lock's, in its hash slot.
fn companion(lock: &str, ending: &str) -> String {
    let mut key = String::with_capacity(lock.len() + 2 + ending.len());
    if has_hash_tag(lock) {
        key.push_str(lock);
        // `{order}` and `order` must not share a queue: that of `order` is `{order}:…`.
        let inner = lock.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        if inner.is_some_and(|inner| !has_hash_tag(inner)) {
            key.push('\0');
        }
    } else {
        key.push('{');
        key.push_str(lock);
        key.push('}');
    }
    key.push_str(ending);
    key
}

/// Says whether a cluster would hash only a part of the key. Its specification says which: what
/// stands between the first `{` and the first `}` behind it, unless that is nothing.
fn has_hash_tag(key: &str) -> bool {
    key.split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiters(prefix: &str, name: &str) -> String {
        let naming = Naming::new(prefix).unwrap();
        naming.keys(&name.into(), LockKind::Mutex).waiters
    }

    #[test]
    fn the_queue_sits_in_the_slot_of_its_lock() {
        assert_eq!(waiters("App:", "order"), "{App:order}:lk1:waiters");
        assert_eq!(waiters("", "{tenant}:order"), "{tenant}:order:lk1:waiters");
        assert_eq!(waiters("{App}", "a{b}c"), "{App}a{b}c:lk1:waiters");
        assert_eq!(waiters("", "open{only"), "{open{only}:lk1:waiters");
        assert_eq!(waiters("", "{order}"), "{order}\0:lk1:waiters");
    }

    /// Every name of up to five of the characters that matter, with and without a prefix.
    #[test]
    fn different_locks_have_different_queues() {
        let mut names = vec![String::new()];
        let mut last = names.clone();
        for _ in 0..5 {
            let longer =
                |name: &String| ["{", "}", "a", ":lk1:waiters"].map(|it| format!("{name}{it}"));
            last = last.iter().flat_map(longer).collect();
            names.extend(last.iter().cloned());
        }
        let mut keys = std::collections::HashMap::new();
        for prefix in ["", "a", "{a}"] {
            let naming = Naming::new(prefix).unwrap();
            for name in names.iter().filter(|name| !name.is_empty()) {
                for kind in [LockKind::Mutex, LockKind::RwLock, LockKind::Semaphore] {
                    let all = naming.keys(&name.as_str().into(), kind);
                    // A mutex and a semaphore share their key, and are refused where they meet.
                    let (lock, of) = match kind {
                        LockKind::RwLock => (all.lock.clone(), Some((all.lock.clone(), kind))),
                        _ => (all.lock.clone(), None),
                    };
                    let beside = all.readers.iter().flat_map(|readers| readers.to_vec());
                    let beside = beside.chain([all.waiters.clone()]);
                    let beside = beside.map(|key| (key, Some((all.lock.clone(), kind))));
                    for (key, thing) in beside.chain([(lock, of)]) {
                        let of = keys.entry(key.clone()).or_insert(thing.clone());
                        assert_eq!(*of, thing, "{key:?} is the key of two things");
                    }
                }
            }
        }
    }

    #[test]
    fn no_lock_is_one_of_our_own_keys() {
        let naming = Naming::new("App:").unwrap();
        let key = |name: &str| naming.keys(&name.into(), LockKind::Mutex).lock;
        assert_eq!(key("lk1:fence"), "App:lk1:fence\0");
        for ending in ["waiters", "rw", "readers", "permits", "upgrader"] {
            let name = format!("{{a}}:lk1:{ending}");
            assert_eq!(key(&name), format!("App:{name}\0"));
        }
        assert_eq!(key("lk1:other"), "App:lk1:other");
    }

    #[test]
    fn the_keys_are_the_net_librarys_and_ours_beside_them() {
        let naming = Naming::new("App:").unwrap();
        let keys = |kind| naming.keys(&"order".into(), kind);
        let all = keys(LockKind::RwLock);
        let expected = [
            "App:order.writer",
            "{App:order}:lk1:rw",
            "App:lk1:fence",
            "App:order.readers",
            "{App:order}:lk1:readers",
            "{App:order}:lk1:upgrader",
        ];
        assert_eq!(naming.of_script(&all).as_slice(), expected);
        let all = keys(LockKind::Semaphore);
        let expected = ["App:order", "{App:order}:lk1:permits"];
        assert_eq!(naming.of_script(&all).as_slice(), expected);
    }
}
