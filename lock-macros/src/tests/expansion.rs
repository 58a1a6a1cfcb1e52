//! Snapshots. `UPDATE_EXPECT=1 cargo test -p lock-macros` writes them anew.

use expect_test::expect;

use super::{expanded, tokens};

/// The one that the attribute's page shows, laid out by hand.
#[test]
fn of_the_documentation() {
    let shown = include_str!("expansion.rs.txt");
    let text = expanded(
        r#"name = "order:{tenant}:{id:04}", timeout = "5s""#,
        "async fn ship(tenant: &str, id: u64) -> Result<usize, LockError> { Ok(tenant.len()) }",
    );
    let words = |text: &str| {
        let text: String = tokens(text).to_string().split_whitespace().collect();
        // A comma at the end of a list is layout, too.
        text.replace(",)", ")")
    };
    assert_eq!(words(&text), words(shown));
}

#[test]
fn with_every_option() {
    let text = expanded(
        r#"name = "a{{b}}", timeout = wait(), lease = "1m", max_hold = "1h", on_unavailable = |_| 0,
           provider = self.locks, guard = lock, release = "background", crate = crate::reexported"#,
        "#[must_use] pub(crate) async fn all(&self) -> u8 { #![allow(unused)] 1 }",
    );
    expect![[r##"
        #[must_use]
        pub(crate) async fn all(&self) -> u8 {
            #![allow(unused)]
            let (request, slot) = (
                crate::reexported::__private::Request::new(
                        "a{{b}}",
                        crate::reexported::__private::LockName::from_static("a{b}"),
                    )
                    .at({
                        static SITE: crate::reexported::__private::Site = crate::reexported::__private::Site::new();
                        &SITE
                    })
                    .timeout(wait())
                    .lease(crate::reexported::__private::Duration::from_millis(60000))
                    .max_hold(crate::reexported::__private::Duration::from_millis(3600000))
                    .on(&self.locks)
                    .release_in_background(),
                &crate::reexported::__private::GuardSlot::new(),
            );
            let body = crate::reexported::__private::pin!(
                crate ::reexported::__private::Option::Some(async move { let lock = slot.guard();
                if let crate ::reexported::__private::Option::Some(output) = crate
                ::reexported::__private::Option::None:: < u8 > { return output; } 1 })
            );
            let (output, body) = crate::reexported::__private::Output::of(body);
            return request.run_with_guard(slot, output.keep(), body, |_| 0).await;
        }
    "##]]
    .assert_eq(&text);
}

#[test]
fn with_an_expression_as_name() {
    let text = expanded(
        r#"name = format!("{x}"), provider = "eu", on_unavailable = "skip""#,
        "async fn f(x: u8) { return; }",
    );
    expect![[r#"
        async fn f(x: u8) {
            let request = ::lock_runtime::__private::Request::new(
                    ::lock_runtime::__private::stringify!(format!("{x}")),
                    ::lock_runtime::__private::Into::<
                        ::lock_runtime::__private::LockName,
                    >::into(format!("{x}")),
                )
                .named("eu");
            let body = ::lock_runtime::__private::pin!(
                ::lock_runtime::__private::Option::Some(async move { if let
                ::lock_runtime::__private::Option::Some(output) =
                ::lock_runtime::__private::Option::None:: < () > { return output; } return; })
            );
            let (output, body) = ::lock_runtime::__private::Output::of(body);
            return request
                .run(
                    output.keep(),
                    body,
                    ::lock_runtime::__private::Expansion::or_skip::<()> as fn(_) -> _,
                )
                .await;
        }
    "#]]
    .assert_eq(&text);
}

#[test]
fn with_impl_trait() {
    let text = expanded(
        r#"name = "x""#,
        "async fn f() -> Result<(impl Iterator<Item = u8>, &'static [u8]), E> { g() }",
    );
    expect![[r#"
        async fn f() -> Result<(impl Iterator<Item = u8>, &'static [u8]), E> {
            let request = ::lock_runtime::__private::Request::new(
                    "x",
                    ::lock_runtime::__private::LockName::from_static("x"),
                )
                .at({
                    static SITE: ::lock_runtime::__private::Site = ::lock_runtime::__private::Site::new();
                    &SITE
                });
            let body = ::lock_runtime::__private::pin!(
                ::lock_runtime::__private::Option::Some(async move { if let
                ::lock_runtime::__private::Option::Some(output) =
                ::lock_runtime::__private::Option::None:: < Result < (_, & 'static [u8]), E > > {
                return output; } g() })
            );
            let (output, body) = ::lock_runtime::__private::Output::of(body);
            return request
                .run(
                    output.keep(),
                    body,
                    ::lock_runtime::__private::Expansion::or_error::<
                        Result<(_, &'static [u8]), E>,
                    > as fn(_) -> _,
                )
                .await;
        }
    "#]]
    .assert_eq(&text);
}

#[test]
fn under_tokio_main() {
    let text = expanded(
        r#"name = "main", on_unavailable = "skip""#,
        "fn main() { let body = async { work().await }; return rt.block_on(body); }",
    );
    expect![[r#"
        fn main() {
            let body = async {
                let request = ::lock_runtime::__private::Request::new(
                        "main",
                        ::lock_runtime::__private::LockName::from_static("main"),
                    )
                    .at({
                        static SITE: ::lock_runtime::__private::Site = ::lock_runtime::__private::Site::new();
                        &SITE
                    });
                let body = ::lock_runtime::__private::pin!(
                    ::lock_runtime::__private::Option::Some(async move { if let
                    ::lock_runtime::__private::Option::Some(output) =
                    ::lock_runtime::__private::Option::None:: < () > { return output; } work().
                    await })
                );
                let (output, body) = ::lock_runtime::__private::Output::of(body);
                return request
                    .run(
                        output.keep(),
                        body,
                        ::lock_runtime::__private::Expansion::or_skip::<()> as fn(_) -> _,
                    )
                    .await;
            };
            return rt.block_on(body);
        }
    "#]]
    .assert_eq(&text);
}

#[test]
fn with_a_side_of_a_reader_writer_lock() {
    let text = expanded(
        r#"guard = lock, name = "x", mode = "read", timeout = "1s""#,
        "async fn f() -> Result<u8, E> { g() }",
    );
    expect![[r#"
        async fn f() -> Result<u8, E> {
            let (request, slot) = (
                ::lock_runtime::__private::Request::new(
                        "x",
                        ::lock_runtime::__private::LockName::from_static("x"),
                    )
                    .at({
                        static SITE: ::lock_runtime::__private::Site = ::lock_runtime::__private::Site::new();
                        &SITE
                    })
                    .read()
                    .timeout(::lock_runtime::__private::Duration::from_millis(1000)),
                &::lock_runtime::__private::GuardCell::<
                    ::lock_runtime::__private::RwLockReadGuard,
                >::new(),
            );
            let body = ::lock_runtime::__private::pin!(
                ::lock_runtime::__private::Option::Some(async move { let lock = slot.guard(); if
                let ::lock_runtime::__private::Option::Some(output) =
                ::lock_runtime::__private::Option::None:: < Result < u8, E > > { return output; }
                g() })
            );
            let (output, body) = ::lock_runtime::__private::Output::of(body);
            return request
                .run_with_guard(
                    slot,
                    output.keep(),
                    body,
                    ::lock_runtime::__private::Expansion::or_error::<Result<u8, E>> as fn(_) -> _,
                )
                .await;
        }
    "#]].assert_eq(&text);
}

#[test]
fn with_permits() {
    let text = expanded(
        r#"timeout = wait(), take = 2, permits = self.limit, name = "x{y}", provider = p"#,
        "async fn f(&self, y: u8) -> Result<u8, E> { g() }",
    );
    expect![[r#"
        async fn f(&self, y: u8) -> Result<u8, E> {
            let request = ::lock_runtime::__private::Request::new(
                    "x{y}",
                    ::lock_runtime::__private::render(
                        ::lock_runtime::__private::format_args!(
                            "x{}", ::lock_runtime::__private::Expansion::in_name(& y)
                        ),
                    ),
                )
                .permits(self.limit, 2)
                .timeout(wait())
                .on(&p);
            let body = ::lock_runtime::__private::pin!(
                ::lock_runtime::__private::Option::Some(async move { if let
                ::lock_runtime::__private::Option::Some(output) =
                ::lock_runtime::__private::Option::None:: < Result < u8, E > > { return output; }
                g() })
            );
            let (output, body) = ::lock_runtime::__private::Output::of(body);
            return request
                .run(
                    output.keep(),
                    body,
                    ::lock_runtime::__private::Expansion::or_error::<Result<u8, E>> as fn(_) -> _,
                )
                .await;
        }
    "#]]
    .assert_eq(&text);
}

#[test]
fn of_a_function_with_mistakes() {
    let text = expanded(
        r#"name = "{}", timeout = "5", guard = lock"#,
        "async fn f(&self) -> bool { lock.is_lost() }",
    );
    expect![[r#"
        async fn f(&self) -> bool {
            let lock = (|| -> &'static ::lock_runtime::LockGuard {
                ::lock_runtime::__private::unreachable!()
            })();
            lock.is_lost()
        }
        compile_error! {
            "empty placeholder `{}`, name a parameter as in `{id}`, or write `{{}}` for braces in the name"
        }
        compile_error! {
            "the number 5 in the duration \"5\" has no unit, write \"5s\" or \"5ms\""
        }
    "#]].assert_eq(&text);
}

/// What can be read of the options decides the guard's type.
#[test]
fn of_guards_in_functions_with_mistakes() {
    for (options, guard) in [
        ("", "LockGuard"),
        ("mode = \"read\", ", "RwLockReadGuard"),
        ("mode = \"wriet\", ", "RwLockWriteGuard"),
        ("mod = \"write\", ", "RwLockWriteGuard"),
        ("mode = pick(), ", "LockGuard"),
        ("permits = \"3\", ", "SemaphorePermit"),
        ("permit = n, ", "SemaphorePermit"),
        ("permits = 3, mode = read, ", "RwLockReadGuard"),
    ] {
        let args = format!("name = \"{{}}\", {options}guard = lock");
        let text = expanded(&args, "async fn f() -> bool { lock.is_lost() }");
        assert!(
            text.contains(&format!("&'static ::lock_runtime::{guard} {{")),
            "{options}: {text}"
        );
    }
}

#[test]
fn with_several_names() {
    let text = expanded(
        r#"name = ["from:{from}", own(to), "fixed"], mode = "write", guard = both"#,
        "async fn f(from: u8, to: u8) -> R { g() }",
    );
    expect![[r#"
        async fn f(from: u8, to: u8) -> R {
            let (request, slot) = (
                ::lock_runtime::__private::Several::new(
                        "from:{from}, own (to), fixed",
                        [
                            ::lock_runtime::__private::render(
                                ::lock_runtime::__private::format_args!(
                                    "from:{}", ::lock_runtime::__private::Expansion::in_name(&
                                    from)
                                ),
                            ),
                            ::lock_runtime::__private::Into::<
                                ::lock_runtime::__private::LockName,
                            >::into(own(to)),
                            ::lock_runtime::__private::LockName::from_static("fixed"),
                        ],
                    )
                    .write(),
                &::lock_runtime::__private::GuardCell::<
                    ::lock_runtime::__private::MultiLockGuard,
                >::new(),
            );
            let body = ::lock_runtime::__private::pin!(
                ::lock_runtime::__private::Option::Some(async move { let both = slot.guard(); if
                let ::lock_runtime::__private::Option::Some(output) =
                ::lock_runtime::__private::Option::None:: < R > { return output; } g() })
            );
            let (output, body) = ::lock_runtime::__private::Output::of(body);
            return request
                .run_with_guard(
                    slot,
                    output.keep(),
                    body,
                    ::lock_runtime::__private::Expansion::or_error::<R> as fn(_) -> _,
                )
                .await;
        }
    "#]]
    .assert_eq(&text);
}
