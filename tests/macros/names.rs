//! The parts of a name, and the moment at which it is made.

use std::cell::Cell;
use std::fmt;

use lock_runtime::{LockError, LockName, distributed_lock};

use crate::support::{hold, poll_once};

type Name = Result<String, LockError>;

struct Order {
    key: (u32, String),
}

impl Order {
    fn id(&self) -> u32 {
        self.key.0
    }

    #[distributed_lock(
        name = "{self.key.1}/{self.id():04}/{other.key.0}/{other.id():>3x}",
        guard = lock
    )]
    async fn merge(&self, other: &Order) -> Name {
        Ok(lock.name().to_string())
    }
}

#[tokio::test]
async fn fields_indexes_calls_and_specs() {
    let order = Order {
        key: (7, "a/b%".into()),
    };
    let other = Order {
        key: (171, String::new()),
    };
    assert_eq!(order.merge(&other).await.unwrap(), "a%2Fb%25/0007/171/ ab");
}

#[distributed_lock(name = "{{{id}}}", guard = lock)]
async fn braces(id: &str) -> Name {
    Ok(lock.name().to_string())
}

#[distributed_lock(name = "{{fixed}}", guard = lock)]
async fn fixed() -> Name {
    Ok(lock.name().to_string())
}

#[distributed_lock(name = r#"raw "{ id }" \n"#, guard = lock)]
async fn raw(id: &str) -> Name {
    Ok(lock.name().to_string())
}

#[tokio::test]
async fn one_placeholder_is_rendered_unchanged() {
    assert_eq!(braces("a}%:{b").await.unwrap(), "{a}%:{b}");
    assert_eq!(fixed().await.unwrap(), "{fixed}");
    assert_eq!(raw("%").await.unwrap(), r#"raw "%" \n"#);
}

const NAME: &str = "names:constant";

#[distributed_lock(name = NAME, guard = lock)]
async fn constant() -> Name {
    Ok(lock.name().to_string())
}

#[distributed_lock(name = format!("names:{}-{second}", first.len()), guard = lock)]
async fn formatted(first: String, second: u32) -> Name {
    drop(first);
    Ok(lock.name().to_string())
}

#[distributed_lock(name = &name, guard = lock)]
async fn given(name: LockName) -> Name {
    drop(name);
    Ok(lock.name().to_string())
}

#[tokio::test]
async fn expressions() {
    assert_eq!(constant().await.unwrap(), "names:constant");
    assert_eq!(formatted("ab".into(), 3).await.unwrap(), "names:2-3");
    assert_eq!(given("names:given".into()).await.unwrap(), "names:given");
}

struct Counted<'a>(&'a Cell<u32>);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.set(self.0.get() + 1);
        write!(f, "{}", self.0.get())
    }
}

#[distributed_lock(name = "names:once:{value}", timeout = "10s", guard = lock)]
async fn once(value: Counted<'_>) -> Name {
    let _value = value;
    Ok(lock.name().to_string())
}

#[tokio::test]
async fn a_name_is_rendered_once_and_before_the_wait() {
    let renderings = Cell::new(0);
    assert_eq!(once(Counted(&renderings)).await.unwrap(), "names:once:1");
    assert_eq!(renderings.get(), 1);

    let held = hold("names:once:2").await;
    assert!(poll_once(once(Counted(&renderings))).is_pending());
    assert_eq!(
        renderings.get(),
        2,
        "rendered while the lock was held elsewhere"
    );
    drop(held);
}

/// Counts how often it is called, as a name's expression is.
fn counted(count: &Cell<u32>) -> String {
    count.set(count.get() + 1);
    format!("names:counted:{}", count.get())
}

#[distributed_lock(name = counted(count), timeout = "10s", guard = lock)]
async fn counted_expression(count: &Cell<u32>) -> Name {
    tokio::task::yield_now().await;
    Ok(lock.name().to_string())
}

#[tokio::test]
async fn an_expression_is_evaluated_once_and_at_the_first_poll() {
    let count = Cell::new(0);
    let call = counted_expression(&count);
    assert_eq!(count.get(), 0);
    assert_eq!(call.await.unwrap(), "names:counted:1");
    assert_eq!(count.get(), 1);
}
