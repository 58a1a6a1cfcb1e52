//! No lint fires for an annotated function that does not fire for the same function without the
//! attribute: `shapes.rs.txt` is compiled both ways under every lint of rustc and Clippy.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const SHAPES: &str = include_str!("shapes.rs.txt");

/// The items that every shape may use.
const PRELUDE: &str = "
    #[allow(unused_imports)]
    use std::{
        convert::Infallible, error::Error, fmt::Display, rc::Rc, sync::{Arc, Mutex, PoisonError},
        time::Duration,
    };
    #[allow(unused_imports)]
    use async_trait::async_trait;
    #[allow(unused_imports)]
    use lock_runtime::{LockError, LockName, LockProvider, distributed_lock};
    #[allow(unused_imports)]
    use crate::{guard, locks, permit, read_guard, work, write_guard};
";

const LIBRARY: &str = "
pub mod annotated;
pub mod bare;
pub async fn work() {}
pub fn guard() -> &'static lock_runtime::LockGuard { loop {} }
pub fn read_guard() -> &'static lock_runtime::RwLockReadGuard { loop {} }
pub fn write_guard() -> &'static lock_runtime::RwLockWriteGuard { loop {} }
pub fn permit() -> &'static lock_runtime::SemaphorePermit { loop {} }
pub fn locks() -> &'static lock_runtime::MultiLockGuard { loop {} }
";

#[test]
fn edition_2021() {
    no_lint_more("2021");
}

#[test]
fn edition_2024() {
    no_lint_more("2024");
}

fn no_lint_more(edition: &str) {
    let clippy = Command::new("cargo").args(["clippy", "--version"]).output();
    if !clippy.is_ok_and(|output| output.status.success()) {
        let required = std::env::var("LOCK_TESTS_REQUIRE").is_ok_and(|required| required == "all");
        assert!(!required, "Clippy is not installed");
        println!("skipped: Clippy is not installed");
        return;
    }
    let directory = scratch(edition);
    let bare = write_module(&directory, "bare", false, dependency(edition));
    let annotated = write_module(&directory, "annotated", true, dependency(edition));
    let fired = lint(&directory);
    let mut more = String::new();
    let shapes: Vec<&str> = shapes().map(|(shape, _)| shape).collect();
    for shape in &shapes {
        let of = |lines: &BTreeMap<usize, &str>, file: &str| {
            let mut counts: BTreeMap<&str, Vec<&Lint>> = BTreeMap::new();
            for lint in &fired {
                let shape_of_line = lines.range(..=lint.line).next_back();
                if lint.file.ends_with(file) && shape_of_line.is_some_and(|(_, of)| of == shape) {
                    counts.entry(&lint.name).or_default().push(lint);
                }
            }
            counts
        };
        let allowed = of(&bare, "bare.rs");
        for (name, lints) in of(&annotated, "annotated.rs") {
            if lints.len() > allowed.get(name).map_or(0, Vec::len) {
                for lint in lints {
                    let _ = writeln!(more, "{shape}: {name}\n{}", lint.rendered);
                }
            }
        }
    }
    assert!(more.is_empty(), "edition {edition}:\n{more}");
    // The lints were on: some fire for every function.
    assert!(
        fired.len() > 10 * shapes.len(),
        "only {} fired",
        fired.len()
    );
}

/// Lists the shapes, each with its name.
fn shapes() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHAPES
        .split("// shape: ")
        .skip(1)
        .filter_map(|shape| shape.split_once('\n'))
}

/// Returns what the scratch crate calls the runtime; the attribute finds it under another name,
/// too.
fn dependency(edition: &str) -> &'static str {
    match edition {
        "2021" => "locks",
        _ => "lock_runtime",
    }
}

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace.join(target)
}

/// Makes the crate that is to be looked at.
fn scratch(edition: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = target().join(format!("lints/edition-{edition}"));
    std::fs::create_dir_all(directory.join("src")).expect("the target directory is writable");
    let name = dependency(edition);
    let manifest = format!(
        "[package]
        name = \"shapes-{edition}\"
        version = \"0.0.0\"
        edition = \"{edition}\"
        publish = false
        [dependencies]
        async-trait = \"0.1\"
        tracing = \"0.1\"
        {name} = {{ package = \"lock-runtime\", path = {:?} }}
        [workspace]
        ",
        workspace
            .join("lock-runtime")
            .canonicalize()
            .expect("the crate is there"),
    );
    write(&directory.join("Cargo.toml"), &manifest);
    std::fs::copy(workspace.join("Cargo.lock"), directory.join("Cargo.lock"))
        .expect("the workspace is locked");
    write(
        &directory.join("src/lib.rs"),
        &LIBRARY.replace("lock_runtime", name),
    );
    directory
}

/// Writes the shapes; returns the line where each begins.
fn write_module(
    directory: &Path,
    name: &str,
    annotated: bool,
    root: &str,
) -> BTreeMap<usize, &'static str> {
    let mut source = String::new();
    let mut begins = BTreeMap::new();
    for (shape, code) in shapes() {
        begins.insert(source.lines().count() + 1, shape);
        let code = if annotated {
            code.to_owned()
        } else {
            without_attributes(code)
        };
        let _ = writeln!(source, "pub mod {shape} {{{PRELUDE}{code}}}");
    }
    let source = source.replace("lock_runtime", root);
    write(&directory.join(format!("src/{name}.rs")), &source);
    begins
}

/// Takes the attributes out, and keeps the number of lines.
fn without_attributes(code: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in code.lines() {
        inside |= line.trim_start().starts_with("#[distributed_lock(");
        if !inside {
            kept.push_str(&line.replacen("//bare:", "", 1));
        }
        kept.push('\n');
        inside &= !line.ends_with(")]");
    }
    kept
}

/// Writes a file, unless it has that text already: a file that is written is built again.
fn write(path: &Path, text: &str) {
    if std::fs::read_to_string(path).ok().as_deref() != Some(text) {
        std::fs::write(path, text).expect("the target directory is writable");
    }
}

struct Lint {
    is_warning: bool,
    name: String,
    file: String,
    line: usize,
    rendered: String,
}

/// Runs Clippy with every lint on.
fn lint(directory: &Path) -> Vec<Lint> {
    let mut clippy = Command::new("cargo");
    clippy
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target().join("lints/target"))
        .args([
            "clippy",
            "--offline",
            "--quiet",
            "--message-format=json",
            "--",
        ])
        .args(
            ["restriction", "pedantic", "nursery", "cargo", "all"]
                .map(|group| format!("-Wclippy::{group}")),
        )
        .args(rustc_lints().iter().map(|lint| format!("-W{lint}")));
    let output = clippy.output().expect("cargo runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (lints, errors): (Vec<Lint>, Vec<Lint>) = stdout
        .lines()
        .filter_map(lint_of)
        .partition(|lint| lint.is_warning);
    let errors: String = errors.into_iter().map(|error| error.rendered).collect();
    assert!(
        output.status.success(),
        "{errors}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    lints
}

/// Lists the lints and the groups of rustc that are not on by themselves.
fn rustc_lints() -> Vec<String> {
    let help = Command::new("rustc")
        .args(["-W", "help"])
        .output()
        .expect("rustc runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let allowed = |line: &&str| line.split_whitespace().nth(1) == Some("allow");
    let lints = help.lines().filter(allowed);
    let lints = lints.filter_map(|line| line.split_whitespace().next());
    let groups = [
        "future-incompatible",
        "rust-2018-idioms",
        "rust-2021-compatibility",
        "rust-2024-compatibility",
        "unused",
        "nonstandard-style",
        "let-underscore",
        "keyword-idents",
    ];
    let all: Vec<String> = lints.chain(groups).map(str::to_owned).collect();
    assert!(all.len() > 40, "{help}");
    all
}

fn lint_of(line: &str) -> Option<Lint> {
    let message: Value = serde_json::from_str(line).expect("cargo speaks JSON");
    let message = message.get("message")?;
    let name = message.get("code")?.get("code")?.as_str()?.to_owned();
    let spans = message.get("spans")?.as_array()?;
    let primary = spans.iter().find(|span| span["is_primary"] == true)?;
    Some(Lint {
        is_warning: message["level"] == "warning",
        name,
        file: primary["file_name"].as_str()?.to_owned(),
        line: usize::try_from(primary["line_start"].as_u64()?).ok()?,
        rendered: message["rendered"].as_str()?.to_owned(),
    })
}
