//! The table of the options. Whatever lists them is made of it.

use proc_macro2::Ident;
use syn::Path;

use crate::args::{Given, OptionSpec};
use crate::errors::Errors;
use crate::item::Item;
use crate::options::durations::{self, Length};
use crate::options::mode::{self, Mode};
use crate::options::name::{self, Name};
use crate::options::on_unavailable::{self, Outcome};
use crate::options::permits::{self, Count};
use crate::options::provider::{self, Provider};
use crate::options::release::{self, Release};
use crate::options::setting::Setting;
use crate::options::{crate_path, guard};

/// Makes [`OPTIONS`] and [`Settings`] of rows: field, name, type, turn, check, and what the option
/// takes.
macro_rules! options {
    ($(
        $field:ident $name:literal $(($flag:ident))?: $setting:ty,
            turn $turn:literal, check $check:path, takes $takes:literal;
    )*) => {
        pub(crate) static OPTIONS: &[OptionSpec] =
            &[$(OptionSpec::new($name, $turn, $takes)$(.$flag())?),*];

        /// The value of each option that has one.
        pub(crate) struct Settings {
            $(pub(crate) $field: Option<$setting>,)*
            /// The options that are written, by their turns, with the words that name them.
            written: Vec<(&'static str, Ident)>,
        }

        impl Settings {
            /// Checks each option by itself.
            pub(crate) fn check(given: Vec<Given>, item: &Item, errors: &mut Errors) -> Self {
                let mut settings = Self {
                    $($field: <$setting as Setting>::default(),)*
                    written: given
                        .iter()
                        .map(|given| (given.option.name, given.key.clone()))
                        .collect(),
                };
                for given in given {
                    match given.option.name {
                        $($name => settings.$field = $check(given, item, errors),)*
                        name => unreachable!("`{name}` is not in the table"),
                    }
                }
                settings
            }

            /// Lists the options that are written, by their turns, with their settings.
            pub(crate) fn written(&self) -> impl Iterator<Item = (&'static str, &dyn Setting)> {
                let setting = |name| -> Option<&dyn Setting> {
                    match name {
                        $($name => Some(self.$field.as_ref()?),)*
                        _ => None,
                    }
                };
                let written = self.written.iter();
                written.filter_map(move |(name, _)| Some((*name, setting(name)?)))
            }

            /// Returns the word that names an option, if that is written, even if its value has a
            /// mistake.
            pub(crate) fn key(&self, option: &str) -> Option<&Ident> {
                let mut written = self.written.iter();
                let (_, key) = written.find(|(name, _)| *name == option)?;
                Some(key)
            }
        }
    };
}

// Options are checked and evaluated by their turns, and those of one turn as they are written.
options! {
    name "name" (shapes_guard): Name, turn 1, check name::check,
        takes "a string such as \"invoice:{id}\", an array of such strings, \
            or an expression that is `Into<LockName>`";
    mode "mode" (shapes_guard): Mode, turn 2, check mode::check,
        takes "\"read\" or \"write\"";
    permits "permits" (shapes_guard): Count, turn 3, check permits::check,
        takes "a whole number such as `3`, or an expression of type `u32`";
    take "take": Count, turn 4, check permits::check,
        takes "a whole number such as `1`, or an expression of type `u32`";
    timeout "timeout": Length, turn 5, check durations::timeout,
        takes "a duration string such as \"5s\", \"none\", or an expression of type `Duration`";
    lease "lease": Length, turn 5, check durations::lease,
        takes "a duration string such as \"30s\", or an expression of type `Duration`";
    max_hold "max_hold": Length, turn 5, check durations::max_hold,
        takes "a duration string such as \"10m\", or an expression of type `Duration`";
    min_hold "min_hold": Length, turn 5, check durations::min_hold,
        takes "a duration string such as \"1m\", or an expression of type `Duration`";
    on_unavailable "on_unavailable": Outcome, turn 6, check on_unavailable::check,
        takes "\"error\", \"skip\", or a closure from `LockError` to the return type";
    provider "provider": Provider, turn 7, check provider::check,
        takes "the name of a registered provider in quotes, \
            or an expression that is an `Arc<dyn LockProvider>`";
    guard "guard" (shapes_guard): Ident, turn 8, check guard::check,
        takes "an identifier, which the body can then use as its guard";
    release "release": Release, turn 9, check release::check,
        takes "\"confirmed\" or \"background\"";
    crate_path "crate": Path, turn 10, check crate_path::check,
        takes "an absolute path such as `::lock_runtime` or `crate::reexported`";
}
