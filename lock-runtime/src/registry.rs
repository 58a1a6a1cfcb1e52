//! The registered providers: the default one, the named ones, and the in-process fallback.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use once_cell::sync::OnceCell;

use crate::error::{LockError, LockErrorKind};
use crate::gate::{self, SlotRef};
use crate::name::Escaped;
use crate::provider::LockProvider;
use crate::providers::in_process::InProcessProvider;
use crate::source::{Source, close_fallback};

static DEFAULT: OnceCell<Arc<Source>> = OnceCell::new();
static REGISTERING: Mutex<()> = Mutex::new(());
static NAMED: RwLock<BTreeMap<String, Arc<Source>>> = RwLock::new(BTreeMap::new());
static FALLBACK: OnceCell<Arc<Source>> = OnceCell::new();
static FALLBACK_FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Environment variables that platforms set in each replica of a service.
const REPLICA_SIGNS: [&str; 6] = [
    "KUBERNETES_SERVICE_HOST",
    "ECS_CONTAINER_METADATA_URI_V4",
    "FLY_ALLOC_ID",
    "NOMAD_ALLOC_ID",
    "K_SERVICE",
    "DYNO",
];

/// Makes this the default provider, for the rest of the process.
///
/// Call it once, in `main`, before the first lock is asked for. Locks that were asked for before
/// were held in this process alone and excluded no other process. In that case, `register` succeeds
/// only once those locks are free, and logs a warning.
///
/// # Errors
///
/// * [`AlreadyRegistered`](RegisterErrorKind::AlreadyRegistered) if there is a default provider,
///   which stays.
/// * [`LocksInUse`](RegisterErrorKind::LocksInUse) if a lock is held or waited for in this process
///   alone. With the new provider another process could have the same lock at the same time.
///
/// # Examples
///
/// ```
/// use lock_runtime::{InProcessProvider, RegisterErrorKind};
///
/// lock_runtime::register(InProcessProvider::new())?;
/// let again = lock_runtime::register(InProcessProvider::new()).unwrap_err();
/// assert_eq!(again.kind(), RegisterErrorKind::AlreadyRegistered);
/// # Ok::<_, lock_runtime::RegisterError>(())
/// ```
pub fn register(provider: impl LockProvider) -> Result<(), RegisterError> {
    let _one_at_a_time = REGISTERING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(default) = DEFAULT.get() {
        let taken = default.name();
        return Err(RegisterError::new(
            RegisterErrorKind::AlreadyRegistered,
            format!(
                "a default provider is registered already (`{taken}`); register one, and use \
                 `register_named` for others"
            ),
        ));
    }
    // From here on no caller arrives at the fallback's locks, even if the fallback is only made
    // now. So the count below stays true.
    close_fallback(true);
    let fallback = FALLBACK.get();
    if let Some(fallback) = fallback {
        let space = fallback.provider.lock_space();
        let in_use = |slot: &SlotRef| slot.space == space && !slot.is_idle();
        let in_use = gate::all().iter().filter(|slot| in_use(slot)).count();
        if in_use > 0 {
            close_fallback(false);
            return Err(RegisterError::new(
                RegisterErrorKind::LocksInUse,
                format!(
                    "{in_use} locks are held or waited for in this process alone, since no \
                     provider was registered when they were asked for; register it first thing in \
                     `main`"
                ),
            ));
        }
    }
    let default = DEFAULT.get_or_init(|| Source::new(Arc::new(provider)));
    say(default, "");
    if fallback.is_some() {
        tracing::warn!(
            provider = default.name(),
            "a provider was registered after locks had been held in this process alone; \
             those excluded no other process: register it first thing in `main`",
        );
    }
    Ok(())
}

/// Logs where locks are from now on. `name` is empty for the default provider.
fn say(source: &Source, name: &str) {
    let locks = Escaped(&source.provider.describe()).to_string();
    match name {
        "" => tracing::info!("locks on {locks}"),
        name => tracing::info!(registered_as = %Escaped(name), "locks on {locks}"),
    }
}

/// Registers a provider under a name, for `provider = "name"` in the attribute.
///
/// # Errors
///
/// * [`InvalidName`](RegisterErrorKind::InvalidName) if the name is empty.
/// * [`AlreadyRegistered`](RegisterErrorKind::AlreadyRegistered) if a provider of this name is
///   registered, which stays.
///
/// # Examples
///
#[cfg_attr(feature = "macros", doc = "```")]
#[cfg_attr(not(feature = "macros"), doc = "```ignore")]
/// use std::sync::Arc;
/// use lock_runtime::{LockError, LockProvider, distributed_lock};
///
/// #[distributed_lock(name = "report", provider = "reports")]
/// async fn report() -> Result<u32, LockError> {
///     Ok(7)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let provider: Arc<dyn LockProvider> = lock_runtime::connect("memory:").await?;
/// lock_runtime::register_named("reports", provider)?;
/// assert_eq!(report().await?, 7);
/// # Ok(())
/// # }
#[doc = "```"]
pub fn register_named(
    name: impl Into<String>,
    provider: impl LockProvider,
) -> Result<(), RegisterError> {
    let name = name.into();
    if name.is_empty() {
        return Err(RegisterError::new(
            RegisterErrorKind::InvalidName,
            "expected a name of at least one character",
        ));
    }
    let mut named = NAMED.write().unwrap_or_else(PoisonError::into_inner);
    if named.contains_key(&name) {
        return Err(RegisterError::new(
            RegisterErrorKind::AlreadyRegistered,
            format!("a provider named `{name}` is registered already"),
        ));
    }
    let source = Source::new(Arc::new(provider));
    named.insert(name.clone(), Arc::clone(&source));
    drop(named);
    say(&source, &name);
    Ok(())
}

/// Makes acquisitions on the default provider fail with [`NoProvider`](LockErrorKind::NoProvider)
/// while none is registered. By default, their locks are then held in this process alone.
///
/// It is for services of which several instances run, where a forgotten [`register`] must be
/// noticed.
pub fn forbid_in_process_fallback() {
    FALLBACK_FORBIDDEN.store(true, Ordering::Relaxed);
}

/// Returns the default provider, or the fallback while none is registered.
pub(crate) fn default() -> Result<&'static Arc<Source>, LockError> {
    if let Some(provider) = DEFAULT.get() {
        return Ok(provider);
    }
    if FALLBACK_FORBIDDEN.load(Ordering::Relaxed) {
        return Err(LockError::new(LockErrorKind::NoProvider).with_detail(
            "no provider is registered, and the in-process fallback is forbidden; \
             call `lock_runtime::register` in `main`",
        ));
    }
    Ok(FALLBACK.get_or_init(|| {
        warn_of_fallback();
        Source::fallback(Arc::new(InProcessProvider::new()))
    }))
}

fn warn_of_fallback() {
    let replica = REPLICA_SIGNS
        .iter()
        .find(|sign| std::env::var_os(sign).is_some());
    match replica {
        Some(sign) => tracing::warn!(
            sign,
            "NO LOCK PROVIDER IS REGISTERED, AND THIS LOOKS LIKE ONE OF SEVERAL REPLICAS: locks \
             are held in this process alone and exclude no other one; call \
             `lock_runtime::register` in `main`",
        ),
        None => tracing::warn!(
            "no lock provider is registered: locks are held in this process alone; call \
             `lock_runtime::register` in `main` if other processes matter",
        ),
    }
}

/// Returns the provider that is registered under this name.
pub(crate) fn named(name: &str) -> Result<Arc<Source>, LockError> {
    let named = NAMED.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(provider) = named.get(name) {
        return Ok(Arc::clone(provider));
    }
    let known: Vec<_> = named.keys().map(|known| format!("`{known}`")).collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Err(
        LockError::new(LockErrorKind::NoProvider).with_detail(format!(
            "no provider is registered under the name `{name}`; registered: {known}"
        )),
    )
}

/// The reason why a provider was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegisterErrorKind {
    /// A default provider, or one of this name, is registered already. It stays.
    AlreadyRegistered,
    /// Locks are held or waited for in this process alone, because no provider was registered when
    /// they were asked for.
    LocksInUse,
    /// The name is empty.
    InvalidName,
}

/// The error of [`register`] and [`register_named`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterError {
    kind: RegisterErrorKind,
    message: String,
}

impl RegisterError {
    fn new(kind: RegisterErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> RegisterErrorKind {
        self.kind
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for RegisterError {}
