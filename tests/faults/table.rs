//! The table of faults in `README.md` names tests that exist.

lock_tests::check_fault_table!(more_than 50);
