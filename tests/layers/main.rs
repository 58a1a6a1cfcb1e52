//! Checks that each file of the libraries uses only files of lower layers.
//!
//! The order of layers stands in ARCHITECTURE.md, in blocks that begin with ```` ```layers ````.

mod imports;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imports::{Crate, Import};
use lock_tests::Scratch;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads the layers of a crate from ARCHITECTURE.md, the lowest first.
fn layers(name: &str) -> Vec<String> {
    let path = repository().join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).expect("ARCHITECTURE.md can be read");
    let begin = format!("```layers {name}\n");
    let (_, block) = text.split_once(&begin).expect("a block for each crate");
    let (block, _) = block.split_once("```").expect("the block ends");
    order(block)
}

/// Returns the files of a block in order: several in a line, and what follows `#` is a comment.
/// After `directory:`, the indented lines name files of that directory.
fn order(block: &str) -> Vec<String> {
    let mut directory = String::new();
    let mut files = Vec::new();
    for line in block.lines() {
        let line = line.split('#').next().unwrap_or("");
        if !line.starts_with(' ') {
            directory.clear();
        }
        for word in line.split_whitespace() {
            match word.strip_suffix(':') {
                Some(named) => directory = format!("{named}/"),
                None => files.push(format!("{directory}{word}")),
            }
        }
    }
    files
}

/// Says what is wrong with a crate's imports, one line each.
fn faults(sources: &Path, order: &[String]) -> Vec<String> {
    let read = Crate::read(sources);
    let layer: BTreeMap<_, _> = order.iter().zip(0..).collect();
    let missing = read
        .files()
        .into_iter()
        .filter(|file| !layer.contains_key(file));
    let mut faults: Vec<_> = missing.map(|file| format!("{file} has no layer")).collect();
    let gone = order.iter().filter(|file| !read.files().contains(*file));
    faults.extend(gone.map(|file| format!("there is no file {file}")));
    for Import { from, to, line } in read.imports() {
        if layer.get(&from) <= layer.get(&to) {
            faults.push(format!(
                "{from}.rs:{line} uses {to}.rs, which is not below it"
            ));
        }
    }
    faults
}

fn assert_layered(name: &str) {
    let sources = repository().join(name).join("src");
    let faults = faults(&sources, &layers(name));
    assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
}

#[test]
fn each_file_of_the_runtime_uses_only_files_below_it() {
    assert_layered("lock-runtime");
}

#[test]
fn each_file_of_the_macros_uses_only_files_below_it() {
    assert_layered("lock-macros");
}

/// What the checker sees of a small crate, in which `low` is meant to use nothing.
fn faults_of_small_crate(low: &str) -> Vec<String> {
    let scratch = Scratch::new();
    let write = |name: &str, text: &str| {
        let path = scratch.join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the scratch")).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "lib.rs",
        "mod low; mod high; pub use high::{Hill, inner::Peak};",
    );
    write("low.rs", low);
    write(
        "high/mod.rs",
        "pub mod inner; use crate::low::Valley; pub struct Hill(Valley);",
    );
    write(
        "high/inner.rs",
        "pub struct Peak; impl Peak { pub fn new() -> Self { Self } }",
    );
    faults(
        scratch.path(),
        &order("low # the lowest\nhigh:\n  inner mod\nlib"),
    )
}

#[test]
fn an_upward_line_is_found_however_it_is_written() {
    let ways = [
        "use crate::high::Hill;",
        "use super::high::Hill as Mountain;",
        "use crate::Hill;",
        "use crate::high; fn climb(_: high::Hill) {}",
        "use crate::high::inner::*;",
        "fn climb() { let _ = crate::high::inner::Peak::new(); }",
        "fn climb() { println!(\"{:?}\", crate::Peak::new()); }",
        "mod path { use crate::Peak; }",
    ];
    for way in ways {
        let faults = faults_of_small_crate(&format!("pub struct Valley;\n{way}"));
        assert_eq!(faults.len(), 1, "{way}: {faults:?}");
        assert!(
            faults[0].starts_with("low.rs:2 uses high/"),
            "{way}: {faults:?}"
        );
    }
}

#[test]
fn what_is_no_import_is_not_found() {
    let ways = [
        "#[cfg(test)] mod tests { use crate::Hill; }",
        "use std::fmt; fn high() { let high = 1; let _ = high; }",
        "use crate::low::Valley as Itself;",
        "enum Side { High } fn side() -> Side { Side::High }",
    ];
    for way in ways {
        let faults = faults_of_small_crate(&format!("pub struct Valley;\n{way}"));
        assert_eq!(faults, Vec::<String>::new(), "{way}");
    }
}

#[test]
fn a_file_without_a_layer_is_found() {
    let faults = faults_of_small_crate("pub struct Valley; mod deep { }");
    assert_eq!(
        faults,
        Vec::<String>::new(),
        "a module in a file has its layer"
    );
    let scratch = Scratch::new();
    std::fs::write(scratch.join("lib.rs"), "mod low;").unwrap();
    std::fs::write(scratch.join("low.rs"), "").unwrap();
    let found = self::faults(scratch.path(), &order("lib gone"));
    assert_eq!(found, ["low has no layer", "there is no file gone"]);
}
