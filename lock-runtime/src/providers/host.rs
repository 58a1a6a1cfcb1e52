//! Who holds a lock, as a person who looks at the server reads it.

/// This machine's name; whatever would not fit into an owner is replaced.
pub(crate) fn host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name: String = name
        .chars()
        .take(64)
        .map(|c| if fits(c) { c } else { '-' })
        .collect();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name
    }
}
