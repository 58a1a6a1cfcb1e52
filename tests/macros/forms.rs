//! Functions of every form that the attribute goes on.

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::rc::Rc;

use lock_runtime::{LockError, distributed_lock};

use crate::support::{assert_send, is_held};

type Held = Result<bool, LockError>;

#[distributed_lock(name = "forms:free")]
async fn free() -> Held {
    Ok(is_held("forms:free").await)
}

#[tokio::test]
async fn free_function() {
    assert!(!is_held("forms:free").await);
    assert!(free().await.unwrap());
    assert!(!is_held("forms:free").await);
}

struct Shop {
    tenant: String,
    sales: u64,
}

impl Shop {
    #[distributed_lock(name = "forms:method:{self.tenant}")]
    async fn method(&self) -> Held {
        Ok(is_held(&format!("forms:method:{}", self.tenant)).await)
    }

    #[distributed_lock(name = "forms:mut:{self.tenant}")]
    async fn sell(&mut self, count: u64) -> Result<&mut u64, LockError> {
        tokio::task::yield_now().await;
        self.sales += count;
        Ok(&mut self.sales)
    }

    #[distributed_lock(name = "forms:owned:{self.tenant}")]
    async fn close(mut self) -> Result<String, LockError> {
        self.tenant.push('!');
        Ok(self.tenant)
    }

    #[distributed_lock(name = "forms:borrowed:{self.tenant}")]
    async fn tenant(&self) -> Result<&str, LockError> {
        tokio::task::yield_now().await;
        Ok(&self.tenant)
    }

    #[distributed_lock(name = "forms:one-of-two")]
    async fn longer<'a>(&self, one: &'a str, other: &'a str) -> Result<Cow<'a, str>, LockError> {
        Ok(if one.len() > other.len() {
            one.into()
        } else {
            other.into()
        })
    }

    #[distributed_lock(name = "forms:boxed-self:{self.tenant}")]
    async fn boxed(self: Box<Self>) -> Result<u64, LockError> {
        Ok(self.sales)
    }
}

fn shop() -> Shop {
    Shop {
        tenant: "acme".into(),
        sales: 2,
    }
}

#[tokio::test]
async fn methods_with_every_receiver() {
    let mut shop = shop();
    assert!(shop.method().await.unwrap());
    *shop.sell(3).await.unwrap() += 1;
    assert_eq!(shop.sales, 6);
    assert_eq!(shop.tenant().await.unwrap(), "acme");
    assert_eq!(shop.longer("a", "bc").await.unwrap(), "bc");
    assert_eq!(shop.close().await.unwrap(), "acme!");
    assert_eq!(Box::new(self::shop()).boxed().await.unwrap(), 2);
}

trait Till {
    fn label(&self) -> &str;

    async fn close(&self, day: u32) -> Held;

    #[distributed_lock(name = "forms:default:{self.label()}")]
    async fn open(&self) -> Held {
        Ok(is_held(&format!("forms:default:{}", self.label())).await)
    }
}

impl Till for Shop {
    fn label(&self) -> &str {
        &self.tenant
    }

    #[distributed_lock(name = "forms:impl:{self.tenant}:{day:03}")]
    async fn close(&self, day: u32) -> Held {
        Ok(is_held(&format!("forms:impl:{}:{day:03}", self.tenant)).await)
    }
}

#[tokio::test]
async fn trait_methods_and_their_defaults() {
    assert!(Till::close(&shop(), 7).await.unwrap());
    assert!(shop().open().await.unwrap());
}

struct Ledger<T, const SIZE: usize>([T; SIZE]);

impl<'a, T: Display + 'a, const SIZE: usize> Ledger<T, SIZE> {
    #[distributed_lock(name = "forms:generic:{first}:{label}")]
    async fn generic<'b, U, const N: usize>(
        &'a self,
        label: &'b U,
        first: u8,
        rest: [u8; N],
    ) -> Result<(&'a T, &'b U, usize), LockError>
    where
        U: Debug + Display + ?Sized,
    {
        tokio::task::yield_now().await;
        Ok((&self.0[0], label, N + SIZE + rest.len()))
    }
}

#[tokio::test]
async fn generics() {
    let ledger = Ledger(["x", "y"]);
    let (first, label, sizes) = ledger.generic("label", 1, [0; 3]).await.unwrap();
    assert_eq!((*first, label, sizes), ("x", "label", 8));
}

#[distributed_lock(name = "forms:impl-trait:{key}")]
async fn impl_trait(
    key: impl Display,
    values: impl IntoIterator<Item = u32>,
) -> Result<impl Iterator<Item = u32>, LockError> {
    tokio::task::yield_now().await;
    Ok(values.into_iter().map(|value| value + 1))
}

#[distributed_lock(name = "forms:impl-trait-bare", on_unavailable = |_| None)]
async fn impl_trait_in_option(text: &str) -> Option<impl Display + use<'_>> {
    Some(text.trim())
}

#[tokio::test]
async fn impl_trait_in_arguments_and_return_types() {
    let values = impl_trait("k", [1, 2]).await.unwrap();
    assert_eq!(values.collect::<Vec<_>>(), [2, 3]);
    assert_eq!(impl_trait_in_option(" x ").await.unwrap().to_string(), "x");
}

struct Point {
    x: u32,
    y: u32,
}

#[distributed_lock(name = "forms:patterns:{a}:{b}:{x}:{last}:{whole}")]
async fn patterns(
    (a, mut b): (u32, u32),
    Point { x, .. }: Point,
    [.., last]: [u32; 3],
    whole @ 0..: u32,
    mut total: u32,
    _: String,
    &by_reference: &u32,
) -> Result<u32, LockError> {
    tokio::task::yield_now().await;
    b += by_reference;
    total += a + b + x + last + whole;
    Ok(total)
}

#[tokio::test]
async fn destructured_and_mut_arguments() {
    let point = Point { x: 4, y: 0 };
    assert_eq!(point.y, 0);
    let total = patterns((1, 2), point, [0, 0, 8], 16, 32, String::new(), &64)
        .await
        .unwrap();
    assert_eq!(total, 127);
}

#[distributed_lock(name = "forms:early")]
async fn early(value: &str) -> Result<u32, Box<dyn std::error::Error>> {
    if value.is_empty() {
        return Ok(0);
    }
    let number = value.parse::<u32>()?;
    Ok(number + 1)
}

#[tokio::test]
async fn return_and_question_mark() {
    assert_eq!(early("").await.unwrap(), 0);
    assert_eq!(early("1").await.unwrap(), 2);
    assert_eq!(
        early("x").await.unwrap_err().to_string(),
        "invalid digit found in string"
    );
    assert!(!is_held("forms:early").await);
}

#[distributed_lock(name = "forms:local:{count}")]
async fn not_send(count: Rc<u32>) -> Result<u32, LockError> {
    let local = Rc::clone(&count);
    tokio::task::yield_now().await;
    Ok(*local)
}

#[tokio::test]
async fn bodies_that_are_not_send() {
    assert_eq!(not_send(Rc::new(3)).await.unwrap(), 3);
}

#[tokio::test]
async fn futures_of_send_bodies_are_send() {
    // Made and not run: other tests hold these names.
    drop(assert_send(free()));
    let mut shop = shop();
    drop(assert_send(shop.method()));
    drop(assert_send(shop.sell(1)));
    let point = Point { x: 4, y: 0 };
    drop(assert_send(patterns(
        (1, 2),
        point,
        [0; 3],
        0,
        0,
        String::new(),
        &0,
    )));
    drop(assert_send(Ledger([0, 1]).generic("label", 1, [0; 3])));
    let spawned = tokio::spawn(impl_trait("k-spawned", [1]));
    assert_eq!(spawned.await.unwrap().unwrap().count(), 1);
}

#[distributed_lock(name = "forms:not-send-output", on_unavailable = |_| None, guard = lock)]
async fn not_send_output(count: u32) -> Option<Box<dyn Iterator<Item = impl Display>>> {
    tokio::task::yield_now().await;
    (!lock.is_lost()).then(|| Box::new(0..count) as _)
}

/// Nothing says that the output is `Send`.
#[distributed_lock(name = "forms:unknown-output")]
async fn unknown_output<T: Clone>(value: &T) -> Result<T, LockError> {
    Ok(value.clone())
}

#[distributed_lock(name = "forms:boxed-future")]
async fn boxed_future()
-> Result<std::pin::Pin<Box<dyn Future<Output = impl Display> + Send>>, LockError> {
    Ok(Box::pin(async { "later" }))
}

#[tokio::test]
async fn futures_are_send_whatever_their_output() {
    drop(assert_send(early("")));
    let mut values = assert_send(not_send_output(2)).await.unwrap();
    assert_eq!(values.next().unwrap().to_string(), "0");
    // Nobody waited for its release, but it was begun before the call returned.
    assert!(!is_held("forms:not-send-output").await);
    assert_eq!(assert_send(unknown_output(&3)).await.unwrap(), 3);
    assert_eq!(*unknown_output(&Rc::new(4)).await.unwrap(), 4);
    assert!(!is_held("forms:unknown-output").await);
    let later = assert_send(boxed_future()).await.unwrap();
    assert_eq!(later.await.to_string(), "later");
}

#[distributed_lock(name = "forms:conditional:{id}")]
async fn conditional(
    id: u32,
    #[cfg(test)] _present: u32,
    #[cfg(not(test))] _absent: u32,
) -> Result<u32, LockError> {
    Ok(id)
}

#[tokio::test]
async fn parameters_may_be_conditional() {
    assert_eq!(conditional(1, 2).await.unwrap(), 1);
}

#[distributed_lock(name = "forms:unsafe")]
async unsafe fn not_safe(pointer: &u32) -> Result<u32, LockError> {
    Ok(*pointer)
}

#[tokio::test]
async fn qualifiers_visibility_and_inner_attributes() {
    /// Documented.
    #[must_use = "it was computed under a lock"]
    #[distributed_lock(name = "forms:qualified")]
    pub(crate) async fn qualified() -> Result<u32, LockError> {
        #![allow(non_snake_case)]
        let Loud = 1;
        Ok(Loud)
    }
    assert_eq!(qualified().await.unwrap(), 1);
    #[expect(unsafe_code, reason = "the function's signature is what is tested")]
    // SAFETY: the function asks for nothing.
    let value = unsafe { not_safe(&2) }.await;
    assert_eq!(value.unwrap(), 2);
}

macro_rules! locked_functions {
    ($function:ident, $parameter:ident, $name:literal, $timeout:expr) => {
        #[distributed_lock(name = $name, timeout = $timeout)]
        async fn $function($parameter: u32) -> Held {
            Ok(is_held(&format!("forms:macro:{}", $parameter)).await)
        }

        impl Shop {
            #[distributed_lock(name = "forms:macro:{self.tenant}:{id}", guard = lock)]
            async fn $function(&self, id: u32, $parameter: u32) -> Result<String, LockError> {
                let _ = $parameter;
                Ok(lock.name().to_string())
            }
        }
    };
}

locked_functions!(expanded, id, "forms:macro:{id}", "1s");
locked_functions!(
    expanded_too,
    number,
    "forms:macro:{number}",
    std::time::Duration::ZERO
);

#[tokio::test]
async fn functions_of_macro_rules() {
    assert!(expanded(3).await.unwrap());
    assert!(expanded_too(4).await.unwrap());
    // Both parameters are called `id`; the template, like the body, means the macro's.
    assert_eq!(shop().expanded(1, 2).await.unwrap(), "forms:macro:acme:1");
    assert_eq!(
        shop().expanded_too(1, 2).await.unwrap(),
        "forms:macro:acme:1"
    );
}

#[distributed_lock(name = "forms:never", on_unavailable = |error| panic!("{error}"))]
async fn never() -> std::convert::Infallible {
    std::future::pending().await
}

#[tokio::test]
async fn uninhabited_return_types() {
    assert!(crate::support::poll_once(never()).is_pending());
}
