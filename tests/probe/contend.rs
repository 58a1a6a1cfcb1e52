//! Contends for a few locks and writes to a fenced register under them, until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_runtime::{DistributedLock, LockError, LockGuard, LockProvider};
use lock_tests::{RemoteRegister, Rng, boot_nanos};

use crate::{contend_modes, say};

/// The number of tasks for each lock.
const TASKS: u64 = 2;

/// The tasks that contend, and the flag that ends them.
#[derive(Default)]
pub(crate) struct Contention {
    stopped: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Contention {
    /// Starts tasks on the locks of these names.
    pub(crate) fn start(
        &mut self,
        provider: &Arc<dyn LockProvider>,
        names: &[&str],
        register: u16,
        seed: u64,
    ) {
        for (place, name) in names.iter().enumerate() {
            for task in 0..TASKS {
                let contender = Contender {
                    lock: DistributedLock::on(Arc::clone(provider), *name),
                    register,
                    rng: Rng::new(seed ^ ((place as u64 * TASKS + task) << 32)),
                    stopped: Arc::clone(&self.stopped),
                };
                self.tasks.push(tokio::spawn(contender.run()));
            }
        }
    }

    /// Starts tasks that read and write, or take permits, each as the beginning of its name says.
    pub(crate) async fn start_modes(
        &mut self,
        provider: &Arc<dyn LockProvider>,
        names: &[&str],
        register: u16,
        seed: u64,
    ) {
        let mut contenders = Vec::new();
        for (place, name) in names.iter().enumerate() {
            for task in 0..contend_modes::TASKS {
                let seed = seed ^ ((place as u64 * contend_modes::TASKS + task) << 32);
                let stopped = Arc::clone(&self.stopped);
                let contender =
                    contend_modes::Contender::new(provider, name, register, seed, stopped).await;
                contenders.push(contender);
            }
        }
        // Without an await, so that nobody contends before that is said.
        for contender in contenders {
            self.tasks.push(tokio::spawn(contender.run()));
        }
    }

    /// Ends the tasks, and says so.
    pub(crate) async fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.expect("a contender does not panic");
        }
        say("done");
    }
}

struct Contender {
    lock: DistributedLock,
    register: u16,
    rng: Rng,
    stopped: Arc<AtomicBool>,
}

impl Contender {
    async fn run(mut self) {
        let mut register = RemoteRegister::connect(self.register)
            .await
            .expect("the register answers");
        while !self.stopped.load(Ordering::Relaxed) {
            match self.acquire().await {
                Ok(Some(guard)) => self.hold(guard, &mut register).await,
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
    async fn acquire(&mut self) -> Result<Option<LockGuard>, LockError> {
        let timeout = self.rng.millis(1..3_000);
        match self.rng.within(0..8) {
            0 => self.lock.try_acquire().await,
            1 => {
                let patience = self.rng.millis(0..300);
                let acquiring = self.lock.acquire_for(timeout);
                match tokio::time::timeout(patience, acquiring).await {
                    Ok(guard) => guard.map(Some),
                    Err(_) => Ok(None),
                }
            }
            _ => self.lock.try_acquire_for(timeout).await,
        }
    }

    /// Writes under the lock, and says for how long the lock was known to be held.
    async fn hold(&mut self, guard: LockGuard, register: &mut RemoteRegister) {
        let name = self.lock.name().as_str();
        let token = guard.fencing_token().expect("a token").get();
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
            let accepted = register.write(name, token).await;
            let accepted = accepted.expect("the register answers");
            let now = boot_nanos();
            // Read after the clock: what is not lost now was valid then.
            if guard.is_lost() {
                break;
            }
            until = now;
            if !accepted {
                say(&format!("refused {name} {token} {now}"));
            }
            let held = Duration::from_nanos(now - from);
            if held >= span || self.stopped.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep((span - held).min(Duration::from_millis(20))).await;
        }
        say(&format!("grant {name} {from} {until} {token}"));
        match self.rng.within(0..4) {
            0 => drop(guard),
            // Whether it was lost is told above.
            _ => drop(guard.release().await),
        }
    }
}
