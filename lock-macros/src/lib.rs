//! The attribute of `lock-runtime`.

mod args;
mod check;
mod duration;
mod errors;
mod expand;
mod fallback;
mod item;
mod model;
mod suggest;
mod template;
#[cfg(test)]
mod tests;

use model::LockedFn;
use proc_macro::TokenStream;

/// Locks.
#[proc_macro_attribute]
pub fn distributed_lock(args: TokenStream, item: TokenStream) -> TokenStream {
    LockedFn::read(args.into(), item.into())
        .map_or_else(fallback::expand, |function| expand::expand(&function))
        .into()
}
