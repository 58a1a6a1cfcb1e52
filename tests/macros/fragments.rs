//! Functions that `macro_rules!` makes, from fragments of every kind in every place.

use std::fmt::Display;
use std::time::Duration;

use lock_runtime::{LockError, distributed_lock};

use crate::support::is_held;

macro_rules! from_fragments {
    ($(#[$meta:meta])* $vis:vis $name:ident, $lifetime:lifetime, $parameter:ident: $type:ty,
     $pattern:pat => $taken:ty, $output:ty, $bound:path, $block:block) => {
        $(#[$meta])*
        #[distributed_lock(name = "fragments:{id}:{x}", guard = lock)]
        $vis async fn $name<$lifetime, T>(
            id: u8,
            $parameter: $type,
            $pattern: $taken,
            other: &$lifetime T,
            x: u8,
        ) -> $output
        where
            T: $bound + $lifetime,
        {
            let _ = (lock.name(), other, id, x, $parameter);
            $block
        }
    };
}

from_fragments!(
    #[inline]
    pub(crate) signature, 'a, number: u32, (_, [_second, ..]) => (String, [u8; 2]),
    Result<bool, LockError>, Display, {
        let held = is_held("fragments:1:2").await;
        Ok(held)
    }
);

struct Holder(u8);

macro_rules! with_body {
    ($vis:vis $name:ident($($parameter:ident: $type:ty),*) -> $output:ty, $block:block) => {
        #[distributed_lock(name = "fragments:body", on_unavailable = "skip")]
        $vis async fn $name($($parameter: $type),*) -> $output $block

        impl Holder {
            #[distributed_lock(name = "fragments:body:{self.0}", on_unavailable = "skip")]
            $vis async fn $name(&self, $($parameter: $type),*) -> $output $block
        }
    };
}

with_body!(pub(crate) body(id: u8) -> Option<u8>, { Some(id) });
with_body!(private_body() -> (), {});
with_body!(impl_body(id: impl Display) -> Option<impl Display>, { Some(id) });

macro_rules! with_options {
    ($name:ident, $key:literal, $expression:expr, $wait:literal, $duration:expr, $outcome:expr,
     $guard:ident, $root:path, $limit:tt, $release:literal) => {
        pub(crate) mod $name {
            use super::*;

            #[distributed_lock(
                                                                        name = $key,
                                                                        timeout = $wait,
                                                                        lease = $duration,
                                                                        max_hold = $limit,
                                                                        min_hold = $duration * 0,
                                                                        on_unavailable = $outcome,
                                                                        guard = $guard,
                                                                        release = $release,
                                                                        crate = $root
                                                                    )]
            pub(crate) async fn by_literal(id: u32) -> String {
                format!("{} {id}", $guard.name())
            }

            #[distributed_lock(name = $expression, timeout = $duration, on_unavailable = $outcome)]
            pub(crate) async fn by_expression(_id: u32) -> String {
                String::from("ran")
            }
        }
    };
}

with_options!(
    options,
    "fragments:options:{id}",
    format!("fragments:{}", "expression"),
    "1s",
    Duration::from_secs(1),
    |error: LockError| error.to_string(),
    lock,
    ::lock_runtime,
    "1m",
    "background"
);

macro_rules! whole {
    ($item:item) => {
        #[distributed_lock(name = "fragments:item:{id}")]
        $item
    };
}

whole! {
    /// Documented.
    pub(crate) async fn item(id: u32) -> Result<u32, LockError> {
        Ok(id)
    }
}

macro_rules! forwarded {
    (#[$attribute:meta] $($rest:tt)*) => {
        whole_attribute! { $attribute; $($rest)* }
    };
}

macro_rules! whole_attribute {
    ($attribute:meta; $($rest:tt)*) => {
        #[$attribute]
        $($rest)*
    };
}

forwarded! {
    #[distributed_lock(
        name = "fragments:forwarded",
        provider = "nobody",
        on_unavailable = |error| error.kind()
    )]
    async fn forwarded() -> lock_runtime::LockErrorKind {
        unreachable!()
    }
}

#[tokio::test]
async fn in_the_signature() {
    let held = signature(1, 2, (String::new(), [1, 2]), &3, 2).await;
    assert!(held.unwrap());
}

#[tokio::test]
async fn as_the_body() {
    assert_eq!(body(1).await, Some(1));
    private_body().await;
    assert_eq!(impl_body(2).await.unwrap().to_string(), "2");
    assert_eq!(Holder(3).body(4).await, Some(4));
    Holder(3).private_body().await;
    assert_eq!(Holder(3).impl_body(5).await.unwrap().to_string(), "5");
}

#[tokio::test]
async fn in_the_options() {
    assert_eq!(options::by_literal(7).await, "fragments:options:7 7");
    assert_eq!(options::by_expression(7).await, "ran");
}

#[tokio::test]
async fn as_a_whole() {
    assert_eq!(item(1).await.unwrap(), 1);
    assert_eq!(forwarded().await, lock_runtime::LockErrorKind::NoProvider);
}
