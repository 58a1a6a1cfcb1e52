//! What the attribute refuses, and in which words: a mistake a file in `fail`, with what the
//! compiler prints beside it. What it must take without a warning is in `pass`.
//!
//! `TRYBUILD=overwrite cargo test --test ui` writes the expected output anew.

#[test]
fn fail() {
    trybuild::TestCases::new().compile_fail("fail/*.rs");
}

#[test]
fn pass() {
    trybuild::TestCases::new().pass("pass/*.rs");
}
