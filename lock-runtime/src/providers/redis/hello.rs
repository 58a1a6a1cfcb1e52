//! What a server says of itself in its answer to `HELLO`, which every user may send.

use redis::Value;

pub(super) struct Hello {
    pub(super) role: String,
    pub(super) mode: String,
    pub(super) version: String,
}

impl Hello {
    /// Reads the answer; `None` if it is none of Redis's.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let Value::Map(fields) = answer else {
            return None;
        };
        let field = |name| {
            let mut found = fields.iter().filter(|(key, _)| text(key) == name);
            let (_, value) = found.next()?;
            Some(text(value).to_owned())
        };
        Some(Self {
            role: field("role").unwrap_or_default(),
            mode: field("mode").unwrap_or_default(),
            version: field("version").unwrap_or_default(),
        })
    }
}

fn text(value: &Value) -> &str {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).unwrap_or(""),
        Value::SimpleString(text) => text,
        _ => "",
    }
}
