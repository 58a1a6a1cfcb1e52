//! Where tokens mention a name.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;

use crate::model::{Length, LockedFn, Name, Outcome, Provider};

/// What the attribute itself does with the parameters.
pub(crate) struct Uses {
    /// What the placeholders begin with.
    roots: Vec<String>,
    /// Expressions that are evaluated before the wait.
    before: Vec<TokenStream>,
    /// The provider, which is borrowed.
    provider: TokenStream,
    /// What makes the outcome, after the wait.
    outcome: TokenStream,
}

impl Uses {
    pub(crate) fn new(function: &LockedFn) -> Self {
        let mut before = Vec::new();
        let mut roots = Vec::new();
        match &function.name {
            Name::Expression(name) => before.push(name.to_token_stream()),
            Name::Template(_, template) => {
                let placeholders = template.placeholders();
                roots.extend(placeholders.map(|placeholder| bare(&placeholder.root).to_owned()));
            }
        }
        for (_, length) in &function.durations {
            if let Length::Expression(duration) = length {
                before.push(duration.to_token_stream());
            }
        }
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
            before,
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
        let mut all = self.before.iter().chain([&self.provider, &self.outcome]);
        all.any(|tokens| mentions(tokens, name))
    }

    /// Whether the body can have it, although the options' expressions are evaluated outside.
    pub(crate) fn may_capture(&self, name: &Ident) -> bool {
        !mentions(&self.outcome, name)
            && self
                .before
                .iter()
                .all(|tokens| only_borrows(tokens, name, false))
            && only_borrows(&self.provider, name, true)
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
    let is_punct = |at: usize, wanted: &dyn Fn(char) -> bool| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if wanted(punct.as_char()));
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

/// Whether an expression leaves the value of this name where it is. `borrowed` says that the
/// expression as a whole is borrowed.
fn only_borrows(tokens: &TokenStream, name: &Ident, borrowed: bool) -> bool {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let is_punct = |at: Option<usize>, wanted: char| {
        let token = at.and_then(|at| tokens.get(at));
        matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
    };
    tokens.iter().enumerate().all(|(at, token)| match token {
        TokenTree::Group(group) => {
            // The arguments of `format!`, whose macro takes references.
            let formats = is_punct(at.checked_sub(1), '!')
                && matches!(at.checked_sub(2).and_then(|at| tokens.get(at)),
                    Some(TokenTree::Ident(called)) if called == "format");
            let block = borrowed && group.delimiter() == Delimiter::Brace;
            formats || only_borrows(&group.stream(), name, block && tokens.len() == 1)
        }
        TokenTree::Ident(ident) if ident == name && !is_punct(at.checked_sub(1), '.') => {
            let (called, ends) = chain(&tokens[at + 1..]);
            if let Some(method) = called {
                return !["into", "unwrap", "expect"]
                    .iter()
                    .any(|by_value| method.starts_with(by_value));
            }
            let reference = is_punct(at.checked_sub(1), '&')
                || matches!(at.checked_sub(1).and_then(|at| tokens.get(at)),
                    Some(TokenTree::Ident(mutable)) if mutable == "mut");
            reference || borrowed && at == 0 && at + 1 + ends == tokens.len()
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
