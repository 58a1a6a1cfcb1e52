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

/// Each of these is one mistake at its own name, and the rest is read all the same.
#[test]
fn arrays_of_names() {
    let refused = [
        (
            "[]",
            "`name` is an empty array, write which locks: `name = [\"from:{a}\", \"to:{b}\"]`",
        ),
        (
            "[\"a\", [\"b\"]]",
            "an array in an array, write all names in one",
        ),
        (
            "[\"a\", \"b\", \"a\"]",
            "\"a\" is written twice, remove one",
        ),
        (
            "[\"a\", \"\"]",
            "`name` is empty, write which lock: `name = \"invoice:{id}\"`",
        ),
        (
            "[\"{y}\", \"a\"]",
            "no parameter is named `y`, did you mean `x`?",
        ),
        ("[\"a\", 3]", "`name` takes a string such as"),
    ];
    for (value, message) in refused {
        let found = mistakes(&format!("name = {value}"), "async fn f(x: u8) -> R {}");
        assert_eq!(found.len(), 1, "{value}: {found:#?}");
        assert!(found[0].starts_with(message), "{value}: {found:#?}");
        // The guard in the body has its type, whatever is wrong.
        let args = format!("name = {value}, guard = g");
        let text = expanded(&args, "async fn f(x: u8) -> R { g.names() }");
        assert!(text.contains("MultiLockGuard"), "{text}");
    }
    let array = |count: usize| {
        let names = (0..count).map(|index| format!("\"{index}:{{x}}\""));
        names.collect::<Vec<_>>().join(", ")
    };
    for (count, mistakes_expected) in [(1, 0), (16, 0), (17, 1), (40, 1)] {
        let args = format!("name = [{}]", array(count));
        let found = mistakes(&args, "async fn f(x: u8) -> R {}");
        assert_eq!(found.len(), mistakes_expected, "{found:#?}");
    }
    let found = mistakes("name = [\"{y}\", \"{z}\"]", "async fn f() -> R {}");
    assert_eq!(found.len(), 2, "each name has its own mistake: {found:#?}");
    let misspelt = expanded(
        "nmae = [\"a\", \"b\"], guard = g",
        "async fn f() -> R { g.names() }",
    );
    assert!(misspelt.contains("MultiLockGuard"), "{misspelt}");
}
