//! What the modes of a lock differ in: their scripts, and how those are told of the mode.

use std::borrow::Cow;

use once_cell::sync::Lazy;

use super::connection::Releasing;
use super::keys::Naming;
use super::script::{
    ACQUIRE, CLEANUP, PASS_ON, PERMITS_ACQUIRE, PERMITS_CLEANUP, PERMITS_PASS_ON, PERMITS_RELEASE,
    PERMITS_RELEASE_LATER, PERMITS_RENEW, READ_RENEW, READ_WRITE_ACQUIRE, READ_WRITE_CLEANUP,
    READ_WRITE_PASS_ON, READ_WRITE_RELEASE, RELEASE, RELEASE_LATER, RENEW, Script,
    WRITE_RELEASE_LATER,
};
use crate::LockError;
use crate::provider::{Grant, LockKind, LockMode, OwnerId};
use crate::providers::kit::error::invalid;

/// The server does nothing else while it takes permits, and each of them is a member of a set.
const MOST_PERMITS_AT_ONCE: u32 = 10_000;

type Lasting = &'static Lazy<Script>;

/// The scripts of one kind of lock.
pub(super) struct Scripts {
    pub(super) acquire: Lasting,
    pub(super) pass_on: Lasting,
    pub(super) release: Lasting,
    pub(super) release_later: Lasting,
    pub(super) cleanup: Lasting,
    pub(super) releasing: Releasing,
}

static MUTEX: Scripts = Scripts {
    acquire: &ACQUIRE,
    pass_on: &PASS_ON,
    release: &RELEASE,
    release_later: &RELEASE_LATER,
    cleanup: &CLEANUP,
    releasing: Releasing::One,
};

static READ_WRITE: Scripts = Scripts {
    acquire: &READ_WRITE_ACQUIRE,
    pass_on: &READ_WRITE_PASS_ON,
    release: &READ_WRITE_RELEASE,
    release_later: &WRITE_RELEASE_LATER,
    cleanup: &READ_WRITE_CLEANUP,
    releasing: Releasing::ReadOrWrite,
};

static PERMITS: Scripts = Scripts {
    acquire: &PERMITS_ACQUIRE,
    pass_on: &PERMITS_PASS_ON,
    release: &PERMITS_RELEASE,
    release_later: &PERMITS_RELEASE_LATER,
    cleanup: &PERMITS_CLEANUP,
    releasing: Releasing::Permits,
};

/// Returns the scripts of a kind of lock.
pub(super) fn scripts(kind: LockKind) -> &'static Scripts {
    match kind {
        LockKind::Mutex => &MUTEX,
        LockKind::RwLock => &READ_WRITE,
        LockKind::Semaphore => &PERMITS,
    }
}

/// Returns the script that renews a grant.
pub(super) fn renewal(mode: LockMode) -> Lasting {
    match mode {
        LockMode::Exclusive | LockMode::Write => &RENEW,
        LockMode::Read | LockMode::Upgradeable => &READ_RENEW,
        LockMode::Permits { .. } => &PERMITS_RENEW,
    }
}

/// An owner, and what it wants or has of the lock.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) owner: String,
    /// As the scripts are told; nothing for a mutex, or where it is not known.
    pub(super) mode: Cow<'static, str>,
}

impl Claim {
    pub(super) fn new(naming: &Naming, owner: OwnerId, mode: LockMode) -> Self {
        let mode = match mode {
            LockMode::Exclusive => "".into(),
            LockMode::Read => "r".into(),
            LockMode::Write => "w".into(),
            LockMode::Upgradeable => "u".into(),
            LockMode::Permits { limit, take } => format!("{limit},{take}").into(),
        };
        Self {
            owner: naming.owner(owner),
            mode,
        }
    }

    pub(super) fn of(naming: &Naming, grant: &Grant) -> Self {
        Self::new(naming, grant.owner(), grant.mode())
    }
}

/// Checks that the server may be asked for this.
pub(super) fn check(mode: LockMode) -> Result<(), LockError> {
    match mode {
        LockMode::Permits { limit, take } if take > limit => Err(invalid(format!(
            "expected to take at most {limit} permits, which is all there are, not {take}"
        ))),
        LockMode::Permits { take, .. } if take.get() > MOST_PERMITS_AT_ONCE => Err(invalid(
            format!("expected to take at most {MOST_PERMITS_AT_ONCE} permits at once, not {take}"),
        )),
        _ => Ok(()),
    }
}

/// Says whether grants of this mode carry fencing tokens. Of several holders of permits, none is
/// stale.
pub(super) fn has_tokens(mode: LockMode) -> bool {
    !matches!(mode, LockMode::Permits { .. })
}

/// Says whether a grant of this mode may serve one holder after another, each with a token.
pub(super) fn takes_blocks(mode: LockMode) -> bool {
    matches!(mode, LockMode::Exclusive | LockMode::Write)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::LockErrorKind;

    #[test]
    fn a_request_for_more_permits_than_there_are_is_refused() {
        let permits = |limit, take| {
            let [limit, take] = [limit, take].map(|it| NonZeroU32::new(it).unwrap());
            check(LockMode::Permits { limit, take })
        };
        for (limit, take) in [(1, 1), (u32::MAX, 1), (u32::MAX, 10_000), (3, 3)] {
            permits(limit, take).unwrap();
        }
        for (limit, take) in [(1, 2), (u32::MAX, 10_001)] {
            let error = permits(limit, take).unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::InvalidConfig, "{error}");
        }
    }
}
