//! Tables of faults, each with the tests that show it: they name tests that exist.

use std::path::Path;

/// Checks the tests that a table names: `binary module::test`, for these binaries. Their sources are
/// below `tests`. How many there are.
///
/// # Panics
///
/// If one of them does not exist.
pub fn check(table: &str, tests: &Path, binaries: &[&str]) -> usize {
    let names = table.split('`').filter_map(|code| {
        let (binary, test) = code.split_once(' ')?;
        let (module, test) = test.split_once("::")?;
        binaries.contains(&binary).then_some((binary, module, test))
    });
    let mut count = 0;
    for (binary, module, test) in names {
        let tests = tests.join(binary);
        // The cases of the conformance suite are made by a macro, a module for each provider.
        let (file, text) = if binary == "conformance" {
            (tests.join("suite.rs"), test.to_owned())
        } else {
            let file = tests.join(module).with_extension("rs");
            let file = match file.exists() {
                true => file,
                false => tests.join(module).join("mod.rs"),
            };
            (file, format!("#[test]\nfn {test}()"))
        };
        let source = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let plain = without_conditions(&source);
        assert!(plain.contains(&text), "no `{test}` in {}", file.display());
        count += 1;
    }
    count
}

/// No test is ignored, so an `#[ignore]` that comes back is one that this does not find.
fn without_conditions(source: &str) -> String {
    let kept = source.lines().filter(|line| !line.starts_with("#[cfg"));
    kept.collect::<Vec<_>>().join("\n")
}
