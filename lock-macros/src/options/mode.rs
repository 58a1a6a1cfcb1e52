//! `mode`: which side of the reader–writer lock.

use syn::Expr;

use crate::args::{Given, Value};
use crate::errors::Errors;
use crate::item::Item;
use crate::options::setting::Setting;
use crate::suggest::nearest;

/// A side of the reader–writer lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Read, Self::Write];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl Setting for Mode {}

/// Reads the option. Where a mistake shows what is meant, that is returned, too: the guard in the
/// body then has its type.
pub(crate) fn check(given: Given, _: &Item, errors: &mut Errors) -> Option<Mode> {
    let expected = given.option.expected();
    match given.value? {
        Value::Text(literal) => {
            let text = literal.value();
            let exact = Mode::ALL.into_iter().find(|mode| mode.word() == text);
            if exact.is_some() {
                return exact;
            }
            let near = nearest(&text, Mode::ALL.map(Mode::word));
            let hint = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => expected,
            };
            errors.add(&literal, format!("unknown mode \"{text}\", {hint}"));
            Mode::ALL.into_iter().find(|mode| Some(mode.word()) == near)
        }
        Value::Expression(expression) => {
            let meant = Mode::ALL
                .into_iter()
                .find(|mode| is_word(&expression, mode.word()));
            let hint = match (meant, &expression) {
                (Some(mode), _) => format!(", write `mode = \"{}\"` with quotes", mode.word()),
                (None, Expr::Lit(_)) => String::new(),
                (None, _) => {
                    ", and no expression, since the type of the guard depends on it".to_owned()
                }
            };
            errors.add(&expression, format!("{expected}{hint}"));
            meant
        }
    }
}

fn is_word(expression: &Expr, word: &str) -> bool {
    matches!(expression, Expr::Path(path) if path.path.is_ident(word))
}
