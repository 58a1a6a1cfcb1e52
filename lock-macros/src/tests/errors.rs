use super::mistakes;
use crate::errors::Errors;

#[test]
fn all_mistakes_of_a_function_come_together() {
    let found = mistakes(
        r#"nam = "x", timeout = "5", lease = "1ms", guard = 3, crate = here, frob = 1,
           timeout = 2"#,
        "const fn settle() {}",
    );
    let expected = [
        "`nam`",
        "`frob`",
        "`timeout` is given twice",
        "no unit",
        "too short",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn a_misspelt_name_is_not_missing_as_well() {
    assert_eq!(mistakes(r#"nam = "x""#, "async fn f() -> R {}").len(), 1);
    assert_eq!(mistakes(r#""x""#, "async fn f() -> R {}").len(), 1);
    assert_eq!(mistakes("", "async fn f() -> R {}").len(), 1);
}

#[test]
fn messages_are_lower_case_and_have_no_full_stop() {
    let items = [
        "struct S;",
        "fn f() {}",
        "const fn f() {}",
        "async fn f();",
        "async fn f(a: u8) {}",
    ];
    let args = [
        "",
        "5",
        "name",
        "name = 5",
        r#"name = """#,
        r#"name = "{b}{}{:?}{a:?}{a.}{a.b(1)}""#,
        r#"name = "x", lease = "0s", max_hold = "0s", min_hold = "0s", timeout = "x",
           guard = "a", crate = "b""#,
        r#"name = "x", on_unavailable = "y", provider = "", lease = 5, max_hold = 5,
           min_hold = 5, guard = 5, release = 5"#,
        r#"name = "x", release = "y""#,
        r#"name = "x", release = confirmed"#,
        r#"name = "x", min_hold = "25h", lease = "25h", timeout = "never""#,
        r#"name = "x", min_hold = "2s", max_hold = "1s""#,
        r#"name = "x", mode = "raed", permits = 0, take = -1"#,
        r#"name = "x", mode = write, permits = "3", take = 3, min_hold = "1s""#,
        r#"name = "x", mode = "read", permits = 1.5, take = "two", min_hold = "1s""#,
        r#"name = "x", mode = m(), permits = 4294967296, take = true"#,
        r#"name = "x", mode = 1, take = 2"#,
        r#"name = "x", permits = 3, take = 4"#,
        r#"name = "x", take = 4"#,
    ];
    for item in items {
        for args in args {
            for message in mistakes(args, item) {
                assert!(!message.ends_with('.'), "{message}");
                assert!(!message.starts_with(char::is_uppercase), "{message}");
            }
        }
    }
}

#[test]
#[should_panic = "nobody looked"]
fn mistakes_that_nobody_looks_at_are_a_defect() {
    drop(Errors::default());
}

#[test]
fn no_mistakes_are_no_error() {
    assert!(Errors::default().finish().is_ok());
}
