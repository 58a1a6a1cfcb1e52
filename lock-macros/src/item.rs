//! The function under the attribute.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, FnArg, Path, Signature, Token, Visibility};

use crate::body::Body;
use crate::errors::Errors;
use crate::mentions::mentions;
use crate::patterns::bindings;

/// A function, or what another attribute has already made of an `async fn`.
pub(crate) struct Item {
    /// Everything before the body.
    header: TokenStream,
    /// Attributes and visibility, which come before the signature.
    front: TokenStream,
    /// Attributes below this one that look at the signature.
    others: Vec<Attribute>,
    pub(crate) signature: Signature,
    pub(crate) body: Body,
    /// Everything that a placeholder can begin with, `self` included.
    pub(crate) bindings: Vec<Ident>,
    pub(crate) problem: Option<Problem>,
}

/// The reason why a function cannot be locked.
pub(crate) enum Problem {
    NotAsync(Ident),
    Const(Token![const]),
}

impl Item {
    /// Reads a function.
    ///
    /// # Errors
    ///
    /// The item is no function, or one without a body.
    pub(crate) fn parse(tokens: TokenStream) -> syn::Result<Self> {
        let tokens = ungrouped(tokens);
        let mut header: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let Front {
            attributes,
            visibility,
            signature,
        } = front(tokens)?;
        let body = match header.pop().map(block_of) {
            Some(Some(body)) => Body::new(&signature, body),
            _ => {
                return Err(syn::Error::new(
                    signature.ident.span(),
                    "expected a function with a body, put the attribute on the implementation",
                ));
            }
        };
        let problem = match (signature.constness, signature.asyncness) {
            (Some(keyword), _) => Some(Problem::Const(keyword)),
            (None, None) if body.is_whole() => Some(Problem::NotAsync(signature.ident.clone())),
            _ => None,
        };
        Ok(Self {
            header: header.into_iter().collect(),
            front: quote!(#(#attributes)* #visibility),
            others: others(&attributes),
            bindings: parameters(&signature, &body),
            signature,
            body,
            problem,
        })
    }

    /// Reports why the function cannot be locked, if it cannot.
    pub(crate) fn check(&self, errors: &mut Errors) {
        match &self.problem {
            Some(Problem::Const(keyword)) => errors.add(
                keyword,
                "a locked function cannot be `const`, remove the keyword",
            ),
            Some(Problem::NotAsync(name)) => errors.add(name, self.not_async()),
            None => {}
        }
    }

    fn not_async(&self) -> &'static str {
        if self.body.has("block_on") {
            "expected an `async fn`, but an attribute above this one has taken `async` away: put \
             `#[distributed_lock]` above that attribute"
        } else if self.body.has("async") {
            "expected an `async fn`, add `async` before `fn`; if an attribute above this one has \
             taken it away, put `#[distributed_lock]` above that attribute"
        } else {
            "expected an `async fn`, add `async` before `fn`"
        }
    }

    /// Tells whether parameters may be written differently, since no other attribute reads them.
    pub(crate) fn may_rewrite(&self) -> bool {
        self.others.is_empty() && !self.body.is_boxed()
    }

    /// Tells whether a parameter's name may be replaced by the same name with another hygiene,
    /// which `#[tracing::instrument]` keeps.
    pub(crate) fn may_rename(&self) -> bool {
        let mut paths = self.others.iter().map(Attribute::path);
        let keeps = |path: &Path| {
            path.segments
                .last()
                .is_some_and(|last| last.ident == "instrument")
        };
        paths.all(keeps) && !self.body.is_boxed()
    }

    /// Tells whether an attribute below this one mentions a name.
    pub(crate) fn attributes_mention(&self, name: &Ident) -> bool {
        let mut others = self.others.iter().map(ToTokens::to_token_stream);
        others.any(|attribute| mentions(&attribute, name))
    }

    /// Tells whether the function returns `()`.
    pub(crate) fn returns_nothing(&self) -> bool {
        self.body.output.to_token_stream().to_string() == "()"
    }

    /// Replaces the parameters.
    pub(crate) fn set_inputs(&mut self, inputs: Punctuated<FnArg, Token![,]>) {
        self.signature.inputs = inputs;
        let (front, signature) = (&self.front, &self.signature);
        self.header = quote!(#front #signature);
    }

    /// Takes `const` out of the header, since the compiler would complain about it once more.
    pub(crate) fn drop_const(&mut self) {
        let is =
            |token: &TokenTree, word| matches!(token, TokenTree::Ident(found) if found == word);
        let mut before_fn = true;
        self.header = std::mem::take(&mut self.header)
            .into_iter()
            .filter(|token| {
                before_fn &= !is(token, "fn");
                !(before_fn && is(token, "const"))
            })
            .collect();
    }

    /// Writes the function with other contents in the block that is to run under the lock.
    pub(crate) fn with_contents(&self, contents: TokenStream) -> TokenStream {
        let (header, body) = (&self.header, self.body.with_contents(contents));
        quote!(#header #body)
    }
}

/// Lists the names that the parameters bind, those included that `#[async_trait]` moved into the
/// body.
fn parameters(signature: &Signature, body: &Body) -> Vec<Ident> {
    let mut names = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => names.push(Ident::from(receiver.self_token)),
            FnArg::Typed(typed) => names.extend(bindings(&typed.pat)),
        }
    }
    let leading = body.block.leading.iter();
    let patterns = leading.filter_map(|leading| leading.pattern.as_ref());
    names.extend(patterns.flat_map(bindings));
    names
}

/// Takes away an invisible group, which `macro_rules!` puts around what it matched.
fn ungrouped(tokens: TokenStream) -> TokenStream {
    let mut all = tokens.clone().into_iter();
    match (all.next(), all.next()) {
        (Some(TokenTree::Group(group)), None) if group.delimiter() == Delimiter::None => {
            ungrouped(group.stream())
        }
        _ => tokens,
    }
}

/// Returns a block, which may be in invisible groups.
fn block_of(token: TokenTree) -> Option<Group> {
    let TokenTree::Group(group) = token else {
        return None;
    };
    match group.delimiter() {
        Delimiter::Brace => Some(group),
        Delimiter::None => {
            let mut tokens = group.stream().into_iter();
            let block = block_of(tokens.next()?)?;
            tokens.next().is_none().then_some(block)
        }
        _ => None,
    }
}

/// What stands before a function's body.
struct Front {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
}

fn front(tokens: TokenStream) -> syn::Result<Front> {
    let parser = |input: ParseStream<'_>| {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse::<Visibility>()?;
        let start = input.cursor().span();
        let signature = input.parse::<Signature>().map_err(|_| {
            syn::Error::new(
                start,
                "expected an `async fn`, put the attribute on each function",
            )
        });
        input.parse::<TokenStream>()?;
        Ok(Front {
            attributes,
            visibility,
            signature: signature?,
        })
    };
    parser.parse2(tokens)
}

/// Lists the attributes that are not the language's own, which do not look at the parameters.
fn others(attributes: &[Attribute]) -> Vec<Attribute> {
    let others = attributes.iter().filter(|attribute| !is_inert(attribute));
    others.cloned().collect()
}

fn is_inert(attribute: &Attribute) -> bool {
    const INERT: [&str; 18] = [
        "allow",
        "cfg",
        "clippy",
        "cold",
        "deny",
        "deprecated",
        "diagnostic",
        "doc",
        "expect",
        "export_name",
        "forbid",
        "inline",
        "must_use",
        "no_mangle",
        "rustfmt",
        "target_feature",
        "track_caller",
        "warn",
    ];
    let first = attribute.path().segments.first();
    first.is_some_and(|first| INERT.iter().any(|inert| first.ident == inert))
}
