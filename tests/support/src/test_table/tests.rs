use super::*;

const TITLES: &str = "| guarantee | in process | file | PostgreSQL | Redis | ZooKeeper |\n|---|";

/// Judges a matrix whose row has this cell below Redis.
fn judge(cell: &str) -> Result<usize, String> {
    judge_matrix(&format!(
        "{TITLES}\n| one holder | n/a | n/a | n/a | {cell} | – none here |\n"
    ))
}

#[test]
fn tests_of_files_folders_and_of_the_suite_are_found() {
    for (cell, count) in [
        (
            "`faults loss::a_holder_frozen_for_three_leases_knows_it_and_is_fenced_off`",
            1,
        ),
        ("`faults nemesis::nothing_breaks_under_random_faults`", 1),
        ("`faults clocks::suspend_counts`", 1),
        ("`macros nesting::nested_calls`", 1),
        (
            "`runtime custom_providers::misbehaving::a_provider_that_blocks_is_named`",
            1,
        ),
        ("`conformance redis::mutual_exclusion`", 1),
        (
            "`conformance redis::tokens_grow`, `conformance redis::frozen_holder_is_lost`",
            2,
        ),
    ] {
        assert_eq!(judge(cell), Ok(count), "{cell}");
    }
}

#[test]
fn what_is_no_test_is_refused() {
    for (cell, why) in [
        ("", "no name of a test"),
        ("–", "without a reason"),
        ("see below", "no name of a test"),
        ("`faults loss::no_such_test`", "no such test"),
        ("`faults no_such_module::test`", "no_such_module.rs"),
        ("`fault loss::no_such_test`", "another provider"),
        ("`conformance redis::no_such_case`", "no such case"),
        ("`conformance redis::basic`", "no such case"),
        (
            "`conformance file_only::the_directory_stays_small`",
            "another provider",
        ),
        (
            "`postgres tokens::version_14_gives_no_tokens`",
            "another provider",
        ),
    ] {
        let judged = judge(cell).expect_err(cell);
        assert!(judged.contains(why), "{cell}: {judged}");
    }
    assert!(judge_matrix("| fault | shown by |\n").is_err());
    assert!(judge_matrix("| guarantee | Redis |\n|---|---|\n").is_err());
    assert!(judge_matrix(&format!("{TITLES}\n| one holder | n/a |\n")).is_err());
}

#[test]
fn a_case_of_a_group_that_a_provider_is_not_tested_for_is_refused() {
    let named = |code| Name::parse(code).expect("a name").find();
    assert_eq!(named("conformance redis::renewed_for_many_leases"), Ok(()));
    assert!(named("conformance file::renewed_for_many_leases").is_err());
    assert!(named("conformance nobody::mutual_exclusion").is_err());
}

#[test]
#[should_panic(expected = "there is no such binary")]
fn a_binary_that_there_is_not_is_refused() {
    check("a row with `fault loss::a_holder`");
}
