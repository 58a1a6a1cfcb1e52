//! What becomes of the parameters.
//!
//! All of them end with the body, while the lock is held, in the order in which the function drops
//! them without the attribute: that of the signature backwards.
//!
//! The body is an `async move` block. Such a block drops its locals and then its captures, in the
//! order in which it mentions them. So the body begins by mentioning every parameter, the last one
//! first. What a pattern leaves behind has no name that could be mentioned. There the signature
//! takes the whole value, and the body takes it apart.
//!
//! A name that the body does not use is made ours in the signature, though it reads the same. It
//! then counts as unused where the user's lints look, and nowhere else.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, Pat, PatIdent, PatType, Receiver, ReceiverKind, Token};

use crate::body::Leading;
use crate::item::Item;
use crate::mentions::{assigns, mentions};
use crate::patterns::{
    bindings, borrows_mutably, has_no_drop, keeps_nothing, let_by_reference, map_bindings,
};
use crate::uses::Uses;

/// The parameters, as the expansion needs them.
pub(crate) struct Parameters {
    /// The inputs of the signature, if they have to be written differently.
    pub(crate) inputs: Option<Punctuated<FnArg, Token![,]>>,
    /// Statements before the request.
    pub(crate) outside: TokenStream,
    /// Statements at the beginning of the body.
    pub(crate) inside: TokenStream,
    /// Statements in the branch of the body that is never entered.
    pub(crate) never: TokenStream,
    /// The names that a placeholder can begin with.
    pub(crate) bindings: Vec<Ident>,
}

impl Parameters {
    /// Plans the parameters of a function.
    pub(crate) fn new(item: &Item, uses: &Uses) -> Self {
        let mut plan = Plan {
            uses,
            body: item.body.block.statements.clone(),
            may_rewrite: item.may_rewrite(),
            is_boxed: item.body.is_boxed(),
            as_locals: false,
            captures: Vec::new(),
            parameters: Self {
                inputs: None,
                outside: TokenStream::new(),
                inside: TokenStream::new(),
                never: TokenStream::new(),
                bindings: item.bindings.clone(),
            },
        };
        if item.body.is_boxed() {
            plan.boxed(item);
        } else {
            plan.inputs(item);
        }
        plan.finish()
    }
}

struct Plan<'a> {
    uses: &'a Uses,
    body: TokenStream,
    may_rewrite: bool,
    is_boxed: bool,
    /// Whether a parameter has become a local of the body. Locals are dropped before captures, so
    /// the parameters after it have to be locals, too.
    as_locals: bool,
    /// The statements that capture, in the order of the signature.
    captures: Vec<TokenStream>,
    parameters: Parameters,
}

impl Plan<'_> {
    fn finish(self) -> Parameters {
        let mut parameters = self.parameters;
        let captures = self.captures.into_iter().rev();
        let lets = parameters.inside;
        parameters.inside = quote!(#(#captures)* #lets);
        parameters
    }

    fn inputs(&mut self, item: &Item) {
        let mut inputs = item.signature.inputs.clone();
        let mut rewritten = false;
        for (index, input) in inputs.iter_mut().enumerate() {
            match input {
                FnArg::Receiver(receiver) => self.receiver(receiver),
                FnArg::Typed(input) => rewritten |= self.input(index, input, item),
            }
        }
        if rewritten {
            self.parameters.inputs = Some(inputs);
        }
    }

    fn receiver(&mut self, receiver: &Receiver) {
        let free = match &receiver.kind {
            ReceiverKind::Reference(..) => true,
            ReceiverKind::Typed(_, ty) => has_no_drop(ty),
            _ => false,
        };
        if !free {
            self.capture_self();
        }
    }

    /// Plans a parameter that is not `self`; returns whether it was changed.
    fn input(&mut self, index: usize, input: &mut PatType, item: &Item) -> bool {
        let free = has_no_drop(&input.ty);
        let is_free_for =
            |name: &Ident| !self.uses.is_in_expression(name) && !item.attributes_mention(name);
        let may_rename = item.may_rename()
            && input.attrs.is_empty()
            && bindings(&input.pat).iter().all(is_free_for);
        let is_name = matches!(&*input.pat, Pat::Ident(name) if name.by_ref.is_none());
        let may_rewrite = may_rename && (self.may_rewrite || is_name);
        let mut attributes = input.attrs.iter();
        if may_rewrite && self.is_local(&input.pat, free) {
            self.as_locals |= !free;
            self.rebind(index, input);
            true
        } else if !free && attributes.all(|attribute| attribute.path().is_ident("cfg")) {
            self.capture(&mut input.pat, &input.attrs, may_rename)
        } else if may_rename {
            self.rename(&mut input.pat, |plan, name| {
                is_underscored(name) && plan.uses.is_in_template(name)
            })
        } else {
            false
        }
    }

    /// Tells whether a parameter has to be a local of the body.
    fn is_local(&self, pattern: &Pat, free: bool) -> bool {
        let must_be_local = |name: &Ident| {
            let doubly_linted = is_underscored(name)
                && (!free || self.uses.is_in_template(name))
                && mentions(&self.body, name);
            doubly_linted || assigns(&self.body, name)
        };
        !free && (self.as_locals || !keeps_nothing(pattern))
            || bindings(pattern).iter().any(must_be_local)
    }

    /// Takes the whole value in the signature, and takes it apart in the body.
    fn rebind(&mut self, index: usize, input: &mut PatType) {
        let taken = match &*input.pat {
            Pat::Ident(PatIdent {
                ident,
                by_ref: None,
                subpat: None,
                ..
            }) => ours(ident),
            pattern => {
                let span = Span::mixed_site().located_at(pattern.span());
                Ident::new(&format!("__arg{index}"), span)
            }
        };
        let pattern = std::mem::replace(&mut *input.pat, Pat::Verbatim(taken.to_token_stream()));
        self.captures.push(capture(&taken, &[]));
        // What the pattern leaves is a local, too.
        let rest = (!keeps_nothing(&pattern)).then(|| {
            let mutable = borrows_mutably(&pattern).then(|| Token![mut](Span::mixed_site()));
            quote_spanned!(Span::mixed_site()=> let #mutable #taken = #taken;)
        });
        self.parameters
            .inside
            .extend(quote_spanned!(Span::mixed_site()=> #rest let #pattern = #taken;));
        let names = bindings(&pattern);
        if !names.iter().any(|name| self.uses.is_in_template(name)) {
            return;
        }
        for name in &names {
            self.make_ours(name);
        }
        // A single name is there already.
        if !names.contains(&taken) {
            self.parameters
                .outside
                .extend(let_by_reference(&pattern, &input.ty, &taken));
        }
    }

    /// Has the body mention each name; returns whether the pattern was changed.
    fn capture(&mut self, pattern: &mut Pat, conditions: &[Attribute], may_rename: bool) -> bool {
        let mut unused = Vec::new();
        for name in bindings(pattern) {
            if mentions(&self.body, &name) {
                self.captures.push(capture(&name, conditions));
            } else if self.uses.may_capture(&name) {
                let in_template = self.uses.is_in_template(&name);
                // What another attribute sees does not count as unused.
                let is_unused = self.may_rewrite && !in_template && !is_dunder(&name);
                if !may_rename || !is_underscored(&name) && !is_unused {
                    self.captures.push(capture(&name, conditions));
                    continue;
                }
                self.captures.push(capture(&ours(&name), conditions));
                if !in_template && !is_underscored(&name) {
                    let ours = ours(&name);
                    let never = quote_spanned!(Span::mixed_site()=> let #name = #ours;);
                    self.parameters.never.extend(never);
                }
                unused.push(name);
            }
        }
        self.rename(pattern, |_, name| unused.contains(name))
    }

    /// Makes ours the names that the closure picks; returns whether there were any.
    fn rename(&mut self, pattern: &mut Pat, which: impl Fn(&Self, &Ident) -> bool) -> bool {
        let mut names = bindings(pattern);
        names.retain(|name| which(self, name));
        map_bindings(pattern, &mut |binding| {
            if names.contains(&binding.ident) {
                binding.ident = ours(&binding.ident);
            }
        });
        for name in &names {
            self.make_ours(name);
        }
        !names.is_empty()
    }

    fn make_ours(&mut self, name: &Ident) {
        for binding in &mut self.parameters.bindings {
            if binding == name {
                *binding = ours(name);
            }
        }
    }

    fn capture_self(&mut self) {
        let this = self.parameters.bindings.iter().find(|name| *name == "self");
        if let Some(this) = this
            && (mentions(&self.body, this)
                || self.uses.may_capture(this)
                    && (!self.is_boxed || self.uses.is_in_template(this)))
        {
            self.captures.push(capture(this, &[]));
        }
    }

    /// Plans the `let`s that `#[async_trait]` makes of the parameters.
    ///
    /// Those that the attribute uses go before the request, and so do all in front of them, which
    /// are dropped later.
    fn boxed(&mut self, item: &Item) {
        let leading = &item.body.block.leading;
        let is_used =
            |name: &Ident| self.uses.is_in_expression(name) || self.uses.is_in_template(name);
        let used = |leading: &Leading| {
            let pattern = leading.pattern.as_ref();
            pattern.is_some_and(|pattern| bindings(pattern).iter().any(is_used))
        };
        let pulled = leading.iter().rposition(used).map_or(0, |last| last + 1);
        let (pulled, rest) = leading.split_at(pulled);
        let kept = pulled.iter().filter(|leading| leading.pattern.is_none());
        let inside: TokenStream = kept
            .chain(rest)
            .flat_map(|leading| leading.tokens.clone())
            .collect();
        let statements = &self.body;
        self.body = quote!(#inside #statements);
        self.capture_self();
        for leading in pulled {
            let Some(pattern) = &leading.pattern else {
                continue;
            };
            let mut pattern = pattern.clone();
            let mut names = bindings(&pattern).into_iter();
            let may_rename = !names.any(|name| self.uses.is_in_expression(&name));
            self.capture(&mut pattern, &[], may_rename);
            let value = &leading.value;
            self.parameters
                .outside
                .extend(quote_spanned!(Span::mixed_site()=> let #pattern = #value;));
        }
        self.parameters.never = TokenStream::new();
        self.parameters.inside = inside;
    }
}

/// Has the body mention a name, which moves the value into the body.
fn capture(name: &Ident, conditions: &[Attribute]) -> TokenStream {
    quote_spanned!(Span::mixed_site()=> #(#conditions)* let _ = &#name;)
}

/// Returns the same name, which is then no name of the user's.
fn ours(name: &Ident) -> Ident {
    let mut name = name.clone();
    name.set_span(Span::mixed_site().located_at(name.span()));
    name
}

fn is_underscored(name: &Ident) -> bool {
    let name = name.to_string();
    name.starts_with('_') && !name.starts_with("__")
}

/// Tells whether another attribute made the name, such as `__arg2`.
fn is_dunder(name: &Ident) -> bool {
    name.to_string().starts_with("__")
}
