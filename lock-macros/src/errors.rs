//! The mistakes of one function, which are reported together.

use std::fmt::Display;

use quote::ToTokens;

/// The mistakes that were found so far.
///
/// [`finish`](Self::finish) must be called: mistakes that nobody looks at would become a wrong
/// expansion.
#[derive(Default)]
pub(crate) struct Errors {
    found: Vec<syn::Error>,
    finished: bool,
}

impl Errors {
    /// Adds a mistake in these tokens.
    pub(crate) fn add(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.found.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds a mistake that is already an error.
    pub(crate) fn push(&mut self, error: syn::Error) {
        self.found.push(error);
    }

    /// Ends the search for mistakes.
    ///
    /// # Errors
    ///
    /// Every mistake, as one error.
    pub(crate) fn finish(mut self) -> syn::Result<()> {
        self.finished = true;
        let mut found = self.found.drain(..);
        let Some(mut all) = found.next() else {
            return Ok(());
        };
        all.extend(found);
        Err(all)
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("the mistakes of a function were collected, but nobody looked at them");
        }
    }
}
