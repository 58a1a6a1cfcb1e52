//! How keys, channels and owners are named on the server. Versions of this library must agree.

use crate::provider::OwnerId;
use crate::providers::kit::error::invalid;
use crate::providers::kit::holder::{Names, OURS};
use crate::{LockError, LockName};

/// What the value of a lock ends with that is kept although its owner has released it.
const KEPT: &str = ":kept";

/// Keys of these endings are our own, so a lock of such a name is kept beside them.
const COMPANIONS: [&str; 2] = ["lk1:fence", ":lk1:waiters"];

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
    pub(super) lock: String,
    pub(super) waiters: String,
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

    /// Returns the keys of a lock.
    ///
    /// The queue is in its lock's hash slot, unless the key has a `}` and no tag. A tag ends at the
    /// first `}`, so none spans such a key. The fencing counter, one for all names, is in a slot of
    /// its own. Clusters are refused anyway.
    pub(super) fn keys(&self, name: &LockName) -> Keys {
        let mut lock = self.names.key(name);
        if COMPANIONS.iter().any(|companion| lock.ends_with(companion)) {
            // No name holds this character, so no other name comes to this key.
            lock.push('\0');
        }
        let mut waiters = String::with_capacity(lock.len() + 2 + OURS.len() + 8);
        if has_hash_tag(&lock) {
            waiters.push_str(&lock);
            // `{order}` and `order` must not share a queue: that of `order` is `{order}:…`.
            let inner = lock.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
            if inner.is_some_and(|inner| !has_hash_tag(inner)) {
                waiters.push('\0');
            }
        } else {
            waiters.push('{');
            waiters.push_str(&lock);
            waiters.push('}');
        }
        waiters.push_str(":lk1:waiters");
        Keys { lock, waiters }
    }

    /// Returns the value of the lock's key while this owner holds it.
    pub(super) fn owner(&self, id: OwnerId) -> String {
        self.names.owner(id)
    }

    /// Returns the keys of a script that may change who holds a lock.
    pub(super) fn of_script<'a>(&'a self, keys: &'a Keys) -> [&'a str; 3] {
        [&keys.lock, &keys.waiters, &self.fence]
    }

    /// Returns the value of the lock's key from this owner's release until the lock is free.
    pub(super) fn kept(owner: &str) -> String {
        format!("{owner}{KEPT}")
    }
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
        Naming::new(prefix).unwrap().keys(&name.into()).waiters
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
                let Keys { lock, waiters } = naming.keys(&name.as_str().into());
                for key in [(lock.clone(), None), (waiters, Some(lock))] {
                    let of = keys.entry(key.0.clone()).or_insert(key.1.clone());
                    assert_eq!(*of, key.1, "{:?} is the key of two things", key.0);
                }
            }
        }
    }

    #[test]
    fn no_lock_is_one_of_our_own_keys() {
        let naming = Naming::new("App:").unwrap();
        assert_eq!(naming.keys(&"lk1:fence".into()).lock, "App:lk1:fence\0");
        assert_eq!(
            naming.keys(&"{a}:lk1:waiters".into()).lock,
            "App:{a}:lk1:waiters\0"
        );
        assert_eq!(naming.keys(&"lk1:other".into()).lock, "App:lk1:other");
    }
}
