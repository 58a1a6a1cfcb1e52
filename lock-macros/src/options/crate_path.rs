//! `crate`: where the runtime is.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::{Expr, Path};

use crate::args::{Given, Value};
use crate::dependency;
use crate::errors::Errors;
use crate::item::Item;
use crate::options::setting::Setting;

impl Setting for Path {}

pub(crate) fn check(given: Given, _: &Item, errors: &mut Errors) -> Option<Path> {
    let expected = given.option.expected();
    let path = match given.value? {
        Value::Text(literal) => {
            let hint = match syn::parse_str::<Path>(&literal.value()) {
                Ok(_) => format!(", write `crate = {}` without quotes", literal.value()),
                Err(_) => String::new(),
            };
            errors.add(&literal, format!("{expected}{hint}"));
            return None;
        }
        Value::Expression(Expr::Path(path)) if path.qself.is_none() => path.path,
        Value::Expression(expression) => {
            errors.add(&expression, expected);
            return None;
        }
    };
    let first = path
        .segments
        .first()
        .map(|first| first.ident.to_string())
        .unwrap_or_default();
    if path.leading_colon.is_none() && first != "crate" && first != "$crate" {
        errors.add(&path, format!("{expected}, found a relative path"));
        return None;
    }
    Some(path)
}

/// Writes the path of `lock_runtime`: the one that was given, or the name in `Cargo.toml`.
pub(crate) fn runtime(given: Option<&Path>) -> TokenStream {
    match given {
        Some(path) => path.to_token_stream(),
        None => {
            let name = dependency::renamed().unwrap_or_else(|| "lock_runtime".to_owned());
            let name = Ident::new(&name, Span::mixed_site());
            quote_spanned!(Span::mixed_site()=> ::#name)
        }
    }
}
