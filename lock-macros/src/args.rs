//! The attribute's arguments: `key = value, …`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, Ident, Lit, LitStr, Token};

use crate::errors::Errors;
use crate::suggest::{nearest, quoted};

/// The options, and what each takes.
const OPTIONS: [(&str, &str); 9] = [
    (
        "name",
        "a string such as \"invoice:{id}\", or an expression that is `Into<LockName>`",
    ),
    (
        "timeout",
        "a duration string such as \"5s\", \"none\", or an expression of type `Duration`",
    ),
    (
        "lease",
        "a duration string such as \"30s\", or an expression of type `Duration`",
    ),
    (
        "max_hold",
        "a duration string such as \"10m\", or an expression of type `Duration`",
    ),
    (
        "min_hold",
        "a duration string such as \"1m\", or an expression of type `Duration`",
    ),
    (
        "on_unavailable",
        "\"error\", \"skip\", or a closure from `LockError` to the return type",
    ),
    (
        "provider",
        "the name of a registered provider in quotes, or an expression that is an `Arc<dyn LockProvider>`",
    ),
    (
        "guard",
        "an identifier, which the body can then use as `&LockGuard`",
    ),
    (
        "crate",
        "an absolute path such as `::lock_runtime` or `crate::reexported`",
    ),
];

/// What was given for each option.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) name: Option<Value>,
    /// The options that are durations, in the order in which they were written.
    pub(crate) durations: Vec<(Period, Value)>,
    pub(crate) on_unavailable: Option<Value>,
    pub(crate) provider: Option<Value>,
    pub(crate) guard: Option<Value>,
    pub(crate) krate: Option<Value>,
    /// Something was written that is no option: what seems to be missing may be meant by it.
    pub(crate) misread: bool,
}

/// An option that is a duration.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Period {
    Timeout,
    Lease,
    MaxHold,
    MinHold,
}

impl Period {
    fn named(option: &str) -> Option<Self> {
        [Self::Timeout, Self::Lease, Self::MaxHold, Self::MinHold]
            .into_iter()
            .find(|period| period.name() == option)
    }

    /// Returns the name of the option, which is that of the builder's method, too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Lease => "lease",
            Self::MaxHold => "max_hold",
            Self::MinHold => "min_hold",
        }
    }
}

pub(crate) enum Value {
    Text(LitStr),
    Expression(Expr),
    /// Reported already.
    Malformed,
}

impl Args {
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut args = Self::default();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                args.parse_one(input, errors);
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            errors.push(error);
        }
        args
    }

    fn parse_one(&mut self, input: ParseStream<'_>, errors: &mut Errors) {
        if !input.peek(Ident::peek_any) {
            self.misread = true;
            let rest = skip_to_comma(input);
            let hint = match syn::parse2::<LitStr>(rest.clone()) {
                Ok(text) => format!(", write `name = {}`", text.token()),
                Err(_) => format!(", the options are {}", quoted(option_names())),
            };
            errors.add(rest, format!("expected `option = value`{hint}"));
            return;
        }
        let Ok(key) = Ident::parse_any(input) else {
            return;
        };
        let name = key.to_string();
        if !option_names().any(|known| known == name) {
            return self.unknown(&key, input, errors);
        }
        let value = parse_value(&key, input, errors);
        if !self.put(&name, value) {
            errors.add(&key, format!("`{name}` is given twice, remove one"));
        }
    }

    /// Keeps the value of an option, unless it has one already.
    fn put(&mut self, key: &str, value: Value) -> bool {
        if let Some(period) = Period::named(key) {
            let is_new = !self.durations.iter().any(|(known, _)| *known == period);
            if is_new {
                self.durations.push((period, value));
            }
            return is_new;
        }
        match self.slot(key) {
            Some(slot) if slot.is_none() => {
                *slot = Some(value);
                true
            }
            _ => false,
        }
    }

    fn unknown(&mut self, key: &Ident, input: ParseStream<'_>, errors: &mut Errors) {
        self.misread = true;
        let nearest = nearest(&key.to_string(), option_names());
        let hint = match nearest {
            Some(option) => format!("did you mean `{option}`?"),
            None => format!("expected one of {}", quoted(option_names())),
        };
        errors.add(key, format!("unknown option `{key}`, {hint}"));
        if !input.peek(Token![=]) {
            skip_to_comma(input);
            return;
        }
        let value = parse_value(key, input, errors);
        // What the body does with a guard must resolve even so.
        if nearest == Some("guard") {
            self.guard.get_or_insert(value);
        }
    }

    fn slot(&mut self, key: &str) -> Option<&mut Option<Value>> {
        Some(match key {
            "name" => &mut self.name,
            "on_unavailable" => &mut self.on_unavailable,
            "provider" => &mut self.provider,
            "guard" => &mut self.guard,
            "crate" => &mut self.krate,
            _ => return None,
        })
    }
}

/// The message for a value that an option does not take.
pub(crate) fn takes(option: &str) -> String {
    let (_, what) = OPTIONS
        .iter()
        .find(|(name, _)| *name == option)
        .copied()
        .unwrap_or_default();
    if what.is_empty() {
        "a value".to_owned()
    } else {
        format!("`{option}` takes {what}")
    }
}

/// Takes invisible groups away, which `macro_rules!` puts around what it matched.
pub(crate) fn ungrouped(mut expression: Expr) -> Expr {
    while let Expr::Group(group) = expression {
        expression = *group.expr;
    }
    expression
}

fn option_names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

/// Reads `= value` and the comma after it.
fn parse_value(key: &Ident, input: ParseStream<'_>, errors: &mut Errors) -> Value {
    if !input.peek(Token![=]) || input.peek(Token![==]) {
        let rest = skip_to_comma(input);
        let message = format!("expected `=` after `{key}`: {}", takes(&key.to_string()));
        if rest.is_empty() {
            errors.add(key, message)
        } else {
            errors.add(rest, message)
        }
        return Value::Malformed;
    }
    let equals = input.parse::<Token![=]>();
    if input.is_empty() || input.peek(Token![,]) {
        skip_to_comma(input);
        let message = format!("expected a value after `=`: {}", takes(&key.to_string()));
        errors.add(equals.ok(), message);
        return Value::Malformed;
    }
    let ahead = input.fork();
    if ahead.parse::<Expr>().is_err() {
        errors.add(skip_to_comma(input), takes(&key.to_string()));
        return Value::Malformed;
    }
    let value = match input.parse::<Expr>().map(ungrouped) {
        Ok(Expr::Lit(literal)) => match literal.lit {
            Lit::Str(text) => Value::Text(text),
            lit => Value::Expression(Expr::Lit(syn::ExprLit {
                attrs: literal.attrs,
                lit,
            })),
        },
        Ok(expression) => Value::Expression(expression),
        Err(_) => Value::Malformed,
    };
    if !input.is_empty() && input.parse::<Token![,]>().is_err() {
        let found = input.cursor().span();
        errors.push(syn::Error::new(found, "expected `,` between two options"));
        if !(input.peek(Ident::peek_any) && input.peek2(Token![=])) {
            skip_to_comma(input);
        }
    }
    value
}

/// Takes everything up to the next comma, and the comma, which is not in the result.
fn skip_to_comma(input: ParseStream<'_>) -> TokenStream {
    let mut skipped = TokenStream::new();
    while !input.is_empty() && input.parse::<Option<Token![,]>>().ok().flatten().is_none() {
        if let Ok(token) = input.parse::<proc_macro2::TokenTree>() {
            skipped.extend([token]);
        }
    }
    skipped
}
