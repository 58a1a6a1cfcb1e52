//! The first statement of the expansion: the request, which says what is asked for.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::ext::IdentExt;

use crate::model::LockedFn;
use crate::options::name::{Name, OneName};
use crate::template::{Access, Placeholder, Segment, Template};
use crate::tokens::text_literal;

/// Writes the request.
pub(crate) fn expand(
    function: &LockedFn,
    bindings: &[Ident],
    private: &TokenStream,
) -> TokenStream {
    let request = match &function.name {
        Name::One(name) => one(name, bindings, private),
        Name::Several(names) => several(names, bindings, private),
    };
    let kind = function.kind.setter(&function.settings);
    let settings = function.settings.written();
    let setters = settings.map(|(option, setting)| setting.setter(option, private));
    quote_spanned! {Span::mixed_site()=>
        #request #kind #(#setters)*
    }
}

/// Writes the beginning of a request for one lock.
fn one(name: &OneName, bindings: &[Ident], private: &TokenStream) -> TokenStream {
    let template = match name {
        OneName::Template(literal, _) => {
            text_literal(&literal.value(), literal.span()).to_token_stream()
        }
        OneName::Expression(expression) => {
            quote_spanned!(Span::mixed_site()=> #private::stringify!(#expression))
        }
    };
    let site = name.is_fixed().then(|| {
        quote_spanned! {Span::mixed_site()=>
            .at({ static SITE: #private::Site = #private::Site::new(); &SITE })
        }
    });
    let name = value_of(name, bindings, private);
    quote_spanned!(Span::mixed_site()=> #private::Request::new(#template, #name) #site)
}

/// Writes the beginning of a request for several locks.
fn several(names: &[OneName], bindings: &[Ident], private: &TokenStream) -> TokenStream {
    let templates = names.iter().map(|name| match name {
        OneName::Template(literal, _) => literal.value(),
        OneName::Expression(expression) => expression.to_token_stream().to_string(),
    });
    let templates = templates.collect::<Vec<_>>().join(", ");
    let template = text_literal(&templates, Span::mixed_site());
    let names = names.iter().map(|name| value_of(name, bindings, private));
    quote_spanned!(Span::mixed_site()=> #private::Several::new(#template, [#(#names),*]))
}

/// Writes the name of a lock.
fn value_of(name: &OneName, bindings: &[Ident], private: &TokenStream) -> TokenStream {
    match name {
        OneName::Template(literal, template) => render(literal.span(), template, bindings, private),
        OneName::Expression(expression) => quote_spanned! {Span::mixed_site()=>
            #private::Into::<#private::LockName>::into(#expression)
        },
    }
}

/// Writes the lock's name from a template.
fn render(
    span: Span,
    template: &Template,
    bindings: &[Ident],
    private: &TokenStream,
) -> TokenStream {
    if let [Segment::Text(name)] = template.segments.as_slice() {
        return quote_spanned!(Span::mixed_site()=> #private::LockName::from_static(#name));
    }
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
    let format = text_literal(&format, span);
    quote_spanned! {Span::mixed_site()=>
        #private::render(#private::format_args!(#format, #(#values),*))
    }
}

fn spec(spec: &str) -> String {
    if spec.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{:{spec}}}")
    }
}

/// Tells whether a format spec asks for `Display`.
fn is_displayed(spec: &str) -> bool {
    !spec.ends_with(['x', 'X', 'o', 'b', 'e', 'E'])
}

/// Returns the character that ends a value: the first one of the text that follows.
fn stop(next: Option<&Segment>) -> char {
    match next {
        Some(Segment::Text(text)) => text.chars().next().unwrap_or('%'),
        _ => '%',
    }
}

/// Writes the value of a placeholder. It resolves like the parameter, and points at the template.
fn value(span: Span, placeholder: &Placeholder, bindings: &[Ident]) -> TokenStream {
    let mut bindings = bindings.iter();
    let binding = bindings.find(|binding| binding.unraw() == placeholder.bare_root());
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
