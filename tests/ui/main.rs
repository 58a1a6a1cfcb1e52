//! The mistakes that the attribute refuses, and its words for them. Each file in `fail` makes one
//! mistake, and what the compiler prints is beside it. Code that the attribute must take without a
//! warning is in `pass`.
//!
//! Running `TRYBUILD=overwrite cargo test --test ui` writes the expected output anew.

#[test]
fn fail() {
    trybuild::TestCases::new().compile_fail("fail/*.rs");
}

#[test]
fn pass() {
    trybuild::TestCases::new().pass("pass/*.rs");
}
