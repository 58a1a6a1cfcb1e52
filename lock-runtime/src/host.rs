//! What this machine and this process are called, for those who ask who holds a lock.

use once_cell::sync::Lazy;

/// Returns this machine's name; whatever would not fit into the text of an owner is replaced.
pub(crate) fn name() -> &'static str {
    static NAME: Lazy<String> = Lazy::new(|| {
        #[cfg(unix)]
        let name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        #[cfg(not(unix))]
        let name = std::env::var("COMPUTERNAME").unwrap_or_default();
        let name: String = name
            .chars()
            .take(LONGEST)
            .map(|c| if may_hold(c) { c } else { '-' })
            .collect();
        if name.is_empty() {
            "unknown".to_owned()
        } else {
            name
        }
    });
    &NAME
}

/// How long the name of a machine may be.
const LONGEST: usize = 64;

/// Tells whether the name of a machine may hold this.
fn may_hold(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// Tells whether [`name`] may have returned this, on whatever machine.
#[cfg_attr(not(feature = "_server"), allow(dead_code))]
pub(crate) fn fits(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len()) && name.chars().all(may_hold)
}

/// Returns what a process is called: `billing-7f9c (pid 4711)`.
pub(crate) fn label(host: &str, process: impl std::fmt::Display) -> String {
    format!("{host} (pid {process})")
}

/// Returns what this process is called.
pub(crate) fn own_label() -> &'static str {
    static LABEL: Lazy<(u32, String)> = Lazy::new(|| {
        let process = std::process::id();
        (process, label(name(), process))
    });
    match &*LABEL {
        (process, label) if *process == std::process::id() => label,
        // The process was forked after that was made.
        _ => "this process",
    }
}
