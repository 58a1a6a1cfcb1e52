//! The table of faults in `README.md` names tests that exist.

use std::path::Path;

const TABLE: &str = include_str!("README.md");
const BINARIES: [&str; 4] = ["conformance", "faults", "redis", "runtime"];

#[test]
fn every_test_of_the_table_exists() {
    let names = TABLE.split('`').filter_map(|code| {
        let (binary, test) = code.split_once(' ')?;
        let (module, test) = test.split_once("::")?;
        BINARIES.contains(&binary).then_some((binary, module, test))
    });
    let mut count = 0;
    for (binary, module, test) in names {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join(binary);
        // The cases of the conformance suite are made by a macro, a module for each provider.
        let (file, text) = if binary == "conformance" {
            (tests.join("suite.rs"), test.to_owned())
        } else {
            let file = tests.join(module).with_extension("rs");
            let file = if file.exists() {
                file
            } else {
                tests.join(module).join("mod.rs")
            };
            (file, format!("#[test]\nfn {test}()"))
        };
        let source = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let plain = without_conditions(&source);
        assert!(plain.contains(&text), "no `{test}` in {}", file.display());
        count += 1;
    }
    assert!(count > 50, "{count} tests in the table");
}

/// No test is ignored, so an `#[ignore]` that comes back is one that this does not find.
fn without_conditions(source: &str) -> String {
    let kept = source.lines().filter(|line| !line.starts_with("#[cfg"));
    kept.collect::<Vec<_>>().join("\n")
}
