//! The expansion: three statements, no logic. It cannot fail.
//!
//! The request is bound before the wait. So the name and the provider are evaluated once, first,
//! and no `format_args!` lives across an await, which would make the future `!Send`. The body is
//! pinned in place, since moving it into `run` would store it twice.
//!
//! All generated tokens are at mixed-site spans: their local names are invisible to the body, and
//! lints of the user's crate do not look at them.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use crate::body::Block;
use crate::item::Item;
use crate::model::LockedFn;
use crate::options::crate_path;
use crate::output::nameable;
use crate::parameters::Parameters;
use crate::request;
use crate::tokens::braces;
use crate::uses::Uses;

/// Writes the function, locked.
pub(crate) fn expand(mut function: LockedFn) -> TokenStream {
    let runtime = crate_path::runtime(function.settings.crate_path.as_ref());
    let private = quote_spanned!(Span::mixed_site()=> #runtime::__private);
    let mut parameters = Parameters::new(&function.item, &Uses::new(&function));
    let request = request::expand(&function, &parameters.bindings, &private);
    let output = &function.item.body.output;
    let outcome = function.outcome.function(output, &private);
    let guard = function.settings.guard.as_ref();
    let call = match guard {
        Some(_) => quote_spanned! {Span::mixed_site()=>
            request.run_with_guard(slot, output.keep(), body, #outcome).await
        },
        None => quote_spanned! {Span::mixed_site()=>
            request.run(output.keep(), body, #outcome).await
        },
    };
    // The `return` is for lints that want one, and for the order of drops in edition 2021. After a
    // call that never returns it would be unreachable.
    let call = match output {
        Type::Never(_) => quote_spanned!(Span::mixed_site()=> #call;),
        _ => quote_spanned!(Span::mixed_site()=> return #call;),
    };
    let binding = match guard {
        Some(_) => {
            let slot = function.kind.slot(&private);
            quote_spanned!(Span::mixed_site()=> let (request, slot) = (#request, &#slot);)
        }
        None => quote_spanned!(Span::mixed_site()=> let request = #request;),
    };
    let body = body(&function.item, guard, &parameters, &private);
    let outside = &parameters.outside;
    let contents = quote_spanned! {Span::mixed_site()=>
        #outside
        #binding
        let body = #private::pin!(#private::Option::Some(async move #body));
        let (output, body) = #private::Output::of(body);
        #call
    };
    if let Some(inputs) = parameters.inputs.take() {
        function.item.set_inputs(inputs);
    }
    function.item.with_contents(contents)
}

/// Writes the block of the second statement: the user's statements, untouched, after some of ours.
///
/// The first of ours move parameters into the block. The last one is never entered. It tells the
/// compiler the type that the block returns, so that a type mismatch is reported inside the body
/// and not at the attribute.
fn body(
    item: &Item,
    guard: Option<&Ident>,
    parameters: &Parameters,
    private: &TokenStream,
) -> TokenStream {
    let guard = guard.map(|guard| quote_spanned!(Span::mixed_site()=> let #guard = slot.guard();));
    let Block {
        statements, span, ..
    } = &item.body.block;
    let Parameters { inside, never, .. } = parameters;
    let output = nameable(&item.body.output);
    let at_output = Span::mixed_site().located_at(item.body.output.span());
    let edge = quote_spanned! {at_output=>
        if let #private::Option::Some(output) = #private::Option::None::<#output> {
            #never
            return output;
        }
    };
    let ours = quote!(#inside #guard #edge);
    if begins_with_item(statements) {
        // Items that come after statements have a lint.
        let block = braces(statements.clone(), *span);
        return braces(quote!(#ours #block), Span::mixed_site());
    }
    braces(quote!(#ours #statements), *span)
}

fn begins_with_item(statements: &TokenStream) -> bool {
    const KEYWORDS: [&str; 14] = [
        "async",
        "const",
        "enum",
        "extern",
        "fn",
        "impl",
        "macro_rules",
        "mod",
        "pub",
        "static",
        "struct",
        "trait",
        "type",
        "use",
    ];
    match statements.clone().into_iter().next() {
        Some(TokenTree::Punct(attribute)) => attribute.as_char() == '#',
        Some(TokenTree::Ident(keyword)) => KEYWORDS.iter().any(|word| keyword == *word),
        _ => false,
    }
}
