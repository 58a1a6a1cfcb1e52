//! Every name that keeps the rule works, unchanged; every other one is refused.

use lock_runtime::LockErrorKind;

use super::Shared;

pub(crate) async fn case_sensitivity(fixture: Shared) {
    let _lower = fixture.lock("lock name").acquire().await.unwrap();
    let upper = fixture.lock("LOCK NAME").try_acquire().await.unwrap();
    assert!(upper.is_some(), "another lock");
    fixture.assert_held(&fixture.lock("lock name")).await;
}

/// All of them are held at once, so two that the provider takes for one would clash.
pub(crate) async fn odd_names_are_distinct(fixture: Shared) {
    let mut names: Vec<String> = [
        "/",
        "//",
        "\\",
        ".",
        "..",
        "...",
        "/a",
        "a/",
        "a//b",
        "a/b",
        "a\\b",
        "a b",
        "a  b",
        " a",
        "a ",
        "\t",
        "\n",
        "\r\n",
        "\u{1}",
        "\u{7f}",
        "{a}",
        "{",
        "}",
        "{}",
        "{a",
        "a}",
        "{a}b",
        "\"",
        "'",
        "`",
        "''",
        "'; --",
        "%",
        "%2F",
        "%s",
        "a:b",
        "a:b:",
        "*",
        "?",
        ">",
        "a.b",
        "#",
        "é",
        "e\u{301}",
        "ß",
        "SS",
        "ss",
        "İ",
        "ı",
        "漢",
        "🦉",
        "🦉🦉",
        "\u{feff}",
        "\u{200b}",
        "-",
        "_",
        "__",
        "0",
        "00",
        "null",
        "CON",
        "NUL",
        "a.lock",
        "lk1:fence",
        "zookeeper",
        "..\u{2f}x",
        "a|b",
        "a|b|1|1|1",
    ]
    .map(str::to_owned)
    .into();
    // Alike for longer than a server's limit.
    for length in [
        26, 27, 28, 31, 32, 33, 63, 64, 65, 191, 192, 193, 255, 256, 257,
    ] {
        names.push("x".repeat(length));
        names.push("x".repeat(length - 1) + "y");
        names.push("漢".repeat(length));
    }
    let mut guards = Vec::new();
    for name in &names {
        let guard = fixture.lock(name).try_acquire().await.unwrap();
        guards.push(guard.unwrap_or_else(|| panic!("{name:?} is a lock of its own")));
    }
    for name in &names {
        fixture.assert_held(&fixture.lock(name)).await;
    }
    for guard in guards {
        guard.release().await.unwrap();
    }
    for name in &names {
        fixture.assert_free(&fixture.lock(name)).await;
    }
}

pub(crate) async fn longest_name(fixture: Shared) {
    let common = "n".repeat(1_023);
    let one = fixture.lock(format!("{common}1"));
    let guard = one.acquire().await.unwrap();
    fixture.assert_held(&one).await;
    assert!(
        fixture
            .lock(format!("{common}2"))
            .try_acquire()
            .await
            .unwrap()
            .is_some()
    );
    guard.release().await.unwrap();
    let owls = "🦉".repeat(256);
    assert!(fixture.lock(owls).try_acquire().await.unwrap().is_some());
}

pub(crate) async fn bad_names(fixture: Shared) {
    for name in [
        String::new(),
        "a\0b".to_owned(),
        "\0".to_owned(),
        "x".repeat(1_025),
    ] {
        let lock = fixture.lock(&name);
        let errors = [
            lock.acquire().await.unwrap_err(),
            lock.acquire_for(fixture.bound()).await.unwrap_err(),
            lock.try_acquire().await.unwrap_err(),
            lock.try_acquire_for(fixture.bound()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), LockErrorKind::InvalidName, "{name:.20?}");
        }
    }
}
