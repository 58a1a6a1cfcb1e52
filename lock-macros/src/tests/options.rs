use super::{expanded, mistakes};
use crate::options::table::OPTIONS;

#[test]
fn every_option_is_on_the_attributes_page_in_the_order_of_the_table() {
    let page = include_str!("../lib.rs");
    let described = page.lines().filter_map(|line| {
        let option = line.strip_prefix("/// * **`")?;
        Some(option.split('`').next()?.to_owned())
    });
    let known = OPTIONS.iter().map(|option| option.name.to_owned());
    assert_eq!(described.collect::<Vec<_>>(), known.collect::<Vec<_>>());
}

#[test]
fn every_option_says_what_it_takes() {
    for option in OPTIONS {
        let name = option.name;
        let expected = option.expected();
        let args = format!("{name}, {name} = , {name} = fn");
        let found = mistakes(&args, "async fn f() -> R {}");
        let wanted = [
            format!("expected `=` after `{name}`: {expected}"),
            format!("expected a value after `=`: {expected}"),
            format!("`{name}` is given twice, remove one"),
            expected,
        ];
        for wanted in wanted {
            assert!(found.contains(&wanted), "{wanted}: {found:#?}");
        }
    }
}

#[test]
fn options_are_checked_by_their_turn_and_durations_as_they_are_written() {
    let found = mistakes(
        r#"crate = x, release = 1, guard = 1, provider = "", on_unavailable = 1, min_hold = "0s", lease = "0s",
           timeout = "x", take = 0, permits = 0, mode = 1, name = """#,
        "async fn f() -> R {}",
    );
    let expected = [
        "`name`",
        "`mode`",
        "`permits`",
        "`take`",
        "`min_hold`",
        "`lease`",
        "expected a number before `x`",
        "`on_unavailable`",
        "`provider`",
        "`guard`",
        "`release`",
        "`crate`",
        // What contradicts another option comes last.
        "`permits` makes it a semaphore",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_confirmed_release_is_what_holds_without_the_option() {
    let item = "async fn f() -> R {}";
    let with = |release: &str| expanded(&format!(r#"name = "x"{release}"#), item);
    assert_eq!(with(r#", release = "confirmed""#), with(""));
    let background = with(r#", release = "background""#);
    assert!(
        background.contains(".release_in_background()"),
        "{background}"
    );
    assert_ne!(background, with(""));
}

/// Each of these is one mistake, and the rest of the options is read all the same.
#[test]
fn modes_and_numbers_of_permits() {
    let refused = [
        (
            "mode = \"wirte\"",
            "unknown mode \"wirte\", did you mean \"write\"?",
        ),
        ("mode = read", "write `mode = \"read\"` with quotes"),
        ("mode = MODE", "the type of the guard depends on it"),
        ("permits = \"3\"", "write `permits = 3` without quotes"),
        (
            "permits = \"\"",
            "`permits` takes a whole number such as `3`",
        ),
        (
            "permits = 3, take = \"2\"",
            "write `take = 2` without quotes",
        ),
        (
            "permits = 99999999999999999999",
            "expected at most 4294967295",
        ),
        ("permits = 3, take = 3.0", "`take` has a fraction"),
        ("permits = -0", "`permits` is negative"),
        (
            "permits = 3i32",
            "`permits` takes a whole number such as `3`",
        ),
        (
            "permits = 3, take = 0x4",
            "`take` is above `permits`, expected at most 3",
        ),
        ("take = n", "`take` needs `permits`"),
        ("mode = \"read\", take = 2", "`take` is for semaphores"),
        ("mode = \"write\", permits = n", "remove one of them"),
        (
            "mode = \"read\", min_hold = wait",
            "`min_hold` with `mode = \"read\"`",
        ),
        ("permit = 3, take = 2", "did you mean `permits`?"),
        ("taek = 2, mode = \"read\"", "did you mean `take`?"),
    ];
    for (options, message) in refused {
        let found = mistakes(&format!("name = \"x\", {options}"), "async fn f() -> R {}");
        assert_eq!(found.len(), 1, "{options}: {found:#?}");
        assert!(found[0].contains(message), "{options}: {}", found[0]);
    }
    let taken = [
        "mode = \"read\", max_hold = \"1s\"",
        "mode = \"write\", min_hold = \"1s\"",
        "permits = 1, min_hold = wait",
        "take = 3, permits = 3",
        "permits = 4294967295, take = 4_294_967_295u32",
        "permits = LIMIT, take = 7",
        "permits = 7, take = n + 1",
        "permits = !0",
    ];
    for options in taken {
        let found = mistakes(&format!("name = \"x\", {options}"), "async fn f() -> R {}");
        assert!(found.is_empty(), "{options}: {found:#?}");
    }
}
