//! `provider`: where the lock lives.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{Expr, LitStr};

use crate::args::{Given, Value};
use crate::errors::Errors;
use crate::item::Item;
use crate::mentions::ValueUse;
use crate::options::setting::Setting;
use crate::tokens::text_literal;

/// The provider of the lock.
pub(crate) enum Provider {
    Named(LitStr),
    Expression(Expr),
}

impl Setting for Provider {
    fn expression(&self) -> Option<(&Expr, ValueUse)> {
        match self {
            Self::Named(_) => None,
            Self::Expression(expression) => Some((expression, ValueUse::Borrowed)),
        }
    }

    fn setter(&self, _option: &str, _private: &TokenStream) -> TokenStream {
        match self {
            Self::Named(name) => {
                let name = text_literal(&name.value(), name.span());
                quote_spanned!(Span::mixed_site()=> .named(#name))
            }
            Self::Expression(provider) => {
                let provider = borrow(provider);
                quote_spanned!(Span::mixed_site()=> .on(#provider))
            }
        }
    }
}

/// Borrows a value without moving it.
///
/// An expression that is not simple goes through a `match`. The compiler then finds its type
/// without regard to the type that is expected.
fn borrow(expression: &Expr) -> TokenStream {
    let span = Span::mixed_site().located_at(expression.span());
    match expression {
        Expr::Path(_) | Expr::Field(_) | Expr::Call(_) | Expr::MethodCall(_) | Expr::Macro(_) => {
            quote_spanned!(span=> &#expression)
        }
        _ => quote_spanned!(span=> match (#expression) { ref provider => provider }),
    }
}

pub(crate) fn check(given: Given, _: &Item, errors: &mut Errors) -> Option<Provider> {
    let literal = match given.text_or_expression(errors)? {
        Value::Text(literal) => literal,
        Value::Expression(expression) => return Some(Provider::Expression(expression)),
    };
    if literal.value().is_empty() {
        errors.add(
            &literal,
            "`provider` is empty, expected the name of a registered provider",
        );
        return None;
    }
    Some(Provider::Named(literal))
}
