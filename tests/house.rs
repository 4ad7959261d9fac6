//! The rooms of this house, and which way imports run between them.
//!
//! A room is the first folder, or file, below the `src` of a crate. [`HOUSE`] says which other rooms its files may use; within a
//! room any file may use any other. Nowhere do files use each other in a circle.
//!
//! What a file uses is read from its `use` lines, its other paths and the tokens of its macros: every path that begins with `crate`,
//! `super`, `self` or a module declared there, up to the last module in it. `mod x;` alone uses nothing. What is compiled for tests
//! alone may use anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proc_macro2::{Spacing, TokenStream, TokenTree};
use syn::{
    Attribute, Item, ItemMod, Meta, UseTree, VisRestricted,
    parse::Parser,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// Of a crate: its rooms, and what each may use. `*` is every room that is not named.
type Rooms = &'static [(&'static str, &'static [&'static str])];

const HOUSE: &[(&str, Rooms)] = &[
    (
        "crates/optim",
        &[
            ("lib", &["error", "optimizer", "rule", "rules", "schedule"]),
            ("recipes", &["error", "rules", "schedule", "text"]),
            ("optimizer", &["backend", "error", "files", "rule", "schedule"]),
            ("rules", &["backend", "error", "formula", "matrix", "rule", "text", "wrappers"]),
            ("wrappers", &["backend", "error", "formula", "rule"]),
            ("rule", &["backend", "error", "formula", "text"]),
            ("backend", &["formula"]),
            ("formula", &[]),
            ("matrix", &["error"]),
            ("schedule", &["error", "text"]),
            ("error", &[]),
            ("files", &[]),
            ("text", &[]),
        ],
    ),
    (
        "crates/ops",
        &[
            ("lib", &["*", "conv2d_batch_norm", "conv2d_bias", "graph", "linear", "shape", "shortcut"]),
            // An operation.
            ("*", &["cpu", "device", "graph", "reference", "shape", "side"]),
            // Operations made of others.
            ("conv2d_batch_norm", &["batch_norm", "conv2d", "cpu", "graph", "relu", "shape", "side"]),
            ("conv2d_bias", &["conv2d", "cpu", "device", "graph", "scale_shift", "shape", "side"]),
            ("linear", &["cpu", "device", "gelu", "graph", "layer_norm", "reference", "shape", "side"]),
            ("shortcut", &["avg_pool2d", "cpu", "graph", "shape", "side"]),
            ("side", &["cpu", "device"]),
            ("graph", &["cpu", "device", "shape"]),
            ("reference", &["shape"]),
            ("device", &["shape"]),
            ("cpu", &["shape"]),
            ("shape", &[]),
        ],
    ),
    (
        "crates/gpu_check",
        &[("main", &["*"]), ("op_benches", &["timing"]), ("optimizer_benches", &["timing"]), ("*", &[])],
    ),
    (
        "experiments",
        &[
            ("bin", &["lib", "record", "report", "run"]),
            ("lib", &["config", "program"]),
            ("program", &["config", "record", "report", "run"]),
            ("run", &["config", "problem", "record", "stats"]),
            ("report", &["config", "random", "record", "stats"]),
            ("record", &["config", "stats"]),
            ("problem", &["config", "random"]),
            ("config", &[]),
            ("random", &[]),
            ("stats", &[]),
        ],
    ),
];

/// A file with more lines than this says why in the comment at its head.
const LINES: usize = 500;
/// What it says it with.
const REASON: &str = "long because";
/// Names of folders that do not say what is in them.
const NAMELESS: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];

/// Where a crate lies, from the folder that tests run in.
fn crate_folder(name: &str) -> PathBuf {
    Path::new("..").join(name)
}

#[test]
fn imports_run_the_way_that_the_table_says() {
    let mut wrong = Vec::new();
    for (name, rooms) in HOUSE {
        wrong.extend(
            against(rooms, &Files::read(&crate_folder(name))).into_iter().map(|text| format!("{name}: {text}")),
        );
    }
    assert!(wrong.is_empty(), "imports that the table in tests/house.rs does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for (name, _) in HOUSE {
        wrong.extend(Files::read(&crate_folder(name)).circle().map(|circle| format!("{name}: {circle}")));
    }
    assert!(wrong.is_empty(), "circles of files:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_is_of_one_concept_and_every_folder_has_a_name() {
    let mut wrong = Vec::new();
    for (name, _) in HOUSE {
        let files = Files::read(&crate_folder(name));
        wrong.extend(files.sources.iter().filter_map(|(path, text)| {
            let head = text.lines().take_while(|line| line.starts_with("//")).collect::<Vec<_>>().join(" ");
            let lines = text.lines().count();
            (lines > LINES && !head.contains(REASON)).then(|| {
                format!("{name}/src/{path}: {lines} lines: find its second concept, or say in its head `{REASON} ..`")
            })
        }));
        wrong.extend(files.sources.keys().filter_map(|path| {
            let nameless = path.trim_end_matches(".rs").split('/').find(|part| NAMELESS.contains(part))?;
            Some(format!("{name}/src/{path}: `{nameless}` names nothing"))
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rooms are what CONTRIBUTING.md shows to whoever comes.
#[test]
fn the_map_shows_every_room() {
    let map = std::fs::read_to_string("../CONTRIBUTING.md").expect("CONTRIBUTING.md");
    for (name, rooms) in HOUSE {
        for (room, _) in rooms.iter().filter(|(room, _)| !["*", "lib", "main"].contains(room)) {
            let is_shown = map.contains(&format!("`{room}/`")) || map.contains(&format!("`{room}.rs`"));
            assert!(is_shown, "CONTRIBUTING.md does not name `{room}` of {name}");
        }
    }
}

/// What a table of rooms does not allow in `files`, and what it names and they do not have.
fn against(rooms: &[(&str, &[&str])], files: &Files) -> Vec<String> {
    let known = |room: &str| rooms.iter().position(|(name, _)| *name == room);
    let row = |room: &str| known(room).or_else(|| known("*"));
    let mut wrong = Vec::new();
    for (file, uses) in &files.uses {
        let from = room(file);
        let Some(at) = row(from) else {
            wrong.push(format!("src/{file}: the room `{from}` is not in the table"));
            continue;
        };
        for used in uses {
            let to = room(used);
            let is_allowed =
                from == to || rooms[at].1.iter().any(|name| *name == to || *name == "*" && known(to).is_none());
            if !is_allowed {
                wrong.push(format!("src/{file} uses src/{used}: {from} -> {to}"));
            }
        }
    }
    let exists = |name: &str| name == "*" || files.uses.keys().any(|file| room(file) == name);
    let named = rooms.iter().flat_map(|(name, uses)| uses.iter().chain([name]));
    let missing: BTreeSet<&str> = named.copied().filter(|name| !exists(name)).collect();
    wrong.extend(missing.into_iter().map(|name| format!("the table names the room `{name}`, which is not there")));
    wrong
}

/// The first folder below `src`, or the file itself.
fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The files below `src`, each named by its path from there.
struct Files {
    sources: BTreeMap<String, String>,
    /// By file, but for those of tests alone: the others that it uses.
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Files {
    fn read(folder: &Path) -> Self {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("Cargo.toml");
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).expect("a name");
        let mut sources = BTreeMap::new();
        let (src, mut folders) = (folder.join("src"), vec![folder.join("src")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let below =
                        path.strip_prefix(&src).expect("it is below").to_str().expect("UTF-8").replace('\\', "/");
                    sources.insert(below, std::fs::read_to_string(&path).expect("UTF-8"));
                }
            }
        }
        Self::of(name, sources)
    }

    /// `name` is the crate's, by which its programs name what is in its library.
    fn of(name: &str, sources: BTreeMap<String, String>) -> Self {
        let modules: BTreeMap<Vec<String>, String> = sources.keys().map(|file| (module(file), file.clone())).collect();
        let mut of_tests: BTreeSet<Vec<String>> = BTreeSet::new();
        let mut found = BTreeMap::new();
        // A module comes before those within it.
        for (module, file) in &modules {
            let is_test = (0..=module.len()).any(|n| of_tests.contains(&module[..n]));
            let source = syn::parse_file(&sources[file]).unwrap_or_else(|error| panic!("{file}: {error}"));
            let is_program = file.starts_with("bin/") || file == "main.rs";
            let mut reader = Reader {
                name,
                root: module[..usize::from(is_program)].to_vec(),
                modules: &modules,
                at: module.clone(),
                declared: BTreeSet::new(),
                of_tests: Vec::new(),
                paths: Vec::new(),
                is_test,
            };
            reader.visit_file(&source);
            of_tests.extend(reader.of_tests);
            if is_test {
                of_tests.insert(module.clone());
            }
            found.insert(file.clone(), reader.paths);
        }
        let file_of = |path: &Vec<String>| (0..=path.len()).rev().find_map(|n| modules.get(&path[..n]));
        let is_of_tests = |file: &String| of_tests.contains(&module(file));
        let mut uses = BTreeMap::new();
        for (file, paths) in found.into_iter().filter(|(file, _)| !is_of_tests(file)) {
            let used = paths.iter().filter_map(file_of).filter(|used| **used != file && !is_of_tests(used)).cloned();
            let used = used.collect();
            uses.insert(file, used);
        }
        Self { sources, uses }
    }

    /// Files of which each uses the next, and the last the first.
    fn circle(&self) -> Option<String> {
        // A file that uses nothing of what is left is in no circle.
        let mut left: BTreeSet<&String> = self.uses.keys().collect();
        loop {
            let is_in = |file: &&String| self.uses[*file].iter().any(|used| left.contains(used));
            let next: BTreeSet<_> = left.iter().copied().filter(is_in).collect();
            if next.len() == left.len() {
                break;
            }
            left = next;
        }
        let mut walk = vec![*left.first()?];
        loop {
            let next = self.uses[*walk.last()?].iter().find(|used| left.contains(used))?;
            if let Some(start) = walk.iter().position(|file| *file == next) {
                let mut circle: Vec<&str> = walk[start..].iter().map(|file| file.as_str()).collect();
                let first = (0..circle.len()).min_by_key(|&at| circle[at]).unwrap_or_default();
                circle.rotate_left(first);
                return Some([&circle[..], &circle[..1]].concat().join(" -> "));
            }
            walk.push(next);
        }
    }
}

/// The module that a file is; a program's root is a module beside the library's.
fn module(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let path = path.strip_prefix("bin/").map_or(path.to_owned(), |program| format!("bin:{program}"));
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Reads the paths of a file.
struct Reader<'a> {
    /// The name of the crate, the root of its library or program, and its files.
    name: &'a str,
    root: Vec<String>,
    modules: &'a BTreeMap<Vec<String>, String>,
    /// The module that is read.
    at: Vec<String>,
    /// Modules within the file.
    declared: BTreeSet<Vec<String>>,
    /// Modules of tests alone.
    of_tests: Vec<Vec<String>>,
    paths: Vec<Vec<String>>,
    is_test: bool,
}

impl Reader<'_> {
    /// Before any path is read, since a path may stand above the module that it names.
    fn declare(&mut self, items: &[Item], at: &[String]) {
        for item in items {
            let Item::Mod(ItemMod { attrs, ident, content, .. }) = item else { continue };
            let module = [at, &[ident.to_string()]].concat();
            if is_of_tests(attrs) {
                self.of_tests.push(module.clone());
            }
            if let Some((_, items)) = content {
                self.declare(items, &module);
                self.declared.insert(module);
            }
        }
    }

    fn is_module(&self, path: &[String]) -> bool {
        self.declared.contains(path) || self.modules.contains_key(path)
    }

    fn path<'a>(&mut self, segments: impl IntoIterator<Item = &'a str>) {
        if self.is_test {
            return;
        }
        let mut segments = segments.into_iter().peekable();
        let Some(first) = segments.next() else { return };
        let child: Vec<String> = self.at.iter().cloned().chain([first.to_owned()]).collect();
        let mut path = match first {
            "crate" => self.root.clone(),
            "self" => self.at.clone(),
            "super" => self.at[..self.at.len().saturating_sub(1)].to_vec(),
            _ if self.is_module(&child) => child,
            _ if first == self.name => Vec::new(),
            _ => return,
        };
        while segments.next_if_eq(&"super").is_some() {
            path.pop();
        }
        // `self.field` and `crate` in `pub(in crate)` name no file.
        if segments.peek().is_some() || self.is_module(&path) {
            path.extend(segments.map(str::to_owned));
            self.paths.push(path);
        }
    }

    fn use_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| before.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.use_tree(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) => self.path(with(name.ident.to_string()).iter().map(String::as_str)),
            UseTree::Rename(name) => self.path(with(name.ident.to_string()).iter().map(String::as_str)),
            UseTree::Glob(_) => self.path(with("*".to_owned()).iter().map(String::as_str)),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, before)),
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is_colon = |at: usize, spacing| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == spacing);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    while is_colon(at + 1, Spacing::Joint) && is_colon(at + 2, Spacing::Alone) {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.path(path.iter().map(String::as_str));
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn if_tests(&mut self, attributes: &[Attribute], read: impl FnOnce(&mut Self)) {
        let before = self.is_test;
        self.is_test |= is_of_tests(attributes);
        read(self);
        self.is_test = before;
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_file(&mut self, file: &'ast syn::File) {
        self.declare(&file.items, &self.at.clone());
        self.if_tests(&file.attrs, |reader| visit::visit_file(reader, file));
    }

    fn visit_item(&mut self, item: &'ast Item) {
        self.if_tests(attributes(item), |reader| visit::visit_item(reader, item));
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.at.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.at.pop();
    }

    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        self.if_tests(&method.attrs, |reader| visit::visit_impl_item_fn(reader, method));
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(segments.iter().map(String::as_str));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    // Who may see a thing is no use of it.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}

    // A link in a comment is none either.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether `#[cfg(..)]` leaves it to tests alone.
fn is_of_tests(attributes: &[Attribute]) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        let Meta::List(list) = meta else { return meta.path().is_ident("test") };
        let all = Punctuated::<Meta, syn::Token![,]>::parse_terminated.parse2(list.tokens.clone()).unwrap_or_default();
        if list.path.is_ident("any") {
            all.iter().all(needs_test)
        } else {
            !list.path.is_ident("not") && all.iter().any(needs_test)
        }
    }
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && needs_test(&attribute.meta))
}

/// A house of these files.
fn made_up(files: &[(&str, &str)]) -> Files {
    Files::of("house", files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

#[test]
fn a_use_is_seen_however_it_is_written() {
    for (uses, is_seen) in [
        ("use crate::b::B;", true),
        ("use super::b::B;", true),
        ("use crate::{c, b::{B, c as d}};", true),
        ("fn f() -> crate::b::B { loop {} }", true),
        ("fn f() { println!(\"{}\", crate::b::X) }", true),
        ("macro_rules! m { () => { $crate::b::f() } }", true),
        ("mod inner { use super::super::b; fn f() { b::f() } }", true),
        ("impl super::b::T for X {}", true),
        ("#[cfg(feature = \"x\")] use crate::b;", true),
        ("#[cfg(any(test, feature = \"x\"))] use crate::b;", true),
        ("#[cfg(not(test))] use crate::b;", true),
        ("#[cfg(test)] use crate::b;", false),
        ("#[cfg(all(test, unix))] mod tests { use crate::b; }", false),
        ("/// [`crate::b`]\npub(super) fn f() {}", false),
        ("use other::b::B;", false),
    ] {
        let files = made_up(&[("lib.rs", "mod a; mod b; mod c;"), ("a.rs", uses), ("b.rs", ""), ("c.rs", "")]);
        assert_eq!(files.uses["a.rs"].contains("b.rs"), is_seen, "{uses}");
    }
}

#[test]
fn a_circle_is_found_through_any_number_of_files() {
    let straight = [
        ("lib.rs", "mod a; mod b; pub use a::A;"),
        ("a/mod.rs", "mod c; use c::C;"),
        ("a/c.rs", "use crate::b::B;"),
        ("b.rs", ""),
    ];
    assert_eq!(made_up(&straight).circle(), None);
    for (file, text, circle) in [
        ("b.rs", "use crate::a::A;", "a/c.rs -> b.rs -> a/mod.rs -> a/c.rs"),
        ("b.rs", "use crate::A;", "a/c.rs -> b.rs -> lib.rs -> a/mod.rs -> a/c.rs"),
        ("a/c.rs", "use super::A;", "a/c.rs -> a/mod.rs -> a/c.rs"),
    ] {
        let files = straight.map(|(path, old)| (path, if path == file { text } else { old }));
        assert_eq!(made_up(&files).circle().as_deref(), Some(circle));
    }
}

#[test]
fn an_arrow_against_the_table_is_found() {
    let rooms: &[(&str, &[&str])] = &[("lib", &["*"]), ("bin", &["lib", "*"]), ("leaf", &[]), ("*", &["leaf"])];
    let of = |leaf, a, b| {
        let bin = ("bin/program.rs", "use house::leaf::L;");
        against(
            rooms,
            &made_up(&[("lib.rs", "mod leaf; mod a; mod b;"), ("leaf.rs", leaf), ("a.rs", a), ("b.rs", b), bin]),
        )
    };
    let wrong = ["src/bin/program.rs uses src/leaf.rs: bin -> leaf"];
    assert_eq!(of("", "use crate::leaf;", ""), wrong);
    assert_eq!(of("use crate::a;", "", "")[1..], ["src/leaf.rs uses src/a.rs: leaf -> a"]);
    assert_eq!(of("", "", "use crate::a;"), [&["src/b.rs uses src/a.rs: b -> a"], &wrong[..]].concat());
    let missing = against(&[("lib", &["attic"])], &made_up(&[("lib.rs", "")]));
    assert_eq!(missing, ["the table names the room `attic`, which is not there"]);
}
