//! Where tokens mention a name.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;

use crate::model::{Length, LockedFn, Name, Outcome, Provider};

/// What the attribute itself does with the parameters.
pub(crate) struct Uses {
    /// What the placeholders begin with.
    roots: Vec<String>,
    /// An expression for the name.
    name: TokenStream,
    /// Those for durations, which are copied.
    durations: Vec<TokenStream>,
    /// The provider, which is borrowed.
    provider: TokenStream,
    /// What makes the outcome, after the wait.
    outcome: TokenStream,
}

impl Uses {
    pub(crate) fn new(function: &LockedFn) -> Self {
        let mut roots = Vec::new();
        let mut name = TokenStream::new();
        match &function.name {
            Name::Expression(expression) => name = expression.to_token_stream(),
            Name::Template(_, template) => {
                let placeholders = template.placeholders();
                roots.extend(placeholders.map(|placeholder| bare(&placeholder.root).to_owned()));
            }
        }
        let durations = function.durations.iter();
        let durations = durations.filter_map(|(_, length)| match length {
            Length::Expression(duration) => Some(duration.to_token_stream()),
            Length::Constant(_) | Length::Unlimited => None,
        });
        let provider = match &function.provider {
            Some(Provider::Expression(provider)) => provider.to_token_stream(),
            _ => TokenStream::new(),
        };
        let outcome = match &function.outcome {
            Outcome::With(outcome) => outcome.to_token_stream(),
            Outcome::Error | Outcome::Skip => TokenStream::new(),
        };
        Self {
            roots,
            name,
            durations: durations.collect(),
            provider,
            outcome,
        }
    }

    /// Whether a placeholder begins with this name.
    pub(crate) fn is_in_template(&self, name: &Ident) -> bool {
        let name = name.unraw().to_string();
        self.roots.contains(&name)
    }

    /// Whether an option's expression mentions it.
    pub(crate) fn is_in_expression(&self, name: &Ident) -> bool {
        let all = [&self.name, &self.provider, &self.outcome];
        let mut all = all.into_iter().chain(&self.durations);
        all.any(|tokens| mentions(tokens, name))
    }

    /// Whether the body can have it, although the options' expressions are evaluated outside.
    pub(crate) fn may_capture(&self, name: &Ident) -> bool {
        let durations = &self.durations;
        !mentions(&self.outcome, name)
            && only_borrows(&self.name, name, Whole::Moved)
            && only_borrows(&self.provider, name, Whole::Borrowed)
            && durations
                .iter()
                .all(|tokens| only_borrows(tokens, name, Whole::Copied))
    }
}

fn bare(name: &str) -> &str {
    name.trim_start_matches("r#")
}

/// Whether the tokens use the name, as far as one can see without knowing their macros.
pub(crate) fn mentions(tokens: &TokenStream, name: &Ident) -> bool {
    let text = name.unraw().to_string();
    tokens.clone().into_iter().any(|token| match token {
        // These make names out of what is not there.
        TokenTree::Ident(ident) if ident == "include" || ident == "paste" => true,
        TokenTree::Ident(ident) => ident.unraw() == text,
        TokenTree::Group(group) => mentions(&group.stream(), name),
        // It may be a format string.
        TokenTree::Literal(literal) => literal.to_string().contains(&text),
        TokenTree::Punct(_) => false,
    })
}

/// Whether the tokens assign to the name or a field of it: lints judge that otherwise if it was
/// captured.
pub(crate) fn assigns(tokens: &TokenStream, name: &Ident) -> bool {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let is_punct = |at: usize, wanted: &dyn Fn(char) -> bool| match tokens.get(at) {
        Some(TokenTree::Punct(punct)) => wanted(punct.as_char()),
        _ => false,
    };
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Group(group) => assigns(&group.stream(), name),
        TokenTree::Ident(ident) if ident == name => {
            let (_, fields) = chain(&tokens[at + 1..]);
            let after = at + 1 + fields;
            // `=`, `+=`, `<<=`; also `==` and `<=`, where it costs little.
            is_punct(after, &|c| "=+-*/%&|^<>".contains(c))
                && (after..after + 3).any(|at| is_punct(at, &|c| c == '='))
        }
        _ => false,
    })
}

/// What becomes of an expression's value.
#[derive(Clone, Copy, PartialEq)]
enum Whole {
    Moved,
    Borrowed,
    /// And so are the operands.
    Copied,
}

/// Whether an expression leaves the value of this name where it is; not, if in doubt.
fn only_borrows(tokens: &TokenStream, name: &Ident, whole: Whole) -> bool {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let before = |at: usize, distance: usize| at.checked_sub(distance).map(|at| &tokens[at]);
    let is_punct = |token: Option<&TokenTree>, wanted: char| match token {
        Some(TokenTree::Punct(punct)) => punct.as_char() == wanted,
        _ => false,
    };
    let is_word = |token: Option<&TokenTree>, wanted: &str| match token {
        Some(TokenTree::Ident(word)) => word == wanted,
        _ => false,
    };
    tokens.iter().enumerate().all(|(at, token)| match token {
        TokenTree::Group(group) => {
            // A macro that takes references.
            let formats = is_punct(before(at, 1), '!') && is_word(before(at, 2), "format");
            let is_all = tokens.len() == 1 && group.delimiter() != Delimiter::Bracket;
            let whole = if is_all { whole } else { Whole::Moved };
            formats || only_borrows(&group.stream(), name, whole)
        }
        TokenTree::Ident(ident) if ident == name && !is_punct(before(at, 1), '.') => {
            let (method, fields) = chain(&tokens[at + 1..]);
            if let Some(method) = method {
                let by_value = ["into", "unwrap", "expect"];
                return !by_value.iter().any(|prefix| method.starts_with(prefix));
            }
            let is_all = at == 0 && 1 + fields == tokens.len();
            is_punct(before(at, 1), '&')
                || is_word(before(at, 1), "mut")
                || whole == Whole::Copied
                || whole == Whole::Borrowed && is_all
        }
        _ => true,
    })
}

/// The first method that is called on a value after fields of it, and how many tokens the fields
/// take.
fn chain(tokens: &[TokenTree]) -> (Option<String>, usize) {
    let mut at = 0;
    while let [TokenTree::Punct(dot), field, rest @ ..] = &tokens[at..]
        && dot.as_char() == '.'
    {
        let is_call = match rest {
            [TokenTree::Group(arguments), ..] => arguments.delimiter() == Delimiter::Parenthesis,
            [TokenTree::Punct(colon), ..] => colon.as_char() == ':',
            _ => false,
        };
        if is_call {
            return (Some(field.to_string()), at);
        }
        at += 2;
    }
    (None, at)
}
