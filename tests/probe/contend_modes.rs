//! One of those who read and write, or take permits, at random, until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_runtime::{LockError, LockMode, LockName, LockProvider, RwLockUpgradeableReadGuard};
use lock_tests::any_lock::permits;
use lock_tests::{AnyGuard, AnyLock, RemoteRegister, Rng, Window, boot_nanos};

use crate::say;

/// The number of tasks for each name. Readers of one process share a grant, so it has a few.
pub(crate) const TASKS: u64 = 3;

pub(crate) struct Contender {
    provider: Arc<dyn LockProvider>,
    name: LockName,
    /// What it may want, the most frequent ones more than once.
    modes: &'static [fn() -> LockMode],
    register: Option<RemoteRegister>,
    rng: Rng,
    stopped: Arc<AtomicBool>,
}

impl Contender {
    /// Makes one for a name that begins with `rw` or `permits`. The port is that of a register, or
    /// 0 if there is none.
    pub(crate) async fn new(
        provider: &Arc<dyn LockProvider>,
        name: &str,
        register: u16,
        seed: u64,
        stopped: Arc<AtomicBool>,
    ) -> Self {
        let modes: &[fn() -> LockMode] = match name {
            // At the beginning or behind a brace.
            _ if name.contains("rw") && provider.capabilities().upgradeable => &[
                || LockMode::Read,
                || LockMode::Read,
                || LockMode::Read,
                || LockMode::Upgradeable,
                || LockMode::Write,
            ],
            _ if name.contains("rw") => &[
                || LockMode::Read,
                || LockMode::Read,
                || LockMode::Read,
                || LockMode::Write,
            ],
            _ if name.contains("permits") => &[
                || permits(1, 3),
                || permits(1, 3),
                || permits(2, 3),
                || permits(3, 3),
                || permits(2, 4),
            ],
            _ => panic!("`{name}` is of no kind"),
        };
        let register = match register {
            0 => None,
            port => Some(RemoteRegister::connect(port).await),
        };
        Self {
            provider: Arc::clone(provider),
            name: LockName::from(name),
            modes,
            register: register.map(|register| register.expect("the register answers")),
            rng: Rng::new(seed),
            stopped,
        }
    }

    pub(crate) async fn run(mut self) {
        while !self.stopped.load(Ordering::Relaxed) {
            let mode = self.rng.one_of(self.modes)();
            match self.acquire(mode).await {
                Ok(Some(guard)) => self.hold(mode, guard).await,
                Ok(None) => {}
                // The server is away; whoever comes back at once learns nothing new.
                Err(_) => tokio::time::sleep(self.rng.millis(1..50)).await,
            }
            if self.rng.within(0..4) == 0 {
                tokio::time::sleep(self.rng.millis(0..20)).await;
            }
        }
    }

    /// Waits for a while, or not at all, or is dropped half-way.
    async fn acquire(&mut self, mode: LockMode) -> Result<Option<AnyGuard>, LockError> {
        let lock = AnyLock::on(mode, Arc::clone(&self.provider), self.name.clone());
        let timeout = self.rng.millis(1..3_000);
        match self.rng.within(0..8) {
            0 => lock.try_acquire().await,
            1 => {
                let patience = self.rng.millis(0..300);
                let acquiring = lock.acquire_for(timeout);
                match tokio::time::timeout(patience, acquiring).await {
                    Ok(guard) => guard.map(Some),
                    Err(_) => Ok(None),
                }
            }
            _ => lock.try_acquire_for(timeout).await,
        }
    }

    /// Says for how long it was known to be held, after reading or writing as often as it likes.
    async fn hold(&mut self, mode: LockMode, guard: AnyGuard) {
        let token = guard.fencing_token().map(|token| token.get());
        let from = boot_nanos();
        if guard.is_lost() {
            return;
        }
        let mut until = from;
        // Some hold it for a few renewals.
        let span = match self.rng.within(0..12) {
            0 => self.rng.millis(500..3_000),
            _ => self.rng.millis(0..15),
        };
        loop {
            let accepted = self.touch(mode, token).await;
            let now = boot_nanos();
            // Read after the clock: what is not lost now was valid then.
            if guard.is_lost() {
                break;
            }
            until = now;
            if !accepted {
                say(&format!(
                    "refused {} {} {now}",
                    self.name,
                    token.unwrap_or(0)
                ));
            }
            let held = Duration::from_nanos(now - from);
            if held >= span || self.stopped.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep((span - held).min(Duration::from_millis(20))).await;
        }
        let window = Window {
            name: self.name.to_string(),
            holder: String::new(),
            mode,
            from,
            until,
            token,
        };
        say(&window.line());
        let guard = match guard {
            AnyGuard::Upgradeable(reader) if self.rng.within(0..4) > 0 => {
                if let Some(guard) = self.upgrade(reader).await {
                    Box::pin(self.hold(LockMode::Write, guard)).await;
                }
                return;
            }
            guard => guard,
        };
        match self.rng.within(0..4) {
            0 => drop(guard),
            // Whether it was lost is told above.
            _ => drop(guard.release().await),
        }
    }

    /// Waits to become the writer, for a while or until it is dropped.
    async fn upgrade(&mut self, reader: RwLockUpgradeableReadGuard) -> Option<AnyGuard> {
        let upgrade = match self.rng.within(0..4) {
            0 => reader.upgrade_for(Duration::ZERO),
            _ => reader.upgrade_for(self.rng.millis(1..3_000)),
        };
        let patience = match self.rng.within(0..4) {
            0 => self.rng.millis(0..300),
            _ => Duration::from_secs(60),
        };
        let upgraded = tokio::time::timeout(patience, upgrade).await.ok()?;
        upgraded.ok().map(AnyGuard::Write)
    }

    /// Reads or writes what the lock guards, where that checks tokens.
    async fn touch(&mut self, mode: LockMode, token: Option<u64>) -> bool {
        let (Some(register), Some(token)) = (&mut self.register, token) else {
            tokio::task::yield_now().await;
            return true;
        };
        let name = self.name.as_str();
        let accepted = match mode {
            LockMode::Read | LockMode::Upgradeable => register.read(name, token).await,
            _ => register.write(name, token).await,
        };
        accepted.expect("the register answers")
    }
}
