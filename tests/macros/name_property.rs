//! Templates are injective: different arguments never give one name.

use lock_runtime::{LockError, distributed_lock};
use proptest::prelude::*;

macro_rules! templates {
    ($($function:ident: $template:literal, $separator:literal;)*) => {
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
                    fn never_gives_one_name_to_two(pair in pairs($separator)) {
                        check(pair, |(a, b, c)| block_on(super::$function(a, b, c)))?;
                    }
                }
            }
        )*
    };
}

templates! {
    colon: "{a}:{b}:{c}", ":";
    double_colon: "x::{a}::{b}::{c}::y", "::";
    percent: "{a}%{b}%{c}", "%";
    tilde: "{a}~{b}%{c}", "~";
    digit_two: "{a}2{b}2{c}", "2";
    digit_five: "{a}5{b}5{c}5", "5";
    hex_letter: "{a}E{b}C{c}", "EC";
    multi_byte: "{a}é{b}→{c}", "é→";
    second_byte_shared: "{a}é{b}è{c}", "éè";
    braces: "{{{a}}}{{{b}}}{{{c}}}", "}{";
    mixed: "{a}%25{b}:%{c}", "25:";
    space_and_slash: "{a} / {b}/ {c}", " /";
    padded: "{a:<3}:{b:^2}%{c:>1}", ":";
}

type Triple = (String, String, String);

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    }
}

/// Pairs of argument triples, built of few characters around the separator so that the chance of
/// a collision is high; often one text, cut differently.
fn pairs(separator: &'static str) -> impl Strategy<Value = (Triple, Triple)> {
    let characters: Vec<char> = format!("{separator}%25~7EC3A9:a").chars().collect();
    let text = || {
        prop::collection::vec(prop::sample::select(characters.clone()), 0..6)
            .prop_map(|characters| characters.into_iter().collect::<String>())
    };
    let triples = (text(), text(), text());
    let unrelated = (triples, (text(), text(), text()));
    let cut =
        (text(), text(), any::<[prop::sample::Index; 2]>()).prop_map(move |(left, right, cuts)| {
            let whole = format!("{left}{separator}{right}{separator}");
            let cut = |at: prop::sample::Index| {
                let boundaries: Vec<usize> = whole
                    .char_indices()
                    .map(|(at, _)| at)
                    .chain([whole.len()])
                    .collect();
                let (a, b) = whole.split_at(boundaries[at.index(boundaries.len())]);
                (a.to_owned(), b.to_owned(), right.clone())
            };
            (cut(cuts[0]), cut(cuts[1]))
        });
    prop_oneof![unrelated, cut]
}

fn check(
    (one, other): (Triple, Triple),
    name: impl Fn((&str, &str, &str)) -> Result<String, LockError>,
) -> Result<(), TestCaseError> {
    fn borrowed((a, b, c): &Triple) -> (&str, &str, &str) {
        (a, b, c)
    }
    // Padding adds spaces, and so it is the user's business; no value here ends in one.
    let (first, second) = (
        name(borrowed(&one)).unwrap(),
        name(borrowed(&other)).unwrap(),
    );
    prop_assert_eq!(first == second, one == other, "{} and {}", first, second);
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    match crate::support::poll_once(future) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("an uncontended lock in process needs no wait"),
    }
}
