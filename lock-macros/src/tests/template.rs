use proptest::prelude::*;

use crate::template::{Access, Placeholder, Segment, Template};

fn text(text: &str) -> Segment {
    Segment::Text(text.to_owned())
}

fn placeholder(root: &str, accesses: Vec<Access>, spec: &str) -> Segment {
    let (root, spec) = (root.to_owned(), spec.to_owned());
    Segment::Placeholder(Placeholder {
        root,
        accesses,
        spec,
    })
}

fn segments(template: &str) -> Vec<Segment> {
    Template::parse(template).expect(template).segments
}

#[test]
fn text_and_braces() {
    assert_eq!(segments("nightly"), [text("nightly")]);
    assert_eq!(segments("a{{b}}c"), [text("a{b}c")]);
    assert_eq!(
        segments("{{{id}}}"),
        [text("{"), placeholder("id", vec![], ""), text("}")]
    );
    assert_eq!(segments("{{}}"), [text("{}")]);
}

#[test]
fn accesses() {
    let call = |name: &str| Access::Call(name.to_owned());
    let field = |name: &str| Access::Field(name.to_owned());
    assert_eq!(
        segments("{self.tenant}"),
        [placeholder("self", vec![field("tenant")], "")]
    );
    assert_eq!(
        segments("{order.key.0.12}"),
        [placeholder(
            "order",
            vec![field("key"), Access::Index(0), Access::Index(12)],
            ""
        )]
    );
    assert_eq!(
        segments("{order.id().r#type}"),
        [placeholder("order", vec![call("id"), field("r#type")], "")]
    );
    assert_eq!(segments("{ id }"), [placeholder("id", vec![], "")]);
}

#[test]
fn format_specs() {
    for spec in [
        "04", ">8", "*^8", "?<5", "+", "-", "#x", "#010b", ".2", "8.3", "e", "X", "->3",
    ] {
        assert_eq!(
            segments(&format!("{{id:{spec}}}")),
            [placeholder("id", vec![], spec)]
        );
    }
    for spec in [
        "?", "#?", "x?", "p", "w$", "0$", ".p$", ".*", ".", "4q", "65536", "::", "<<<",
    ] {
        assert!(
            Template::parse(&format!("{{id:{spec}}}")).is_err(),
            "{spec}"
        );
    }
}

#[test]
fn every_mistake_is_reported() {
    let mistakes = Template::parse("{}{0}}{a}{b}{c:?}{").expect_err("has five mistakes");
    let expected = [
        "empty",
        "positional",
        "unmatched",
        "debug",
        "unclosed",
        "text between",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.contains(expected), "{mistake}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn escaped_text_is_read_back(name in "[a-z{}:%é]{1,16}") {
        let template = name.replace('{', "{{").replace('}', "}}");
        prop_assert_eq!(segments(&template), [text(&name)]);
    }

    #[test]
    fn no_template_panics(template in "[{}:.()\\[\\]0-9a?$*<# é]{0,24}|\\PC{0,16}") {
        match Template::parse(&template) {
            Ok(template) => {
                for pair in template.segments.windows(2) {
                    prop_assert!(pair.iter().any(|segment| matches!(segment, Segment::Text(_))));
                }
            }
            Err(messages) => prop_assert!(!messages.is_empty()),
        }
    }

    /// What passes is a format string that the compiler takes, too: nothing is left for it to
    /// refuse in words of its own.
    #[test]
    fn what_passes_has_one_spec_of_known_characters(spec in "[<>^+\\-#0-9.xXobeE?p$*]{0,6}") {
        if Template::parse(&format!("{{id:{spec}}}")).is_ok() {
            prop_assert!(!spec.ends_with(['?', 'p', '$', '*', '.']) || spec.len() == 2);
        }
    }
}
