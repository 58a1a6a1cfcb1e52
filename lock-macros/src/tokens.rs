//! Tokens that several files write.

use proc_macro2::{Delimiter, Group, Literal, Span, TokenStream, TokenTree};

/// Puts braces around tokens.
pub(crate) fn braces(contents: TokenStream, span: Span) -> TokenStream {
    let mut group = Group::new(Delimiter::Brace, contents);
    group.set_span(span);
    TokenTree::from(group).into()
}

/// Makes a string that points at the place of a span, without its hygiene.
pub(crate) fn text_literal(text: &str, span: Span) -> Literal {
    let mut literal = Literal::string(text);
    literal.set_span(Span::mixed_site().located_at(span));
    literal
}
