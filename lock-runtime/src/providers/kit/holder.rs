//! How the locks of a provider and their holders are named on a server.

use std::fmt::Write;

use crate::LockName;
use crate::provider::OwnerId;

/// What the text of every owner begins with. Versions of this library must agree.
pub(crate) const OURS: &str = "lk1:";

/// The prefix of a provider's keys, and what all owners of this process have in common.
pub(crate) struct Names {
    key_prefix: String,
    owner_prefix: String,
}

impl Names {
    pub(crate) fn new(key_prefix: &str) -> Self {
        Self {
            key_prefix: key_prefix.to_owned(),
            owner_prefix: format!("{OURS}{}:{}:", host(), std::process::id()),
        }
    }

    /// Returns the key of a lock: the prefix and its name. There is room for one more byte.
    pub(crate) fn key(&self, name: &LockName) -> String {
        let name = name.as_str();
        let mut key = String::with_capacity(self.key_prefix.len() + name.len() + 1);
        key.push_str(&self.key_prefix);
        key.push_str(name);
        key
    }

    /// Returns the text of an owner, `lk1:host:pid:id`: who holds a lock, as a person who looks at
    /// the server reads it, and by which grant.
    pub(crate) fn owner(&self, id: OwnerId) -> String {
        let mut owner = String::with_capacity(self.owner_prefix.len() + 32);
        owner.push_str(&self.owner_prefix);
        let _ = write!(owner, "{id}");
        owner
    }
}

/// Returns this machine's name; whatever would not fit into an owner is replaced.
fn host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name: String = name
        .chars()
        .take(64)
        .map(|c| if fits(c) { c } else { '-' })
        .collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_tells_a_person_who_it_is() {
        let owner = Names::new("").owner(OwnerId::random().unwrap());
        let parts: Vec<_> = owner.split(':').collect();
        assert_eq!(parts[0], "lk1");
        assert_eq!(parts[2], std::process::id().to_string());
        assert_eq!(parts[3].len(), 32);
        assert!(!owner.contains('|'));
    }
}
