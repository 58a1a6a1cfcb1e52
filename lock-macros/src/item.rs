//! The function under the attribute. Its body is never parsed, only kept as tokens.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Attribute, FnArg, Pat, Path, ReturnType, Signature, Token, Type, Visibility};

use crate::mentions::mentions;
use crate::output::{future_output, unit};
use crate::patterns::{self, bindings};

/// A function, or what another attribute has already made of an `async fn`.
pub(crate) struct Item {
    /// Everything before the body.
    header: TokenStream,
    /// Attributes and visibility, which come before the signature.
    front: TokenStream,
    /// Attributes below this one that look at the signature.
    others: Vec<Attribute>,
    pub(crate) signature: Signature,
    shape: Shape,
    body: Group,
    pub(crate) block: Block,
    /// What the future resolves to.
    pub(crate) output: Type,
    /// Everything that a placeholder can begin with, `self` included.
    pub(crate) bindings: Vec<Ident>,
    pub(crate) problem: Option<Problem>,
}

/// Why a function cannot be locked.
pub(crate) enum Problem {
    NotAsync(Ident),
    Const(Token![const]),
}

/// Where in the body the block stands that is to run under the lock.
enum Shape {
    /// It is the body.
    AsyncFn,
    /// `Box::pin(async move { … })`, the form that `#[async_trait]` leaves.
    Boxed {
        call: TokenStream,
        arguments: Group,
        keywords: TokenStream,
    },
    /// `let body = async { … }; …`, the form that `#[tokio::main]` leaves.
    BlockOn {
        before: TokenStream,
        after: TokenStream,
    },
}

/// The block that is to run under the lock.
pub(crate) struct Block {
    /// `#![…]`, which must stay in front.
    attributes: TokenStream,
    /// Where `#[async_trait]` made it: the statements up to the last one that binds a parameter.
    pub(crate) leading: Vec<Leading>,
    pub(crate) statements: TokenStream,
    pub(crate) span: Span,
}

/// A statement that `#[async_trait]` put in front.
pub(crate) struct Leading {
    pub(crate) tokens: TokenStream,
    /// The pattern of the signature that it binds.
    pub(crate) pattern: Option<Pat>,
    /// What it binds to that.
    pub(crate) value: TokenStream,
}

impl Item {
    /// # Errors
    ///
    /// If this is no function, or one without a body.
    pub(crate) fn parse(tokens: TokenStream) -> syn::Result<Self> {
        let tokens = ungrouped(tokens);
        let mut header: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let Front {
            attributes,
            visibility,
            signature,
        } = front(tokens)?;
        let body = match header.pop().map(block_of) {
            Some(Some(body)) => body,
            _ => {
                return Err(syn::Error::new(
                    signature.ident.span(),
                    "expected a function with a body, put the attribute on the implementation",
                ));
            }
        };
        let (shape, block, output) = shape(&signature, &body);
        let mut block = Block::new(&block);
        let mut names = Vec::new();
        for input in &signature.inputs {
            match input {
                FnArg::Receiver(receiver) => names.push(Ident::from(receiver.self_token)),
                FnArg::Typed(typed) => names.extend(bindings(&typed.pat)),
            }
        }
        if let Shape::Boxed { .. } = shape {
            block.split_leading();
            let patterns = block
                .leading
                .iter()
                .filter_map(|leading| leading.pattern.as_ref());
            names.extend(patterns.flat_map(bindings));
        }
        let problem = match (signature.constness, signature.asyncness, &shape) {
            (Some(keyword), ..) => Some(Problem::Const(keyword)),
            (None, None, Shape::AsyncFn) => Some(Problem::NotAsync(signature.ident.clone())),
            _ => None,
        };
        let header = header.into_iter().collect();
        Ok(Self {
            header,
            front: quote!(#(#attributes)* #visibility),
            others: others(&attributes),
            signature,
            shape,
            body,
            block,
            output,
            bindings: names,
            problem,
        })
    }

    /// Whether parameters may be written differently: nobody else reads them.
    pub(crate) fn may_rewrite(&self) -> bool {
        self.others.is_empty() && !self.is_boxed()
    }

    /// Whether a parameter's name may be replaced by the same one with another hygiene, which
    /// `#[tracing::instrument]` keeps.
    pub(crate) fn may_rename(&self) -> bool {
        let mut paths = self.others.iter().map(Attribute::path);
        let keeps = |path: &Path| {
            path.segments
                .last()
                .is_some_and(|last| last.ident == "instrument")
        };
        paths.all(keeps) && !self.is_boxed()
    }

    /// Whether such an attribute mentions a name itself.
    pub(crate) fn attributes_mention(&self, name: &Ident) -> bool {
        let mut others = self.others.iter().map(ToTokens::to_token_stream);
        others.any(|attribute| mentions(&attribute, name))
    }

    /// Whether the signature's parameters are bound by statements of the block.
    pub(crate) fn is_boxed(&self) -> bool {
        matches!(self.shape, Shape::Boxed { .. })
    }

    /// Whether the function returns `()`.
    pub(crate) fn returns_nothing(&self) -> bool {
        self.output.to_token_stream().to_string() == "()"
    }

    /// Whether the body has this word.
    pub(crate) fn body_has(&self, word: &str) -> bool {
        fn has(tokens: TokenStream, word: &str) -> bool {
            tokens.into_iter().any(|token| match token {
                TokenTree::Ident(ident) => ident == word,
                TokenTree::Group(group) => has(group.stream(), word),
                TokenTree::Punct(_) | TokenTree::Literal(_) => false,
            })
        }
        has(self.body.stream(), word)
    }

    /// Replaces the parameters.
    pub(crate) fn set_inputs(&mut self, inputs: Punctuated<FnArg, Token![,]>) {
        self.signature.inputs = inputs;
        let (front, signature) = (&self.front, &self.signature);
        self.header = quote!(#front #signature);
    }

    /// The function with other contents in the block that is to run under the lock.
    pub(crate) fn with_contents(&self, contents: TokenStream) -> TokenStream {
        let attributes = &self.block.attributes;
        let block = braces(quote!(#attributes #contents), self.block.span);
        let body = match &self.shape {
            Shape::AsyncFn => block,
            Shape::Boxed {
                call,
                arguments,
                keywords,
            } => {
                let mut arguments_with =
                    Group::new(arguments.delimiter(), quote!(#keywords #block));
                arguments_with.set_span(arguments.span());
                braces(quote!(#call #arguments_with), self.body.span())
            }
            Shape::BlockOn { before, after } => {
                braces(quote!(#before #block #after), self.body.span())
            }
        };
        let header = &self.header;
        quote!(#header #body)
    }

    /// The header without `const`, which the compiler would complain about once more.
    pub(crate) fn drop_const(&mut self) {
        let is = |token: &TokenTree, keyword| matches!(token, TokenTree::Ident(ident) if ident == keyword);
        let mut before_fn = true;
        self.header = std::mem::take(&mut self.header)
            .into_iter()
            .filter(|token| {
                before_fn &= !is(token, "fn");
                !(before_fn && is(token, "const"))
            })
            .collect();
    }
}

impl Block {
    fn new(group: &Group) -> Self {
        let parser = |input: ParseStream<'_>| {
            let attributes = input.call(Attribute::parse_inner)?;
            Ok((quote!(#(#attributes)*), input.parse()?))
        };
        let (attributes, statements) = parser
            .parse2(group.stream())
            .unwrap_or_else(|_| (TokenStream::new(), group.stream()));
        Self {
            attributes,
            leading: Vec::new(),
            statements,
            span: group.span(),
        }
    }

    /// Takes the statements that bind patterns of the signature, and those before them, out.
    fn split_leading(&mut self) {
        let mut leading: Vec<Leading> = Vec::new();
        let mut rest = std::mem::take(&mut self.statements).into_iter().peekable();
        while let Some(TokenTree::Ident(keyword)) = rest.peek() {
            let ends: fn(&TokenTree) -> bool = match keyword.to_string().as_str() {
                "let" => |token| matches!(token, TokenTree::Punct(end) if end.as_char() == ';'),
                "if" => {
                    |token| matches!(token, TokenTree::Group(end) if end.delimiter() == Delimiter::Brace)
                }
                _ => break,
            };
            let mut statement = Vec::new();
            for token in rest.by_ref() {
                let last = ends(&token);
                statement.push(token);
                if last {
                    break;
                }
            }
            leading.push(Leading::new(statement));
        }
        let last = leading
            .iter()
            .rposition(|leading| leading.pattern.is_some());
        let statements = leading.split_off(last.map_or(0, |last| last + 1));
        self.leading = leading;
        self.statements = statements
            .into_iter()
            .flat_map(|statement| statement.tokens)
            .chain(rest)
            .collect();
    }
}

impl Leading {
    fn new(statement: Vec<TokenTree>) -> Self {
        let (pattern, value) = pattern_of_argument(&statement)
            .map_or_else(Default::default, |(pattern, value)| (Some(pattern), value));
        Self {
            tokens: statement.into_iter().collect(),
            pattern,
            value,
        }
    }
}

/// What stands before a function's body.
struct Front {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
}

/// Takes an invisible group away, which `macro_rules!` puts around what it matched.
fn ungrouped(tokens: TokenStream) -> TokenStream {
    let mut all = tokens.clone().into_iter();
    match (all.next(), all.next()) {
        (Some(TokenTree::Group(group)), None) if group.delimiter() == Delimiter::None => {
            ungrouped(group.stream())
        }
        _ => tokens,
    }
}

/// A block, perhaps in invisible groups.
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

pub(crate) fn braces(contents: TokenStream, span: Span) -> TokenStream {
    let mut group = Group::new(Delimiter::Brace, contents);
    group.set_span(span);
    TokenTree::from(group).into()
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

/// What stands where, the block to lock, and what the future resolves to.
fn shape(signature: &Signature, body: &Group) -> (Shape, Group, Type) {
    let output = match &signature.output {
        ReturnType::Type(_, output) => (**output).clone(),
        ReturnType::Default => unit(signature.ident.span()),
    };
    if signature.asyncness.is_none() {
        if let Some((shape, block)) = block_on(body) {
            return (shape, block, output);
        }
        if let (Some((shape, block)), Some(output)) = (boxed(body), future_output(&output)) {
            return (shape, block, output);
        }
    }
    (Shape::AsyncFn, body.clone(), output)
}

fn boxed(body: &Group) -> Option<(Shape, Group)> {
    let mut call: Vec<TokenTree> = body.stream().into_iter().collect();
    let TokenTree::Group(arguments) = call.pop()? else {
        return None;
    };
    let path: String = call.iter().map(ToString::to_string).collect();
    let mut keywords: Vec<TokenTree> = arguments.stream().into_iter().collect();
    let TokenTree::Group(block) = keywords.pop()? else {
        return None;
    };
    let words: Vec<String> = keywords.iter().map(ToString::to_string).collect();
    let is_form = matches!(path.as_str(), "Box::pin" | "::std::boxed::Box::pin")
        && words == ["async", "move"];
    let shape = Shape::Boxed {
        call: call.into_iter().collect(),
        arguments,
        keywords: keywords.into_iter().collect(),
    };
    is_form.then_some((shape, block))
}

fn block_on(body: &Group) -> Option<(Shape, Group)> {
    let mut tokens = body.stream().into_iter();
    let before: Vec<TokenTree> = tokens.by_ref().take(4).collect();
    let words: Vec<String> = before.iter().map(ToString::to_string).collect();
    let Some(TokenTree::Group(block)) = tokens.next() else {
        return None;
    };
    let after: TokenStream = tokens.collect();
    let is_form = words == ["let", "body", "=", "async"] && after.to_string().contains("block_on");
    is_form.then_some((
        Shape::BlockOn {
            before: before.into_iter().collect(),
            after,
        },
        block,
    ))
}

/// The pattern and the value of `let <pattern> = __argN;` or
/// `let <pattern> = { let __argN = __argN; __argN };`.
fn pattern_of_argument(statement: &[TokenTree]) -> Option<(Pat, TokenStream)> {
    let [_, pattern @ .., TokenTree::Punct(equals), value, _] = statement else {
        return None;
    };
    let argument = match value {
        TokenTree::Group(group) => group.stream().into_iter().nth(1)?,
        argument => argument.clone(),
    };
    let argument = argument.to_string();
    let pattern = patterns::parse(pattern.iter().cloned().collect())?;
    // `let x = x;` too: left in the body, it would be a variable that the body does not use.
    let itself = matches!(&pattern, Pat::Ident(pattern) if pattern.ident == argument);
    let is_form = equals.as_char() == '=' && (itself || argument.starts_with("__arg"));
    is_form.then(|| (pattern, value.to_token_stream()))
}

/// Those that are no attributes of the language, which do not look at the parameters.
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
