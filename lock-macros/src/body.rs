//! The body of a function, and the block in it that is to run under the lock.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Pat, ReturnType, Signature, Type};

use crate::output::{future_output, unit};
use crate::patterns;
use crate::tokens::braces;

/// A body. Its statements are never parsed, only kept as tokens.
pub(crate) struct Body {
    shape: Shape,
    group: Group,
    pub(crate) block: Block,
    /// The type that the future resolves to.
    pub(crate) output: Type,
}

/// Where the block stands in the body.
enum Shape {
    /// The block is the body.
    Whole,
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
    /// In a block that `#[async_trait]` made: the statements up to the last one that binds a
    /// parameter.
    pub(crate) leading: Vec<Leading>,
    pub(crate) statements: TokenStream,
    pub(crate) span: Span,
}

/// A statement that `#[async_trait]` put in front.
pub(crate) struct Leading {
    pub(crate) tokens: TokenStream,
    /// The pattern of the signature that the statement binds.
    pub(crate) pattern: Option<Pat>,
    /// The value that is bound to the pattern.
    pub(crate) value: TokenStream,
}

impl Body {
    /// Finds the block in a body, and what its future resolves to.
    pub(crate) fn new(signature: &Signature, group: Group) -> Self {
        let output = match &signature.output {
            ReturnType::Type(_, output) => (**output).clone(),
            ReturnType::Default => unit(signature.ident.span()),
        };
        let found = match signature.asyncness {
            Some(_) => None,
            None => rewritten(&group, &output),
        };
        let (shape, block, output) = found.unwrap_or((Shape::Whole, group.clone(), output));
        let mut block = Block::new(&block);
        if let Shape::Boxed { .. } = shape {
            block.split_leading();
        }
        Self {
            shape,
            group,
            block,
            output,
        }
    }

    /// Tells whether the block is the whole body.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.shape, Shape::Whole)
    }

    /// Tells whether the signature's parameters are bound by statements of the block.
    pub(crate) fn is_boxed(&self) -> bool {
        matches!(self.shape, Shape::Boxed { .. })
    }

    /// Tells whether the body has this word.
    pub(crate) fn has(&self, word: &str) -> bool {
        has(self.group.stream(), word)
    }

    /// Writes the body with other contents in the block.
    pub(crate) fn with_contents(&self, contents: TokenStream) -> TokenStream {
        let attributes = &self.block.attributes;
        let block = braces(quote!(#attributes #contents), self.block.span);
        match &self.shape {
            Shape::Whole => block,
            Shape::Boxed {
                call,
                arguments,
                keywords,
            } => {
                let span = arguments.span();
                let mut arguments = Group::new(arguments.delimiter(), quote!(#keywords #block));
                arguments.set_span(span);
                braces(quote!(#call #arguments), self.group.span())
            }
            Shape::BlockOn { before, after } => {
                braces(quote!(#before #block #after), self.group.span())
            }
        }
    }
}

fn has(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Group(group) => has(group.stream(), word),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
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

    /// Takes out the statements that bind patterns of the signature, and those before them.
    fn split_leading(&mut self) {
        let mut leading: Vec<Leading> = Vec::new();
        let mut rest = std::mem::take(&mut self.statements).into_iter().peekable();
        while let Some(ends) = rest.peek().and_then(end_of_statement) {
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

/// Returns the test for the last token of a `let` or `if` that begins with this one.
fn end_of_statement(first: &TokenTree) -> Option<fn(&TokenTree) -> bool> {
    let TokenTree::Ident(keyword) = first else {
        return None;
    };
    if keyword == "let" {
        Some(|token| matches!(token, TokenTree::Punct(end) if end.as_char() == ';'))
    } else if keyword == "if" {
        Some(|token| matches!(token, TokenTree::Group(end) if end.delimiter() == Delimiter::Brace))
    } else {
        None
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

/// Finds the pattern and the value of `let <pattern> = __argN;` or
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
    // This takes `let x = x;`, too: left in the body, it would be a variable that the body does not
    // use.
    let itself = matches!(&pattern, Pat::Ident(pattern) if pattern.ident == argument);
    let is_form = equals.as_char() == '=' && (itself || argument.starts_with("__arg"));
    is_form.then(|| (pattern, value.to_token_stream()))
}

/// Finds the block in a body that another attribute has made of an `async fn`.
fn rewritten(body: &Group, output: &Type) -> Option<(Shape, Group, Type)> {
    if let Some((shape, block)) = block_on(body) {
        return Some((shape, block, output.clone()));
    }
    let (shape, block) = boxed(body)?;
    Some((shape, block, future_output(output)?))
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
