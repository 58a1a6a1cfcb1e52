//! What is emitted beside errors: the original function, so that nothing else fails to resolve.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;

use crate::item::Item;
use crate::kind::Kind;
use crate::model::Rejected;
use crate::options::crate_path;
use crate::options::table::Settings;

/// Writes the original function, then its mistakes.
#[allow(
    clippy::boxed_local,
    reason = "the rejection is boxed to keep the other case small"
)]
pub(crate) fn expand(rejected: Box<Rejected>) -> TokenStream {
    let mut tokens = match rejected.item {
        Some((item, settings, kind)) => unlocked(item, &settings, kind),
        None => rejected.original,
    };
    tokens.extend(rejected.mistakes.into_iter().map(compile_error));
    tokens
}

/// Writes the error without the `::core::` that `syn` puts in front: a dependency may have that
/// name.
fn compile_error(mistake: syn::Error) -> TokenStream {
    let tokens = mistake.into_compile_error().into_iter();
    tokens
        .skip_while(|token| token.to_string() != "compile_error")
        .collect()
}

/// Writes the function without the lock. A guard that the body may use is still bound.
fn unlocked(mut item: Item, settings: &Settings, kind: Kind) -> TokenStream {
    item.drop_const();
    let block = &item.body.block;
    let statements = &block.statements;
    let leading = block.leading.iter().map(|leading| &leading.tokens);
    let runtime = crate_path::runtime(settings.crate_path.as_ref());
    let guard_type = kind.guard();
    let binding = settings.guard.as_ref().map(|guard| {
        quote_spanned! {Span::mixed_site()=>
            let #guard =
                (|| -> &'static #runtime::#guard_type { #runtime::__private::unreachable!() })();
        }
    });
    let contents = quote_spanned!(Span::mixed_site()=> #binding #(#leading)* #statements);
    item.with_contents(contents)
}
