//! `LockError`: why a lock is not held, or not any more.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::name::{Escaped, LockName};
use crate::provider::Holder;

/// The reason why a lock was not acquired, or is not held any more.
///
/// Kinds are never merged: a lock that is held elsewhere, a wait that ran out, a server that does
/// not answer and a lost lock are four different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockErrorKind {
    /// Another holder has the lock, and the caller did not want to wait.
    Contended,
    /// The caller waited for its whole timeout, and another holder still had the lock.
    TimedOut,
    /// The provider could not be asked, or did not answer in time. Whether the lock is free is
    /// not known; the caller does not hold it.
    ProviderUnavailable,
    /// The lock was held, and the grant ended before the holder released it.
    Lost,
    /// The body had held the lock for its `max_hold`, and was dropped.
    MaxHoldExceeded,
    /// The task already holds this lock, through the attribute or a method such as
    /// [`DistributedLock::run`](crate::DistributedLock::run): it would wait for itself.
    WouldDeadlock,
    /// The name is empty, holds a NUL character, or is longer than 1,024 bytes.
    InvalidName,
    /// No provider is registered under the name that was asked for. Or none is registered at all,
    /// and the in-process fallback is forbidden.
    NoProvider,
    /// The provider cannot do what was asked.
    Unsupported,
    /// A setting is wrong, such as a URL, a lease or a credential.
    InvalidConfig,
}

impl LockErrorKind {
    /// Returns the label for metrics.
    #[cfg(feature = "metrics")]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Contended => "contended",
            Self::TimedOut => "timed_out",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::Lost => "lost",
            Self::MaxHoldExceeded => "max_hold_exceeded",
            Self::WouldDeadlock => "would_deadlock",
            Self::InvalidName => "invalid_name",
            Self::NoProvider => "no_provider",
            Self::Unsupported => "unsupported",
            Self::InvalidConfig => "invalid_config",
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Contended => "is held elsewhere",
            Self::TimedOut => "was still held elsewhere when the timeout passed",
            Self::ProviderUnavailable => "is out of reach: the provider is unavailable",
            Self::Lost => "was lost",
            Self::MaxHoldExceeded => "was held for longer than max_hold",
            Self::WouldDeadlock => "is already held by this task, which would wait for itself",
            Self::InvalidName => "has an invalid name",
            Self::NoProvider => "has no provider",
            Self::Unsupported => "asks for something that the provider cannot do",
            Self::InvalidConfig => "is configured wrongly",
        }
    }

    /// Describes what happened where no lock is named, as when a provider connects.
    const fn describe_alone(self) -> &'static str {
        match self {
            Self::Contended => "the lock is held elsewhere",
            Self::TimedOut => "the lock was still held elsewhere when the timeout passed",
            Self::ProviderUnavailable => "the provider is unavailable",
            Self::Lost => "the lock was lost",
            Self::MaxHoldExceeded => "the lock was held for longer than max_hold",
            Self::WouldDeadlock => "the lock is already held by this task",
            Self::InvalidName => "invalid name",
            Self::NoProvider => "no provider",
            Self::Unsupported => "not supported",
            Self::InvalidConfig => "invalid configuration",
        }
    }
}

/// The error of every operation on a lock: a [kind](LockError::kind), the lock's
/// [name](LockError::name) where there is one, and the [source](StdError::source) where the
/// cause was another error.
///
/// It is cheap to clone. Neither its `Display` nor its `Debug` form shows a credential.
///
/// # Examples
///
/// ```
/// use lock_runtime::{LockError, LockErrorKind};
///
/// let error = LockError::new(LockErrorKind::TimedOut).with_name("invoice:7");
/// assert!(error.is_contention());
/// assert_eq!(
///     error.to_string(),
///     "lock `invoice:7` was still held elsewhere when the timeout passed",
/// );
/// ```
#[derive(Clone)]
pub struct LockError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: LockErrorKind,
    name: Option<LockName>,
    detail: Option<Arc<str>>,
    holder: Option<Holder>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl LockError {
    /// Makes an error of this kind, without a name, detail or source.
    pub fn new(kind: LockErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            name: None,
            detail: None,
            holder: None,
            source: None,
        }))
    }

    /// Adds the name of the lock. A name that is already there stays.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<LockName>) -> Self {
        self.0.name.get_or_insert_with(|| name.into());
        self
    }

    /// Sets the detail, which says what exactly went wrong: a lower-case fragment without a full
    /// stop, and without credentials.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into().into());
        self
    }

    /// Adds the holder that is in the way.
    #[must_use]
    pub fn with_holder(mut self, holder: Holder) -> Self {
        self.0.holder = Some(holder);
        self
    }

    /// Adds the holder that is in the way, if it is known.
    pub(crate) fn held_by(self, holder: Option<Holder>) -> Self {
        match holder {
            Some(holder) => self.with_holder(holder),
            None => self,
        }
    }

    /// Puts the subject of the detail in front of it, such as the server.
    #[cfg_attr(not(feature = "_server"), allow(dead_code))]
    pub(crate) fn about(self, what: impl fmt::Display) -> Self {
        let detail = match &self.0.detail {
            Some(detail) => format!("{what}: {detail}"),
            None => what.to_string(),
        };
        self.with_detail(detail)
    }

    /// Sets the error that caused this one.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync + 'static>>,
    ) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> LockErrorKind {
        self.0.kind
    }

    /// Returns the lock's name; `None` if the error is not about one lock.
    pub fn name(&self) -> Option<&LockName> {
        self.0.name.as_ref()
    }

    /// Returns who had the lock, if the error is about contention and the provider said it without
    /// being asked: in this process and on Redis. It is for people. Nothing may be decided by it.
    pub fn holder(&self) -> Option<&Holder> {
        self.0.holder.as_ref().filter(|_| self.is_contention())
    }

    /// Tells whether another holder has the lock: [`Contended`](LockErrorKind::Contended) or
    /// [`TimedOut`](LockErrorKind::TimedOut). This is what `on_unavailable = "skip"` skips.
    pub fn is_contention(&self) -> bool {
        matches!(
            self.0.kind,
            LockErrorKind::Contended | LockErrorKind::TimedOut
        )
    }

    /// Tells whether the same call may succeed later with nothing changed: contention, or a
    /// provider that is unavailable. A lost lock does not count, since the body ran in part.
    pub fn is_retryable(&self) -> bool {
        self.is_contention() || self.0.kind == LockErrorKind::ProviderUnavailable
    }
}

impl LockName {
    /// Checks that this is non-empty text without NUL, of at most 1,024 bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](LockErrorKind::InvalidName), whose detail says what is wrong.
    pub fn validate(&self) -> Result<(), LockError> {
        match self.fault() {
            None => Ok(()),
            Some(fault) => Err(LockError::new(LockErrorKind::InvalidName)
                .with_name(self.beginning().to_owned())
                .with_detail(fault)),
        }
    }
}

impl From<LockErrorKind> for LockError {
    fn from(kind: LockErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.name, self.holder(), self.0.kind) {
            (Some(name), Some(holder), LockErrorKind::TimedOut) => {
                let name = name.shown();
                write!(
                    f,
                    "lock `{name}` was still held by {holder} when the timeout passed"
                )?;
            }
            (Some(name), Some(holder), _) => {
                write!(f, "lock `{}` is held by {holder}", name.shown())?;
            }
            (Some(name), None, kind) => write!(f, "lock `{}` {}", name.shown(), kind.describe())?,
            (None, _, kind) => f.write_str(kind.describe_alone())?,
        }
        match &self.0.detail {
            // Escaped, since it may quote a caller or a server.
            Some(detail) => write!(f, ": {}", Escaped(detail)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("LockError");
        debug.field("kind", &self.0.kind);
        if let Some(name) = &self.0.name {
            debug.field("name", name);
        }
        if let Some(detail) = &self.0.detail {
            debug.field("detail", detail);
        }
        if let Some(holder) = self.holder() {
            debug.field("holder", holder);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for LockError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Returns the messages of an error's causes, for a log line; `None` if it has no cause.
pub(crate) fn source_text(error: &LockError) -> Option<String> {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    (!texts.is_empty()).then(|| Escaped(&texts.join(": ")).to_string())
}
