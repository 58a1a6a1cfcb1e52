//! The version of a server.

/// Reads the first two numbers of a version such as `7.0.15`, `15.10 (Debian)` or `19devel`.
/// Returns `None` if it does not begin with a number, as a fork's may not.
pub(crate) fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(leading_number);
    let major = parts.next()??;
    Some((major, parts.next().flatten().unwrap_or(0)))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(numbers("7.0.15"), Some((7, 0)));
        assert_eq!(numbers("10.1"), Some((10, 1)));
        assert_eq!(numbers("6"), Some((6, 0)));
        assert_eq!(numbers("15.10 (Debian 15.10-0+deb12u1)"), Some((15, 10)));
        assert_eq!(numbers("19devel"), Some((19, 0)));
        assert_eq!(numbers("unstable"), None);
        assert_eq!(numbers(""), None);
    }
}
