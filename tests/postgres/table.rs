//! The table of faults in `README.md` names tests that exist.

use std::path::Path;

const TABLE: &str = include_str!("README.md");
const BINARIES: [&str; 3] = ["conformance", "postgres", "runtime"];

#[test]
fn every_test_of_the_table_exists() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let count = lock_tests::fault_table::check(TABLE, tests, &BINARIES);
    assert!(count > 30, "{count} tests in the table");
}
