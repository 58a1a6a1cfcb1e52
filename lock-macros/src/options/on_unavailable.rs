//! `on_unavailable`: what the caller gets when the body may not run or may not go on.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Expr, Type};

use crate::args::{Given, Value};
use crate::errors::Errors;
use crate::item::Item;
use crate::mentions::ValueUse;
use crate::options::setting::Setting;
use crate::output::nameable;
use crate::suggest::nearest;

/// What becomes of a `LockError`.
pub(crate) enum Outcome {
    Error,
    Skip,
    With(Expr),
}

impl Outcome {
    /// Writes the function that makes the caller's value from a `LockError`.
    ///
    /// A generic function is coerced to a pointer: a return type that it cannot produce is then one
    /// error, not three.
    pub(crate) fn function(&self, output: &Type, private: &TokenStream) -> TokenStream {
        let output = nameable(output);
        let function = match self {
            Self::Error => quote!(or_error),
            Self::Skip => quote!(or_skip),
            Self::With(expression) => return expression.to_token_stream(),
        };
        quote_spanned! {Span::mixed_site()=>
            #private::Expansion::#function::<#output> as fn(_) -> _
        }
    }
}

impl Setting for Outcome {
    fn default() -> Option<Self> {
        Some(Self::Error)
    }

    fn expression(&self) -> Option<(&Expr, ValueUse)> {
        match self {
            Self::With(expression) => Some((expression, ValueUse::AfterTheWait)),
            Self::Error | Self::Skip => None,
        }
    }
}

pub(crate) fn check(given: Given, _: &Item, errors: &mut Errors) -> Option<Outcome> {
    let option = given.option;
    let literal = match given.text_or_expression(errors)? {
        Value::Text(literal) => literal,
        Value::Expression(expression) => return Some(Outcome::With(expression)),
    };
    let text = literal.value();
    match text.as_str() {
        "error" => Some(Outcome::Error),
        "skip" => Some(Outcome::Skip),
        _ => {
            let hint = match nearest(&text, ["error", "skip"]) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => option.expected(),
            };
            errors.add(&literal, format!("unknown outcome \"{text}\", {hint}"));
            None
        }
    }
}

/// Reports a function that cannot return a `LockError`, as far as the signature shows it.
pub(crate) fn check_output(outcome: Option<&Outcome>, item: &Item, errors: &mut Errors) {
    if matches!(outcome, Some(Outcome::Error)) && item.problem.is_none() && item.returns_nothing() {
        errors.add(
            &item.body.output,
            "a function that returns nothing cannot return a `LockError`, write \
             `on_unavailable = \"skip\"` if the body may be left out, or return \
             `Result<(), LockError>`",
        );
    }
}
