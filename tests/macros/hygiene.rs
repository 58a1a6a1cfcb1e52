//! The expansion sees nothing of the user's names, and the user's code nothing of the expansion's.

use lock_runtime::{DistributedLock, LockError, distributed_lock};

use crate::support::is_held;

mod shadowed {
    #![allow(
        dead_code,
        non_camel_case_types,
        non_snake_case,
        clippy::module_inception
    )]

    use ::lock_runtime::distributed_lock;

    pub(crate) struct Result;
    pub(crate) struct Option;
    pub(crate) struct Box;
    pub(crate) struct Into;
    pub(crate) struct LockError;
    pub(crate) struct Duration;
    pub(crate) enum Maybe {
        Some,
        None,
    }
    #[allow(unused_imports, reason = "that they stay unused is what is tested")]
    pub(crate) use Maybe::{None, Some};
    pub(crate) fn drop() {}
    pub(crate) fn run() {}
    pub(crate) mod core {}
    pub(crate) mod std {}
    pub(crate) mod alloc {}
    pub(crate) mod lock_runtime {}

    macro_rules! refuse {
        ($($name:ident)*) => {
            $(
                #[allow(unused_macros, reason = "that they stay unused is what is tested")]
                macro_rules! $name {
                    () => {};
                }
            )*
        };
    }
    // In textual scope, where they win over those of the prelude; they take no arguments.
    refuse!(format_args pin stringify unreachable panic);

    #[distributed_lock(
        name = "hygiene:shadowed:{tenant}:{id:04}",
        timeout = "1s",
        lease = "1s",
        max_hold = "1m",
        guard = lock
    )]
    pub(crate) async fn settle(
        tenant: &str,
        id: u32,
    ) -> ::core::result::Result<bool, ::lock_runtime::LockError> {
        ::core::result::Result::Ok(lock.is_lost() || tenant.len() as u32 > id)
    }

    #[distributed_lock(name = "hygiene:shadowed", on_unavailable = "skip")]
    pub(crate) async fn skip() {}

    #[distributed_lock(name = name, on_unavailable = |_| ::core::option::Option::None)]
    pub(crate) async fn expression(name: &str) -> ::core::option::Option<usize> {
        ::core::option::Option::Some(name.len())
    }
}

#[tokio::test]
async fn shadowed_names() {
    assert!(!shadowed::settle("acme", 9).await.unwrap());
    shadowed::skip().await;
    assert_eq!(shadowed::expression("hygiene:expression").await, Some(18));
}

/// Parameters with the names that the expansion uses for its own.
#[distributed_lock(name = "hygiene:{request}:{body}:{slot}:{output}", guard = lock)]
async fn same_names(
    request: u32,
    body: u32,
    slot: u32,
    output: u32,
) -> Result<(u32, String), LockError> {
    tokio::task::yield_now().await;
    Ok((request + body + slot + output, lock.name().to_string()))
}

#[tokio::test]
async fn names_of_the_expansion() {
    let (sum, name) = same_names(1, 2, 3, 4).await.unwrap();
    assert_eq!((sum, name.as_str()), (10, "hygiene:1:2:3:4"));
}

#[distributed_lock(name = "hygiene:raw:{r#type}:{match_.r#fn}:{match_.r#loop()}", guard = r#guard)]
async fn raw(r#type: u32, match_: Raw) -> Result<String, LockError> {
    Ok(r#guard.name().to_string())
}

struct Raw {
    r#fn: u32,
}

impl Raw {
    fn r#loop(&self) -> u32 {
        self.r#fn + 1
    }
}

#[tokio::test]
async fn raw_identifiers() {
    assert_eq!(raw(1, Raw { r#fn: 2 }).await.unwrap(), "hygiene:raw:1:2:3");
}

#[distributed_lock(name = "hygiene:inner-guard", guard = lock)]
async fn shadows_its_guard() -> Result<bool, LockError> {
    let token = lock.fencing_token();
    let lock = DistributedLock::new("hygiene:another");
    let lock = lock.acquire().await?;
    Ok(lock.fencing_token() > token)
}

#[tokio::test]
async fn guard_may_be_shadowed() {
    assert!(shadows_its_guard().await.unwrap());
    assert!(!is_held("hygiene:inner-guard").await);
}
