//! The table in README.md of what each provider can do, which is made of what they say.

use std::path::Path;
use std::sync::Mutex;

use lock_runtime::Capabilities;

const BEGIN: &str = "<!-- what each provider can do; UPDATE_EXPECT=1 writes it -->\n";

/// Makes the row of a provider.
fn row(capabilities: Capabilities) -> String {
    let cells = [
        capabilities.read_write,
        capabilities.upgradeable,
        capabilities.semaphore,
        capabilities.many_permits,
        capabilities.fencing_tokens,
        capabilities.fair,
        capabilities.lease.is_some(),
        capabilities.holders,
    ];
    let cells = cells.map(|has| if has { "yes" } else { "–" });
    format!("| `{}` | {} |", capabilities.provider, cells.join(" | "))
}

/// Checks that the table has the row of this provider, and no other of its name.
pub(crate) fn check(capabilities: Capabilities) {
    static FILE: Mutex<()> = Mutex::new(());
    let _alone = FILE.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path).expect("README.md can be read");
    let (before, table) = text.split_once(BEGIN).expect("the table");
    let expected = row(capabilities);
    let begin = format!("| `{}` |", capabilities.provider);
    let table: Vec<_> = table.lines().collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let mut lines = table.clone();
        for line in &mut lines {
            if line.starts_with(&begin) {
                *line = &expected;
            }
        }
        let text = format!("{before}{BEGIN}{}\n", lines.join("\n"));
        std::fs::write(&path, text).expect("README.md can be written");
        return;
    }
    let rows = table.iter().filter(|line| line.starts_with(&begin));
    let rows: Vec<_> = rows.copied().collect();
    assert_eq!(rows, [expected], "what README.md says of the provider");
}

#[test]
fn a_row_says_what_a_provider_has() {
    let plain = Capabilities::new("plain");
    assert_eq!(row(plain), "| `plain` | – | – | – | – | – | – | – | – |");
    let more = plain.with_upgradeable().with_many_permits().with_holders();
    let expected = "| `plain` | yes | yes | yes | yes | – | – | – | yes |";
    assert_eq!(row(more), expected);
}
