//! What the attribute itself does with the parameters.

use proc_macro2::{Ident, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;

use crate::mentions::{self, ValueUse, mentions};
use crate::model::LockedFn;
use crate::options::setting::Setting;
use crate::template::{Placeholder, Template};

/// The uses of parameters in the options.
pub(crate) struct Uses {
    /// The names that the placeholders begin with.
    roots: Vec<String>,
    /// The options' expressions, with what becomes of their values.
    expressions: Vec<(TokenStream, ValueUse)>,
}

impl Uses {
    pub(crate) fn new(function: &LockedFn) -> Self {
        let placeholders = function.name.templates().flat_map(Template::placeholders);
        let roots = placeholders.map(Placeholder::bare_root);
        let settings = std::iter::once(&function.outcome as &dyn Setting)
            .chain(function.settings.written().map(|(_, setting)| setting));
        let names = function.name.expressions();
        let expressions = names.chain(settings.filter_map(Setting::expression));
        Self {
            roots: roots.map(str::to_owned).collect(),
            expressions: expressions
                .map(|(expression, value)| (expression.to_token_stream(), value))
                .collect(),
        }
    }

    /// Tells whether a placeholder begins with this name.
    pub(crate) fn is_in_template(&self, name: &Ident) -> bool {
        let name = name.unraw().to_string();
        self.roots.contains(&name)
    }

    /// Tells whether an option's expression mentions this name.
    pub(crate) fn is_in_expression(&self, name: &Ident) -> bool {
        let mut expressions = self.expressions.iter();
        expressions.any(|(tokens, _)| mentions(tokens, name))
    }

    /// Tells whether the body can capture this name, although the options' expressions are
    /// evaluated outside.
    pub(crate) fn may_capture(&self, name: &Ident) -> bool {
        let mut expressions = self.expressions.iter();
        expressions.all(|(tokens, value)| mentions::may_capture(tokens, name, *value))
    }
}
