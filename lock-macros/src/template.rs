//! Name templates, such as `"order:{order.key.0}:{id:04}"`, and their segments.

/// A template without mistakes.
#[derive(Debug, PartialEq)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
}

/// A part of a template.
#[derive(Debug, PartialEq)]
pub(crate) enum Segment {
    /// Literal text, which is never empty, with its braces unescaped.
    Text(String),
    Placeholder(Placeholder),
}

/// A value in a template.
#[derive(Debug, PartialEq)]
pub(crate) struct Placeholder {
    /// The parameter, or `self`.
    pub(crate) root: String,
    pub(crate) accesses: Vec<Access>,
    /// The format spec: what is written after the colon.
    pub(crate) spec: String,
}

/// A step from a value to a part of it.
#[derive(Debug, PartialEq)]
pub(crate) enum Access {
    Field(String),
    Index(usize),
    Call(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// Every mistake in the template.
    pub(crate) fn parse(template: &str) -> Result<Self, Vec<String>> {
        let mut reader = Reader {
            rest: template,
            segments: Vec::new(),
            errors: Vec::new(),
        };
        reader.read();
        let Reader {
            segments,
            mut errors,
            ..
        } = reader;
        errors.extend(adjacent(&segments));
        if errors.is_empty() {
            Ok(Self { segments })
        } else {
            Err(errors)
        }
    }

    /// Lists the placeholders.
    pub(crate) fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Placeholder(placeholder) => Some(placeholder),
            Segment::Text(_) => None,
        })
    }
}

impl Placeholder {
    /// Returns the parameter without `r#`.
    pub(crate) fn bare_root(&self) -> &str {
        self.root.trim_start_matches("r#")
    }
}

/// A template that is being read.
struct Reader<'a> {
    rest: &'a str,
    segments: Vec<Segment>,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(at) = self.rest.find(['{', '}']) {
            let (text, brace) = self.rest.split_at(at);
            self.text(text);
            if brace.starts_with("{{") || brace.starts_with("}}") {
                self.text(&brace[..1]);
                self.rest = &brace[2..];
            } else if let Some(after) = brace.strip_prefix('}') {
                let message = "unmatched `}`, add the `{` that is missing before it, \
                    or write `}}` for a brace in the name";
                self.errors.push(message.into());
                self.rest = after;
            } else {
                let inside = &brace[1..];
                let end = inside.find(['{', '}']).unwrap_or(inside.len());
                let Some(after) = inside[end..].strip_prefix('}') else {
                    self.errors.push(format!(
                        "unclosed `{{` in `{{{}`, add the `}}` that is missing, \
                         or write `{{{{` for a brace in the name",
                        &inside[..end]
                    ));
                    self.rest = after_nested(&inside[end..]);
                    continue;
                };
                match placeholder(&inside[..end]) {
                    Ok(placeholder) => self.segments.push(Segment::Placeholder(placeholder)),
                    Err(error) => self.errors.push(error),
                }
                self.rest = after;
            }
        }
        self.text(self.rest);
    }

    fn text(&mut self, text: &str) {
        match self.segments.last_mut() {
            _ if text.is_empty() => {}
            Some(Segment::Text(before)) => before.push_str(text),
            _ => self.segments.push(Segment::Text(text.to_owned())),
        }
    }
}

/// Finds what follows a placeholder that has braces inside, which is one mistake and not three.
fn after_nested(inside: &str) -> &str {
    let mut depth = 1;
    for (at, brace) in inside.match_indices(['{', '}']) {
        depth = if brace == "{" { depth + 1 } else { depth - 1 };
        if depth == 0 {
            return &inside[at + 1..];
        }
    }
    ""
}

/// Makes a message for each two placeholders with no text between them.
fn adjacent(segments: &[Segment]) -> impl Iterator<Item = String> {
    segments.windows(2).filter_map(|pair| {
        let [Segment::Placeholder(first), Segment::Placeholder(second)] = pair else {
            return None;
        };
        Some(format!(
            "the placeholders of `{}` and `{}` need text between them, \
             otherwise different values could give one name",
            first.root, second.root
        ))
    })
}

const EXPECTED_PATH: &str =
    "a parameter or `self`, then fields, tuple indexes and calls without arguments";

/// Reads what stands between two braces.
fn placeholder(inside: &str) -> Result<Placeholder, String> {
    let (path, spec) = match inside.split_once(':') {
        Some((path, spec)) => (path.trim(), spec.trim_end()),
        None => (inside.trim(), ""),
    };
    let shown = format!("placeholder `{{{inside}}}`");
    if path.is_empty() {
        return Err(format!(
            "empty {shown}, name a parameter as in `{{id}}`, \
             or write `{{{{}}}}` for braces in the name"
        ));
    }
    if path.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "positional {shown}, name a parameter as in `{{id}}`"
        ));
    }
    if spec.starts_with(':') {
        return Err(format!("`::` in {shown}, expected {EXPECTED_PATH}"));
    }
    let mut parts = path.split('.');
    let root = parts.next().unwrap_or_default();
    if root != "self" {
        check_identifier(root, &shown)?;
    }
    let accesses = parts
        .map(|part| access(part, &shown))
        .collect::<Result<_, _>>()?;
    check_spec(spec, &shown)?;
    Ok(Placeholder {
        root: root.to_owned(),
        accesses,
        spec: spec.to_owned(),
    })
}

fn access(part: &str, shown: &str) -> Result<Access, String> {
    if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
        return match part.parse::<usize>() {
            Ok(index) if index.to_string() == part => Ok(Access::Index(index)),
            _ => Err(format!("`{part}` in {shown} is no tuple index")),
        };
    }
    if let Some(method) = part.strip_suffix("()") {
        check_identifier(method, shown)?;
        return Ok(Access::Call(method.to_owned()));
    }
    if part.ends_with(')') {
        return Err(format!(
            "`{part}` in {shown} has arguments, expected a call without any"
        ));
    }
    check_identifier(part, shown)?;
    Ok(Access::Field(part.to_owned()))
}

fn check_identifier(text: &str, shown: &str) -> Result<(), String> {
    if syn::parse_str::<syn::Ident>(text).is_ok() {
        return Ok(());
    }
    if syn::parse_str::<syn::Ident>(&format!("r#{text}")).is_ok() {
        return Err(format!(
            "the keyword `{text}` in {shown}, write `r#{text}` if that is a name"
        ));
    }
    let found = if text.is_empty() {
        "nothing".to_owned()
    } else {
        format!("`{text}`")
    };
    Err(format!(
        "found {found} in {shown}, expected {EXPECTED_PATH}"
    ))
}

/// Checks that a format spec is one of Rust's and makes a stable name.
fn check_spec(spec: &str, shown: &str) -> Result<(), String> {
    let mut rest = spec;
    let mut chars = rest.chars();
    if let (Some(fill), Some('<' | '^' | '>')) = (chars.next(), chars.next()) {
        rest = &rest[fill.len_utf8() + 1..];
    } else {
        rest = rest.strip_prefix(['<', '^', '>']).unwrap_or(rest);
    }
    rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest = rest.strip_prefix('#').unwrap_or(rest);
    rest = count(rest, shown)?;
    if let Some(precision) = rest.strip_prefix('.') {
        if precision.starts_with('*') {
            return Err(captured(shown));
        }
        let after = count(precision, shown)?;
        if after.len() == precision.len() {
            return Err(format!(
                "expected a number after `.` in the format spec of {shown}"
            ));
        }
        rest = after;
    }
    match rest {
        "" | "x" | "X" | "o" | "b" | "e" | "E" => Ok(()),
        "?" | "x?" | "X?" | "#?" => Err(format!(
            "debug output in {shown} is no stable name, leave out `{rest}` to use `Display`"
        )),
        "p" => Err(format!(
            "the address of a value, `p` in {shown}, is no stable name"
        )),
        _ => Err(format!(
            "`{rest}` in {shown} is no format spec, expected one such as `04`, `>8`, `.2` or `x`"
        )),
    }
}

/// Skips a width or precision; returns what follows.
fn count<'a>(text: &'a str, shown: &str) -> Result<&'a str, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let word = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    if text[word..].starts_with('$') {
        return Err(captured(shown));
    }
    if digits > 0 && text[..digits].parse::<u16>().is_err() {
        return Err(format!(
            "`{}` in {shown} is too large, expected up to 65535",
            &text[..digits]
        ));
    }
    Ok(&text[digits..])
}

/// Makes the message for a width or precision that is not a number.
fn captured(shown: &str) -> String {
    format!("a width or precision taken from an argument in {shown}, expected a number")
}
