//! A provider of reader–writer locks and semaphores whose server is a table in memory, as it should
//! be or with a fault, for the check that the suite finds such faults.

use std::sync::{Arc, Mutex, MutexGuard};

use lock_runtime::{
    AcquireRequest, BoxFuture, Capabilities, FencingToken, Grant, LockError, LockErrorKind,
    LockMode, LockProvider, OwnerId, Timestamp,
};
use tokio::sync::Notify;

/// What is wrong with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A reader goes in beside others although a writer waits.
    ReaderIgnoresQueue,
    /// The same, but only a reader who does not wait: nobody is told that a writer waits.
    NoMarker,
    /// A writer goes past those who wait.
    WriterIgnoresQueue,
    /// A writer goes in beside readers.
    WriterCountsNoReaders,
    /// A release ends whatever is there.
    StaleRelease,
    /// Each permit is counted as two.
    PermitCountedTwice,
    /// Several permits are counted as one.
    SeveralCountedOnce,
    /// Who takes one permit goes past those who wait for many.
    PermitsOutOfTurn,
    /// Readers have the token of the write before them.
    ReadTokenNotDrawn,
    /// A process may go on sharing its read grant while a writer waits.
    SharesForEver,
    /// A grant of one process ends with that of another one.
    ReleaseOfOneReaderEndsAll,
    /// Several readers may upgrade at the same time.
    ManyMayUpgrade,
    /// An upgrade does not wait for other readers.
    UpgradeCountsNoReaders,
    /// An upgrade holds nobody back.
    UpgradeHoldsNobodyBack,
    /// An upgrade that has failed holds readers back for ever.
    FailedUpgradeStays,
    /// A reader whose upgrade has failed is none any more.
    FailedUpgradeEndsReader,
}

#[derive(Default)]
struct Table {
    held: Vec<(String, OwnerId, LockMode)>,
    waiting: Vec<(String, OwnerId, LockMode)>,
    last_token: u64,
}

/// Clones are of the same server, as those of other processes.
#[derive(Clone)]
pub(crate) struct Double {
    fault: Option<Fault>,
    server: Arc<(Mutex<Table>, Notify)>,
}

impl Double {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            server: Arc::default(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.server.0.lock().expect("no panic")
    }

    fn changed(&self) {
        self.server.1.notify_waiters();
    }

    /// Grants it if it is free, and nobody who waits comes first.
    fn take(&self, request: &AcquireRequest, sent_at: Timestamp) -> Option<Grant> {
        let (name, mode) = (request.name().as_str(), request.mode());
        let mut table = self.table();
        let of_name = |entry: &&(String, OwnerId, LockMode)| entry.0 == name;
        let mut held = table.held.iter().filter(of_name).map(|entry| entry.2);
        let mut before = table
            .waiting
            .iter()
            .filter(of_name)
            .take_while(|entry| entry.1 != request.owner())
            .map(|entry| entry.2);
        let is_free = match mode {
            LockMode::Read => held.all(|held| held != LockMode::Write),
            LockMode::Upgradeable if self.has(Fault::ManyMayUpgrade) => {
                held.all(|held| held != LockMode::Write)
            }
            LockMode::Upgradeable => held.all(|held| held == LockMode::Read),
            LockMode::Write if self.has(Fault::WriterCountsNoReaders) => {
                held.all(|held| held == LockMode::Read)
            }
            LockMode::Permits { limit, take } => {
                let taken: u64 = held.map(|held| self.counted(held)).sum();
                taken + u64::from(take.get()) <= u64::from(limit.get())
            }
            _ => held.next().is_none(),
        };
        let comes_first = match mode {
            LockMode::Read => {
                let ignored = self.has(Fault::ReaderIgnoresQueue)
                    || self.has(Fault::NoMarker) && !request.waits();
                !ignored && before.any(|other| other != LockMode::Read)
            }
            LockMode::Permits { take, .. } => {
                let passes = self.has(Fault::PermitsOutOfTurn) && take.get() == 1;
                !passes && before.next().is_some()
            }
            _ => !self.has(Fault::WriterIgnoresQueue) && before.next().is_some(),
        };
        if !is_free || comes_first {
            return None;
        }
        let entry = (name.to_owned(), request.owner(), mode);
        table.held.push(entry);
        if mode == LockMode::Read && self.has(Fault::ReadTokenNotDrawn) {
            let last = FencingToken::new(table.last_token.max(1));
            return Some(Grant::new(request, sent_at).with_token(last));
        }
        let (first, count) = (table.last_token + 1, request.tokens_wanted());
        table.last_token += u64::from(count.get());
        Some(Grant::new(request, sent_at).with_tokens(FencingToken::new(first), count))
    }

    /// Makes the writer of a reader, if nobody else reads.
    fn upgrade(&self, grant: &Grant, request: &AcquireRequest) -> Option<Grant> {
        let sent_at = Timestamp::now();
        let mut table = self.table();
        let name = grant.name().as_str();
        let others = table.held.iter().filter(|(held, owner, mode)| {
            let counts = !self.has(Fault::UpgradeCountsNoReaders) || *mode == LockMode::Write;
            held == name && *owner != grant.owner() && counts
        });
        if others.count() > 0 {
            return None;
        }
        table.held.retain(|entry| entry.1 != grant.owner());
        let entry = (name.to_owned(), request.owner(), LockMode::Write);
        table.held.push(entry);
        table.last_token += 1;
        Some(Grant::new(request, sent_at).with_token(FencingToken::new(table.last_token)))
    }

    /// Returns how many permits a grant counts for.
    fn counted(&self, held: LockMode) -> u64 {
        match held {
            LockMode::Permits { .. } if self.has(Fault::SeveralCountedOnce) => 1,
            LockMode::Permits { take, .. } if self.has(Fault::PermitCountedTwice) => {
                2 * u64::from(take.get())
            }
            LockMode::Permits { take, .. } => u64::from(take.get()),
            _ => u64::MAX / 2,
        }
    }

    /// Removes a holder. `false` if there is none.
    fn give_back(&self, grant: &Grant) -> bool {
        let name = grant.name().as_str();
        let mut table = self.table();
        let ends_all = match grant.mode() {
            LockMode::Read => self.has(Fault::ReleaseOfOneReaderEndsAll),
            _ => false,
        };
        let is_its = |(held, owner, _): &(String, OwnerId, LockMode)| {
            held == name && (ends_all || *owner == grant.owner())
        };
        let found = table.held.iter().any(is_its);
        table.held.retain(|entry| !is_its(entry));
        if !found && self.has(Fault::StaleRelease) {
            table.held.retain(|(held, ..)| held != name);
        }
        drop(table);
        self.changed();
        found
    }
}

/// A place in the queue, until it is dropped.
struct Place<'a>(&'a Double, OwnerId);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Self(double, owner) = self;
        double.table().waiting.retain(|entry| entry.1 != *owner);
        double.changed();
    }
}

impl LockProvider for Double {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new("double")
            .with_fencing_tokens()
            .with_fairness()
            .with_contention_reports()
            .with_upgradeable()
            .with_many_permits()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        Box::pin(async move {
            let mut place = None;
            loop {
                let changed = self.server.1.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                let sent_at = Timestamp::now();
                if let Some(grant) = self.take(request, sent_at) {
                    drop(place);
                    return Ok(grant);
                }
                if !request.waits() || request.is_abandoned() {
                    return Err(LockErrorKind::Contended.into());
                }
                if place.is_none() {
                    let name = request.name().to_string();
                    let entry = (name, request.owner(), request.mode());
                    self.table().waiting.push(entry);
                    place = Some(Place(self, request.owner()));
                    request.report_contention();
                    continue;
                }
                tokio::select! {
                    () = changed => {}
                    () = request.abandoned() => {}
                }
            }
        })
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            match self.give_back(grant) {
                true => Ok(()),
                false => Err(LockErrorKind::Lost.into()),
            }
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
                let mut changed = std::pin::pin!(self.server.1.notified());
                changed.as_mut().enable();
                if let Some(writes) = self.upgrade(grant, request) {
                    return Ok(writes);
                }
                if !request.waits() || request.is_abandoned() {
                    if self.has(Fault::FailedUpgradeStays) {
                        std::mem::forget(place);
                    }
                    if self.has(Fault::FailedUpgradeEndsReader) {
                        self.give_back(grant);
                    }
                    return Err(LockErrorKind::Contended.into());
                }
                if place.is_none() && !self.has(Fault::UpgradeHoldsNobodyBack) {
                    let name = request.name().to_string();
                    let entry = (name, request.owner(), LockMode::Write);
                    self.table().waiting.insert(0, entry);
                    place = Some(Place(self, request.owner()));
                }
                request.report_contention();
                tokio::select! {
                    () = changed => {}
                    () = request.abandoned() => {}
                }
            }
        })
    }

    fn may_share<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<bool, LockError>> {
        Box::pin(async move {
            let name = grant.name().as_str();
            let writer_waits = self
                .table()
                .waiting
                .iter()
                .any(|(waits, _, mode)| waits == name && *mode == LockMode::Write);
            let hidden = self.has(Fault::SharesForEver) || self.has(Fault::NoMarker);
            Ok(hidden || !writer_waits)
        })
    }
}
