//! Compares the public names of `lock-runtime` with `lock-runtime/public-api.txt`, so that no change
//! of them passes unnoticed. `UPDATE_EXPECT=1` writes the file anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::TokenTree;
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, TraitItem, Type, UseTree, Visibility};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lock-runtime/src")
}

fn parse(path: &Path) -> syn::File {
    let text = std::fs::read_to_string(path).expect("sources can be read");
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns every file of sources below a directory, but for those of tests.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("sources can be read");
    let mut found = Vec::new();
    for entry in entries.map(|entry| entry.expect("sources can be read").path()) {
        match entry.extension() {
            None => found.extend(files(&entry)),
            Some(_) if entry.ends_with("tests.rs") || entry.ends_with("guide.rs") => {}
            Some(ending) if ending == "rs" => found.push(entry),
            Some(_) => {}
        }
    }
    found
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    let text = |attribute: &Attribute| attribute.meta.to_token_stream().to_string();
    attributes
        .iter()
        .any(|it| matches!(&*text(it), "doc (hidden)" | "cfg (test)"))
}

fn text(tokens: impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    let tight = [
        (" :: ", "::"),
        (":: ", "::"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" :", ":"),
        ("- >", "->"),
        (" ;", ""),
        ("' ", "'"),
        ("->", " ->"),
        ("  ->", " ->"),
    ];
    tight
        .iter()
        .fold(text, |text, (loose, tight)| text.replace(loose, tight))
}

/// The public names at the crate's root, and in its public modules.
fn exported(items: &[Item]) -> BTreeSet<String> {
    fn leaves(tree: &UseTree, names: &mut BTreeSet<String>) {
        match tree {
            UseTree::Path(path) => leaves(&path.tree, names),
            UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
            UseTree::Name(name) => drop(names.insert(name.ident.to_string())),
            UseTree::Rename(name) => drop(names.insert(name.rename.to_string())),
            UseTree::Glob(_) => {}
        }
    }
    let mut names = BTreeSet::new();
    for item in items {
        if let Item::Use(item) = item
            && is_public(&item.vis)
        {
            leaves(&item.tree, &mut names);
        }
    }
    names
}

struct Names {
    exported: BTreeSet<String>,
    lines: BTreeSet<String>,
}

impl Names {
    fn add(&mut self, owner: &str, what: impl ToTokens) {
        self.lines.insert(format!("{owner}: {}", text(what)));
    }

    fn is_exported(&self, name: &syn::Ident, visibility: &Visibility) -> bool {
        is_public(visibility) && self.exported.contains(&name.to_string())
    }
}

impl Visit<'_> for Names {
    fn visit_item(&mut self, item: &Item) {
        match item {
            Item::Mod(module) if is_hidden(&module.attrs) => {}
            Item::Fn(item) if self.is_exported(&item.sig.ident, &item.vis) => {
                self.add("fn", &item.sig);
            }
            Item::Type(item) if self.is_exported(&item.ident, &item.vis) => {
                self.add("type", &item.ty);
            }
            Item::Struct(item) if self.is_exported(&item.ident, &item.vis) => {
                let owner = item.ident.to_string();
                for field in item.fields.iter().filter(|field| is_public(&field.vis)) {
                    let (name, ty) = (&field.ident, &field.ty);
                    self.add(&owner, quote::quote!(#name: #ty));
                }
            }
            Item::Enum(item) if self.is_exported(&item.ident, &item.vis) => {
                let owner = item.ident.to_string();
                for variant in &item.variants {
                    self.add(&owner, &variant.ident);
                }
            }
            Item::Trait(item) if self.is_exported(&item.ident, &item.vis) => {
                let owner = item.ident.to_string();
                for item in &item.items {
                    if let TraitItem::Fn(method) = item
                        && !is_hidden(&method.attrs)
                    {
                        self.add(&owner, &method.sig);
                    }
                }
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        let Type::Path(path) = &*item.self_ty else {
            return;
        };
        let owner = path.path.segments.last().map(|last| last.ident.to_string());
        let Some(owner) = owner.filter(|owner| self.exported.contains(owner)) else {
            return;
        };
        if let Some((of, _)) = &item.trait_ {
            let name = of.segments.last().map(|last| last.ident.to_string());
            if !matches!(name.as_deref(), Some("LossListener" | "Guard")) {
                self.add(&owner, of);
            }
            return;
        }
        for item in &item.items {
            match item {
                ImplItem::Fn(method) if is_public(&method.vis) && !is_hidden(&method.attrs) => {
                    self.add(&owner, &method.sig);
                }
                // The setters that every server's builder has.
                ImplItem::Macro(made) => {
                    for token in made.mac.tokens.clone() {
                        if let TokenTree::Ident(setter) = token {
                            self.add(&owner, quote::quote!(common setter #setter));
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn the_public_names_are_those_of_the_list() {
    let root = parse(&sources().join("lib.rs"));
    let mut exported = exported(&root.items);
    // The public modules, which name their own items.
    for module in ["providers/postgres/mod.rs", "testing.rs"] {
        let module = parse(&sources().join(module));
        exported.extend(self::exported(&module.items));
    }
    let testing = ["Operation", "TestProvider", "keys_in_use"];
    exported.extend(testing.map(str::to_owned));
    let lines = exported.iter().map(|name| format!("pub {name}")).collect();
    let mut names = Names { exported, lines };
    for file in files(&sources()) {
        names.visit_file(&parse(&file));
    }
    let found: String = names.lines.iter().map(|line| format!("{line}\n")).collect();
    let list = sources().join("../public-api.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&list, &found).expect("the list can be written");
    }
    let listed = std::fs::read_to_string(&list).unwrap_or_default();
    let listed: BTreeSet<_> = listed.lines().collect();
    let found: BTreeSet<_> = found.lines().collect();
    let (new, gone) = (&found - &listed, &listed - &found);
    assert!(
        new.is_empty() && gone.is_empty(),
        "the public names have changed; if that is meant, UPDATE_EXPECT=1 writes the list\n\
         new: {new:#?}\ngone: {gone:#?}"
    );
}
