//! `release`: what the call waits for when it releases the lock.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::Expr;

use crate::args::{Given, Value};
use crate::errors::Errors;
use crate::item::Item;
use crate::options::setting::Setting;
use crate::suggest::nearest;

const CONFIRMED: &str = "confirmed";
const BACKGROUND: &str = "background";

/// What the call waits for.
pub(crate) enum Release {
    /// The provider's answer.
    Confirmed,
    /// The handing over to the connection.
    Background,
}

impl Setting for Release {
    fn setter(&self, _option: &str, _private: &TokenStream) -> TokenStream {
        match self {
            Self::Confirmed => TokenStream::new(),
            Self::Background => quote_spanned!(Span::mixed_site()=> .release_in_background()),
        }
    }
}

pub(crate) fn check(given: Given, _: &Item, errors: &mut Errors) -> Option<Release> {
    let expected = given.option.expected();
    let literal = match given.value? {
        Value::Text(literal) => literal,
        Value::Expression(expression) => {
            let hint = match word(&expression) {
                Some(word) => format!(", write `release = \"{word}\"` with quotes"),
                None => String::new(),
            };
            errors.add(&expression, format!("{expected}{hint}"));
            return None;
        }
    };
    let text = literal.value();
    match text.as_str() {
        CONFIRMED => Some(Release::Confirmed),
        BACKGROUND => Some(Release::Background),
        _ => {
            let hint = match nearest(&text, [CONFIRMED, BACKGROUND]) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => expected,
            };
            errors.add(&literal, format!("unknown release \"{text}\", {hint}"));
            None
        }
    }
}

/// Returns the word that an expression would be if it stood in quotes.
fn word(expression: &Expr) -> Option<&'static str> {
    let Expr::Path(path) = expression else {
        return None;
    };
    let mut words = [CONFIRMED, BACKGROUND].into_iter();
    words.find(|word| path.path.is_ident(word))
}
