//! What all options have in common once they are checked.

use proc_macro2::TokenStream;
use syn::Expr;

use crate::mentions::ValueUse;

/// The value of an option, without mistakes.
pub(crate) trait Setting {
    /// Returns what holds where the option is not written.
    fn default() -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Returns the user's expression, if there is one, and what becomes of its value.
    fn expression(&self) -> Option<(&Expr, ValueUse)> {
        None
    }

    /// Writes the call of the option's setter, which is a method of `attribute::run::Request` in
    /// `lock-runtime`. Writes nothing if the request does not take the option.
    fn setter(&self, _option: &str, _private: &TokenStream) -> TokenStream {
        TokenStream::new()
    }
}
