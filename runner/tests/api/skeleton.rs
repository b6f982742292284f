//! What a crate declares as public, as Rust without bodies, private parts and documentation.
//!
//! Sorted by name, and without the private modules, so that it stays the same when code moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::{
    Attribute, Block, Field, Fields, FnArg, ImplItem, Item, ItemImpl, ItemMod, Meta, Pat,
    ReceiverKind, Signature, TraitItem, Type, Visibility, parse_quote,
};

/// The skeleton of the crate with this root file.
pub(crate) fn of_crate(root: &Path) -> String {
    let folder = root.parent().expect("a file is in a folder");
    let mut items = parse(root);
    load(&mut items, folder);
    print(items)
}

/// The skeleton of a crate that is one text.
pub(crate) fn of_source(source: &str) -> String {
    print(
        syn::parse_str::<syn::File>(source)
            .expect("it is Rust")
            .items,
    )
}

fn parse(path: &Path) -> Vec<Item> {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.items
}

/// Puts modules that are files of their own in their place.
fn load(items: &mut [Item], folder: &Path) {
    for item in items {
        let Item::Mod(module) = item else { continue };
        if is_test(&module.attrs) {
            continue;
        }
        let name = module.ident.to_string();
        let inner = folder.join(&name);
        if module.content.is_none() {
            let files = [folder.join(format!("{name}.rs")), inner.join("mod.rs")];
            let file: &PathBuf = files
                .iter()
                .find(|file| file.is_file())
                .unwrap_or_else(|| panic!("there is no module {name} in {}", folder.display()));
            module.content = Some((Default::default(), parse(file)));
            module.semi = None;
        }
        if let Some((_, items)) = &mut module.content {
            load(items, &inner);
        }
    }
}

fn print(items: Vec<Item>) -> String {
    let mut names = Names::default();
    names.collect(&items);
    let file = syn::File {
        shebang: None,
        frontmatter: None,
        attrs: Vec::new(),
        items: names.public(items),
    };
    prettyplease::unparse(&file)
}

/// The types and traits of a crate that cannot be reached from outside.
#[derive(Default)]
struct Names {
    private: BTreeSet<String>,
    public: BTreeSet<String>,
    /// Macros of the crate, and whether they may make something public.
    macros: BTreeMap<String, bool>,
}

impl Names {
    fn collect(&mut self, items: &[Item]) {
        for item in items {
            let (name, visibility) = match item {
                Item::Struct(item) => (&item.ident, &item.vis),
                Item::Enum(item) => (&item.ident, &item.vis),
                Item::Trait(item) => (&item.ident, &item.vis),
                Item::Type(item) => (&item.ident, &item.vis),
                Item::Mod(module) => {
                    if let Some((_, items)) = &module.content
                        && !is_test(&module.attrs)
                    {
                        self.collect(items);
                    }
                    continue;
                }
                Item::Macro(item) => {
                    if let Some(name) = &item.ident {
                        let tokens = item.mac.tokens.clone();
                        let makes = mentions(tokens.clone(), "pub") || mentions(tokens, "impl");
                        self.macros.insert(name.to_string(), makes);
                    }
                    continue;
                }
                _ => continue,
            };
            let names = match visibility {
                Visibility::Public(_) => &mut self.public,
                _ => &mut self.private,
            };
            names.insert(name.to_string());
        }
    }

    /// Names are told apart by their last part alone; one that is used for both counts as public.
    fn is_private(&self, path: &syn::Path) -> bool {
        last(path).is_some_and(|name| self.private.contains(&name) && !self.public.contains(&name))
    }

    fn is_private_type(&self, of: &Type) -> bool {
        match of {
            Type::Path(of) => self.is_private(&of.path),
            Type::Reference(of) => self.is_private_type(&of.elem),
            _ => false,
        }
    }

    fn public(&self, items: Vec<Item>) -> Vec<Item> {
        let mut items = self.collect_public(items);
        items.sort_by_cached_key(place);
        items
    }

    fn collect_public(&self, items: Vec<Item>) -> Vec<Item> {
        let mut public = Vec::new();
        for item in items {
            match item {
                Item::Mod(module) if !is_public(&module.vis) => {
                    if let Some((_, items)) = module.content
                        && !is_test(&module.attrs)
                    {
                        let conditions = module
                            .attrs
                            .iter()
                            .filter(|attr| attr.path().is_ident("cfg"));
                        let conditions: Vec<Attribute> = conditions.cloned().collect();
                        let mut items = self.collect_public(items);
                        // Where these lead from is private; what counts is where they lead to.
                        items.retain(|item| !matches!(item, Item::Use(_)));
                        for item in &mut items {
                            attrs(item).splice(0..0, conditions.clone());
                        }
                        public.append(&mut items);
                    }
                }
                item => public.extend(self.strip(item)),
            }
        }
        public
    }

    fn strip(&self, mut item: Item) -> Option<Item> {
        match &mut item {
            Item::Const(item) if is_public(&item.vis) => *item.expr = parse_quote!(_),
            Item::Static(item) if is_public(&item.vis) => *item.expr = parse_quote!(_),
            Item::Enum(item) if is_public(&item.vis) => {
                for variant in &mut item.variants {
                    strip_attrs(&mut variant.attrs);
                    for field in &mut variant.fields {
                        strip_attrs(&mut field.attrs);
                    }
                }
            }
            Item::Struct(item) if is_public(&item.vis) => strip_fields(&mut item.fields),
            Item::Fn(item) if is_public(&item.vis) => {
                strip_signature(&mut item.sig);
                *item.block = empty();
            }
            Item::Trait(item) if is_public(&item.vis) => {
                item.items.iter_mut().for_each(strip_trait_item);
            }
            Item::Type(item) if is_public(&item.vis) => {}
            Item::Use(item) if is_public(&item.vis) => {}
            Item::Impl(item) => {
                if !self.strip_impl(item) {
                    return None;
                }
            }
            Item::Mod(module) => {
                if !self.strip_module(module) {
                    return None;
                }
            }
            // What a macro makes is told by what it is made of.
            Item::Macro(item) => {
                let name = item.ident.as_ref().map(ToString::to_string);
                let name = name.or_else(|| last(&item.mac.path)).unwrap_or_default();
                let may_make = match self.macros.get(&name) {
                    Some(may_make) => *may_make,
                    None => mentions(item.mac.tokens.clone(), "pub"),
                };
                if !may_make {
                    return None;
                }
                item.mac.tokens = undocumented(item.mac.tokens.clone());
            }
            _ => return None,
        }
        let attrs = attrs(&mut item);
        if is_test(attrs) {
            return None;
        }
        strip_attrs(attrs);
        Some(item)
    }

    fn strip_module(&self, module: &mut ItemMod) -> bool {
        let Some((_, items)) = &mut module.content else {
            return false;
        };
        *items = self.public(std::mem::take(items));
        !items.is_empty()
    }

    /// Whether anything of it can be seen from outside.
    fn strip_impl(&self, item: &mut ItemImpl) -> bool {
        if self.is_private_type(&item.self_ty) {
            return false;
        }
        if let Some((path, _)) = &item.trait_ {
            let is_private = self.is_private(path);
            item.items.retain(|item| matches!(item, ImplItem::Type(_)));
            return !is_private;
        }
        item.items.retain_mut(|item| match item {
            ImplItem::Fn(item) if is_public(&item.vis) && !is_test(&item.attrs) => {
                strip_attrs(&mut item.attrs);
                strip_signature(&mut item.sig);
                item.block = empty();
                true
            }
            ImplItem::Const(item) if is_public(&item.vis) => {
                strip_attrs(&mut item.attrs);
                item.expr = parse_quote!(_);
                true
            }
            _ => false,
        });
        !item.items.is_empty()
    }
}

fn last(path: &syn::Path) -> Option<String> {
    path.segments
        .last()
        .map(|segment| segment.ident.to_string())
}

/// By the name of what it is about, a type before what is implemented for it, and then by its text.
fn place(item: &Item) -> (String, u8, String) {
    let (name, rank) = match item {
        Item::Use(_) => (String::new(), 0),
        Item::Macro(_) => (String::new(), 1),
        Item::Const(item) => (item.ident.to_string(), 2),
        Item::Enum(item) => (item.ident.to_string(), 2),
        Item::Fn(item) => (item.sig.ident.to_string(), 2),
        Item::Mod(item) => (item.ident.to_string(), 2),
        Item::Static(item) => (item.ident.to_string(), 2),
        Item::Struct(item) => (item.ident.to_string(), 2),
        Item::Trait(item) => (item.ident.to_string(), 2),
        Item::Type(item) => (item.ident.to_string(), 2),
        Item::Impl(item) => {
            let subject = match &*item.self_ty {
                Type::Path(of) => last(&of.path),
                _ => None,
            };
            let rank = if item.trait_.is_some() { 4 } else { 3 };
            (subject.unwrap_or_default(), rank)
        }
        _ => (String::new(), 5),
    };
    let file = syn::File {
        shebang: None,
        frontmatter: None,
        attrs: Vec::new(),
        items: vec![item.clone()],
    };
    (name, rank, prettyplease::unparse(&file))
}

fn attrs(item: &mut Item) -> &mut Vec<Attribute> {
    match item {
        Item::Const(item) => &mut item.attrs,
        Item::Enum(item) => &mut item.attrs,
        Item::Fn(item) => &mut item.attrs,
        Item::Impl(item) => &mut item.attrs,
        Item::Macro(item) => &mut item.attrs,
        Item::Mod(item) => &mut item.attrs,
        Item::Static(item) => &mut item.attrs,
        Item::Struct(item) => &mut item.attrs,
        Item::Trait(item) => &mut item.attrs,
        Item::Type(item) => &mut item.attrs,
        Item::Use(item) => &mut item.attrs,
        _ => unreachable!("nothing else is public"),
    }
}

fn strip_trait_item(item: &mut TraitItem) {
    match item {
        TraitItem::Fn(item) => {
            strip_attrs(&mut item.attrs);
            strip_signature(&mut item.sig);
            item.default = item.default.take().map(|_| empty());
        }
        TraitItem::Type(item) => strip_attrs(&mut item.attrs),
        TraitItem::Const(item) => strip_attrs(&mut item.attrs),
        _ => {}
    }
}

/// That there are private fields can be seen from outside, which ones not.
fn strip_fields(fields: &mut Fields) {
    match fields {
        Fields::Named(fields) => {
            let all = std::mem::take(&mut fields.named);
            let count = all.len();
            fields.named = all
                .into_iter()
                .filter(|field| is_public(&field.vis))
                .collect();
            if fields.named.len() < count {
                fields.named.push(parse_quote!(_private: ()));
            }
        }
        Fields::Unnamed(fields) => {
            for field in &mut fields.unnamed {
                if !is_public(&field.vis) {
                    field.ty = parse_quote!(());
                    field.vis = Visibility::Inherited;
                }
            }
        }
        Fields::Unit => {}
    }
    for Field { attrs, .. } in fields {
        strip_attrs(attrs);
    }
}

/// `mut self` and patterns concern the body.
fn strip_signature(signature: &mut Signature) {
    for input in &mut signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                if matches!(receiver.kind, ReceiverKind::Value) {
                    receiver.mutability = None;
                }
            }
            FnArg::Typed(typed) => {
                if let Pat::Ident(name) = &mut *typed.pat {
                    name.mutability = None;
                }
            }
        }
    }
}

fn strip_attrs(attrs: &mut Vec<Attribute>) {
    let told = [
        "cfg",
        "derive",
        "deprecated",
        "must_use",
        "non_exhaustive",
        "macro_export",
        "default",
        "repr",
    ];
    attrs.retain(|attr| told.iter().any(|name| attr.path().is_ident(name)));
}

fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let Meta::List(list) = &attr.meta else {
            return false;
        };
        let text = list.tokens.to_string();
        attr.path().is_ident("cfg") && (text == "test" || text.contains("doctest"))
    })
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn empty() -> Block {
    parse_quote!({})
}

/// Whether the word stands anywhere in it; `pub(…)` is no `pub`.
fn mentions(tokens: TokenStream, word: &str) -> bool {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let found = match token {
            TokenTree::Group(group) => mentions(group.stream(), word),
            TokenTree::Ident(ident) => {
                let is_restricted = matches!(
                    tokens.peek(),
                    Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis
                );
                ident == word && !(word == "pub" && is_restricted)
            }
            _ => false,
        };
        if found {
            return true;
        }
    }
    false
}

/// The tokens without their documentation.
fn undocumented(tokens: TokenStream) -> TokenStream {
    let mut stripped: Vec<TokenTree> = Vec::new();
    for token in tokens {
        if let TokenTree::Group(group) = token {
            let starts_with_doc = group.delimiter() == Delimiter::Bracket
                && group
                    .stream()
                    .into_iter()
                    .next()
                    .is_some_and(|first| first.to_string() == "doc");
            if starts_with_doc
                && matches!(stripped.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#')
            {
                stripped.pop();
            } else {
                stripped.push(Group::new(group.delimiter(), undocumented(group.stream())).into());
            }
        } else {
            stripped.push(token);
        }
    }
    stripped.into_iter().collect()
}
