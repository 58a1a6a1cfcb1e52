//! What an annotated function asks for: arguments and item become a `LockedFn`, or all their
//! mistakes.

use proc_macro2::{Span, TokenStream};

use crate::args::Args;
use crate::errors::Errors;
use crate::item::Item;
use crate::kind::{self, Kind};
use crate::options::name::Name;
use crate::options::on_unavailable::Outcome;
use crate::options::table::{OPTIONS, Settings};
use crate::options::{durations, name, on_unavailable};

/// A function and its options, without mistakes.
pub(crate) struct LockedFn {
    pub(crate) item: Item,
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    /// The other options.
    pub(crate) settings: Settings,
}

/// A function with mistakes.
pub(crate) struct Rejected {
    /// The function with its options and its kind of lock, if it is a function.
    pub(crate) item: Option<(Item, Settings, Kind)>,
    /// The tokens under the attribute, unchanged.
    pub(crate) original: TokenStream,
    pub(crate) mistakes: syn::Error,
}

impl LockedFn {
    /// Checks everything.
    ///
    /// # Errors
    ///
    /// Every mistake, with what remains of the function.
    pub(crate) fn read(args: TokenStream, original: TokenStream) -> Result<Self, Box<Rejected>> {
        let mut errors = Errors::default();
        let args = Args::parse(args, OPTIONS, &mut errors);
        let item = match Item::parse(original.clone()) {
            Ok(item) => item,
            Err(error) => {
                errors.push(error);
                return Err(Rejected::new(None, original, errors.finish()));
            }
        };
        name::check_presence(&args, &mut errors);
        let mut settings = Settings::check(args.given, &item, &mut errors);
        durations::check_holds(
            settings.min_hold.as_ref(),
            settings.max_hold.as_ref(),
            &mut errors,
        );
        kind::check(&settings, args.misread, &mut errors);
        item.check(&mut errors);
        // What is no option may be meant to say what happens.
        if !args.misread {
            on_unavailable::check_output(settings.on_unavailable.as_ref(), &item, &mut errors);
        }
        let kind = Kind::of(&settings);
        let required = (settings.name.take(), settings.on_unavailable.take());
        match (errors.finish(), required) {
            (Ok(()), (Some(name), Some(outcome))) => Ok(Self {
                item,
                name,
                kind,
                outcome,
                settings,
            }),
            (result, _) => Err(Rejected::new(
                Some((item, settings, kind)),
                original,
                result,
            )),
        }
    }
}

impl Rejected {
    fn new(
        item: Option<(Item, Settings, Kind)>,
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
