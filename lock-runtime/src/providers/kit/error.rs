//! Errors with a detail, by their kind.

use crate::{LockError, LockErrorKind};

/// Makes the error of a setting that is wrong.
pub(crate) fn invalid(detail: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::InvalidConfig).with_detail(detail)
}

/// Makes the error of something that the provider, or its server, cannot do.
pub(crate) fn unsupported(detail: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::Unsupported).with_detail(detail)
}

/// Makes the error of a provider that could not be asked, or did not answer.
pub(crate) fn unavailable(detail: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::ProviderUnavailable).with_detail(detail)
}

/// Makes the error of a lock whose grant ended before its holder released it.
pub(crate) fn lost(why: impl Into<String>) -> LockError {
    LockError::new(LockErrorKind::Lost).with_detail(why)
}
