//! The checks of the options, one function each.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;
use syn::{Expr, ExprLit, Lit, Path};

use crate::args::{Value, takes};
use crate::errors::Errors;
use crate::item::{Item, Problem};
use crate::model::{Name, Outcome, Provider};
use crate::suggest::{nearest, quoted};
use crate::template::{Segment, Template};

const LONGEST_NAME: usize = 1_024;

pub(crate) fn name(
    value: Option<Value>,
    misread: bool,
    item: &Item,
    errors: &mut Errors,
) -> Option<Name> {
    if value.is_none() && !misread {
        errors.push(syn::Error::new(
            Span::call_site(),
            "`name` is missing, write which lock: `name = \"invoice:{id}\"`",
        ));
    }
    template_or_expression(value?, item, errors)
}

fn template_or_expression(value: Value, item: &Item, errors: &mut Errors) -> Option<Name> {
    let literal = match value {
        Value::Text(literal) => literal,
        value => return expression("name", value, errors).map(Name::Expression),
    };
    let text = literal.value();
    if text.is_empty() {
        errors.add(
            &literal,
            "`name` is empty, write which lock: `name = \"invoice:{id}\"`",
        );
        return None;
    }
    let template = match Template::parse(&text) {
        Ok(template) => template,
        Err(messages) => {
            messages
                .into_iter()
                .for_each(|message| errors.add(&literal, message));
            return None;
        }
    };
    for message in wrong_text(&template)
        .into_iter()
        .chain(unknown_roots(&template, item))
    {
        errors.add(&literal, message);
    }
    Some(Name::Template(literal, template))
}

/// What no acquisition would accept, whatever the placeholders stand for.
fn wrong_text(template: &Template) -> Option<String> {
    let texts = template
        .segments
        .iter()
        .filter_map(|segment| match segment {
            Segment::Text(text) => Some(text.as_str()),
            Segment::Placeholder(_) => None,
        });
    let text = texts.collect::<String>();
    if text.contains('\0') {
        return Some("`name` has a NUL character, which no lock's name may have".into());
    }
    (text.len() > LONGEST_NAME).then(|| {
        format!(
            "`name` has {} bytes of text, expected at most {LONGEST_NAME}",
            text.len()
        )
    })
}

fn unknown_roots(template: &Template, item: &Item) -> Vec<String> {
    let known: Vec<String> = item
        .bindings
        .iter()
        .map(|name| name.unraw().to_string())
        .collect();
    let mut unknown: Vec<&str> = Vec::new();
    for placeholder in template.placeholders() {
        let root = placeholder.root.trim_start_matches("r#");
        if !known.iter().any(|known| known == root) && !unknown.contains(&root) {
            unknown.push(root);
        }
    }
    let shown = || {
        known
            .iter()
            .map(String::as_str)
            .filter(|name| !name.starts_with("__arg"))
    };
    let message = |root: &str| {
        if root == "self" {
            return "`self` in a placeholder, but the function takes no `self`".to_owned();
        }
        let hint = match nearest(root, shown()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if shown().next().is_none() => "the function takes none".to_owned(),
            None => format!("expected one of {}", quoted(shown())),
        };
        format!("no parameter is named `{root}`, {hint}")
    };
    unknown.into_iter().map(message).collect()
}

pub(crate) fn function(item: &Item, errors: &mut Errors) {
    match &item.problem {
        Some(Problem::Const(keyword)) => {
            errors.add(
                keyword,
                "a locked function cannot be `const`, remove the keyword",
            );
        }
        Some(Problem::NotAsync(name)) => errors.add(name, not_async(item)),
        None => {}
    }
}

fn not_async(item: &Item) -> &'static str {
    if item.body_has("block_on") {
        "expected an `async fn`, but an attribute above this one has taken `async` away: put `#[distributed_lock]` above that attribute"
    } else if item.body_has("async") {
        "expected an `async fn`, add `async` before `fn`; if an attribute above this one has taken it away, put `#[distributed_lock]` above that attribute"
    } else {
        "expected an `async fn`, add `async` before `fn`"
    }
}

/// Refuses functions that cannot return a `LockError`, as far as the signature shows it.
pub(crate) fn output(item: &Item, outcome: Option<&Outcome>, errors: &mut Errors) {
    if matches!(outcome, Some(Outcome::Error)) && item.problem.is_none() && item.returns_nothing() {
        errors.add(
            &item.output,
            "a function that returns nothing cannot return a `LockError`, write `on_unavailable = \"skip\"` if the body may be left out, or return `Result<(), LockError>`",
        );
    }
}

pub(crate) fn outcome(value: Option<Value>, errors: &mut Errors) -> Option<Outcome> {
    let literal = match value {
        None => return Some(Outcome::Error),
        Some(Value::Text(literal)) => literal,
        Some(value) => return expression("on_unavailable", value, errors).map(Outcome::With),
    };
    let text = literal.value();
    match text.as_str() {
        "error" => Some(Outcome::Error),
        "skip" => Some(Outcome::Skip),
        _ => {
            let hint = match nearest(&text, ["error", "skip"]) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => takes("on_unavailable"),
            };
            errors.add(&literal, format!("unknown outcome \"{text}\", {hint}"));
            None
        }
    }
}

pub(crate) fn provider(value: Value, errors: &mut Errors) -> Option<Provider> {
    let literal = match value {
        Value::Text(literal) => literal,
        value => return expression("provider", value, errors).map(Provider::Expression),
    };
    if literal.value().is_empty() {
        errors.add(
            &literal,
            "`provider` is empty, expected the name of a registered provider",
        );
        return None;
    }
    Some(Provider::Named(literal))
}

pub(crate) fn guard(value: Value, errors: &mut Errors) -> Option<Ident> {
    match value {
        Value::Text(literal) => {
            let hint = match syn::parse_str::<Ident>(&literal.value()) {
                Ok(name) => format!(", write `guard = {name}` without quotes"),
                Err(_) => String::new(),
            };
            errors.add(&literal, format!("{}{hint}", takes("guard")));
            None
        }
        Value::Expression(Expr::Path(path)) if path.path.get_ident().is_some_and(is_free) => {
            path.path.get_ident().cloned()
        }
        Value::Expression(expression) => {
            errors.add(&expression, takes("guard"));
            None
        }
        Value::Malformed => None,
    }
}

/// Whether a `let` can bind this name; `self`, `Self`, `super` and `crate` are paths, too.
fn is_free(name: &Ident) -> bool {
    syn::parse_str::<Ident>(&name.to_string()).is_ok()
}

pub(crate) fn root(value: Value, errors: &mut Errors) -> Option<Path> {
    let path = match value {
        Value::Text(literal) => {
            let hint = match syn::parse_str::<Path>(&literal.value()) {
                Ok(_) => format!(", write `crate = {}` without quotes", literal.value()),
                Err(_) => String::new(),
            };
            errors.add(&literal, format!("{}{hint}", takes("crate")));
            return None;
        }
        Value::Expression(Expr::Path(path)) if path.qself.is_none() => path.path,
        Value::Expression(expression) => {
            errors.add(&expression, takes("crate"));
            return None;
        }
        Value::Malformed => return None,
    };
    let first = path
        .segments
        .first()
        .map(|first| first.ident.to_string())
        .unwrap_or_default();
    if path.leading_colon.is_none() && first != "crate" && first != "$crate" {
        errors.add(&path, format!("{}, found a relative path", takes("crate")));
        return None;
    }
    Some(path)
}

/// A value that is an expression, but not a literal of the wrong kind.
pub(crate) fn expression(option: &str, value: Value, errors: &mut Errors) -> Option<Expr> {
    match value {
        Value::Expression(expression) if is_literal(&expression) => {
            errors.add(&expression, wrong_kind(option, &expression));
            None
        }
        Value::Expression(expression) => Some(expression),
        Value::Text(_) | Value::Malformed => None,
    }
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) => true,
        Expr::Unary(unary) => is_literal(&unary.expr),
        _ => false,
    }
}

fn wrong_kind(option: &str, expression: &Expr) -> String {
    match expression {
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) if matches!(option, "timeout" | "lease" | "max_hold" | "min_hold")
            && number.suffix().is_empty() =>
        {
            format!(
                "{}; write `{option} = \"{number}s\"` for seconds",
                takes(option)
            )
        }
        _ => takes(option),
    }
}
