//! The patterns of parameters: what they bind, and what they leave behind.

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

/// Calls the closure for each binding. Alternatives all bind the same, so only the first counts.
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

/// Calls the closure for each pattern that stands directly in this one.
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

/// Tells whether all of a value is moved into the names that the pattern binds.
pub(crate) fn keeps_nothing(pattern: &Pat) -> bool {
    match pattern {
        // `name @ …` takes the whole value before the rest of the pattern is matched.
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

/// Tells whether a pattern has `ref mut` somewhere.
pub(crate) fn borrows_mutably(pattern: &Pat) -> bool {
    let mut any = false;
    map_bindings(&mut pattern.clone(), &mut |binding| {
        any |= binding.by_ref.is_some() && binding.mutability.is_some();
    });
    any
}

/// Tells whether a type is written so that its values need no drop.
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

/// Tells whether a type holds a reference, as far as the type shows it.
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

/// Writes `let pattern = value;`, in tokens of ours, so that nothing is moved.
pub(crate) fn let_by_reference(pattern: &Pat, ty: &Type, value: &Ident) -> TokenStream {
    let mut pattern = pattern.clone();
    // Default binding modes serve where the pattern needs them: `ref` is an error beside them.
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

/// Tells whether a pattern has `&` or `ref` somewhere.
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

/// Moves tokens to spans that lints of the user's crate do not look at.
fn respanned(tokens: TokenStream) -> TokenStream {
    let respan = |mut token: TokenTree| {
        if let TokenTree::Group(group) = &token {
            let mut inner = Group::new(group.delimiter(), respanned(group.stream()));
            inner.set_span(Span::mixed_site().located_at(group.span()));
            return TokenTree::from(inner);
        }
        // Only its span tells `$crate` from other words.
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
