//! Which server a session speaks to. The name that everybody connects to may lead to another server
//! from one connection to the next: after a failover, after a restart, or by an administrator.

use crate::clock::Timestamp;
use crate::{LockError, LockErrorKind};

/// What tells one server from another, and from itself before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    /// The same for a primary, its standbys and its copies; zero where nobody may ask for it.
    pub(crate) system: i64,
    /// One more with every promotion of a standby; zero where the server does not count them.
    pub(crate) timeline: i32,
    /// When the server was started, in microseconds since 1970.
    pub(crate) started: i64,
}

/// Which process of which server serves a session. `P` is the number of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backend<P> {
    pub(crate) server: Server,
    pub(crate) pid: P,
    /// When the process was started, which tells it from others that had its number.
    pub(crate) started: i64,
}

/// The server that the name leads to, as far as is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    server: Server,
    /// When the connection was begun that showed it.
    connected_at: Timestamp,
}

/// What a connection shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shows {
    TheSame,
    /// The name has gone on to this server, and this is why the sessions of the one before are
    /// worth nothing.
    Another(&'static str),
    /// The name has gone on from this server since.
    Outdated,
}

impl Known {
    pub(super) fn new(server: Server, connected_at: Timestamp) -> Self {
        Self {
            server,
            connected_at,
        }
    }

    /// Compares with the server of a connection that was begun at this time.
    pub(super) fn compare(&self, found: Server, connected_at: Timestamp) -> Shows {
        let known = self.server;
        if found == known {
            return Shows::TheSame;
        }
        if found.system == known.system && found.timeline != known.timeline {
            return match found.timeline > known.timeline {
                true => Shows::Another(
                    "a standby has been promoted; this session's server is no longer the primary",
                ),
                false => Shows::Outdated,
            };
        }
        // Nothing else tells which of the two comes after the other.
        if connected_at < self.connected_at {
            return Shows::Outdated;
        }
        Shows::Another(match found.system == known.system {
            true => "the server has been started again since this session was opened",
            false => "the server's name leads to another database cluster now",
        })
    }

    /// Notes that a connection of this time has shown the same server again.
    pub(super) fn confirm(&mut self, connected_at: Timestamp) {
        self.connected_at = self.connected_at.max(connected_at);
    }
}

/// Makes the error of a connection to a server that the name does not lead to any more.
pub(super) fn outdated() -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail(
        "this connection leads to a server that was the primary once: another one has taken over",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const P1: Server = Server {
        system: 7,
        timeline: 1,
        started: 100,
    };

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn a_promoted_standby_comes_after_its_primary_whenever_it_is_seen() {
        let standby = Server {
            timeline: 2,
            started: 90,
            ..P1
        };
        let known = Known::new(P1, at(50));
        for time in [40, 60] {
            assert!(matches!(
                known.compare(standby, at(time)),
                Shows::Another(_)
            ));
            let promoted = Known::new(standby, at(50));
            assert_eq!(promoted.compare(P1, at(time)), Shows::Outdated);
        }
        assert_eq!(known.compare(P1, at(60)), Shows::TheSame);
    }

    #[test]
    fn of_others_the_one_that_was_connected_to_last_counts() {
        let restarted = Server { started: 200, ..P1 };
        let other = Server { system: 8, ..P1 };
        for found in [restarted, other] {
            let mut known = Known::new(P1, at(50));
            assert!(matches!(known.compare(found, at(60)), Shows::Another(_)));
            known.confirm(at(70));
            assert_eq!(known.compare(found, at(60)), Shows::Outdated);
        }
    }
}
