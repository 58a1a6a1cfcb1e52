//! The matrix of guarantees in `tests/README.md` names tests that exist.

lock_tests::check_matrix!("../README.md", more_than 150);
