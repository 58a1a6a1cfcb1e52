//! Tables in Markdown whose cells name tests, and the check that those tests exist.
//!
//! A test is named as `binary module::test`, between backticks. A case of the conformance suite is
//! named as `conformance provider::case`.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// Makes the test that every test which the `README.md` beside this file names exists.
///
/// The number is a lower bound of how many it names.
#[macro_export]
macro_rules! check_fault_table {
    (more_than $count:literal) => {
        #[test]
        fn every_test_of_the_table_exists() {
            let count = $crate::test_table::check(include_str!("README.md"));
            assert!(count > $count, "{count} tests in the table");
        }
    };
}

/// Makes the test that the matrix in this file, relative to the caller's, is complete.
///
/// The number is a lower bound of how many tests it names.
#[macro_export]
macro_rules! check_matrix {
    ($file:literal, more_than $count:literal) => {
        #[test]
        fn every_guarantee_has_a_test_or_a_reason() {
            let count = $crate::test_table::check_matrix(include_str!($file));
            assert!(count > $count, "{count} tests in the matrix");
        }
    };
}

/// The test binaries that a table may name.
const BINARIES: [&str; 7] = [
    "conformance",
    "faults",
    "macros",
    "postgres",
    "redis",
    "runtime",
    "zookeeper",
];

/// A column of the matrix: its title, the provider in the conformance suite, and the modules and
/// binaries whose tests are about that provider.
struct Column {
    title: &'static str,
    conformance: &'static [&'static str],
    binaries: &'static [&'static str],
}

const COLUMNS: [Column; 5] = [
    Column {
        title: "in process",
        conformance: &[
            "in_process",
            "in_process_write",
            "in_process_only_permit",
            "in_process_last_permit",
        ],
        binaries: &["runtime", "macros"],
    },
    Column {
        title: "file",
        conformance: &[
            "file",
            "file_modes",
            "file_only",
            "file_permits",
            "file_shared",
            "file_write",
            "file_only_permit",
            "file_last_permit",
        ],
        binaries: &["runtime", "macros"],
    },
    Column {
        title: "PostgreSQL",
        conformance: &[
            "postgres",
            "postgres_write",
            "postgres_only_permit",
            "postgres_last_permit",
        ],
        binaries: &["postgres", "runtime", "macros"],
    },
    Column {
        title: "Redis",
        conformance: &[
            "redis",
            "redis_least_privilege",
            "redis_sentinel",
            "redis_write",
            "redis_only_permit",
            "redis_last_permit",
        ],
        binaries: &["redis", "faults", "runtime", "macros"],
    },
    Column {
        title: "ZooKeeper",
        conformance: &[
            "zookeeper",
            "zookeeper_write",
            "zookeeper_only_permit",
            "zookeeper_last_permit",
        ],
        binaries: &["zookeeper", "runtime", "macros"],
    },
];

/// Checks every test that a text names, and returns how many there are.
///
/// # Panics
///
/// If one of them does not exist.
pub fn check(text: &str) -> usize {
    let names = || text.split('`').filter_map(Name::parse);
    for name in names() {
        name.find().unwrap_or_else(|why| panic!("{name}: {why}"));
    }
    names().count()
}

/// Checks the matrix in a text, guarantee by provider, and returns how many tests it names.
///
/// Each cell names tests that exist and are about its provider, or is `n/a`, or is a dash and the
/// reason why there is no test.
///
/// # Panics
///
/// If a column is missing, or a cell is anything else.
pub fn check_matrix(text: &str) -> usize {
    judge_matrix(text).unwrap_or_else(|why| panic!("{why}"))
}

fn judge_matrix(text: &str) -> Result<usize, String> {
    let lines = text.lines();
    let mut rows = lines.skip_while(|line| !line.starts_with("| guarantee |"));
    let titles = cells(rows.next().ok_or("there is no matrix")?);
    let expected: Vec<_> = COLUMNS.iter().map(|column| column.title).collect();
    if titles[1..] != expected {
        return Err(format!("the columns are {titles:?}"));
    }
    let mut count = 0;
    // The first row after the titles is the rule below them.
    for row in rows.skip(1).take_while(|row| row.starts_with('|')) {
        let cells = cells(row);
        let (guarantee, cells) = cells.split_first().ok_or("an empty row")?;
        if cells.len() != COLUMNS.len() {
            return Err(format!("{guarantee}: {} cells", cells.len()));
        }
        for (column, cell) in COLUMNS.iter().zip(cells) {
            let judged = column.judge(cell);
            count += judged.map_err(|why| format!("{guarantee}, {}: {why}", column.title))?;
        }
    }
    Ok(count)
}

fn cells(row: &str) -> Vec<&str> {
    row.trim()
        .trim_matches('|')
        .split('|')
        .map(str::trim)
        .collect()
}

impl Column {
    /// Returns how many tests a cell names.
    fn judge(&self, cell: &str) -> Result<usize, String> {
        if cell == "n/a" {
            return Ok(0);
        }
        if let Some(reason) = cell.strip_prefix('–') {
            if reason.trim().is_empty() {
                return Err("a dash without a reason".to_owned());
            }
            // A reason may name tests that show something near.
            for name in reason.split('`').filter_map(Name::parse) {
                name.find().map_err(|why| format!("{name}: {why}"))?;
            }
            return Ok(0);
        }
        let mut count = 0;
        for code in cell.split(", ") {
            let quoted = code.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
            let name = quoted.and_then(Name::parse);
            let name = name.ok_or_else(|| format!("`{code}` is no name of a test"))?;
            if !self.is_about(&name) {
                return Err(format!("{name} is about another provider"));
            }
            name.find().map_err(|why| format!("{name}: {why}"))?;
            count += 1;
        }
        Ok(count)
    }

    fn is_about(&self, name: &Name) -> bool {
        match name.binary {
            "conformance" => self.conformance.contains(&name.modules[0]),
            binary => self.binaries.contains(&binary),
        }
    }
}

/// A test, as a table names it.
struct Name<'a> {
    binary: &'a str,
    modules: Vec<&'a str>,
    test: &'a str,
}

impl<'a> Name<'a> {
    /// Parses `binary module::test`. `None` for anything else that stands between backticks.
    fn parse(code: &'a str) -> Option<Self> {
        let (binary, path) = code.split_once(' ')?;
        let (modules, test) = path.rsplit_once("::")?;
        let modules: Vec<_> = modules.split("::").collect();
        let is_word = |word: &str| {
            let is_in_one = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            !word.is_empty() && word.chars().all(is_in_one)
        };
        let is_name = is_word(binary) && is_word(test) && modules.iter().all(|it| is_word(it));
        is_name.then_some(Self {
            binary,
            modules,
            test,
        })
    }

    /// Looks for the test in the sources below `tests`.
    fn find(&self) -> Result<(), String> {
        if !BINARIES.contains(&self.binary) {
            return Err("there is no such binary".to_owned());
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.binary);
        let file = self.file(&folder);
        // The conformance suite makes a module for each provider, which is no file.
        if self.binary == "conformance" && !file.exists() {
            return self.find_case(&folder);
        }
        let source = without_conditions(&read(&file)?);
        let test = self.test;
        let plain = format!("#[test]\nfn {test}()");
        let on_tokio = format!("#[tokio::test]\nasync fn {test}()");
        match source.contains(&plain) || source.contains(&on_tokio) {
            true => Ok(()),
            false => Err(format!("no such test in {}", file.display())),
        }
    }

    fn file(&self, folder: &Path) -> PathBuf {
        let module = folder.join(self.modules.join("/"));
        let file = module.with_extension("rs");
        match file.exists() {
            true => file,
            false if module.is_dir() => module.join("mod.rs"),
            false => file,
        }
    }

    /// Looks for a case in the groups that the provider is tested for.
    fn find_case(&self, folder: &Path) -> Result<(), String> {
        let [provider] = self.modules[..] else {
            return Err("a case has one provider".to_owned());
        };
        let main = read(&folder.join("main.rs"))?;
        let (_, groups) = main
            .split_once(&format!("\nconformance!({provider}:"))
            .ok_or("the suite knows no such provider")?;
        let (groups, _) = groups.split_once(");").ok_or("a list without an end")?;
        let suite = read(&folder.join("suite.rs"))?;
        let mut groups = groups.split(',').map(str::trim).chain(["all"]);
        match groups.any(|group| cases(&suite, group).contains(self.test)) {
            true => Ok(()),
            false => Err("the suite has no such case for this provider".to_owned()),
        }
    }
}

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            binary,
            modules,
            test,
        } = self;
        write!(f, "`{binary} {}::{test}`", modules.join("::"))
    }
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Returns the cases of a group: the names that follow `=> module:` in its arm of the macro.
fn cases<'a>(suite: &'a str, group: &str) -> HashSet<&'a str> {
    let arms = suite.split("\n    (");
    let arm = arms
        .filter_map(|arm| arm.strip_prefix(group)?.strip_prefix(" $provider:ident"))
        .next()
        .unwrap_or_default();
    let lists = arm.split("cases!(").skip(1).filter_map(|list| {
        let (_, list) = list.split_once("=>")?.1.split_once(':')?;
        list.split(')').next()
    });
    lists
        .flat_map(|list| list.split(',').map(str::trim))
        .collect()
}

/// Removes lines that begin with `#[cfg`, so that a test with a condition is found.
///
/// No test is ignored, so an `#[ignore]` that comes back is one that this does not find.
fn without_conditions(source: &str) -> String {
    let kept = source.lines().filter(|line| !line.starts_with("#[cfg"));
    kept.collect::<Vec<_>>().join("\n")
}
