//! The grammar of the attribute's arguments: `option = value, …`.

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Expr, ExprLit, Ident, Lit, LitStr, Token};

use crate::errors::Errors;
use crate::suggest::{nearest, quoted};

/// An option, as far as the grammar knows it.
pub(crate) struct OptionSpec {
    pub(crate) name: &'static str,
    /// When the option is checked and evaluated. Options of one turn go in the order in which they
    /// are written.
    turn: u8,
    /// The values that the option takes, in words.
    takes: &'static str,
    /// Whether the name or the type of the body's guard depends on it.
    shapes_guard: bool,
}

impl OptionSpec {
    pub(crate) const fn new(name: &'static str, turn: u8, takes: &'static str) -> Self {
        Self {
            name,
            turn,
            takes,
            shapes_guard: false,
        }
    }

    /// Keeps the value even if the option is misspelt, so that the guard resolves in the body.
    pub(crate) const fn shapes_guard(mut self) -> Self {
        self.shapes_guard = true;
        self
    }

    /// Makes the message for a value that the option does not take.
    pub(crate) fn expected(&self) -> String {
        format!("`{}` takes {}", self.name, self.takes)
    }
}

/// What was written inside the attribute.
#[derive(Default)]
pub(crate) struct Args {
    /// Each option at most once, by its turn.
    pub(crate) given: Vec<Given>,
    /// Whether something was written that is no option. An option that seems to be missing may be
    /// meant by it.
    pub(crate) misread: bool,
}

/// An option that was written.
pub(crate) struct Given {
    pub(crate) option: &'static OptionSpec,
    /// The word that was written.
    pub(crate) key: Ident,
    /// Nothing, if a mistake in the value is already reported.
    pub(crate) value: Option<Value>,
}

/// What was written after the `=` of an option.
pub(crate) enum Value {
    Text(LitStr),
    Expression(Expr),
}

impl Given {
    /// Returns the value, unless it is a literal that is not a string.
    pub(crate) fn text_or_expression(self, errors: &mut Errors) -> Option<Value> {
        let value = self.value?;
        if let Value::Expression(expression) = &value
            && is_literal(expression)
        {
            errors.add(expression, self.option.expected());
            return None;
        }
        Some(value)
    }
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) => true,
        Expr::Unary(unary) => is_literal(&unary.expr),
        _ => false,
    }
}

impl Args {
    /// Reads the arguments, as far as they can be read.
    pub(crate) fn parse(
        tokens: TokenStream,
        options: &'static [OptionSpec],
        errors: &mut Errors,
    ) -> Self {
        let mut args = Self::default();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                args.parse_one(input, options, errors);
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            errors.push(error);
        }
        args.given.sort_by_key(|given| given.option.turn);
        args
    }

    /// Tells whether an option was written.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.given.iter().any(|given| given.option.name == option)
    }

    fn parse_one(
        &mut self,
        input: ParseStream<'_>,
        options: &'static [OptionSpec],
        errors: &mut Errors,
    ) {
        if !input.peek(Ident::peek_any) {
            self.misread = true;
            let rest = skip_to_comma(input);
            let hint = match syn::parse2::<LitStr>(rest.clone()) {
                Ok(text) => format!(", write `name = {}`", text.token()),
                Err(_) => format!(", the options are {}", quoted(names(options))),
            };
            errors.add(rest, format!("expected `option = value`{hint}"));
            return;
        }
        let Ok(key) = Ident::parse_any(input) else {
            return;
        };
        let Some(option) = options.iter().find(|option| key == option.name) else {
            return self.parse_unknown(&key, input, options, errors);
        };
        let value = parse_value(&key, &option.expected(), input, errors);
        if !self.put(option, &key, value) {
            errors.add(&key, format!("`{key}` is given twice, remove one"));
        }
    }

    fn parse_unknown(
        &mut self,
        key: &Ident,
        input: ParseStream<'_>,
        options: &'static [OptionSpec],
        errors: &mut Errors,
    ) {
        self.misread = true;
        let nearest = nearest(&key.to_string(), names(options));
        let hint = match nearest {
            Some(option) => format!("did you mean `{option}`?"),
            None => format!("expected one of {}", quoted(names(options))),
        };
        errors.add(key, format!("unknown option `{key}`, {hint}"));
        if !input.peek(Token![=]) {
            skip_to_comma(input);
            return;
        }
        let value = parse_value(key, "a value", input, errors);
        let meant = options.iter().find(|option| Some(option.name) == nearest);
        if let Some(option) = meant.filter(|option| option.shapes_guard) {
            self.put(option, key, value);
        }
    }

    /// Keeps the value of an option, unless the option has one already.
    fn put(&mut self, option: &'static OptionSpec, key: &Ident, value: Option<Value>) -> bool {
        let is_new = !self.has(option.name);
        if is_new {
            let key = key.clone();
            self.given.push(Given { option, key, value });
        }
        is_new
    }
}

fn names(options: &[OptionSpec]) -> impl Iterator<Item = &'static str> {
    options.iter().map(|option| option.name)
}

/// Reads `= value` and the comma after it.
fn parse_value(
    key: &Ident,
    expected: &str,
    input: ParseStream<'_>,
    errors: &mut Errors,
) -> Option<Value> {
    if !input.peek(Token![=]) || input.peek(Token![==]) {
        let rest = skip_to_comma(input);
        let message = format!("expected `=` after `{key}`: {expected}");
        if rest.is_empty() {
            errors.add(key, message);
        } else {
            errors.add(rest, message);
        }
        return None;
    }
    let equals = input.parse::<Token![=]>();
    if input.is_empty() || input.peek(Token![,]) {
        skip_to_comma(input);
        let message = format!("expected a value after `=`: {expected}");
        errors.add(equals.ok(), message);
        return None;
    }
    if input.fork().parse::<Expr>().is_err() {
        errors.add(skip_to_comma(input), expected);
        return None;
    }
    let value = match ungrouped(input.parse::<Expr>().ok()?) {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Value::Text(text),
        expression => Value::Expression(expression),
    };
    if !input.is_empty() && input.parse::<Token![,]>().is_err() {
        let found = input.cursor().span();
        errors.push(syn::Error::new(found, "expected `,` between two options"));
        if !(input.peek(Ident::peek_any) && input.peek2(Token![=])) {
            skip_to_comma(input);
        }
    }
    Some(value)
}

/// Takes away invisible groups, which `macro_rules!` puts around what it matched.
pub(crate) fn ungrouped(mut expression: Expr) -> Expr {
    while let Expr::Group(group) = expression {
        expression = *group.expr;
    }
    expression
}

/// Takes everything up to the next comma, and the comma, which is not in the result.
fn skip_to_comma(input: ParseStream<'_>) -> TokenStream {
    let mut skipped = TokenStream::new();
    while !input.is_empty() && input.parse::<Option<Token![,]>>().ok().flatten().is_none() {
        if let Ok(token) = input.parse::<TokenTree>() {
            skipped.extend([token]);
        }
    }
    skipped
}
