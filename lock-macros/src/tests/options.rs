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
           timeout = "x", name = """#,
        "async fn f() -> R {}",
    );
    let expected = [
        "`name`",
        "`min_hold`",
        "`lease`",
        "expected a number before `x`",
        "`on_unavailable`",
        "`provider`",
        "`guard`",
        "`release`",
        "`crate`",
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
