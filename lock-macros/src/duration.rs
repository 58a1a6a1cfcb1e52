//! Durations as text, such as `"1m30s"`.

use std::time::Duration;

/// The units, with how many milliseconds each has.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads one or more pairs of a whole number and a unit.
///
/// # Errors
///
/// The error says what is wrong with the text, and how to write it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Err(
            "expected a duration such as \"5s\" or \"1m30s\", found an empty string".into(),
        );
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        if number.is_empty() {
            return Err(not_a_number(text, after));
        }
        let (unit, after) = split_where(after, |c| !c.is_alphabetic());
        if unit.is_empty() {
            return Err(no_unit(text, number, after));
        }
        let Some((_, factor)) = UNITS.iter().find(|(known, _)| *known == unit) else {
            return Err(format!(
                "unknown unit `{unit}` in the duration \"{text}\", \
                 expected `ms`, `s`, `m`, `h` or `d`"
            ));
        };
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor))
            .and_then(|millis| total.checked_add(millis))
            .ok_or_else(|| {
                format!("the duration \"{text}\" is too long, expected less than 2^64 milliseconds")
            })?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Splits a text before the first character that the closure picks.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// Makes the message for what stands where a number should.
fn not_a_number(text: &str, rest: &str) -> String {
    match rest.chars().next() {
        Some('-') => format!("the duration \"{text}\" is negative, expected zero or more"),
        Some(c) if c.is_whitespace() => {
            format!("unexpected space in the duration \"{text}\", write it like \"1m30s\"")
        }
        Some(c) => format!(
            "expected a number before `{c}` in the duration \"{text}\", \
             write it like \"5s\" or \"1m30s\""
        ),
        None => format!("expected a number in the duration \"{text}\""),
    }
}

/// Makes the message for what stands where a unit should.
fn no_unit(text: &str, number: &str, rest: &str) -> String {
    match rest.chars().next() {
        None => format!(
            "the number {number} in the duration \"{text}\" has no unit, \
             write \"{text}s\" or \"{text}ms\""
        ),
        Some('.' | ',') => format!(
            "the duration \"{text}\" has a fraction, \
             expected whole numbers such as \"1500ms\" or \"1m30s\""
        ),
        Some(c) if c.is_whitespace() => {
            format!("unexpected space in the duration \"{text}\", write it like \"1m30s\"")
        }
        Some(c) => format!(
            "unexpected `{c}` after {number} in the duration \"{text}\", \
             expected a unit: `ms`, `s`, `m`, `h` or `d`"
        ),
    }
}
