//! Return types, as the expansion writes them.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericArgument, PathArguments, Type, TypeParamBound};

/// Writes a return type as it can stand in an expression: `impl Trait` becomes `_`.
pub(crate) fn nameable(ty: &Type) -> TokenStream {
    let mut ty = ty.clone();
    erase_impl_trait(&mut ty);
    ty.into_token_stream()
}

fn erase_impl_trait(ty: &mut Type) {
    match ty {
        Type::ImplTrait(_) | Type::Never(_) => {
            let span = ty.span();
            *ty = Type::Verbatim(quote_spanned!(span=> _));
        }
        Type::Path(path) => {
            if let Some(qself) = &mut path.qself {
                erase_impl_trait(&mut qself.ty);
            }
            erase_in_path(&mut path.path);
        }
        Type::TraitObject(object) => {
            for bound in &mut object.bounds {
                if let TypeParamBound::Trait(bound) = bound {
                    erase_in_path(&mut bound.path);
                }
            }
        }
        Type::Reference(reference) => erase_impl_trait(&mut reference.elem),
        Type::Ptr(pointer) => erase_impl_trait(&mut pointer.elem),
        Type::Paren(paren) => erase_impl_trait(&mut paren.elem),
        Type::Group(group) => erase_impl_trait(&mut group.elem),
        Type::Slice(slice) => erase_impl_trait(&mut slice.elem),
        Type::Array(array) => erase_impl_trait(&mut array.elem),
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(erase_impl_trait),
        _ => {}
    }
}

fn erase_in_path(path: &mut syn::Path) {
    for segment in &mut path.segments {
        let PathArguments::AngleBracketed(arguments) = &mut segment.arguments else {
            continue;
        };
        for argument in &mut arguments.args {
            match argument {
                GenericArgument::Type(ty) => erase_impl_trait(ty),
                GenericArgument::AssocType(output) => erase_impl_trait(&mut output.ty),
                _ => {}
            }
        }
    }
}

/// Makes the type `()` at a span: that of the function's name, where a return type is missing.
pub(crate) fn unit(span: Span) -> Type {
    let mut parentheses = Group::new(Delimiter::Parenthesis, TokenStream::new());
    parentheses.set_span(span);
    Type::Verbatim(TokenTree::from(parentheses).into())
}

/// Finds the `T` of `Pin<Box<dyn Future<Output = T> + …>>`.
pub(crate) fn future_output(ty: &Type) -> Option<Type> {
    let Type::Path(pin) = first_argument(ty, "Pin")? else {
        return None;
    };
    let Type::TraitObject(future) = first_argument(&Type::Path(pin), "Box")? else {
        return None;
    };
    future.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return None;
        };
        let last = bound
            .path
            .segments
            .last()
            .filter(|last| last.ident == "Future")?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else {
            return None;
        };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(output) if output.ident == "Output" => {
                Some(output.ty.clone())
            }
            _ => None,
        })
    })
}

/// Returns the first generic argument of a type that has this name.
fn first_argument(ty: &Type, name: &str) -> Option<Type> {
    let Type::Path(path) = ty else { return None };
    let last = path
        .path
        .segments
        .last()
        .filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first()? {
        GenericArgument::Type(argument) => Some(argument.clone()),
        _ => None,
    }
}
