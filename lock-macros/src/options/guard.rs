//! `guard`: what the body calls its guard.

use syn::{Expr, Ident};

use crate::args::{Given, Value};
use crate::errors::Errors;
use crate::item::Item;
use crate::options::setting::Setting;

impl Setting for Ident {}

pub(crate) fn check(given: Given, _: &Item, errors: &mut Errors) -> Option<Ident> {
    let expected = given.option.expected();
    match given.value? {
        Value::Text(literal) => {
            let hint = match syn::parse_str::<Ident>(&literal.value()) {
                Ok(name) => format!(", write `guard = {name}` without quotes"),
                Err(_) => String::new(),
            };
            errors.add(&literal, format!("{expected}{hint}"));
            None
        }
        Value::Expression(Expr::Path(path)) if path.path.get_ident().is_some_and(is_free) => {
            path.path.get_ident().cloned()
        }
        Value::Expression(expression) => {
            errors.add(&expression, expected);
            None
        }
    }
}

/// Tells whether a `let` can bind this name; `self`, `Self`, `super` and `crate` are paths, too.
fn is_free(name: &Ident) -> bool {
    syn::parse_str::<Ident>(&name.to_string()).is_ok()
}
