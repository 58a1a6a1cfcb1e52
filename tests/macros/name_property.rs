//! Templates are injective: different arguments never give one name.

use lock_runtime::{LockError, distributed_lock};
use proptest::prelude::*;

macro_rules! templates {
    ($($function:ident: $template:literal;)*) => {
        $(
            #[distributed_lock(name = $template, guard = lock)]
            async fn $function(a: &str, b: &str, c: &str) -> Result<String, LockError> {
                let _ = c;
                Ok(lock.name().to_string())
            }

            mod $function {
                use super::*;

                proptest! {
                    #![proptest_config(config())]

                    #[test]
                    fn never_gives_one_name_to_two(
                        one in triple($template),
                        other in triple($template)
                    ) {
                        let name = |(a, b, c): &Triple| run(super::$function(a, b, c));
                        check(&texts($template), &one, &other, name)?;
                    }
                }
            }
        )*
    };
}

templates! {
    colon: "{a}:{b}:{c}";
    double_colon: "x::{a}::{b}::{c}::y";
    percent: "{a}%{b}%{c}";
    percent_then_digits: "{a}%25{b}:%{c}";
    tilde: "{a}~{b}%{c}";
    digit_two: "{a}2{b}2{c}";
    digit_five: "{a}5{b}5{c}5";
    hex_letters: "{a}E{b}C{c}";
    multi_byte: "{a}é{b}→{c}";
    shared_first_byte: "{a}é{b}è{c}";
    braces: "{{{a}}}{{{b}}}{{{c}}}";
    space_and_slash: "{a} / {b}/ {c}";
}

type Triple = (String, String, String);

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    }
}

/// Returns the literal text before, between and after the placeholders.
fn texts(template: &str) -> Vec<String> {
    let escaped = template
        .replace("{{{", "\u{1}{")
        .replace("}}}", "}\u{2}")
        .replace("{{", "\u{1}");
    escaped
        .split('{')
        .map(|part| part.split_once('}').map_or(part, |(_, text)| text))
        .map(|text| text.replace('\u{1}', "{").replace('\u{2}', "}"))
        .collect()
}

/// Makes values of few characters, so that many look like the template's text and its encoding.
fn triple(template: &'static str) -> impl Strategy<Value = Triple> {
    let characters: Vec<char> = format!("{}%25~7EC3A9a", texts(template).concat())
        .chars()
        .collect();
    let value = move || {
        prop::collection::vec(prop::sample::select(characters.clone()), 0..5)
            .prop_map(|characters| characters.into_iter().collect::<String>())
    };
    (value(), value(), value())
}

/// Compares the name of `one` with the name of `other`, and with those of other values. These are
/// all that could be read out of `one` by taking it apart at the template's text.
fn check(
    texts: &[String],
    one: &Triple,
    other: &Triple,
    name: impl Fn(&Triple) -> String,
) -> Result<(), TestCaseError> {
    let rendered = name(one);
    let mut others = readings(&rendered, texts);
    others.push(other.clone());
    for other in others.into_iter().filter(|other| other != one) {
        prop_assert_ne!(&rendered, &name(&other), "{:?} and {:?}", one, other);
    }
    Ok(())
}

fn readings(name: &str, texts: &[String]) -> Vec<Triple> {
    let [before, first, second, after] = texts else {
        panic!("three placeholders: {texts:?}")
    };
    let inner = name
        .strip_prefix(&**before)
        .and_then(|name| name.strip_suffix(&**after));
    let inner = inner.expect("a name begins and ends as its template");
    let cuts = |text: &str, at: &str| {
        let starts = text.char_indices().map(|(start, _)| start);
        starts
            .filter(|start| text[*start..].starts_with(at))
            .map(|start| {
                (
                    text[..start].to_owned(),
                    text[start + at.len()..].to_owned(),
                )
            })
            .collect::<Vec<_>>()
    };
    cuts(inner, first)
        .into_iter()
        .flat_map(|(a, rest)| {
            cuts(&rest, second)
                .into_iter()
                .map(move |(b, c)| (a.clone(), b, c))
        })
        .collect()
}

#[distributed_lock(name = "{a:03}0{b:+x}-{c:e}", guard = lock)]
async fn formatted(a: u16, b: u16, c: i16) -> Result<String, LockError> {
    Ok(lock.name().to_string())
}

proptest! {
    #![proptest_config(config())]

    /// Text that is padded or cut may well coincide, which is the user's doing; numbers must not.
    #[test]
    fn formatted_numbers(one in any::<(u8, u8, i8)>(), other in any::<(u8, u8, i8)>()) {
        let name = |(a, b, c): (u8, u8, i8)| run(formatted(a.into(), b.into(), c.into()));
        prop_assert_eq!(name(one) == name(other), one == other);
    }
}

#[test]
fn names_are_taken_apart_in_every_way() {
    assert_eq!(texts("{{{a}}}{{{b:04}}}-{c}%"), ["{", "}{", "}-", "%"]);
    let texts = texts("{a}:{b}:{c}");
    assert_eq!(readings("1:2:3:4", &texts).len(), 3);
}

fn run(future: impl Future<Output = Result<String, LockError>>) -> String {
    match crate::support::poll_once(future) {
        std::task::Poll::Ready(name) => name.expect("the lock is free"),
        std::task::Poll::Pending => panic!("an uncontended lock in process needs no wait"),
    }
}
