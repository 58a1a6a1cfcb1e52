//! Unit tests, on tokens that no compiler has seen.

mod dependency;
mod duration;
mod errors;
mod expansion;
mod item;
mod limits;
mod options;
mod suggest;
mod template;

use proc_macro2::TokenStream;

use crate::model::LockedFn;
use crate::{expand, fallback};

/// What the attribute makes of an item, as source text.
fn expanded(args: &str, item: &str) -> String {
    let tokens =
        LockedFn::read(tokens(args), tokens(item)).map_or_else(fallback::expand, expand::expand);
    let file = syn::parse2(tokens).expect("the expansion is a file of items");
    prettyplease::unparse(&file)
}

/// The messages for an item with mistakes.
fn mistakes(args: &str, item: &str) -> Vec<String> {
    match LockedFn::read(tokens(args), tokens(item)) {
        Ok(_) => Vec::new(),
        Err(rejected) => rejected
            .mistakes
            .into_iter()
            .map(|error| error.to_string())
            .collect(),
    }
}

fn tokens(text: &str) -> TokenStream {
    text.parse().expect("the test's text is Rust")
}
