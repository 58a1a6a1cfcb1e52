//! Which file of a crate uses which other one, read from its sources.
//!
//! An import counts for the file in which the item lives, also when the path goes through a
//! re-export. Test modules do not count, nor does a module that re-exports its own child.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, UseTree, Visibility};

/// A module's path from the crate's root; empty for the root itself.
type ModulePath = Vec<String>;

#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// The paths that `use` gives names to, as they stand there.
    names: BTreeMap<String, Vec<String>>,
    /// The modules of which everything is imported.
    globs: Vec<Vec<String>>,
    items: BTreeSet<String>,
    paths: Vec<Mention>,
}

/// A path that stands in a module.
struct Mention {
    segments: Vec<String>,
    line: usize,
    /// It stands in a `pub use`.
    is_exported: bool,
}

/// One file uses another one, first at this line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    /// The file with the import, from the sources' root, without its ending.
    pub(crate) from: String,
    /// The file in which the item lives.
    pub(crate) to: String,
    /// Where the import stands.
    pub(crate) line: usize,
}

/// The modules of one crate.
pub(crate) struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    /// Reads the crate whose root file is `lib.rs` in this directory.
    pub(crate) fn read(sources: &Path) -> Self {
        let mut modules = BTreeMap::new();
        read_file(sources, "lib.rs", Vec::new(), &mut modules);
        Self { modules }
    }

    /// Returns every file of the crate.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        self.modules.values().map(|m| m.file.clone()).collect()
    }

    /// Returns who imports whom, once for each pair of files.
    pub(crate) fn imports(&self) -> BTreeSet<Import> {
        let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (path, module) in &self.modules {
            for mention in &module.paths {
                let Some(home) = self.home(path, &mention.segments) else {
                    continue;
                };
                let reexports_child = mention.is_exported && home.starts_with(path);
                let to = &self.modules[&home].file;
                if reexports_child || *to == module.file {
                    continue;
                }
                let line = found.entry((module.file.clone(), to.clone()));
                let line = line.or_insert(mention.line);
                *line = mention.line.min(*line);
            }
        }
        let import = |((from, to), line)| Import { from, to, line };
        found.into_iter().map(import).collect()
    }

    /// Finds the module in which the item of a path lives; `None` for other crates and for local
    /// names.
    fn home(&self, module: &[String], segments: &[String]) -> Option<ModulePath> {
        self.resolve(module, segments, 0)
    }

    fn resolve(&self, module: &[String], segments: &[String], depth: usize) -> Option<ModulePath> {
        if depth > 32 {
            return None;
        }
        let mut at: ModulePath = module.to_vec();
        let mut rest = segments;
        let mut is_anchored = false;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                _ => break,
            }
            (rest, is_anchored) = (others, true);
        }
        loop {
            let Some((first, others)) = rest.split_first() else {
                return is_anchored.then_some(at);
            };
            let here = self.modules.get(&at)?;
            if here.children.contains(first) {
                at.push(first.clone());
                (rest, is_anchored) = (others, true);
                continue;
            }
            if here.items.contains(first) {
                return Some(at);
            }
            if let Some(target) = here.names.get(first) {
                let target: Vec<_> = target.iter().chain(others).cloned().collect();
                if target == segments && at == module {
                    return None;
                }
                return self.resolve(&at, &target, depth + 1);
            }
            for glob in &here.globs {
                let target: Vec<_> = glob.iter().chain(rest).cloned().collect();
                if let Some(found) = self.resolve(&at, &target, depth + 1) {
                    return Some(found);
                }
            }
            // An item that a macro makes, or a variant or function of a type.
            return is_anchored.then_some(at);
        }
    }
}

fn read_file(
    sources: &Path,
    file: &str,
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
) {
    let text = std::fs::read_to_string(sources.join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    let name = file.trim_end_matches(".rs").to_owned();
    read_module(sources, name, &parsed.items, path, modules);
}

fn read_module(
    sources: &Path,
    file: String,
    items: &[Item],
    path: ModulePath,
    modules: &mut BTreeMap<ModulePath, Module>,
) {
    let mut module = Module {
        file: file.clone(),
        ..Module::default()
    };
    let directory = match path.is_empty() {
        true => String::new(),
        false => path.join("/") + "/",
    };
    for item in items {
        if let Item::Mod(child) = item {
            if is_test(&child.attrs) {
                continue;
            }
            let name = child.ident.to_string();
            module.children.insert(name.clone());
            let below: ModulePath = path.iter().cloned().chain([name.clone()]).collect();
            match &child.content {
                Some((_, items)) => read_module(sources, file.clone(), items, below, modules),
                None => read_file(sources, &place(sources, &directory, child), below, modules),
            }
            continue;
        }
        if let Some(name) = name_of(item) {
            module.items.insert(name);
        }
        module.visit_item(item);
    }
    modules.insert(path, module);
}

/// Finds the file of a module that stands in one of its own.
fn place(sources: &Path, directory: &str, module: &ItemMod) -> String {
    for attribute in &module.attrs {
        if attribute.path().is_ident("path")
            && let Meta::NameValue(pair) = &attribute.meta
            && let syn::Expr::Lit(literal) = &pair.value
            && let syn::Lit::Str(path) = &literal.lit
        {
            return path.value();
        }
    }
    let flat = format!("{directory}{}.rs", module.ident);
    match sources.join(&flat).exists() {
        true => flat,
        false => format!("{directory}{}/mod.rs", module.ident),
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::Path(path) => path.is_ident("test"),
        Meta::NameValue(_) => false,
    })
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}

impl Module {
    fn add_use(&mut self, tree: &UseTree, before: &[String], is_exported: bool) {
        let with = |name: &syn::Ident| {
            before
                .iter()
                .cloned()
                .chain([name.to_string()])
                .collect::<Vec<_>>()
        };
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident), is_exported),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before, is_exported);
                }
            }
            UseTree::Name(name) => self.add_name(&name.ident, &name.ident, before, is_exported),
            UseTree::Rename(name) => self.add_name(&name.rename, &name.ident, before, is_exported),
            UseTree::Glob(glob) => {
                self.globs.push(before.to_vec());
                let line = glob.star_token.spans[0].start().line;
                let segments = before.to_vec();
                self.paths.push(Mention {
                    segments,
                    line,
                    is_exported,
                });
            }
        }
    }

    fn add_name(
        &mut self,
        name: &syn::Ident,
        original: &syn::Ident,
        before: &[String],
        is_exported: bool,
    ) {
        let mut segments = before.to_vec();
        let mut name = name.to_string();
        match original == "self" {
            true if name == "self" => name = before.last().cloned().unwrap_or_default(),
            true => {}
            false => segments.push(original.to_string()),
        }
        self.names.insert(name, segments.clone());
        let line = original.span().start().line;
        self.paths.push(Mention {
            segments,
            line,
            is_exported,
        });
    }

    /// Adds what looks like a path in the tokens of a macro.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons < 2 {
                        self.add_segments(&mut segments, line);
                        line = ident.span().start().line;
                    }
                    segments.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.add_segments(&mut segments, line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_segments(&mut segments, line);
    }

    fn add_segments(&mut self, segments: &mut Vec<String>, line: usize) {
        let segments = std::mem::take(segments);
        if segments.len() > 1 {
            self.paths.push(Mention {
                segments,
                line,
                is_exported: false,
            });
        }
    }
}

impl Visit<'_> for Module {
    fn visit_item(&mut self, item: &Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Const(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        let is_exported = !matches!(item.vis, Visibility::Inherited);
        if item.leading_colon.is_none() {
            self.add_use(&item.tree, &[], is_exported);
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if path.leading_colon.is_none() && segments.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            self.paths.push(Mention {
                segments,
                line,
                is_exported: false,
            });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &syn::Macro) {
        self.add_tokens(invoked.tokens.clone());
    }
}
