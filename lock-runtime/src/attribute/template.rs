//! Renders the name templates of the attribute; `lock-macros` parses them.

use std::cell::Cell;
use std::fmt::{self, Write};

use crate::name::LockName;

/// The largest buffer, in bytes, that a thread keeps from one name to the next.
const KEPT_BUFFER: usize = 1_024;

thread_local! {
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// Renders a template into a name.
///
/// # Panics
///
/// If the `Display` of a value fails, as `format!` does.
pub fn render(name: fmt::Arguments<'_>) -> LockName {
    if let Some(name) = name.as_str() {
        return LockName::from(name);
    }
    // Taken and not borrowed, since a value's `Display` may render a name of its own.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    buffer
        .write_fmt(name)
        .expect("a value in a lock's name could not be displayed");
    let name = LockName::from(buffer.as_str());
    if buffer.capacity() <= KEPT_BUFFER {
        // A thread that is ending keeps nothing.
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    name
}

/// A placeholder's value in a template with several placeholders, encoded so that no two lists of
/// values make the same name.
///
/// The character that begins the literal text after the placeholder is escaped, and so is the
/// escape character itself. So the value ends where that character first stands in the name.
///
/// The escape character is `%`, but `~` before literal text that begins with `%`. There, `%` would
/// render `"{a}%{b}"` alike for (`"%"`, `"x"`) and (`""`, `"25%x"`).
pub struct Encoded<'a>(pub fmt::Arguments<'a>, pub char);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = if self.1 == '%' { '~' } else { '%' };
        Encoder {
            inner: f,
            stop: self.1,
            escape,
        }
        .write_fmt(self.0)
    }
}

struct Encoder<'a, 'b> {
    inner: &'a mut fmt::Formatter<'b>,
    stop: char,
    escape: char,
}

impl Write for Encoder<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let special = [self.stop, self.escape];
        for piece in text.split_inclusive(special) {
            let Some(last) = piece
                .chars()
                .next_back()
                .filter(|last| special.contains(last))
            else {
                self.inner.write_str(piece)?;
                continue;
            };
            self.inner
                .write_str(&piece[..piece.len() - last.len_utf8()])?;
            for byte in last.encode_utf8(&mut [0; 4]).bytes() {
                write!(self.inner, "{}{byte:02X}", self.escape)?;
            }
        }
        Ok(())
    }
}
