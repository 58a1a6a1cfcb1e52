//! What is emitted beside errors: the original function, so that nothing else fails to resolve.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::{Ident, Path};

use crate::expand::root;
use crate::item::Item;
use crate::model::Rejected;

/// The original function, then its mistakes.
#[allow(
    clippy::boxed_local,
    reason = "the rejection is boxed to keep the other case small"
)]
pub(crate) fn expand(rejected: Box<Rejected>) -> TokenStream {
    let mut tokens = match rejected.item {
        Some((item, guard, root)) => unlocked(item, guard.as_ref(), root.as_ref()),
        None => rejected.original,
    };
    tokens.extend(rejected.mistakes.into_iter().map(compile_error));
    tokens
}

/// Makes the error without the `::core::` that `syn` writes: a dependency may be called so.
fn compile_error(mistake: syn::Error) -> TokenStream {
    let tokens = mistake.into_compile_error().into_iter();
    tokens
        .skip_while(|token| token.to_string() != "compile_error")
        .collect()
}

/// The function without the lock. A guard that the body may use is still bound.
fn unlocked(mut item: Item, guard: Option<&Ident>, path: Option<&Path>) -> TokenStream {
    item.drop_const();
    let statements = &item.block.statements;
    let leading = item.block.leading.iter().map(|leading| &leading.tokens);
    let root = root(path);
    let binding = guard.map(|guard| {
        quote_spanned! {Span::mixed_site()=>
            let #guard = (|| -> &'static #root::LockGuard { #root::__private::unreachable!() })();
        }
    });
    let contents = quote_spanned!(Span::mixed_site()=> #binding #(#leading)* #statements);
    item.with_contents(contents)
}
