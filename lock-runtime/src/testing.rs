//! A provider for tests, which loses, refuses, fails, delays and forgets on command.
//!
//! It is behind the feature `testing`, for the tests of programs that use locks.
//!
//! # Examples
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), lock_runtime::LockError> {
//! use std::sync::Arc;
//! use lock_runtime::testing::{Operation, TestProvider};
//! use lock_runtime::{DistributedLock, LockErrorKind};
//!
//! let provider = TestProvider::new();
//! let lock = DistributedLock::on(Arc::new(provider.clone()), "invoice:7");
//!
//! provider.fail_next(Operation::Acquire, 1);
//! let error = lock.acquire().await.unwrap_err();
//! assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
//!
//! let guard = lock.acquire().await?;
//! provider.lose("invoice:7");
//! guard.lost().await;
//! assert_eq!(guard.release().await.unwrap_err().kind(), LockErrorKind::Lost);
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::error::{LockError, LockErrorKind};
use crate::future::select;
use crate::gate;
use crate::name::LockName;
use crate::provider::{
    AcquireRequest, BoxFuture, Capabilities, Grant, Holder, LockKind, LockMode, LockProvider,
    LockSpace, LockState, LossReporter, OwnerId,
};
use crate::token::FencingToken;

/// Returns how many keys this process holds, waits for or is still releasing.
pub fn keys_in_use() -> usize {
    gate::all().iter().filter(|slot| !slot.is_idle()).count()
}

/// Returns how many entries the process's table of keys has.
#[doc(hidden)]
pub fn entries() -> usize {
    gate::entries()
}

/// Returns how many entries the process's table of keys has for names that begin with `prefix`.
///
/// A [`DistributedLock`](crate::DistributedLock) that was used keeps its entry until it is dropped.
#[doc(hidden)]
pub fn entries_under(prefix: &str) -> usize {
    gate::all()
        .iter()
        .filter(|slot| slot.name.as_str().starts_with(prefix))
        .count()
}

/// The kind of call about which a [`TestProvider`] can be told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`LockProvider::acquire`], and the acquisition within [`LockProvider::pass_on`].
    Acquire,
    /// [`LockProvider::renew`].
    Renew,
    /// [`LockProvider::release`].
    Release,
    /// [`LockProvider::may_share`].
    MayShare,
    /// [`LockProvider::upgrade`].
    Upgrade,
    /// [`LockProvider::inspect`].
    Inspect,
    /// [`LockProvider::acquire_several`].
    AcquireSeveral,
}

/// A provider whose server is a table in memory, and which does what a test tells it. It has leases
/// and fencing tokens, and every kind of lock. Clones share the table.
#[derive(Debug, Clone)]
pub struct TestProvider {
    server: Arc<Server>,
    space: Arc<()>,
    /// Shared by clones that have the same settings.
    clones: Arc<()>,
    lease: Duration,
    local_hand_over: bool,
}

#[derive(Debug, Default)]
struct Server {
    state: Mutex<State>,
    /// Notified when a waiter must look again.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<String, Vec<Entry>>,
    /// Who waits for a reader–writer lock or a semaphore, in the order in which they asked.
    waiting: HashMap<String, Vec<(OwnerId, LockMode)>>,
    last_token: u64,
    refusing: bool,
    frozen: bool,
    longest_lease: Option<Duration>,
    failures: HashMap<Operation, u32>,
    delays: HashMap<Operation, Duration>,
    calls: HashMap<Operation, u64>,
}

#[derive(Debug)]
struct Entry {
    owner: OwnerId,
    mode: LockMode,
    expires: Timestamp,
    lease: Duration,
    loss: LossReporter,
    /// The process that has it, as its provider says.
    process: LockSpace,
}

impl Default for TestProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl TestProvider {
    /// Makes a provider with an empty table and a default lease of 30 s.
    pub fn new() -> Self {
        Self {
            server: Arc::default(),
            space: Arc::default(),
            clones: Arc::default(),
            lease: Duration::from_secs(30),
            local_hand_over: true,
        }
    }

    /// Makes a provider of the same server as another process would have it. The two exclude each
    /// other only by what the server says, and not in this process's own queues.
    #[must_use]
    pub fn another_process(&self) -> Self {
        Self {
            space: Arc::default(),
            clones: Arc::default(),
            ..self.clone()
        }
    }

    /// Sets the default lease.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self.clones = Arc::default();
        self
    }

    /// Lets every grant serve one waiter only, like the grants of a provider that cannot reserve
    /// tokens.
    #[must_use]
    pub fn without_local_hand_over(mut self) -> Self {
        self.local_hand_over = false;
        self.clones = Arc::default();
        self
    }

    /// Describes the holders of this lock.
    fn holders_of(&self, name: &LockName) -> Vec<Holder> {
        let mut state = self.server.lock();
        state.drop_expired(name.as_str());
        let held = state.held.get(name.as_str());
        let holders = held.into_iter().flatten().map(|entry| {
            let holder = match entry.process == self.lock_space() {
                true => Holder::here(),
                false => Holder::new("another process"),
            };
            let holder = holder.with_expires_in(entry.expires.remaining());
            match entry.mode {
                LockMode::Permits { take, .. } => holder.with_permits(take.get()),
                mode => holder.with_mode(mode),
            }
        });
        holders.collect()
    }

    /// Reports to the holders of this lock that it is lost, and frees the lock.
    pub fn lose(&self, name: &str) {
        let lost = self.server.lock().held.remove(name);
        for entry in lost.into_iter().flatten() {
            entry.loss.report("the test provider was told to lose it");
        }
        self.server.changed.notify_waiters();
    }

    /// Frees the lock without a report, like a server that was restarted without its data.
    pub fn forget(&self, name: &str) {
        self.server.lock().held.remove(name);
        self.server.changed.notify_waiters();
    }

    /// Sets whether every acquisition finds its lock held by another holder.
    pub fn refuse(&self, refusing: bool) {
        self.server.lock().refusing = refusing;
        self.server.changed.notify_waiters();
    }

    /// Refuses leases longer than this from now on, with
    /// [`Unsupported`](LockErrorKind::Unsupported).
    pub fn refuse_leases_above(&self, longest: Duration) {
        self.server.lock().longest_lease = Some(longest);
    }

    /// Lets the next `calls` calls of this kind do nothing but fail, with
    /// [`ProviderUnavailable`](LockErrorKind::ProviderUnavailable).
    pub fn fail_next(&self, operation: Operation, calls: u32) {
        self.server.lock().failures.insert(operation, calls);
    }

    /// Delays every call of this kind by this time before it does anything.
    pub fn delay(&self, operation: Operation, delay: Duration) {
        self.server.lock().delays.insert(operation, delay);
    }

    /// Sets whether the server is frozen. While it is, no call is answered, but leases still end.
    pub fn freeze(&self, frozen: bool) {
        self.server.lock().frozen = frozen;
        self.server.changed.notify_waiters();
    }

    /// Returns how many calls of this kind there have been.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.server
            .lock()
            .calls
            .get(&operation)
            .copied()
            .unwrap_or(0)
    }

    /// Tells whether the server says that this lock is held.
    pub fn is_held(&self, name: &str) -> bool {
        let mut state = self.server.lock();
        state.drop_expired(name);
        state.held.contains_key(name)
    }

    /// Returns how many holders the server says this lock has: how many grants, and not how many
    /// guards share them.
    pub fn holders(&self, name: &str) -> usize {
        let mut state = self.server.lock();
        state.drop_expired(name);
        state.held.get(name).map_or(0, Vec::len)
    }

    /// Returns the lease with which this lock was granted; `None` if it is free.
    pub fn lease_of(&self, name: &str) -> Option<Duration> {
        let mut state = self.server.lock();
        state.drop_expired(name);
        state.held.get(name)?.first().map(|entry| entry.lease)
    }

    /// Returns how many grants the server says there are.
    pub fn held(&self) -> usize {
        let now = Timestamp::now();
        let state = self.server.lock();
        state
            .held
            .values()
            .flatten()
            .filter(|entry| entry.expires > now)
            .count()
    }
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts, delays or fails a call before it does anything, as the test has said.
    async fn arrive(&self, operation: Operation) -> Result<(), LockError> {
        let delay = {
            let mut state = self.lock();
            *state.calls.entry(operation).or_default() += 1;
            state.delays.get(&operation).copied()
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        loop {
            let changed = self.changed.notified();
            if !self.lock().frozen {
                break;
            }
            changed.await;
        }
        match self.lock().failures.get_mut(&operation) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(LockError::new(LockErrorKind::ProviderUnavailable)
                    .with_detail("the test provider was told to fail"))
            }
            _ => Ok(()),
        }
    }
}

impl State {
    fn drop_expired(&mut self, name: &str) {
        if let Some(entries) = self.held.get_mut(name) {
            entries.retain(|entry| !entry.expires.has_passed());
            if entries.is_empty() {
                self.held.remove(name);
            }
        }
    }

    /// Grants the lock if it is free, and nobody who waits comes first. Else returns when to look
    /// again at the latest.
    fn take(
        &mut self,
        request: &AcquireRequest,
        process: LockSpace,
        sent_at: Timestamp,
    ) -> Result<Grant, Timestamp> {
        let (name, mode) = (request.name().as_str(), request.mode());
        self.drop_expired(name);
        if self.refusing {
            return Err(Timestamp::FAR_FUTURE);
        }
        let held = self.held.get(name).map_or(&[][..], Vec::as_slice);
        let waiting = self.waiting.get(name).map_or(&[][..], Vec::as_slice);
        let before = waiting
            .iter()
            .take_while(|(owner, _)| *owner != request.owner());
        let mut modes = held.iter().map(|entry| entry.mode);
        let comes_first = |(_, other): &(OwnerId, LockMode)| match mode {
            LockMode::Exclusive => false,
            LockMode::Read => *other != LockMode::Read,
            _ => true,
        };
        let is_free = match mode {
            LockMode::Read => modes.all(|held| held != LockMode::Write),
            LockMode::Upgradeable => modes.all(|held| held == LockMode::Read),
            LockMode::Permits { limit, take } => {
                let taken: u64 = modes.map(permits_of).sum();
                taken + u64::from(take.get()) <= u64::from(limit.get())
            }
            LockMode::Exclusive | LockMode::Write => held.is_empty(),
        };
        if !is_free || before.into_iter().any(comes_first) {
            let ends = held.iter().map(|entry| entry.expires).min();
            return Err(ends.unwrap_or(Timestamp::FAR_FUTURE));
        }
        Ok(self.give(request, process, sent_at))
    }

    /// Grants the lock, which is free for it.
    fn give(&mut self, request: &AcquireRequest, process: LockSpace, sent_at: Timestamp) -> Grant {
        let (name, mode) = (request.name().as_str(), request.mode());
        let entry = Entry {
            owner: request.owner(),
            mode,
            expires: Timestamp::now() + request.lease(),
            lease: request.lease(),
            loss: request.loss_reporter(),
            process,
        };
        self.held.entry(name.to_owned()).or_default().push(entry);
        let first = FencingToken::new(self.last_token + 1);
        let tokens = request.tokens_wanted();
        self.last_token += u64::from(tokens.get());
        Grant::new(request, sent_at).with_tokens(first, tokens)
    }

    /// Makes the writer of the reader with this grant, if nobody else reads. Else returns when to
    /// look again at the latest.
    fn upgrade(
        &mut self,
        grant: &Grant,
        request: &AcquireRequest,
        sent_at: Timestamp,
    ) -> Result<Result<Grant, Timestamp>, LockError> {
        let process = self.owned(grant)?.process;
        let name = grant.name().as_str();
        let held = self.held.get(name).map_or(&[][..], Vec::as_slice);
        let others = held.iter().filter(|entry| entry.owner != grant.owner());
        if let Some(ends) = others.map(|entry| entry.expires).min() {
            return Ok(Err(ends));
        }
        self.held.remove(name);
        Ok(Ok(self.give(request, process, sent_at)))
    }

    /// Returns the entry of a grant whose owner still holds the lock.
    fn owned(&mut self, grant: &Grant) -> Result<&mut Entry, LockError> {
        let name = grant.name().as_str();
        self.drop_expired(name);
        let mut entries = self.held.get_mut(name).into_iter().flatten();
        let entry = entries.find(|entry| entry.owner == grant.owner());
        entry.ok_or_else(|| {
            LockError::new(LockErrorKind::Lost).with_detail("the server knows of another owner")
        })
    }

    /// Tells whether a writer waits for this lock.
    fn has_waiting_writer(&self, name: &str) -> bool {
        let waiting = self.waiting.get(name);
        waiting.is_some_and(|waiting| waiting.iter().any(|(_, mode)| *mode == LockMode::Write))
    }
}

fn permits_of(mode: LockMode) -> u64 {
    match mode {
        LockMode::Permits { take, .. } => u64::from(take.get()),
        _ => u64::from(u32::MAX),
    }
}

/// A place among those who wait, until it is dropped.
struct Waiting<'a>(&'a Server, &'a AcquireRequest);

impl<'a> Waiting<'a> {
    fn begin(server: &'a Server, request: &'a AcquireRequest) -> Self {
        Self::at(server, request, usize::MAX)
    }

    /// Takes the place with this number, or the last one.
    fn at(server: &'a Server, request: &'a AcquireRequest, place: usize) -> Self {
        let mut state = server.lock();
        let waiting = state.waiting.entry(request.name().to_string()).or_default();
        let place = place.min(waiting.len());
        waiting.insert(place, (request.owner(), request.mode()));
        drop(state);
        Self(server, request)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Self(server, request) = self;
        let mut state = server.lock();
        if let Some(waiting) = state.waiting.get_mut(request.name().as_str()) {
            waiting.retain(|(owner, _)| *owner != request.owner());
            if waiting.is_empty() {
                state.waiting.remove(request.name().as_str());
            }
        }
        drop(state);
        server.changed.notify_waiters();
    }
}

impl LockProvider for TestProvider {
    fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::new("test")
            .with_lease(self.lease)
            .with_contention_reports()
            .with_fencing_tokens()
            .with_upgradeable()
            .with_many_permits()
            .with_holders();
        if self.local_hand_over {
            capabilities.with_local_hand_over()
        } else {
            capabilities
        }
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let mut place = None;
            loop {
                let sent_at = Timestamp::now();
                self.server.arrive(Operation::Acquire).await?;
                let longest = self.server.lock().longest_lease;
                if longest.is_some_and(|longest| request.lease() > longest) {
                    return Err(LockErrorKind::Unsupported.into());
                }
                let changed = self.server.changed.notified();
                let free_at = match self.server.lock().take(request, self.lock_space(), sent_at) {
                    Ok(grant) => return Ok(grant),
                    Err(free_at) => free_at,
                };
                let holder = self.holders_of(request.name()).into_iter().next();
                if !request.waits() || request.is_abandoned() {
                    return Err(LockError::new(LockErrorKind::Contended).held_by(holder));
                }
                if request.mode() != LockMode::Exclusive {
                    // It counts from the first look on.
                    place.get_or_insert_with(|| Waiting::begin(&self.server, request));
                }
                match holder {
                    Some(holder) => request.report_holder(holder),
                    None => request.report_contention(),
                }
                let freed = select(changed, tokio::time::sleep(free_at.remaining()));
                select(request.abandoned(), freed).await;
            }
        })
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        Box::pin(async move {
            let sent_at = Timestamp::now();
            self.server.arrive(Operation::Renew).await?;
            self.server.lock().owned(grant)?.expires = Timestamp::now() + grant.lease();
            Ok(sent_at)
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            self.server.arrive(Operation::Release).await?;
            let mut state = self.server.lock();
            state.owned(grant)?;
            let name = grant.name().as_str();
            if let Some(entries) = state.held.get_mut(name) {
                entries.retain(|entry| entry.owner != grant.owner());
            }
            state.drop_expired(name);
            drop(state);
            self.server.changed.notify_waiters();
            Ok(())
        })
    }

    fn inspect<'a>(
        &'a self,
        name: &'a LockName,
        kind: LockKind,
    ) -> BoxFuture<'a, Result<LockState, LockError>> {
        Box::pin(async move {
            self.server.arrive(Operation::Inspect).await?;
            let state = LockState::new(self.holders_of(name));
            Ok(match kind {
                // The places of those who wait for a mutex are not noted.
                LockKind::Mutex => state,
                _ => {
                    let waiting = self.server.lock().waiting.get(name.as_str()).map(Vec::len);
                    state.with_waiters(waiting.unwrap_or(0))
                }
            })
        })
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        Box::pin(async move {
            self.server.arrive(Operation::MayShare).await?;
            let state = self.server.lock();
            Ok(!state.has_waiting_writer(grant.name().as_str()))
        })
    }

    fn upgrade<'a>(
        &'a self,
        grant: &'a Grant,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let mut place = None;
            loop {
                let sent_at = Timestamp::now();
                self.server.arrive(Operation::Upgrade).await?;
                let changed = self.server.changed.notified();
                let free_at = match self.server.lock().upgrade(grant, request, sent_at)? {
                    Ok(grant) => return Ok(grant),
                    Err(free_at) => free_at,
                };
                if !request.waits() || request.is_abandoned() {
                    return Err(LockErrorKind::Contended.into());
                }
                // It goes before everybody who waits.
                place.get_or_insert_with(|| Waiting::at(&self.server, request, 0));
                request.report_contention();
                let freed = select(changed, tokio::time::sleep(free_at.remaining()));
                select(request.abandoned(), freed).await;
            }
        })
    }

    fn acquire_several<'a>(
        &'a self,
        requests: &'a [AcquireRequest],
    ) -> Option<BoxFuture<'a, Vec<Result<Grant, LockError>>>> {
        Some(Box::pin(async move {
            let sent_at = Timestamp::now();
            if let Err(error) = self.server.arrive(Operation::AcquireSeveral).await {
                return requests.iter().map(|_| Err(error.clone())).collect();
            }
            let mut state = self.server.lock();
            let mut is_held = false;
            let answers = requests.iter().map(|request| {
                if is_held {
                    return Err(LockErrorKind::Contended.into());
                }
                let granted = state.take(request, self.lock_space(), sent_at);
                is_held = granted.is_err();
                granted.map_err(|_| LockErrorKind::Contended.into())
            });
            answers.collect()
        }))
    }

    fn lock_space(&self) -> LockSpace {
        LockSpace::at(&self.space)
    }

    fn clone_of(&self) -> Option<LockSpace> {
        Some(LockSpace::at(&self.clones))
    }
}
