//! How the locks of a provider and their holders are named on a server.

use std::fmt::Write;

use crate::LockName;
use crate::host;
use crate::provider::{Holder, OwnerId};

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
            owner_prefix: format!("{OURS}{}:{}:", host::name(), std::process::id()),
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

    /// Returns the holder that this text of an owner tells of. What is not ours is not shown, since
    /// it may be a secret.
    pub(crate) fn holder(&self, owner: &str) -> Holder {
        let own = owner.strip_prefix(&self.owner_prefix);
        if own
            .and_then(OwnerId::parse)
            .is_some_and(OwnerId::is_of_this_process)
        {
            return Holder::here();
        }
        let ours = owner.strip_prefix(OURS).and_then(|rest| {
            let mut parts = rest.rsplitn(3, ':');
            let (id, process, host) = (parts.next()?, parts.next()?, parts.next()?);
            let is_owner =
                OwnerId::parse(id).is_some() && process.parse::<u32>().is_ok() && host::fits(host);
            is_owner.then(|| Holder::new(host::label(host, process)))
        });
        ours.unwrap_or_else(Holder::another_client)
    }
}

/// The longest name that a session may have on a server.
const LONGEST_SESSION: usize = 63;

/// Returns what sessions of this process call themselves, `lk1 host:pid`.
pub(crate) fn session_label() -> String {
    let process = std::process::id().to_string();
    let room = LONGEST_SESSION - OF_SESSION.len() - 1 - process.len();
    let host = host::name();
    format!("{OF_SESSION}{}:{process}", &host[..host.len().min(room)])
}

/// What the name of a session of this library begins with.
const OF_SESSION: &str = "lk1 ";

/// Returns the holder whose session calls itself so.
pub(crate) fn holder_of_session(label: &str) -> Holder {
    if label == session_label() {
        return Holder::here();
    }
    let ours = label.strip_prefix(OF_SESSION).and_then(|rest| {
        let (host, process) = rest.rsplit_once(':')?;
        let is_process = process.bytes().all(|byte| byte.is_ascii_digit());
        is_process.then(|| Holder::new(host::label(host, process)))
    });
    match ours {
        Some(holder) => holder,
        None if label.is_empty() => Holder::another_client(),
        None => Holder::new(label.to_owned()),
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

    #[test]
    fn a_holder_is_told_by_its_session() {
        assert!(session_label().len() <= LONGEST_SESSION);
        assert!(holder_of_session(&session_label()).is_this_process());
        let other = holder_of_session("lk1 billing-7f9c:4711");
        assert_eq!(other.label(), "billing-7f9c (pid 4711)");
        assert_eq!(holder_of_session("psql").label(), "psql");
        assert_eq!(holder_of_session("lk1 7").label(), "lk1 7");
        assert_eq!(holder_of_session("").label(), "another client");
    }

    #[test]
    fn a_holder_is_told_by_its_owner() {
        let names = Names::new("");
        let own = names.holder(&names.owner(OwnerId::random().unwrap()));
        assert!(own.is_this_process());
        let pid = std::process::id();
        assert!(own.label().ends_with(&format!(" (pid {pid})")), "{own}");
        let id = "0".repeat(32);
        let other = names.holder(&format!("lk1:billing-7f9c:4711:{id}"));
        assert_eq!(other.label(), "billing-7f9c (pid 4711)");
        assert!(!other.is_this_process());
        for foreign in [
            "",
            "secret",
            "lk1:a:b",
            "lk1:a:b:c",
            "lk1:a:1:short",
            "x:a:1:2",
            "lk1:a::00000000000000000000000000000000",
            "lk1:a b:1:00000000000000000000000000000000",
            "lk1:a\n:1:00000000000000000000000000000000",
            "lk1::1:00000000000000000000000000000000",
            "lk1:a:1:a-secret-of-thirty-two-letters--",
        ] {
            assert_eq!(names.holder(foreign).label(), "another client", "{foreign}");
        }
    }

    /// Containers may share a machine's name, and each have the process id 1.
    #[test]
    fn a_namesake_of_this_process_is_another_one() {
        let names = Names::new("");
        let owner = names.owner(OwnerId::random().unwrap());
        let (prefix, _) = owner.rsplit_once(':').unwrap();
        let namesake = names.holder(&format!("{prefix}:{:032x}", 7));
        assert_eq!(namesake.label(), names.holder(&owner).label());
        assert!(!namesake.is_this_process());
    }
}
