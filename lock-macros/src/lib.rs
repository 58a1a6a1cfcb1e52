//! The attribute of `lock-runtime`, which re-exports it: depend on that crate, not on this one.
//!
//! See [`macro@distributed_lock`].

// ARCHITECTURE.md shows the layers of these files, and a test holds them.

mod args;
mod body;
mod dependency;
mod duration;
mod errors;
mod expand;
mod fallback;
mod item;
mod kind;
mod mentions;
mod model;
mod options;
mod output;
mod parameters;
mod patterns;
mod request;
mod suggest;
mod template;
#[cfg(test)]
mod tests;
mod tokens;
mod uses;

use proc_macro::TokenStream;

use crate::model::LockedFn;

/// Runs the body of an `async fn` only while a named lock is held.
///
/// ```
/// use lock_runtime::{LockError, distributed_lock};
///
/// struct Billing;
///
/// impl Billing {
///     /// Two instances of the service never settle the same invoice at once.
///     #[distributed_lock(name = "invoice:{invoice_id}", timeout = "5s")]
///     async fn settle(&self, invoice_id: u64) -> Result<(), LockError> {
///         // …
///         Ok(())
///     }
///
///     /// Every replica's scheduler calls this; one runs it, the others skip.
///     #[distributed_lock(name = "nightly-report", on_unavailable = "skip", min_hold = "10m")]
///     async fn nightly_report(&self) {
///         // …
///     }
/// }
/// ```
///
/// The attribute goes on free functions, methods, default methods of traits, generic functions,
/// functions that `macro_rules!` makes, and methods under `#[async_trait]`. It goes above or below
/// `#[tracing::instrument]`, `#[tokio::main]`, `#[tokio::test]` and the attributes of web handlers.
/// Other attributes that take `async` away, as `#[pollster::main]` does, go below it.
///
/// # Options
///
/// * **`name`** is required and says which lock. It takes a string template, or an expression
///   `impl Into<LockName>`. An array of 1 to 16 of these names several locks, of which the body has
///   all or none.
/// * **`mode`** takes `"read"` or `"write"`: a side of the reader–writer lock of that name. Any number
///   of readers go together, and a writer is alone. By default the lock is a mutex.
/// * **`permits`** makes the lock a semaphore, which has as many permits in all. It takes a whole
///   number from 1, or an expression of type `u32`.
/// * **`take`** is how many of the `permits` the call takes, by default 1. It takes a whole number
///   from 1 to `permits`, or an expression of type `u32`.
/// * **`timeout`** is the longest wait, by default `"0s"`: try once. It takes a duration, or
///   `"none"` to wait as long as it takes.
/// * **`lease`** is how long a grant lasts unless it is renewed, which happens after each third of
///   that time. It takes a duration from 100 ms to 24 h. The default is the provider's, 30 s.
/// * **`max_hold`** takes a duration above zero. The body is dropped when it has held the lock for
///   that time. By default there is no such limit.
/// * **`min_hold`** takes a duration of at most `max_hold` and 24 h. Nobody else gets the lock
///   sooner than that after its grant. By default the lock is free when the body ends. Readers
///   cannot have one.
/// * **`on_unavailable`** says what the caller gets when the body may not run or may not go on. It
///   takes `"error"`, which is the default, `"skip"`, or an expression `FnOnce(LockError) -> Ret`.
/// * **`provider`** says where the lock lives, by default on the default provider. It takes the
///   name of a registered provider, or an expression that is, or dereferences to, an `Arc<dyn
///   LockProvider>`. The expression is borrowed, not moved.
/// * **`guard`** takes an identifier, which the body can then use as its guard: for the fencing
///   token and the loss signal. It is a `&LockGuard`, and with `mode` a `&RwLockReadGuard` or a
///   `&RwLockWriteGuard`. With `permits` it is a `&SemaphorePermit`, which has no fencing token.
///   With an array of names it is a `&MultiLockGuard`, which has a token for each.
/// * **`release`** says what the call waits for at its end. `"confirmed"`, which is the default, waits
///   for the provider's answer. With `"background"` the call returns when its release has been
///   handed to the provider's connection.
/// * **`crate`** takes the absolute path of the runtime, for libraries that re-export it. The
///   default is `::lock_runtime`, or the name that `Cargo.toml` gives it.
///
/// **Durations** are strings of one or more pairs of a whole number and a unit, `ms`, `s`, `m`, `h`
/// or `d`, such as `"250ms"` or `"1m30s"`. They may also be expressions of type `Duration`. A
/// string that is out of range is a compile error. An expression that is out of range gives a
/// `LockError` of kind `InvalidConfig` at the call. An expression of zero for `min_hold` means
/// none.
///
/// **`timeout`** is a bound: the call has its outcome at most 50 ms after it, whatever the server
/// does. With `"0s"` the bound is one answer of the server, at most the provider's
/// `response_timeout`.
///
/// **`min_hold`** counts from the grant, and holds whether the body succeeds, fails, panics or is
/// dropped. It ends with the lock if the lock is lost. The call returns when the body ends, and the
/// lock stays until `min_hold` is over. The option is for jobs that every replica starts by its own
/// clock. With `"skip"` alone, a job that ends before the second replica's clock strikes runs
/// twice. A `min_hold` longer than the clocks differ makes the second replica skip.
///
/// # Names
///
/// A template is literal text with placeholders. A placeholder is a parameter or `self`, then field
/// accesses, tuple indexes and calls without arguments, and may have one of Rust's format specs:
/// `{id}`, `{self.tenant}`, `{order.key.0}`, `{order.id()}`, `{id:04}`. `{{` and `}}` are braces.
/// Values are rendered with `Display`. Debug output and the addresses of pointers are refused,
/// because they are no stable names. Widths and precisions taken from arguments are refused, too.
///
/// Different values never give one name, as long as they are formatted differently. A format spec
/// that pads or cuts text, such as `{tenant:<8}`, can make two values one. A single placeholder is
/// rendered unchanged. Where there are several, the first character of the text that follows a
/// placeholder is percent-encoded in its value, and so is `%`. Two placeholders with no text
/// between them are refused.
///
/// ```
/// # use lock_runtime::{LockError, distributed_lock};
/// #[distributed_lock(name = "{tenant}:{key}", guard = lock)]
/// async fn name(tenant: &str, key: &str) -> Result<String, LockError> {
///     Ok(lock.name().to_string())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LockError> {
/// assert_eq!(name("a", "b:c").await?, "a:b:c");
/// assert_eq!(name("a:b", "c").await?, "a%3Ab:c");
/// # Ok(())
/// # }
/// ```
///
/// The name, then `permits`, `take`, the durations in the order in which they are written, and the
/// provider are evaluated once, when the function's future is first polled, before the wait.
///
/// # Readers, writers and permits
///
/// A name is of one kind only: a mutex, a reader–writer lock or a semaphore. While a name is in use
/// in this process, another kind gives `InvalidConfig`. A mutex that should exclude readers is
/// `mode = "write"`. A provider that does not have the kind gives `Unsupported`.
///
/// ```
/// use lock_runtime::{LockError, distributed_lock};
///
/// #[distributed_lock(name = "prices", mode = "read", timeout = "1s")]
/// async fn price(item: u64) -> Result<u64, LockError> {
///     Ok(item * 3)
/// }
///
/// #[distributed_lock(name = "prices", mode = "write", timeout = "5s", guard = lock)]
/// async fn import() -> Result<(), LockError> {
///     let _token = lock.fencing_token();
///     Ok(())
/// }
///
/// /// All replicas together call the partner at most three times at once.
/// #[distributed_lock(name = "partner", permits = 3, timeout = "5s")]
/// async fn ask_partner() -> Result<(), LockError> {
///     Ok(())
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LockError> {
/// # price(1).await?;
/// # import().await?;
/// # ask_partner().await
/// # }
/// ```
///
/// A body that reads may call a function that reads the same name, which joins it. To write while
/// reading, and anything while writing, is `WouldDeadlock`. So is to take more permits than there
/// are beside those that the caller has.
///
/// Numbers of permits that come from expressions and are zero, and a `take` above `permits`, give
/// `InvalidConfig` at the call. Calls may name different `permits` for one name, as while a new
/// version is rolled out: never more are out than the highest number that is in use.
///
/// # Several locks
///
/// ```
/// use lock_runtime::{LockError, distributed_lock};
///
/// #[distributed_lock(name = ["account:{from}", "account:{to}"], timeout = "5s", guard = locks)]
/// async fn transfer(from: u64, to: u64, amount: u64) -> Result<usize, LockError> {
///     for (_account, _token) in locks.tokens() {
///         // …
///     }
///     Ok(locks.names().count())
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LockError> {
/// assert_eq!(transfer(7, 9, 100).await?, 2);
/// assert_eq!(transfer(7, 7, 100).await?, 1, "one name is one lock");
/// # Ok(())
/// # }
/// ```
///
/// The locks are taken in the order of their names' bytes, whatever the order in which they are
/// written. So such calls never wait for each other in a circle. `mode`, or `permits` and `take`, is
/// the same for all, and so are the durations. The `timeout` is for all together. A `LockError`
/// names the lock that was not to be had. The loss of one lock is the loss of all.
///
/// Locks that are held already are kept while another one is waited for, so keep long sections to
/// other names. Calls inside each other still may wait in a circle, if the inner one wants a lower
/// name than the outer one has. The timeout ends that.
///
/// # Outcomes
///
/// There is no path on which the body runs without the lock.
///
/// * `"error"`: the function returns `Result<T, E>` with `E: From<LockError>`.
/// * `"skip"`: the function returns a type that can say "did not run": `()`, `Option<T>`,
///   `Result<S, E>` with `S: Skipped` and `E: From<LockError>`, or a type that implements
///   `Skipped`. Only contention is skipped. A provider that fails and a lock that is lost are
///   returned as `Err` where there is one, and else logged at ERROR and skipped.
/// * an expression: it is called with the `LockError`, and its value is returned.
///
/// The body is polled together with the lease. It is dropped at once, in place, when the lease is
/// lost, when the lease can no longer be shown to be valid, or when `max_hold` has passed. The
/// outcome is then a `LockError` of kind `Lost` or `MaxHoldExceeded`. When the body finishes, its
/// result is what the caller gets, even if the release then fails.
///
/// # Parameters, and the future
///
/// All parameters are dropped while the lock is held, in the order in which the function drops them
/// without the attribute. Where the body does not run, they are dropped before the outcome is
/// given. These are dropped when the function returns instead:
///
/// * a parameter that only the expression of `on_unavailable` uses;
/// * a parameter that another option's expression seems to move;
/// * what a pattern such as `Order { id, .. }` leaves behind, if an option's expression uses a name
///   of the pattern;
/// * the same, if another attribute follows below this one, since that attribute shall see the
///   signature as it was written.
///
/// The future is `Send` if it is so without the attribute. The call does not wait for the release
/// where the output is not `Send`, as in `Result<T, Box<dyn Error>>`, or where a generic function
/// does not say that it is. The release then goes on in the background. Write
/// `Box<dyn Error + Send>`, or add a bound `T: Send`, to have it confirmed before the call returns.
///
/// The current span of `tracing` inside the body is the one that it would be without the attribute.
/// No lint fires that would not fire without the attribute.
///
/// # Cancel safety
///
/// The function's future may be dropped at any await. The body is dropped first. Then the lock is
/// released, or the request for it is withdrawn, in the background.
///
/// # Expansion
///
/// The attribute makes a few statements, with no logic in them. This function
///
/// ```
/// # use lock_runtime::{LockError, distributed_lock};
/// #[distributed_lock(name = "order:{tenant}:{id:04}", timeout = "5s")]
/// async fn ship(tenant: &str, id: u64) -> Result<usize, LockError> {
///     Ok(tenant.len())
/// }
/// ```
///
/// becomes
///
#[doc = "```text"]
#[doc = include_str!("tests/expansion.rs.txt")]
#[doc = "```"]
///
/// The `if let` is never entered; it makes the compiler report a type mismatch inside the body.
/// `output.keep()` says where the output is while the release is confirmed. Where a parameter's
/// value has to be dropped, `let _ = &parameter;` in front of the body moves it there as a whole. A
/// parameter that the signature takes apart, or leaves without a name, is taken apart there
/// instead. The body's own tokens are not touched.
#[proc_macro_attribute]
pub fn distributed_lock(args: TokenStream, item: TokenStream) -> TokenStream {
    LockedFn::read(args.into(), item.into())
        .map_or_else(fallback::expand, expand::expand)
        .into()
}
