//! The name of `lock-runtime` in the crate that is compiled: its `Cargo.toml` may choose another.

use std::path::Path;

const PACKAGE: &str = "lock-runtime";

/// Finds the name under which the crate depends on `lock-runtime`, if it is another name.
pub(crate) fn renamed() -> Option<String> {
    let directory = std::env::var_os("CARGO_MANIFEST_DIR")?;
    let directory = Path::new(&directory);
    let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).ok()?;
    let read = |directory: &Path| std::fs::read_to_string(directory.join("Cargo.toml")).ok();
    let name = renamed_in(&manifest, || {
        let mut manifests = directory.ancestors().skip(1).filter_map(read);
        manifests.find(|manifest| manifest.contains("[workspace"))
    });
    name.filter(|name| syn::parse_str::<syn::Ident>(name).is_ok())
}

/// Finds that name in the crate's manifest, or in the manifest of the workspace around the crate.
pub(crate) fn renamed_in(
    manifest: &str,
    workspace: impl FnOnce() -> Option<String>,
) -> Option<String> {
    let entries = dependencies(manifest);
    // The expansion can use the package's own name, whatever other names the package has.
    if entries
        .iter()
        .any(|entry| name_of(entry.key) == name_of(PACKAGE))
    {
        return None;
    }
    let names_package = |entry: &&Entry<'_>| entry.sets("package", &format!("\"{PACKAGE}\""));
    if let Some(entry) = entries.iter().find(names_package) {
        return Some(name_of(entry.key));
    }
    let inherited = entries
        .iter()
        .filter(|entry| entry.sets("workspace", "true"));
    let mut inherited = inherited.peekable();
    inherited.peek()?;
    let workspace = workspace()?;
    let shared = dependencies(&workspace);
    let renamed = |entry: &&Entry<'_>| {
        let mut same = shared.iter().filter(|shared| shared.key == entry.key);
        same.any(|shared| names_package(&shared))
    };
    inherited.find(renamed).map(|entry| name_of(entry.key))
}

/// Returns the name of a dependency as the crate's code writes it.
fn name_of(key: &str) -> String {
    key.replace('-', "_")
}

/// One line of a table of dependencies.
struct Entry<'a> {
    key: &'a str,
    /// What the line says of the key, without spaces.
    value: String,
}

impl Entry<'_> {
    /// Tells whether the line gives a setting this value.
    fn sets(&self, setting: &str, value: &str) -> bool {
        let wanted = format!("{setting}={value}");
        let mut settings = self.value.split(['{', ',', '}']);
        settings.any(|setting| setting == wanted)
    }
}

/// Reads the tables of dependencies, as far as names and packages go.
fn dependencies(manifest: &str) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut table = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.split(']').next().unwrap_or_default().trim();
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let unspaced = |text: &str| text.split_whitespace().collect::<String>();
        if table.ends_with("dependencies") {
            // `name = { … }`, or `name.setting = …`.
            let (key, setting) = key.trim().split_once('.').unwrap_or((key.trim(), ""));
            let value = match setting {
                "" => unspaced(value),
                setting => unspaced(&format!("{setting}={value}")),
            };
            entries.push(Entry {
                key: key.trim_matches(['"', '\'']),
                value,
            });
        } else if let Some((tables, key)) = table.rsplit_once('.')
            && tables.ends_with("dependencies")
        {
            // A setting in a table of its own.
            entries.push(Entry {
                key: key.trim_matches(['"', '\'']),
                value: unspaced(line),
            });
        }
    }
    entries
}
