//! What an annotated function asks for: arguments and item become a `LockedFn`, or all their
//! mistakes.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use syn::{Expr, LitStr, Path};

use crate::args::{Args, Period};
use crate::check;
use crate::errors::Errors;
use crate::item::Item;
use crate::periods;
use crate::template::Template;

/// A function and its options, without mistakes.
pub(crate) struct LockedFn {
    pub(crate) item: Item,
    /// The path of `lock_runtime`.
    pub(crate) root: Option<Path>,
    pub(crate) name: Name,
    /// In the order in which they were written.
    pub(crate) durations: Vec<(Period, Length)>,
    pub(crate) outcome: Outcome,
    pub(crate) provider: Option<Provider>,
    pub(crate) guard: Option<Ident>,
}

pub(crate) enum Name {
    Template(LitStr, Template),
    Expression(Expr),
}

impl Name {
    /// Whether it is the same at every call.
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self, Self::Template(_, template) if template.placeholders().next().is_none())
    }
}

/// The value of an option that is a duration.
pub(crate) enum Length {
    Constant(Duration),
    Expression(Expr),
    /// As long as it takes.
    Unlimited,
}

pub(crate) enum Outcome {
    Error,
    Skip,
    With(Expr),
}

pub(crate) enum Provider {
    Named(LitStr),
    Expression(Expr),
}

/// A function with mistakes.
pub(crate) struct Rejected {
    /// The function, where it is one, and the names that its body may use.
    pub(crate) item: Option<(Item, Option<Ident>, Option<Path>)>,
    /// The tokens under the attribute, as they came.
    pub(crate) original: TokenStream,
    pub(crate) mistakes: syn::Error,
}

impl LockedFn {
    /// Checks everything.
    pub(crate) fn read(args: TokenStream, original: TokenStream) -> Result<Self, Box<Rejected>> {
        let mut errors = Errors::default();
        let args = Args::parse(args, &mut errors);
        let item = match Item::parse(original.clone()) {
            Ok(item) => item,
            Err(error) => {
                errors.push(error);
                return Err(Rejected::new(None, original, errors.finish()));
            }
        };
        let name = check::name(args.name, args.misread, &item, &mut errors);
        let durations = periods::check(args.durations, &mut errors);
        let outcome = check::outcome(args.on_unavailable, &mut errors);
        let provider = args
            .provider
            .and_then(|value| check::provider(value, &mut errors));
        let guard = args
            .guard
            .and_then(|value| check::guard(value, &mut errors));
        let root = args.krate.and_then(|value| check::root(value, &mut errors));
        check::function(&item, &mut errors);
        // An unknown option may be meant to say what happens.
        if !args.misread {
            check::output(&item, outcome.as_ref(), &mut errors);
        }
        match (errors.finish(), name, outcome) {
            (Ok(()), Some(name), Some(outcome)) => Ok(Self {
                item,
                root,
                name,
                durations,
                outcome,
                provider,
                guard,
            }),
            (result, ..) => Err(Rejected::new(Some((item, guard, root)), original, result)),
        }
    }
}

impl Rejected {
    fn new(
        item: Option<(Item, Option<Ident>, Option<Path>)>,
        original: TokenStream,
        result: syn::Result<()>,
    ) -> Box<Self> {
        // A function must never lose its lock in silence.
        let mistakes = result.err().unwrap_or_else(|| {
            syn::Error::new(Span::call_site(), "the arguments could not be understood")
        });
        Box::new(Self {
            item,
            original,
            mistakes,
        })
    }
}
