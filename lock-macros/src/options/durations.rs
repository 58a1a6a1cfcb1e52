//! `timeout`, `lease`, `max_hold`, `min_hold`: the options that are durations.

use std::ops::RangeInclusive;
use std::time::Duration;

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::quote_spanned;
use syn::{Expr, Lit, LitStr};

use crate::args::{Given, Value};
use crate::duration;
use crate::errors::Errors;
use crate::item::Item;
use crate::mentions::ValueUse;
use crate::options::setting::Setting;

/// The leases that are accepted. A test ties this constant and the next one to `lock-runtime`.
pub(crate) const LEASES: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);
pub(crate) const LONGEST_MIN_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// The value of an option that is a duration.
pub(crate) enum Length {
    Constant(LitStr, Duration),
    Expression(Expr),
    /// No limit: the call waits as long as it takes.
    Unlimited,
}

impl Setting for Length {
    fn expression(&self) -> Option<(&Expr, ValueUse)> {
        match self {
            Self::Expression(expression) => Some((expression, ValueUse::Copied)),
            Self::Constant(..) | Self::Unlimited => None,
        }
    }

    fn setter(&self, option: &str, private: &TokenStream) -> TokenStream {
        let method = Ident::new(option, Span::mixed_site());
        match self {
            Self::Constant(_, duration) => {
                let millis = duration.as_millis().try_into().unwrap_or(u64::MAX);
                let millis = Literal::u64_unsuffixed(millis);
                quote_spanned! {Span::mixed_site()=>
                    .#method(#private::Duration::from_millis(#millis))
                }
            }
            Self::Expression(duration) => {
                quote_spanned!(Span::mixed_site()=> .#method(#duration))
            }
            Self::Unlimited => quote_spanned!(Span::mixed_site()=> .without_timeout()),
        }
    }
}

pub(crate) fn timeout(given: Given, _: &Item, errors: &mut Errors) -> Option<Length> {
    if let Some(Value::Text(literal)) = &given.value {
        let text = literal.value();
        if text == "none" {
            return Some(Length::Unlimited);
        }
        // Two letters may be a unit without its number.
        if text.chars().count() > 2 && text.chars().all(char::is_alphabetic) {
            errors.add(
                literal,
                format!(
                    "expected a duration such as \"5s\", or \"none\" to wait as long as it takes, \
                     found \"{text}\""
                ),
            );
            return None;
        }
    }
    length(given, errors, |_| Ok(()))
}

pub(crate) fn lease(given: Given, _: &Item, errors: &mut Errors) -> Option<Length> {
    length(given, errors, |lease| {
        if lease.is_zero() {
            Err("`lease` is zero, expected at least \"100ms\"")
        } else if lease < *LEASES.start() {
            Err("`lease` is too short, expected at least \"100ms\"")
        } else if lease > *LEASES.end() {
            Err("`lease` is too long, expected at most \"24h\"")
        } else {
            Ok(())
        }
    })
}

pub(crate) fn max_hold(given: Given, _: &Item, errors: &mut Errors) -> Option<Length> {
    length(given, errors, |max_hold| {
        if max_hold.is_zero() {
            Err("`max_hold` is zero, leave it out to let the body run as long as it takes")
        } else {
            Ok(())
        }
    })
}

pub(crate) fn min_hold(given: Given, _: &Item, errors: &mut Errors) -> Option<Length> {
    length(given, errors, |min_hold| {
        if min_hold.is_zero() {
            Err("`min_hold` is zero, leave it out to release the lock when the body ends")
        } else if min_hold > LONGEST_MIN_HOLD {
            Err("`min_hold` is too long, expected at most \"24h\"")
        } else {
            Ok(())
        }
    })
}

/// Reports a `min_hold` above `max_hold`.
pub(crate) fn check_holds(
    min_hold: Option<&Length>,
    max_hold: Option<&Length>,
    errors: &mut Errors,
) {
    if let (Some(Length::Constant(literal, min)), Some(Length::Constant(limit, max))) =
        (min_hold, max_hold)
        && min > max
    {
        let limit = limit.value();
        errors.add(
            literal,
            format!("`min_hold` is longer than `max_hold`, expected at most \"{limit}\""),
        );
    }
}

/// Reads an option. The closure says what is wrong with a duration that can be read.
fn length(
    given: Given,
    errors: &mut Errors,
    check: impl Fn(Duration) -> Result<(), &'static str>,
) -> Option<Length> {
    if let Some(Value::Expression(Expr::Lit(literal))) = &given.value
        && let Lit::Int(number) = &literal.lit
        && number.suffix().is_empty()
    {
        let (name, expected) = (given.option.name, given.option.expected());
        errors.add(
            number,
            format!("{expected}; write `{name} = \"{number}s\"` for seconds"),
        );
        return None;
    }
    let literal = match given.text_or_expression(errors)? {
        Value::Text(literal) => literal,
        Value::Expression(expression) => return Some(Length::Expression(expression)),
    };
    let duration = duration::parse(&literal.value());
    let checked = duration.and_then(|duration| Ok(check(duration).map(|()| duration)?));
    match checked {
        Ok(duration) => Some(Length::Constant(literal, duration)),
        Err(message) => {
            errors.add(literal, message);
            None
        }
    }
}
