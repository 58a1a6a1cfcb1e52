//! The checks of the options that are durations.

use std::time::Duration;

use syn::LitStr;

use crate::args::{Period, Value};
use crate::check::expression;
use crate::duration;
use crate::errors::Errors;
use crate::model::Length;

const SHORTEST_LEASE: Duration = Duration::from_millis(100);
/// The longest lease, and the longest `min_hold`.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks the durations, each by itself and then against each other; keeps their order.
pub(crate) fn check(values: Vec<(Period, Value)>, errors: &mut Errors) -> Vec<(Period, Length)> {
    let mut literals = Vec::new();
    let mut checked = Vec::new();
    for (period, value) in values {
        let literal = match &value {
            Value::Text(literal) => Some(literal.clone()),
            Value::Expression(_) | Value::Malformed => None,
        };
        let Some(length) = length(period, value, errors) else {
            continue;
        };
        if let (Some(literal), Length::Constant(duration)) = (literal, &length) {
            literals.push((period, literal, *duration));
        }
        checked.push((period, length));
    }
    let of = |wanted| literals.iter().find(|(period, ..)| *period == wanted);
    if let (Some((_, literal, min)), Some((_, limit, max))) =
        (of(Period::MinHold), of(Period::MaxHold))
        && min > max
    {
        let limit = limit.value();
        errors.add(
            literal,
            format!("`min_hold` is longer than `max_hold`, expected at most \"{limit}\""),
        );
    }
    checked
}

fn length(period: Period, value: Value, errors: &mut Errors) -> Option<Length> {
    let literal = match value {
        Value::Text(literal) => literal,
        value => return expression(period.name(), value, errors).map(Length::Expression),
    };
    if period == Period::Timeout && literal.value() == "none" {
        return Some(Length::Unlimited);
    }
    constant(period, &literal)
        .map(Length::Constant)
        .map_err(|message| errors.add(literal, message))
        .ok()
}

/// Reads a literal.
///
/// # Errors
///
/// What is wrong with it.
fn constant(period: Period, literal: &LitStr) -> Result<Duration, String> {
    let text = literal.value();
    let only_letters = !text.is_empty() && text.chars().all(char::is_alphabetic);
    if period == Period::Timeout && only_letters && text.chars().count() > 2 {
        return Err(format!(
            "expected a duration such as \"5s\", or \"none\" to wait as long as it takes, found \"{text}\""
        ));
    }
    let duration = duration::parse(&text)?;
    let name = period.name();
    if duration.is_zero()
        && let Some(hint) = period_above_zero(period)
    {
        return Err(format!("`{name}` is zero, {hint}"));
    }
    if period == Period::Lease && duration < SHORTEST_LEASE {
        return Err("`lease` is too short, expected at least \"100ms\"".into());
    }
    if matches!(period, Period::Lease | Period::MinHold) && duration > A_DAY {
        return Err(format!("`{name}` is too long, expected at most \"24h\""));
    }
    Ok(duration)
}

/// Says what to write instead of zero.
fn period_above_zero(period: Period) -> Option<&'static str> {
    match period {
        Period::Timeout => None,
        Period::Lease => Some("expected at least \"100ms\""),
        Period::MaxHold => Some("leave it out to let the body run as long as it takes"),
        Period::MinHold => Some("leave it out to release the lock when the body ends"),
    }
}
