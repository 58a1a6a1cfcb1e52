//! Patterns of parameters: what they bind, and what they leave behind.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::parse::Parser;
use syn::{Pat, PatIdent, PathArguments, Token, Type};

/// Lists the names that a pattern binds, in order.
pub(crate) fn bindings(pattern: &Pat) -> Vec<Ident> {
    let mut names = Vec::new();
    map_bindings(&mut pattern.clone(), &mut |binding| {
        names.push(binding.ident.clone());
    });
    names
}

/// Calls this for each binding; of alternatives, which all bind the same, for the first alone.
pub(crate) fn map_bindings(pattern: &mut Pat, map: &mut dyn FnMut(&mut PatIdent)) {
    match pattern {
        Pat::Ident(binding) => {
            map(binding);
            if let Some((_, inner)) = &mut binding.subpat {
                map_bindings(inner, map);
            }
        }
        Pat::Or(pattern) => {
            let first = pattern.cases.iter_mut().take(1);
            first.for_each(|case| map_bindings(case, map));
        }
        _ => each_part(pattern, &mut |part| map_bindings(part, map)),
    }
}

fn each_part(pattern: &mut Pat, visit: &mut dyn FnMut(&mut Pat)) {
    match pattern {
        Pat::Paren(pattern) => visit(&mut pattern.pat),
        Pat::Reference(pattern) => visit(&mut pattern.pat),
        Pat::Type(pattern) => visit(&mut pattern.pat),
        Pat::Slice(pattern) => pattern.elems.iter_mut().for_each(visit),
        Pat::Tuple(pattern) => pattern.elems.iter_mut().for_each(visit),
        Pat::TupleStruct(pattern) => pattern.elems.iter_mut().for_each(visit),
        Pat::Struct(pattern) => {
            let fields = pattern.fields.iter_mut();
            fields.for_each(|field| visit(&mut field.pat));
        }
        _ => {}
    }
}

/// Whether all of a value is moved into the names that the pattern binds.
pub(crate) fn keeps_nothing(pattern: &Pat) -> bool {
    match pattern {
        // `name @ …` takes the whole value before it is looked into.
        Pat::Ident(binding) => binding.by_ref.is_none(),
        Pat::Struct(pattern) if pattern.rest.is_some() => false,
        Pat::Paren(_)
        | Pat::Type(_)
        | Pat::Slice(_)
        | Pat::Tuple(_)
        | Pat::TupleStruct(_)
        | Pat::Struct(_) => {
            let mut all = true;
            each_part(&mut pattern.clone(), &mut |part| all &= keeps_nothing(part));
            all
        }
        _ => false,
    }
}

/// Whether a pattern has `ref mut` somewhere.
pub(crate) fn borrows_mutably(pattern: &Pat) -> bool {
    let mut any = false;
    map_bindings(&mut pattern.clone(), &mut |binding| {
        any |= binding.by_ref.is_some() && binding.mutability.is_some();
    });
    any
}

/// Whether a type is written so that its values need no drop.
pub(crate) fn has_no_drop(ty: &Type) -> bool {
    const PRIMITIVES: [&str; 17] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16",
        "u32", "u64", "u128", "usize", "str",
    ];
    match ty {
        Type::Reference(_) | Type::Ptr(_) | Type::FnPtr(_) | Type::Never(_) => true,
        Type::Path(path) => path
            .path
            .get_ident()
            .is_some_and(|name| PRIMITIVES.iter().any(|primitive| name == primitive)),
        Type::Paren(ty) => has_no_drop(&ty.elem),
        Type::Group(ty) => has_no_drop(&ty.elem),
        Type::Slice(ty) => has_no_drop(&ty.elem),
        Type::Array(ty) => has_no_drop(&ty.elem),
        Type::Tuple(ty) => ty.elems.iter().all(has_no_drop),
        _ => false,
    }
}

/// Whether a type holds a reference, as far as it is written.
fn holds_reference(ty: &Type) -> bool {
    match ty {
        Type::Reference(_) => true,
        Type::Paren(ty) => holds_reference(&ty.elem),
        Type::Group(ty) => holds_reference(&ty.elem),
        Type::Array(ty) => holds_reference(&ty.elem),
        Type::Tuple(ty) => ty.elems.iter().any(holds_reference),
        Type::Path(path) => path.path.segments.iter().any(|segment| {
            let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
                return false;
            };
            arguments.args.iter().any(|argument| match argument {
                syn::GenericArgument::Type(ty) => holds_reference(ty),
                _ => false,
            })
        }),
        _ => false,
    }
}

/// Writes `let pattern = value;` so that it moves nothing, in tokens of ours.
pub(crate) fn let_by_reference(pattern: &Pat, ty: &Type, value: &Ident) -> TokenStream {
    let mut pattern = pattern.clone();
    // By default binding modes only where they must: beside those, `ref` is an error.
    let by_default = holds_reference(ty) && !takes_references(&pattern);
    map_bindings(&mut pattern, &mut |binding| {
        binding.mutability = None;
        if !by_default {
            binding.by_ref = Some(Token![ref](Span::mixed_site()));
        }
    });
    let pattern = respanned(pattern.into_token_stream());
    let borrow = by_default.then_some(Token![&](Span::mixed_site()));
    quote_spanned!(Span::mixed_site()=> let #pattern = #borrow #value;)
}

/// Whether a pattern has `&` or `ref` somewhere.
fn takes_references(pattern: &Pat) -> bool {
    match pattern {
        Pat::Reference(_) => true,
        Pat::Ident(binding) => binding.by_ref.is_some(),
        _ => {
            let mut any = false;
            each_part(&mut pattern.clone(), &mut |part| {
                any |= takes_references(part)
            });
            any
        }
    }
}

/// The same tokens, at spans that lints of the user's crate do not look at.
fn respanned(tokens: TokenStream) -> TokenStream {
    let respan = |mut token: TokenTree| {
        if let TokenTree::Group(group) = &token {
            let mut inner = Group::new(group.delimiter(), respanned(group.stream()));
            inner.set_span(Span::mixed_site().located_at(group.span()));
            return TokenTree::from(inner);
        }
        // `$crate` is told from other words by its span alone.
        if token.to_string() != "$crate" {
            token.set_span(Span::mixed_site().located_at(token.span()));
        }
        token
    };
    tokens.into_iter().map(respan).collect()
}

/// Reads a pattern of a `let` or of a parameter.
pub(crate) fn parse(tokens: TokenStream) -> Option<Pat> {
    Pat::parse_single.parse2(tokens).ok()
}
