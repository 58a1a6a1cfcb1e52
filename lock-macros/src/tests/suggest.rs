use crate::suggest::nearest;

#[test]
fn misspelt_words() {
    let words = [
        "name",
        "timeout",
        "lease",
        "max_hold",
        "on_unavailable",
        "guard",
    ];
    let near = |word| nearest(word, words);
    assert_eq!(near("nam"), Some("name"));
    assert_eq!(near("Name"), Some("name"));
    assert_eq!(near("nmae"), Some("name"));
    assert_eq!(near("timout"), Some("timeout"));
    assert_eq!(near("time_out"), Some("timeout"));
    assert_eq!(near("onUnavailable"), Some("on_unavailable"));
    assert_eq!(near("maxhold"), Some("max_hold"));
    assert_eq!(near("gaurd"), Some("guard"));
    assert_eq!(near("retries"), None);
    assert_eq!(near("id"), None);
    assert_eq!(near(""), None);
}
