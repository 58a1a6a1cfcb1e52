//! Skips a test whose server is not installed, or fails it where the server is required.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable that names the servers that must be there, separated by commas, or says `all`.
pub const REQUIRE: &str = "LOCK_TESTS_REQUIRE";

/// Tells whether a missing server is a failure, by the environment.
pub fn is_required(server: &str) -> bool {
    required_by(&std::env::var(REQUIRE).unwrap_or_default(), server)
}

fn required_by(list: &str, server: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|wanted| wanted == "all" || wanted == server)
}

/// Finds the program of a server: the one that the environment variable names, or the first of
/// `programs` on the search path. `None` after printing why the test is skipped.
///
/// # Panics
///
/// If there is no such program and [`REQUIRE`] asks for the server.
pub fn find_server(server: &str, variable: &str, programs: &[&str]) -> Option<PathBuf> {
    let found = match std::env::var_os(variable) {
        Some(program) => on_search_path(&program),
        None => programs
            .iter()
            .find_map(|program| on_search_path(&OsString::from(program))),
    };
    if found.is_none() {
        let why = format!("{server} is not installed (looked for {programs:?} and in {variable})");
        assert!(!is_required(server), "{why}, and {REQUIRE} asks for it");
        because(&why);
    }
    found
}

/// Finds a file that a server is made of: the one that the environment variable names, or the usual
/// one. `None` after printing why the test is skipped.
///
/// # Panics
///
/// If there is no such file and [`REQUIRE`] asks for the server.
pub fn find_file(server: &str, variable: &str, usual: &Path) -> Option<PathBuf> {
    let file = std::env::var_os(variable).map_or_else(|| usual.to_owned(), PathBuf::from);
    let found = file.is_file().then_some(file);
    if found.is_none() {
        let why = format!("{server} is not installed (looked for {usual:?} and in {variable})");
        assert!(!is_required(server), "{why}, and {REQUIRE} asks for it");
        because(&why);
    }
    found
}

/// Prints that this test is skipped, and why, in a form that is easy to find in the output.
pub fn because(why: &str) {
    // Not `println!`, which the test harness keeps to itself when a test passes.
    use std::io::Write;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

fn on_search_path(program: &OsString) -> Option<PathBuf> {
    let as_given = PathBuf::from(program);
    if as_given.components().count() > 1 {
        return as_given.is_file().then_some(as_given);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_or_all_requires() {
        assert!(required_by("all", "redis"));
        assert!(required_by("postgres, redis", "redis"));
        assert!(!required_by("postgres", "redis"));
        assert!(!required_by("", "redis"));
    }
}
