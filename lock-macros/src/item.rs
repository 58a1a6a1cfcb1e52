//! The function under the attribute. Its body is never parsed, only kept as tokens.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, FnArg, Pat, ReturnType, Signature, Token, Type, Visibility};

use crate::output::{future_output, unit};

/// A function, or what another attribute has already made of an `async fn`.
pub(crate) struct Item {
    /// Everything before the body.
    header: TokenStream,
    shape: Shape,
    body: Group,
    pub(crate) block: Block,
    /// What the future resolves to.
    pub(crate) output: Type,
    /// Everything that a placeholder can begin with, `self` included.
    pub(crate) bindings: Vec<Ident>,
    /// Those of them that are there under every configuration.
    pub(crate) unconditional: Vec<Ident>,
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
    /// The `let`s that `#[async_trait]` makes of patterns in the signature.
    pub(crate) patterns: TokenStream,
    pub(crate) statements: TokenStream,
    pub(crate) span: Span,
}

impl Item {
    /// # Errors
    ///
    /// If this is no function, or one without a body.
    pub(crate) fn parse(tokens: TokenStream) -> syn::Result<Self> {
        let mut header: Vec<TokenTree> = tokens.clone().into_iter().collect();
        let signature = signature(tokens)?;
        let body = match header.pop() {
            Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => body,
            _ => {
                return Err(syn::Error::new(
                    signature.ident.span(),
                    "expected a function with a body, put the attribute on the implementation",
                ));
            }
        };
        let (shape, block, output) = shape(&signature, &body);
        let mut block = Block::new(&block);
        let mut unconditional = Vec::new();
        let mut conditional = Vec::new();
        for input in &signature.inputs {
            match input {
                FnArg::Receiver(receiver) => unconditional.push(Ident::from(receiver.self_token)),
                FnArg::Typed(typed) if typed.attrs.iter().any(is_condition) => {
                    bound_by(&typed.pat, &mut conditional);
                }
                FnArg::Typed(typed) => bound_by(&typed.pat, &mut unconditional),
            }
        }
        if let Shape::Boxed { .. } = shape {
            block.split_patterns(&mut unconditional);
        }
        let bindings = unconditional.iter().chain(&conditional).cloned().collect();
        let problem = match (signature.constness, signature.asyncness, &shape) {
            (Some(keyword), ..) => Some(Problem::Const(keyword)),
            (None, None, Shape::AsyncFn) => Some(Problem::NotAsync(signature.ident.clone())),
            _ => None,
        };
        let header = header.into_iter().collect();
        Ok(Self {
            header,
            shape,
            body,
            block,
            output,
            bindings,
            unconditional,
            problem,
        })
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
            patterns: TokenStream::new(),
            statements,
            span: group.span(),
        }
    }

    /// Takes the `let`s out of the leading statements that bind a pattern of the signature.
    fn split_patterns(&mut self, bindings: &mut Vec<Ident>) {
        let mut statements = TokenStream::new();
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
            match pattern_of_argument(&statement) {
                Some(pattern) => {
                    bound_by(&pattern, bindings);
                    self.patterns.extend(statement);
                }
                None => statements.extend(statement),
            }
        }
        statements.extend(rest);
        self.statements = statements;
    }
}

fn braces(contents: TokenStream, span: Span) -> TokenStream {
    let mut group = Group::new(Delimiter::Brace, contents);
    group.set_span(span);
    TokenTree::from(group).into()
}

fn signature(tokens: TokenStream) -> syn::Result<Signature> {
    let parser = |input: ParseStream<'_>| {
        input.call(Attribute::parse_outer)?;
        input.parse::<Visibility>()?;
        let start = input.cursor().span();
        let signature = input.parse::<Signature>().map_err(|_| {
            syn::Error::new(
                start,
                "expected an `async fn`, put the attribute on each function",
            )
        });
        input.parse::<TokenStream>()?;
        signature
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

/// The pattern of `let <pattern> = __argN;` or `let <pattern> = { let __argN = __argN; __argN };`.
fn pattern_of_argument(statement: &[TokenTree]) -> Option<Pat> {
    let [_, pattern @ .., TokenTree::Punct(equals), argument, _] = statement else {
        return None;
    };
    let argument = match argument {
        TokenTree::Group(group) => group.stream().into_iter().nth(1)?,
        argument => argument.clone(),
    };
    let argument = argument.to_string();
    let pattern = Pat::parse_single
        .parse2(pattern.iter().cloned().collect())
        .ok()?;
    // `let x = x;` too: left in the body, it would be a variable that the body does not use.
    let itself = matches!(&pattern, Pat::Ident(pattern) if pattern.ident == argument);
    let is_form = equals.as_char() == '=' && (itself || argument.starts_with("__arg"));
    is_form.then_some(pattern)
}

/// `#[cfg(…)]`, which may take a parameter away.
fn is_condition(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr")
}

/// The names that a pattern binds.
fn bound_by(pattern: &Pat, bindings: &mut Vec<Ident>) {
    let mut all = |patterns: &mut dyn Iterator<Item = &Pat>| {
        patterns.for_each(|pattern| bound_by(pattern, bindings));
    };
    match pattern {
        Pat::Ident(pattern) => {
            if let Some((_, inner)) = &pattern.subpat {
                all(&mut std::iter::once(&**inner));
            }
            bindings.push(pattern.ident.clone());
        }
        Pat::Paren(pattern) => bound_by(&pattern.pat, bindings),
        Pat::Reference(pattern) => bound_by(&pattern.pat, bindings),
        Pat::Type(pattern) => bound_by(&pattern.pat, bindings),
        Pat::Or(pattern) => all(&mut pattern.cases.iter().take(1)),
        Pat::Slice(pattern) => all(&mut pattern.elems.iter()),
        Pat::Struct(pattern) => all(&mut pattern.fields.iter().map(|field| &*field.pat)),
        Pat::Tuple(pattern) => all(&mut pattern.elems.iter()),
        Pat::TupleStruct(pattern) => all(&mut pattern.elems.iter()),
        _ => {}
    }
}
