//! Calls that are due in the same moment, made in groups by a provider that takes them so.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lock_runtime::testing::{TestProvider, keys_in_use};
use lock_runtime::{
    AcquireRequest, BoxFuture, Call, Capabilities, DistributedLock, Grant, LockError,
    LockErrorKind, LockGuard, LockProvider, Timestamp, shutdown,
};
use lock_tests::{eventually, poll_once};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::own_process::in_own_process;
use crate::{BOUND, nothing_held, run, shared};

/// How many groups are under way at once, unless they take long.
const LANES: usize = 2;
/// A group that takes this long is surely not taken for one that hangs.
const SURELY_QUICK: Duration = Duration::from_millis(40);
const SIZE: usize = 4;
const MANY: usize = 2 + 3 * SIZE;

/// What becomes of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    /// Each call is made and answered; what waits for another holder, beside the next groups.
    Answers,
    /// A group with a call for the lock `bad` panics, when it has made the others.
    Panics,
    /// A call for `bad` is dropped.
    Drops,
    /// A call for `bad` is kept for ever.
    Keeps,
    /// All are answered, and the future never ends.
    Hangs,
    /// The thread is blocked for so many milliseconds first.
    Blocks(u64),
    /// The group is made as if only `group_size` were implemented.
    ByDefault,
    /// Releases are moved to a task of their own, which frees the lock and never answers.
    MovesReleases,
}

/// Takes calls in groups. The test provider makes each of them.
pub(crate) struct Grouping {
    pub(crate) inner: TestProvider,
    manner: Mutex<Manner>,
    size: usize,
    open: watch::Sender<bool>,
    seen: Mutex<Seen>,
    kept: Mutex<Vec<Call>>,
    single: AtomicU64,
}

#[derive(Default)]
struct Seen {
    /// The names of each group's calls.
    groups: Vec<Vec<String>>,
    /// When those began that are under way.
    under_way: Vec<(u64, Instant)>,
    /// How many were under way at once of which none had taken long.
    most: usize,
    /// The runtime that the groups run on.
    runtime: Option<Handle>,
}

impl Grouping {
    fn new(manner: Manner) -> Arc<Self> {
        Self::of_size(SIZE, manner)
    }

    /// Makes one that answers every call.
    pub(crate) fn of_size_answering(size: usize) -> Arc<Self> {
        Self::of_size(size, Manner::Answers)
    }

    fn of_size(size: usize, manner: Manner) -> Arc<Self> {
        Arc::new(Self {
            inner: TestProvider::new(),
            manner: Mutex::new(manner),
            size,
            open: watch::Sender::new(true),
            seen: Mutex::default(),
            kept: Mutex::default(),
            single: AtomicU64::new(0),
        })
    }

    fn with_lease(mut self: Arc<Self>, lease: Duration) -> Arc<Self> {
        let this = Arc::get_mut(&mut self).expect("nobody else has it yet");
        this.inner = this.inner.clone().with_lease(lease);
        self
    }

    fn lock(self: &Arc<Self>, name: &str) -> DistributedLock {
        DistributedLock::on(self.clone(), name)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic under it")
    }

    fn manner(&self) -> Manner {
        *self.manner.lock().expect("no panic under it")
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().expect("no panic under it") = manner;
    }

    /// Has groups wait before they do anything, or go on.
    fn open(&self, open: bool) {
        self.open.send_replace(open);
    }

    fn groups(&self) -> Vec<Vec<String>> {
        self.seen().groups.clone()
    }

    async fn make(inner: &TestProvider, call: Call) {
        match call {
            Call::Acquire(call) => {
                let answer = match call.gives_up() {
                    Some(grant) => inner.pass_on(grant, call.request()).await,
                    None => inner.acquire(call.request()).await,
                };
                call.answer(answer);
            }
            Call::Release(call) => {
                let answer = inner.release(call.grant()).await;
                call.answer(answer);
            }
            _ => unreachable!("there are no others"),
        }
    }

    async fn call(&self, calls: Vec<Call>) {
        let is_bad = |call: &Call| name_of(call) == "bad";
        let panics = self.manner() == Manner::Panics && calls.iter().any(is_bad);
        for call in calls {
            let inner = self.inner.clone();
            match (self.manner(), &call) {
                (Manner::Panics, _) if is_bad(&call) => {}
                (Manner::Drops, _) if is_bad(&call) => drop(call),
                (Manner::Keeps, _) if is_bad(&call) => {
                    self.kept.lock().expect("no panic").push(call);
                }
                (Manner::MovesReleases, Call::Release(release)) => {
                    let _ = inner.release(release.grant()).await;
                    tokio::spawn(async move {
                        let _call = call;
                        std::future::pending::<()>().await;
                    });
                }
                (_, Call::Acquire(acquire)) if acquire.request().waits() => {
                    tokio::spawn(async move { Self::make(&inner, call).await });
                }
                _ => Self::make(&inner, call).await,
            }
        }
        assert!(!panics, "on purpose");
        if self.manner() == Manner::Hangs {
            std::future::pending::<()>().await;
        }
    }
}

fn name_of(call: &Call) -> String {
    match call {
        Call::Acquire(call) => call.request().name().to_string(),
        Call::Release(call) => call.grant().name().to_string(),
        _ => unreachable!("there are no others"),
    }
}

/// Counts a group as under way until it is dropped.
struct UnderWay<'a>(&'a Grouping, u64);

impl<'a> UnderWay<'a> {
    fn begin(provider: &'a Grouping, calls: &[Call]) -> Self {
        let mut seen = provider.seen();
        let number = seen.groups.len() as u64;
        seen.groups.push(calls.iter().map(name_of).collect());
        seen.under_way.push((number, Instant::now()));
        let quick = |(_, began): &&(u64, Instant)| began.elapsed() < SURELY_QUICK;
        let quick = seen.under_way.iter().filter(quick).count();
        seen.most = seen.most.max(quick);
        seen.runtime = Some(Handle::current());
        Self(provider, number)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0
            .seen()
            .under_way
            .retain(|(number, _)| *number != self.1);
    }
}

impl LockProvider for Grouping {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.single.fetch_add(1, Ordering::Relaxed);
        self.inner.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.inner.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.single.fetch_add(1, Ordering::Relaxed);
        self.inner.release(grant)
    }

    fn call_all(&self, calls: Vec<Call>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _under_way = UnderWay::begin(self, &calls);
            let manner = self.manner();
            if let Manner::Blocks(millis) = manner {
                std::thread::sleep(Duration::from_millis(millis));
            }
            let mut open = self.open.subscribe();
            let _ = open.wait_for(|open| *open).await;
            match manner {
                Manner::ByDefault => OnlySize(self).call_all(calls).await,
                _ => self.call(calls).await,
            }
        })
    }

    fn group_size(&self) -> usize {
        self.size
    }
}

/// Has the calls made as the trait does by default.
struct OnlySize<'a>(&'a Grouping);

impl OnlySize<'_> {
    /// Calls the default method of the trait, on a provider that lives as long as the calls.
    async fn call_all(&self, calls: Vec<Call>) {
        let single = Thin(self.0.inner.clone());
        single.call_all(calls).await;
    }
}

/// Forwards what a wrapper must forward, and no groups.
struct Thin<P>(P);

impl<P: LockProvider> LockProvider for Thin<P> {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn acquire<'a>(
        &'a self,
        request: &'a AcquireRequest,
    ) -> BoxFuture<'a, Result<Grant, LockError>> {
        self.0.acquire(request)
    }

    fn renew<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<Timestamp, LockError>> {
        self.0.renew(grant)
    }

    fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
        self.0.release(grant)
    }
}

/// Starts these in one moment, in their order, and leaves them under way.
async fn begin<F>(futures: Vec<F>) -> Vec<JoinHandle<F::Output>>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut begun = Vec::new();
    for future in futures {
        let mut future: Pin<Box<F>> = Box::pin(future);
        let done = poll_once(future.as_mut()).await;
        begun.push(tokio::spawn(async move {
            match done {
                Some(output) => output,
                None => future.await,
            }
        }));
    }
    begun
}

async fn ended<T>(begun: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut outputs = Vec::new();
    for one in begun {
        outputs.push(one.await.expect("no panic"));
    }
    outputs
}

/// Starts the tasks that make groups, which happens with the first call.
async fn warm_up(provider: &Arc<Grouping>) {
    let guard = provider.lock("warm-up").acquire().await;
    guard
        .expect("the lock is free")
        .release()
        .await
        .expect("held");
    provider.seen().groups.clear();
    provider.seen().most = 0;
}

fn acquire(
    provider: &Arc<Grouping>,
    name: impl AsRef<str>,
) -> impl Future<Output = Result<LockGuard, LockError>> + Send + 'static {
    let lock = provider.lock(name.as_ref());
    async move { lock.acquire_for(BOUND).await }
}

/// Starts acquisitions in one moment, so that all but the first two become due together.
async fn acquire_all(
    provider: &Arc<Grouping>,
    names: &[String],
) -> Vec<Result<LockGuard, LockError>> {
    warm_up(provider).await;
    provider.open(false);
    let begun = begin(names.iter().map(|name| acquire(provider, name)).collect()).await;
    provider.open(true);
    ended(begun).await
}

fn numbered() -> Vec<String> {
    (0..MANY).map(|number| format!("{number:02}")).collect()
}

/// The same with the bad one in the midst of a group.
fn with_a_bad_one() -> Vec<String> {
    let mut names = numbered();
    names[LANES + 1] = "bad".to_owned();
    names
}

/// Every group holds calls that were begun one after the other, in that order.
fn are_runs_of(groups: &[Vec<String>], names: &[String]) {
    let mut all: Vec<_> = groups.iter().flatten().collect();
    all.sort();
    assert_eq!(all, names.iter().collect::<Vec<_>>(), "each is made once");
    for group in groups {
        assert!(group.len() <= SIZE, "{group:?} is too large");
        let first = names.iter().position(|name| name == &group[0]);
        let first = first.expect("it is one of them");
        assert_eq!(group[..], names[first..first + group.len()], "in order");
    }
}

#[test]
fn calls_of_one_moment_go_together_in_their_order() {
    run(async {
        let provider = Grouping::new(Manner::Answers);
        let names = numbered();
        // Keeps what makes the groups from one round to the next.
        let kept = provider.lock("kept");
        let guard = kept.acquire().await.expect("it is free");
        guard.release().await.expect("it was held");
        for _ in 0..10 {
            let guards = acquire_all(&provider, &names).await;
            let groups = provider.groups();
            are_runs_of(&groups, &names);
            assert!(groups.len() <= MANY / 2, "{groups:?}");
            assert!(provider.seen().most <= LANES);

            provider.seen().groups.clear();
            provider.open(false);
            let releases = guards
                .into_iter()
                .map(|guard| guard.expect("free").release());
            let begun = begin(releases.collect()).await;
            provider.open(true);
            for released in ended(begun).await {
                released.expect("it was held");
            }
            let groups = provider.groups();
            are_runs_of(&groups, &names);
            assert!(groups.len() <= MANY / 2, "{groups:?}");
        }
        nothing_held(&provider.inner).await;
        assert_eq!(provider.single.load(Ordering::Relaxed), 0);
    });
}

/// Nothing waits for company.
#[test]
fn a_lone_call_is_a_group_of_one() {
    run(async {
        let provider = Grouping::new(Manner::Answers);
        warm_up(&provider).await;
        for _ in 0..50 {
            let guard = acquire(&provider, "alone").await.expect("it is free");
            guard.release().await.expect("it was held");
        }
        assert_eq!(provider.groups(), vec![["alone"]; 100]);
    });
}

#[test]
fn tasks_that_call_all_the_time_keep_two_groups_under_way() {
    run(async {
        let provider = Grouping::new(Manner::Answers);
        let delay = Duration::from_millis(1);
        provider
            .inner
            .delay(lock_runtime::testing::Operation::Release, delay);
        let tasks: Vec<_> = (0..24)
            .map(|task| {
                let provider = Arc::clone(&provider);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let guard = acquire(&provider, format!("{task}")).await;
                        guard.expect("it is free").release().await.expect("held");
                    }
                })
            })
            .collect();
        ended(tasks).await;
        let groups = provider.groups();
        assert!(groups.iter().all(|group| group.len() <= SIZE));
        assert_eq!(groups.iter().flatten().count(), 24 * 20 * 2);
        assert!(groups.len() < 24 * 20, "they went together");
        assert!(provider.seen().most <= LANES, "{}", provider.seen().most);
    });
}

fn panicked(answer: &Result<LockGuard, LockError>) -> bool {
    match answer {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
            assert!(error.to_string().contains("panicked"), "{error}");
            true
        }
    }
}

/// Asks again for all of them, now that nothing is bad any more.
async fn all_is_well(provider: &Arc<Grouping>, names: &[String]) {
    for name in names.iter().filter(|name| *name != "bad") {
        let guard = acquire(provider, name).await.expect("it is free soon");
        guard.release().await.expect("it was held");
    }
    nothing_held(&provider.inner).await;
}

#[test]
fn a_group_that_panics_fails_those_of_its_calls_that_have_no_answer() {
    run(async {
        let provider = Grouping::new(Manner::Panics);
        let names = with_a_bad_one();
        let answers = acquire_all(&provider, &names).await;
        let groups = provider.groups();
        let bad = groups
            .iter()
            .find(|group| group.contains(&"bad".to_owned()));
        assert!(bad.is_some_and(|group| group.len() > 1), "{groups:?}");
        for (name, answer) in names.iter().zip(answers) {
            assert_eq!(panicked(&answer), name == "bad", "{name}");
        }
        all_is_well(&provider, &names).await;
    });
}

#[test]
fn a_call_that_is_dropped_fails_alone_and_is_undone() {
    run(async {
        let provider = Grouping::new(Manner::Drops);
        let names = with_a_bad_one();
        let answers = acquire_all(&provider, &names).await;
        for (name, answer) in names.iter().zip(answers) {
            assert_eq!(panicked(&answer), name == "bad", "{name}");
        }
        let undone = provider.single.load(Ordering::Relaxed);
        assert_eq!(undone, 1, "what it may have left is released");
        all_is_well(&provider, &names).await;
    });
}

#[test]
fn a_release_that_is_dropped_fails_alone() {
    run(async {
        let provider = Grouping::new(Manner::Answers);
        let names = with_a_bad_one();
        let guards = acquire_all(&provider, &names).await;
        provider.set(Manner::Drops);
        provider.open(false);
        let releases = guards
            .into_iter()
            .map(|guard| guard.expect("free").release());
        let begun = begin(releases.collect()).await;
        provider.open(true);
        for (name, released) in names.iter().zip(ended(begun).await) {
            match name.as_str() {
                "bad" => {
                    let error = released.unwrap_err();
                    assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable);
                    assert!(error.to_string().contains("panicked"), "{error}");
                }
                _ => released.expect("it was held"),
            }
        }
        assert_eq!(provider.inner.held(), 1, "its lease ends it");
        provider.inner.forget("bad");
        all_is_well(&provider, &names).await;
    });
}

#[test]
fn a_call_that_is_never_answered_is_bounded_by_its_caller_s_time() {
    run(async {
        let provider = Grouping::new(Manner::Keeps);
        warm_up(&provider).await;
        provider.open(false);
        let patience = Duration::from_millis(300);
        let lock = |name: &String| (provider.lock(name), name == "bad");
        let names = with_a_bad_one();
        let calls = names.iter().map(lock).map(|(lock, is_bad)| async move {
            lock.acquire_for(if is_bad { patience } else { BOUND })
                .await
        });
        let begun = begin(calls.collect()).await;
        provider.open(true);
        for (name, answer) in names.iter().zip(ended(begun).await) {
            match (name.as_str(), answer) {
                ("bad", answer) => {
                    let error = answer.unwrap_err();
                    // Nobody was seen to hold it.
                    assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
                }
                (_, answer) => answer.expect("it is free").release().await.expect("held"),
            }
        }
        all_is_well(&provider, &names).await;
    });
}

#[test]
fn groups_that_never_end_hold_up_nobody_for_long() {
    run(async {
        let provider = Grouping::new(Manner::Hangs);
        let names = numbered();
        for round in 0..5 {
            for answer in acquire_all(&provider, &names).await {
                answer.expect("it is free").release().await.expect("held");
            }
            let hung = provider.seen().under_way.len();
            assert!(hung > LANES * (round + 1), "{hung} groups hang");
        }
        nothing_held(&provider.inner).await;
    });
}

/// A group that takes long is followed by others while the thread that began it is still at it.
#[test]
fn groups_that_block_their_thread_lose_no_call() {
    run(async {
        let provider = Grouping::new(Manner::Blocks(55));
        let tasks: Vec<_> = (0..6)
            .map(|task| {
                let provider = Arc::clone(&provider);
                tokio::spawn(async move {
                    for _ in 0..15 {
                        let guard = acquire(&provider, format!("{task}")).await;
                        guard.expect("it is free").release().await.expect("held");
                    }
                })
            })
            .collect();
        ended(tasks).await;
    });
}

#[test]
fn waits_in_a_group_hold_up_no_release() {
    run(async {
        let provider = Grouping::new(Manner::ByDefault);
        let elsewhere = provider.inner.another_process();
        let names = numbered();
        let mut theirs = Vec::new();
        for name in &names {
            let lock = crate::lock_on(&elsewhere, name);
            theirs.push(lock.acquire().await.expect("it is free"));
        }
        warm_up(&provider).await;
        let ours = acquire(&provider, "ours").await.expect("it is free");
        provider.open(false);
        let waiting = begin(names.iter().map(|name| acquire(&provider, name)).collect()).await;
        provider.open(true);
        let start = Instant::now();
        ours.release().await.expect("it was held");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "after {took:?}");
        for guard in theirs {
            guard.release().await.expect("it was held");
        }
        for guard in ended(waiting).await {
            let guard = guard.expect("they let it go");
            guard.release().await.expect("it was held");
        }
        nothing_held(&provider.inner).await;
    });
}

#[test]
fn a_release_that_goes_on_beside_and_is_never_answered_is_given_up_with_its_lease() {
    run(async {
        let lease = Duration::from_millis(400);
        let provider = Grouping::new(Manner::MovesReleases).with_lease(lease);
        for _ in 0..2 {
            let start = Instant::now();
            let guard = acquire(&provider, "moved")
                .await
                .expect("free after a lease");
            assert!(start.elapsed() < lease * 4, "after {:?}", start.elapsed());
            let error = guard.release().await.unwrap_err();
            assert_eq!(error.kind(), LockErrorKind::ProviderUnavailable, "{error}");
            assert!(error.to_string().contains("not answered"), "{error}");
        }
    });
}

#[test]
fn a_wrapper_that_forwards_no_group_size_is_given_single_calls() {
    run(async {
        let provider = Grouping::new(Manner::Answers);
        let wrapper = shared(Thin(Arc::clone(&provider)));
        let names = numbered();
        let begun = begin(
            names
                .iter()
                .map(|name| {
                    let lock = DistributedLock::on(Arc::clone(&wrapper), name.as_str());
                    async move { lock.acquire_for(BOUND).await?.release().await }
                })
                .collect(),
        );
        for done in ended(begun.await).await {
            done.expect("it is free");
        }
        assert!(provider.groups().is_empty());
        let single = provider.single.load(Ordering::Relaxed);
        assert_eq!(single, 2 * names.len() as u64);
        // An `Arc` is no wrapper.
        let arc = DistributedLock::on(shared(Arc::clone(&provider)), "arc");
        arc.acquire()
            .await
            .expect("free")
            .release()
            .await
            .expect("held");
        assert_eq!(provider.groups().len(), 2);
    });
}

#[test]
fn a_provider_that_reports_no_contention_is_given_single_calls() {
    struct Silent(Arc<Grouping>);
    impl LockProvider for Silent {
        fn capabilities(&self) -> Capabilities {
            Capabilities::new("silent").with_lease(Duration::from_secs(30))
        }
        fn acquire<'a>(
            &'a self,
            request: &'a AcquireRequest,
        ) -> BoxFuture<'a, Result<Grant, LockError>> {
            self.0.acquire(request)
        }
        fn release<'a>(&'a self, grant: &'a Grant) -> BoxFuture<'a, Result<(), LockError>> {
            self.0.release(grant)
        }
        fn group_size(&self) -> usize {
            64
        }
    }
    run(async {
        let provider = Grouping::new(Manner::Answers);
        let lock = DistributedLock::on(shared(Silent(Arc::clone(&provider))), "silent");
        lock.acquire()
            .await
            .expect("free")
            .release()
            .await
            .expect("held");
        assert!(provider.groups().is_empty());
    });
}

#[test]
fn a_shutdown_waits_for_groups_under_way() {
    in_own_process("groups::a_shutdown_waits_for_groups_under_way", &[], || {
        run(async {
            let provider = Grouping::new(Manner::Answers);
            let names = numbered();
            let guards = acquire_all(&provider, &names).await;
            provider.open(false);
            drop(guards);
            let mut ending = Box::pin(shutdown());
            assert!(poll_once(ending.as_mut()).await.is_none());
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(poll_once(ending.as_mut()).await.is_none());
            assert_eq!(provider.inner.held(), names.len());
            provider.open(true);
            ending.await;
            assert_eq!(provider.inner.held(), 0);
            assert_eq!(keys_in_use(), 0);
        });
    });
}

#[test]
fn providers_that_are_gone_leave_few_tasks() {
    in_own_process(
        "groups::providers_that_are_gone_leave_few_tasks",
        &[],
        || {
            run(async {
                let first = Grouping::new(Manner::Answers);
                warm_up(&first).await;
                let runtime = first.seen().runtime.clone().expect("it was called");
                let tasks = move || runtime.metrics().num_alive_tasks();
                let before = tasks();
                let mut gone = Vec::new();
                for _ in 0..60 {
                    let provider = Grouping::new(Manner::Answers);
                    for answer in acquire_all(&provider, &numbered()).await {
                        answer.expect("it is free").release().await.expect("held");
                    }
                    gone.push(Arc::downgrade(&provider));
                }
                eventually("the providers are gone", BOUND, || async {
                    gone.iter().all(|provider| provider.strong_count() == 0)
                })
                .await;
                // The queues of the last few are kept, in case their providers come back, and each has
                // two tasks.
                eventually("so are most of their tasks", BOUND, || async {
                    tasks() <= before + 2 * 8
                })
                .await;
            });
        },
    );
}
