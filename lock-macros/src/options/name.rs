//! `name`: which lock, or which locks.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::{Expr, ExprArray, ExprLit, Lit, LitStr};

use crate::args::{Args, Given, Value, ungrouped};
use crate::errors::Errors;
use crate::item::Item;
use crate::mentions::ValueUse;
use crate::options::setting::Setting;
use crate::suggest::{nearest, quoted};
use crate::template::{Segment, Template};

/// The longest name, in bytes of UTF-8. A test ties this constant to `lock-runtime`.
pub(crate) const MAX_BYTES: usize = 1_024;

/// How many names an array may have.
const MOST: usize = 16;

/// How the name of the lock is made, or the names of several.
pub(crate) enum Name {
    One(OneName),
    Several(Vec<OneName>),
}

/// How the name of one lock is made.
pub(crate) enum OneName {
    Template(LitStr, Template),
    Expression(Expr),
}

impl Name {
    /// Lists the names, as they are written.
    pub(crate) fn all(&self) -> &[OneName] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }

    /// Lists the user's expressions, and what becomes of their values.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = (&Expr, ValueUse)> {
        self.all().iter().filter_map(|name| match name {
            OneName::Template(..) => None,
            OneName::Expression(expression) => Some((expression, ValueUse::Moved)),
        })
    }

    /// Lists the templates.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.all().iter().filter_map(|name| match name {
            OneName::Template(_, template) => Some(template),
            OneName::Expression(_) => None,
        })
    }
}

impl OneName {
    /// Tells whether the name is the same at every call.
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self, Self::Template(_, template) if template.placeholders().next().is_none())
    }
}

impl Setting for Name {}

/// Reports a name that is missing, unless something that is no option may be meant to be it.
pub(crate) fn check_presence(args: &Args, errors: &mut Errors) {
    if !args.misread && !args.has("name") {
        errors.push(syn::Error::new(
            Span::call_site(),
            "`name` is missing, write which lock: `name = \"invoice:{id}\"`",
        ));
    }
}

pub(crate) fn check(given: Given, item: &Item, errors: &mut Errors) -> Option<Name> {
    let expected = given.option.expected();
    match given.text_or_expression(errors)? {
        Value::Text(literal) => Some(Name::One(check_template(literal, item, errors)?)),
        Value::Expression(Expr::Array(array)) => {
            Some(Name::Several(check_array(array, &expected, item, errors)))
        }
        Value::Expression(expression) => Some(Name::One(OneName::Expression(expression))),
    }
}

/// Checks the names of several locks. Where some have mistakes, it returns the others: the guard in
/// the body then has its type.
fn check_array(array: ExprArray, expected: &str, item: &Item, errors: &mut Errors) -> Vec<OneName> {
    if array.elems.is_empty() {
        errors.add(
            &array,
            "`name` is an empty array, write which locks: `name = [\"from:{a}\", \"to:{b}\"]`",
        );
    }
    if let Some(first) = array.elems.iter().nth(MOST) {
        let count = array.elems.len();
        errors.add(
            first,
            format!("`name` has {count} names, expected at most {MOST}"),
        );
    }
    let mut texts: Vec<String> = Vec::new();
    let names = array.elems.into_iter().map(ungrouped);
    let names = names.filter_map(|name| match name {
        Expr::Lit(ExprLit {
            lit: Lit::Str(literal),
            ..
        }) => {
            let text = literal.value();
            if texts.contains(&text) {
                errors.add(&literal, format!("\"{text}\" is written twice, remove one"));
                return None;
            }
            texts.push(text);
            check_template(literal, item, errors)
        }
        Expr::Array(inner) => {
            errors.add(&inner, "an array in an array, write all names in one");
            None
        }
        name @ Expr::Lit(_) => {
            errors.add(&name, expected);
            None
        }
        name => Some(OneName::Expression(name)),
    });
    names.collect()
}

fn check_template(literal: LitStr, item: &Item, errors: &mut Errors) -> Option<OneName> {
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
            for message in messages {
                errors.add(&literal, message);
            }
            return None;
        }
    };
    for message in wrong_text(&template)
        .into_iter()
        .chain(unknown_roots(&template, item))
    {
        errors.add(&literal, message);
    }
    Some(OneName::Template(literal, template))
}

/// Finds what no acquisition would accept, whatever the placeholders stand for.
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
    let bytes = text.len();
    (bytes > MAX_BYTES)
        .then(|| format!("`name` has {bytes} bytes of text, expected at most {MAX_BYTES}"))
}

/// Finds the placeholders that begin with no parameter.
fn unknown_roots(template: &Template, item: &Item) -> Vec<String> {
    let known: Vec<String> = item
        .bindings
        .iter()
        .map(|name| name.unraw().to_string())
        .collect();
    let mut unknown: Vec<&str> = Vec::new();
    for placeholder in template.placeholders() {
        let root = placeholder.bare_root();
        if !known.iter().any(|known| known == root) && !unknown.contains(&root) {
            unknown.push(root);
        }
    }
    // The user has not written the names that begin so.
    let shown = || {
        let known = known.iter().map(String::as_str);
        known.filter(|name| !name.starts_with("__arg"))
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
