//! `permits`, `take`: the options that are numbers of permits.

use proc_macro2::{Literal, TokenStream};
use quote::ToTokens;
use syn::{Expr, ExprLit, Lit, LitInt, UnOp};

use crate::args::{Given, Value};
use crate::errors::Errors;
use crate::item::Item;
use crate::mentions::ValueUse;
use crate::options::setting::Setting;

/// The value of an option that is a number of permits.
pub(crate) enum Count {
    Constant(LitInt, u32),
    Expression(Expr),
}

impl Setting for Count {
    fn expression(&self) -> Option<(&Expr, ValueUse)> {
        match self {
            Self::Constant(..) => None,
            Self::Expression(expression) => Some((expression, ValueUse::Copied)),
        }
    }
}

impl ToTokens for Count {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            // Made anew, since lints look at numbers of the user's.
            Self::Constant(_, number) => Literal::u32_unsuffixed(*number).to_tokens(tokens),
            Self::Expression(expression) => expression.to_tokens(tokens),
        }
    }
}

/// Reads an option.
pub(crate) fn check(given: Given, _: &Item, errors: &mut Errors) -> Option<Count> {
    let (name, expected) = (given.option.name, given.option.expected());
    let expression = match given.value? {
        Value::Text(literal) => {
            let text = literal.value();
            let is_number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            let hint = match is_number {
                true => format!(", write `{name} = {text}` without quotes"),
                false => String::new(),
            };
            errors.add(&literal, format!("{expected}{hint}"));
            return None;
        }
        Value::Expression(expression) => expression,
    };
    let message = match number(&expression) {
        None => return Some(Count::Expression(expression)),
        Some((is_negative, Lit::Int(number))) if ["", "u32"].contains(&number.suffix()) => {
            match number.base10_parse::<u32>() {
                _ if is_negative => format!("`{name}` is negative, expected at least 1"),
                Ok(0) => format!("`{name}` is zero, expected at least 1"),
                Ok(value) => return Some(Count::Constant(number.clone(), value)),
                Err(_) => format!("`{name}` is too high, expected at most {}", u32::MAX),
            }
        }
        Some((_, Lit::Float(_))) => format!("`{name}` has a fraction, expected a whole number"),
        Some(_) => expected,
    };
    errors.add(&expression, message);
    None
}

/// Finds the literal that an expression consists of, and tells whether a minus stands before it.
fn number(expression: &Expr) -> Option<(bool, &Lit)> {
    match expression {
        Expr::Lit(ExprLit { lit, .. }) => Some((false, lit)),
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => {
            number(&unary.expr).map(|(_, literal)| (true, literal))
        }
        _ => None,
    }
}
