//! The expansion: three statements, no logic. It cannot fail.
//!
//! The request is bound before the wait, so that the name and the provider are evaluated once,
//! first, and no `format_args!` lives across an await, which would make the future `!Send`. The
//! body is pinned in place, since moving it into `run` would store it twice.
//!
//! All generated tokens are at mixed-site spans: their local names are invisible to the body, and
//! lints of the user's crate do not look at them.

use std::time::Duration;

use proc_macro2::{Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, Type};

use crate::dependency;
use crate::item::braces;
use crate::mentions::Uses;
use crate::model::{Length, LockedFn, Name, Outcome, Provider};
use crate::output::nameable;
use crate::parameters::Parameters;
use crate::template::{Access, Placeholder, Segment, Template};

/// The function, locked.
pub(crate) fn expand(mut function: LockedFn) -> TokenStream {
    let private = private(&function);
    let mut parameters = Parameters::new(&function.item, &Uses::new(&function));
    let request = request(&function, &parameters.bindings, &private);
    let body = body(&function, &parameters, &private);
    let outcome = outcome(&function.outcome, &function.item.output, &private);
    let outside = &parameters.outside;
    let call = match &function.guard {
        Some(_) => quote_spanned! {Span::mixed_site()=>
            request.run_with_guard(slot, output.keep(), body, #outcome).await
        },
        None => quote_spanned! {Span::mixed_site()=>
            request.run(output.keep(), body, #outcome).await
        },
    };
    // The `return` is for lints that want one, and for the order of drops in edition 2021; after
    // what never returns it would be unreachable.
    let call = match function.item.output {
        Type::Never(_) => quote_spanned!(Span::mixed_site()=> #call;),
        _ => quote_spanned!(Span::mixed_site()=> return #call;),
    };
    let binding = match &function.guard {
        Some(_) => quote_spanned! {Span::mixed_site()=>
            let (request, slot) = (#request, &#private::GuardSlot::new());
        },
        None => quote_spanned!(Span::mixed_site()=> let request = #request;),
    };
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

/// The path of `lock_runtime`.
pub(crate) fn root(given: Option<&syn::Path>) -> TokenStream {
    match given {
        Some(path) => path.to_token_stream(),
        None => {
            let name = dependency::renamed().unwrap_or_else(|| "lock_runtime".to_owned());
            let name = Ident::new(&name, Span::mixed_site());
            quote_spanned!(Span::mixed_site()=> ::#name)
        }
    }
}

fn private(function: &LockedFn) -> TokenStream {
    let root = root(function.root.as_ref());
    quote_spanned!(Span::mixed_site()=> #root::__private)
}

/// Statement one: what is asked for.
fn request(function: &LockedFn, bindings: &[Ident], private: &TokenStream) -> TokenStream {
    let (template, name) = match &function.name {
        Name::Template(literal, template) => (
            text_literal(&literal.value(), literal.span()).to_token_stream(),
            render(literal.span(), template, bindings, private),
        ),
        Name::Expression(expression) => (
            quote_spanned!(Span::mixed_site()=> #private::stringify!(#expression)),
            quote_spanned! {Span::mixed_site()=>
                #private::Into::<#private::LockName>::into(#expression)
            },
        ),
    };
    let mut request = quote_spanned!(Span::mixed_site()=> #private::Request::new(#template, #name));
    let site = function.name.is_fixed().then(|| {
        quote_spanned! {Span::mixed_site()=>
            { static SITE: #private::Site = #private::Site::new(); &SITE }
        }
    });
    request.extend(site.map(|site| quote_spanned!(Span::mixed_site()=> .at(#site))));
    for (period, length) in &function.durations {
        let method = Ident::new(period.name(), Span::mixed_site());
        request.extend(match length {
            Length::Constant(duration) => {
                let duration = constant(*duration, private);
                quote_spanned!(Span::mixed_site()=> .#method(#duration))
            }
            Length::Expression(duration) => {
                quote_spanned!(Span::mixed_site()=> .#method(#duration))
            }
            Length::Unlimited => quote_spanned!(Span::mixed_site()=> .without_timeout()),
        });
    }
    request.extend(function.provider.as_ref().map(|provider| match provider {
        Provider::Named(name) => {
            let name = text_literal(&name.value(), name.span());
            quote_spanned!(Span::mixed_site()=> .named(#name))
        }
        Provider::Expression(provider) => {
            let provider = borrow(provider);
            quote_spanned!(Span::mixed_site()=> .on(#provider))
        }
    }));
    request
}

/// Borrows without moving. What is no simple expression goes through a `match`, which lets its type
/// be found without regard to the one that is expected.
fn borrow(expression: &Expr) -> TokenStream {
    let span = Span::mixed_site().located_at(expression.span());
    match expression {
        Expr::Path(_) | Expr::Field(_) | Expr::Call(_) | Expr::MethodCall(_) | Expr::Macro(_) => {
            quote_spanned!(span=> &#expression)
        }
        _ => quote_spanned!(span=> match (#expression) { ref provider => provider }),
    }
}

fn constant(duration: Duration, private: &TokenStream) -> TokenStream {
    let millis = Literal::u64_unsuffixed(duration.as_millis().try_into().unwrap_or(u64::MAX));
    quote_spanned!(Span::mixed_site()=> #private::Duration::from_millis(#millis))
}

/// The lock's name from a template.
fn render(
    span: Span,
    template: &Template,
    bindings: &[Ident],
    private: &TokenStream,
) -> TokenStream {
    let mut format = String::new();
    let mut values = Vec::new();
    let placeholders = template.placeholders().count();
    for (index, segment) in template.segments.iter().enumerate() {
        let placeholder = match segment {
            Segment::Text(text) => {
                format.push_str(&text.replace('{', "{{").replace('}', "}}"));
                continue;
            }
            Segment::Placeholder(placeholder) => placeholder,
        };
        let mut value = value(span, placeholder, bindings);
        if is_displayed(&placeholder.spec) {
            let span = Span::mixed_site().located_at(span);
            value = quote_spanned!(span=> #private::Expansion::in_name(&#value));
        }
        let spec = spec(&placeholder.spec);
        if values.len() + 1 == placeholders {
            format.push_str(&spec);
            values.push(value);
        } else {
            format.push_str("{}");
            let inner = text_literal(&spec, span);
            let stop = stop(template.segments.get(index + 1));
            values.push(quote_spanned! {Span::mixed_site()=>
                #private::Encoded(#private::format_args!(#inner, #value), #stop)
            });
        }
    }
    match template.segments.as_slice() {
        [Segment::Text(name)] => {
            quote_spanned!(Span::mixed_site()=> #private::LockName::from_static(#name))
        }
        _ => {
            let format = text_literal(&format, span);
            quote_spanned! {Span::mixed_site()=>
                #private::render(#private::format_args!(#format, #(#values),*))
            }
        }
    }
}

fn spec(spec: &str) -> String {
    if spec.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{:{spec}}}")
    }
}

/// Whether a format spec asks for `Display`.
fn is_displayed(spec: &str) -> bool {
    !spec.ends_with(['x', 'X', 'o', 'b', 'e', 'E'])
}

/// The character that ends a value: the first of the text that follows.
fn stop(next: Option<&Segment>) -> char {
    match next {
        Some(Segment::Text(text)) => text.chars().next().unwrap_or('%'),
        _ => '%',
    }
}

fn text_literal(text: &str, span: Span) -> Literal {
    let mut literal = Literal::string(text);
    literal.set_span(Span::mixed_site().located_at(span));
    literal
}

/// The expression of a placeholder: it resolves like the parameter, and points at the template.
fn value(span: Span, placeholder: &Placeholder, bindings: &[Ident]) -> TokenStream {
    let bare = |name: &str| name.trim_start_matches("r#").to_owned();
    let binding = bindings
        .iter()
        .find(|binding| bare(&binding.to_string()) == bare(&placeholder.root));
    let Some(binding) = binding else {
        return TokenStream::new();
    };
    let span = binding.span().located_at(span);
    let mut root = binding.clone();
    root.set_span(span);
    // The rest resolves anywhere, and the compiler must not offer to replace the literal with a
    // field's name.
    let span = Span::mixed_site().located_at(span);
    let mut value = root.to_token_stream();
    for access in &placeholder.accesses {
        value.extend(match access {
            Access::Field(field) => {
                let field = identifier(field, span);
                quote_spanned!(span=> .#field)
            }
            Access::Index(index) => {
                let mut index = Literal::usize_unsuffixed(*index);
                index.set_span(span);
                quote_spanned!(span=> .#index)
            }
            Access::Call(method) => {
                let method = identifier(method, span);
                quote_spanned!(span=> .#method())
            }
        });
    }
    value
}

fn identifier(name: &str, span: Span) -> Ident {
    match name.strip_prefix("r#") {
        Some(name) => Ident::new_raw(name, span),
        None => Ident::new(name, span),
    }
}

/// Statement two: the user's body, untouched, after some statements of ours.
///
/// The first ones move parameters into the block. The last one is never entered: it tells the
/// compiler the type that the block returns, so that a type mismatch is reported inside the body
/// and not at the attribute.
fn body(function: &LockedFn, parameters: &Parameters, private: &TokenStream) -> TokenStream {
    let item = &function.item;
    let guard = function.guard.as_ref();
    let guard = guard.map(|guard| quote_spanned!(Span::mixed_site()=> let #guard = slot.guard();));
    let statements = &item.block.statements;
    let Parameters { inside, never, .. } = parameters;
    let span = Span::mixed_site().located_at(item.output.span());
    let output = nameable(&item.output);
    let edge = quote_spanned! {span=>
        if let #private::Option::Some(output) = #private::Option::None::<#output> {
            #never
            return output;
        }
    };
    let ours = quote!(#inside #guard #edge);
    if begins_with_item(statements) {
        // Items that come after statements have a lint.
        let block = braces(statements.clone(), item.block.span);
        return braces(quote!(#ours #block), Span::mixed_site());
    }
    braces(quote!(#ours #statements), item.block.span)
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

/// What makes the function's value from a `LockError`. A generic function is coerced to a pointer:
/// a return type that it cannot produce is then one error, not three.
fn outcome(outcome: &Outcome, output: &Type, private: &TokenStream) -> TokenStream {
    let output = nameable(output);
    let function = match outcome {
        Outcome::Error => quote!(or_error),
        Outcome::Skip => quote!(or_skip),
        Outcome::With(expression) => return expression.to_token_stream(),
    };
    quote_spanned!(Span::mixed_site()=> #private::Expansion::#function::<#output> as fn(_) -> _)
}
