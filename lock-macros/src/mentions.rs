//! Where tokens mention a name.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::ext::IdentExt;

/// Tells whether the tokens use the name, as far as one can see without knowing their macros.
pub(crate) fn mentions(tokens: &TokenStream, name: &Ident) -> bool {
    let text = name.unraw().to_string();
    tokens.clone().into_iter().any(|token| match token {
        // These make names that are not among the tokens.
        TokenTree::Ident(ident) if ident == "include" || ident == "paste" => true,
        TokenTree::Ident(ident) => ident.unraw() == text,
        TokenTree::Group(group) => mentions(&group.stream(), name),
        // It may be a format string.
        TokenTree::Literal(literal) => literal.to_string().contains(&text),
        TokenTree::Punct(_) => false,
    })
}

/// Tells whether the tokens assign to the name or to a field of it, which lints judge otherwise if
/// the name was captured.
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
            // `=`, `+=`, `<<=`; also `==` and `<=`, where a wrong answer costs little.
            is_punct(after, &|c| "=+-*/%&|^<>".contains(c))
                && (after..after + 3).any(|at| is_punct(at, &|c| c == '='))
        }
        _ => false,
    })
}

/// What becomes of the value of an option's expression, which is evaluated outside of the body.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ValueUse {
    Moved,
    Borrowed,
    /// The value is copied, and so are the operands.
    Copied,
    /// The expression is evaluated when the body is over, or instead of it.
    AfterTheWait,
}

/// Tells whether the body can capture the name, although an option's expression may mention it.
///
/// The answer is no where that is in doubt.
pub(crate) fn may_capture(tokens: &TokenStream, name: &Ident, value: ValueUse) -> bool {
    match value {
        ValueUse::AfterTheWait => !mentions(tokens, name),
        _ => only_borrows(tokens, name, value),
    }
}

/// Tells whether an expression leaves the value of this name where it is.
///
/// The answer is no where that is in doubt.
fn only_borrows(tokens: &TokenStream, name: &Ident, value: ValueUse) -> bool {
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
            let value = if is_all { value } else { ValueUse::Moved };
            formats || only_borrows(&group.stream(), name, value)
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
                || value == ValueUse::Copied
                || value == ValueUse::Borrowed && is_all
        }
        _ => true,
    })
}

/// Finds the first method that is called on a value after fields of it, and how many tokens the
/// fields take.
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
