use std::time::Duration;

use proptest::prelude::*;

use crate::duration::parse;

#[test]
fn one_or_more_pairs() {
    let millis = |text| parse(text).map(|duration| duration.as_millis());
    assert_eq!(millis("250ms"), Ok(250));
    assert_eq!(millis("5s"), Ok(5_000));
    assert_eq!(millis("1m30s"), Ok(90_000));
    assert_eq!(millis("2h"), Ok(7_200_000));
    assert_eq!(millis("1d1h1m1s1ms"), Ok(90_061_001));
    assert_eq!(millis("0s"), Ok(0));
    assert_eq!(millis("007s"), Ok(7_000));
    assert_eq!(millis("1s1s"), Ok(2_000));
    assert_eq!(
        parse("18446744073709551615ms"),
        Ok(Duration::from_millis(u64::MAX))
    );
}

#[test]
fn what_is_refused_and_why() {
    let cases = [
        ("", "empty"),
        ("5", "no unit"),
        ("s", "expected a number before `s`"),
        ("-5s", "negative"),
        ("+5s", "expected a number before `+`"),
        ("1.5s", "fraction"),
        ("1,5s", "fraction"),
        (" 5s", "space"),
        ("5 s", "space"),
        ("5s ", "space"),
        ("5S", "unknown unit `S`"),
        ("5us", "unknown unit `us`"),
        ("5µs", "unknown unit `µs`"),
        ("5_000ms", "unexpected `_`"),
        ("٥s", "expected a number before `٥`"),
        ("18446744073709551616ms", "too long"),
        ("213503982334602d", "too long"),
        ("18446744073709551615ms1ms", "too long"),
    ];
    for (text, why) in cases {
        let message = parse(text).expect_err(text);
        assert!(message.contains(why), "{text}: {message}");
    }
}

fn pairs() -> impl Strategy<Value = Vec<(u32, &'static str)>> {
    let unit = prop::sample::select(vec!["ms", "s", "m", "h", "d"]);
    prop::collection::vec((any::<u32>(), unit), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_read(pairs in pairs()) {
        let text: String = pairs.iter().map(|(number, unit)| format!("{number}{unit}")).collect();
        let seconds = |unit| match unit { "s" => 1, "m" => 60, "h" => 60 * 60, _ => 24 * 60 * 60 };
        let expected: Duration = pairs
            .iter()
            .map(|(number, unit)| match *unit {
                "ms" => Duration::from_millis(u64::from(*number)),
                unit => Duration::from_secs(u64::from(*number) * seconds(unit)),
            })
            .sum();
        prop_assert_eq!(parse(&text), Ok(expected));
    }

    #[test]
    fn no_text_panics(text in "[0-9msmhd.,+\\-_ éµ]{0,24}|\\PC{0,12}") {
        if let Err(message) = parse(&text) {
            prop_assert!(!message.ends_with('.'));
        }
    }
}
