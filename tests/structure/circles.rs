//! Circles between the files of a folder: two that need each other cannot be read one after the other.
//!
//! Every name that a file uses is followed through re-exports to the file that defines it. Two files
//! then belong to two units of the innermost folder that holds both: a unit is a file, a folder within,
//! or the folder's own `mod.rs`. The units of a folder must have an order.

use super::{code_of, sources};
use std::collections::{BTreeMap, BTreeSet};

/// A path of names below the root of the crate.
type Path = Vec<String>;

/// What the sources say of one file.
#[derive(Default)]
struct Module {
    /// Its submodules.
    children: BTreeSet<String>,
    /// Names that it re-exports, and the path of each.
    exports: BTreeMap<String, Path>,
    /// Modules of which it re-exports everything.
    globs: Vec<Path>,
    /// Paths that it uses itself.
    uses: BTreeSet<Path>,
    code: String,
}

/// Modules by their paths.
type Modules = BTreeMap<Path, Module>;

fn names(path: &str) -> Path {
    path.split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths of a `use` tree: `a::{b, c::{d, e as f}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expanded(tree: &str) -> Vec<Path> {
    let Some((prefix, list)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![names(path.trim().trim_end_matches("::self"))];
    };
    let list = list.trim_end().strip_suffix('}').unwrap_or(list);
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    let ends = list.char_indices().chain([(list.len(), ',')]);
    for (i, c) in ends {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            let part = list[start..i].trim();
            start = (i + 1).min(list.len());
            if !part.is_empty() {
                paths.extend(expanded(&format!("{prefix}{part}")));
            }
        }
    }
    paths
}

/// The path of a module that stands in the file at `path`.
fn module_path(path: &str) -> Path {
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
    if stem == "lib" { Path::new() } else { stem.split('/').map(str::to_owned).collect() }
}

/// The submodules that `code` declares, and the code without these lines.
fn without_submodules(code: &str) -> (BTreeSet<String>, String) {
    let (mut submodules, mut rest) = (BTreeSet::new(), String::new());
    for statement in code.split_inclusive(';') {
        let declared = statement.strip_suffix(';').and_then(|text| text.rsplit_once("mod "));
        match declared.filter(|(_, name)| name.chars().all(word)) {
            Some((before, name)) => {
                submodules.insert(name.to_owned());
                rest.push_str(before);
            }
            None => rest.push_str(statement),
        }
    }
    (submodules, rest)
}

impl Module {
    fn of(own: &Path, code: String) -> Self {
        let (children, statements) = without_submodules(&code);
        let mut module = Self { children, code, ..Self::default() };
        let (mut left, mut rest) = (statements.as_str(), String::new());
        while let Some((head, tail)) = left.split_once("use ") {
            let keyword = !head.ends_with(word);
            let Some((tree, after)) = tail.split_once(';').filter(|_| keyword) else {
                rest.push_str(head);
                left = tail;
                continue;
            };
            let public = head.rsplit([';', '{', '}', ']']).next().unwrap_or_default();
            for path in expanded(tree) {
                if let Some(path) = module.absolute(own, &path) {
                    module.add(path, public.contains("pub"));
                }
            }
            rest.push_str(head);
            left = after;
        }
        rest.push_str(left);
        module.find_paths(own, &rest);
        module
    }

    /// Adds what a `use` names.
    fn add(&mut self, path: Path, public: bool) {
        match path.split_last() {
            Some((last, module)) if public && last == "*" => self.globs.push(module.to_vec()),
            Some((last, _)) if public => {
                self.exports.insert(last.clone(), path);
            }
            _ => {
                self.uses.insert(path);
            }
        }
    }

    /// Paths in expressions and types; and re-exported names that the module uses itself.
    fn find_paths(&mut self, own: &Path, code: &str) {
        let mut at = 0;
        while at < code.len() {
            let rest = &code[at..];
            let Some(start) = rest.find(word) else { return };
            let path_end = |text: &str| text.find(|c| !word(c) && c != ':').unwrap_or(text.len());
            let text = &rest[start..start + path_end(&rest[start..])];
            let qualified = code[..at + start].ends_with("::");
            at += start + text.len();
            let path = names(text);
            let (Some(first), false) = (path.first(), qualified) else { continue };
            let exported = self.exports.get(first).cloned();
            let used = if text.contains("::") { self.absolute(own, &path) } else { None };
            self.uses.extend(exported.into_iter().chain(used));
        }
    }

    /// The path below the root; `None` for what is not of this crate.
    fn absolute(&self, own: &Path, path: &Path) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        let up = path.iter().take_while(|name| *name == "super").count();
        Some(match first.as_str() {
            "crate" => rest.to_vec(),
            "self" => [own, rest].concat(),
            "super" => [own.get(..own.len().checked_sub(up)?)?, path.get(up..)?].concat(),
            name if self.children.contains(name) => [own, path.as_slice()].concat(),
            _ => return None,
        })
    }

    /// Whether the module defines `name`.
    fn defines(&self, name: &str) -> bool {
        let keywords = ["struct", "enum", "trait", "fn", "const", "static", "type", "union"];
        keywords.iter().any(|keyword| {
            let text = format!("{keyword} {name}");
            self.code
                .match_indices(&text)
                .any(|(at, _)| !self.code[at + text.len()..].starts_with(word))
        })
    }
}

/// The module that defines what stands at `path`.
fn home(modules: &Modules, path: &Path, steps: usize) -> Option<Path> {
    // a path that leads in a circle of re-exports would not compile
    let steps = steps.checked_sub(1)?;
    let mut at = Path::new();
    for (i, name) in path.iter().enumerate() {
        let module = modules.get(&at)?;
        let rest = &path[i + 1..];
        if module.children.contains(name) {
            at.push(name.clone());
        } else if let Some(export) = module.exports.get(name) {
            return home(modules, &[export, rest].concat(), steps);
        } else {
            let through = |glob: &Path| {
                let path = [glob, &path[i..]].concat();
                home(modules, &path, steps)
                    .filter(|home| modules.get(home).is_some_and(|module| module.defines(name)))
            };
            return module.globs.iter().find_map(through).or(Some(at));
        }
    }
    Some(at)
}

/// Which units of each folder use which: by folder, unit, other unit, an example.
type Graph = BTreeMap<Path, BTreeMap<String, BTreeMap<String, String>>>;

fn graph(files: &[(String, String)]) -> Graph {
    let modules: Modules = files
        .iter()
        .map(|(path, source)| (module_path(path), code_of(source)))
        .map(|(path, code)| (path.clone(), Module::of(&path, code)))
        .collect();
    let mut graph = Graph::new();
    for (from, module) in &modules {
        for used in &module.uses {
            let Some(to) = home(&modules, used, 16).filter(|to| to != from) else { continue };
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let unit = |path: &Path| path.get(common).cloned().unwrap_or_else(|| "mod".into());
            let example = format!("{} uses {}", from.join("/"), used.join("::"));
            let units = graph.entry(from[..common].to_vec()).or_default();
            units.entry(unit(from)).or_default().entry(unit(&to)).or_insert(example);
        }
    }
    graph
}

/// A circle among the units of a folder, if there is one: an example of every use in it.
fn circle(units: &BTreeMap<String, BTreeMap<String, String>>) -> Option<Vec<String>> {
    fn walk<'u>(
        unit: &'u str,
        units: &'u BTreeMap<String, BTreeMap<String, String>>,
        way: &mut Vec<(&'u str, &'u str)>,
        done: &mut BTreeSet<&'u str>,
    ) -> Option<Vec<String>> {
        for (next, example) in units.get(unit)? {
            way.push((unit, example));
            if let Some(start) = way.iter().position(|(unit, _)| unit == next) {
                return Some(way[start..].iter().map(|(_, text)| (*text).to_owned()).collect());
            }
            if !done.contains(next.as_str())
                && let Some(found) = walk(next, units, way, done)
            {
                return Some(found);
            }
            way.pop();
        }
        done.insert(unit);
        None
    }
    let mut done = BTreeSet::new();
    units.keys().find_map(|unit| walk(unit, units, &mut Vec::new(), &mut done))
}

/// The circles of every folder, but for those of the folders `but` and below.
fn circles(files: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, units) in graph(files) {
        if folder.is_empty() {
            // between the folders of the root, floors keep the order
            continue;
        }
        if let Some(uses) = circle(&units) {
            found.push(format!("{}/ goes in a circle:\n  {}", folder.join("/"), uses.join("\n  ")));
        }
    }
    found
}

#[test]
fn no_two_files_of_a_folder_need_each_other() {
    let found = circles(&sources());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The check finds what it is there for.
mod scanner {
    use super::*;

    fn found(files: &[(&str, &str)]) -> usize {
        let files: Vec<_> =
            files.iter().map(|&(path, code)| (path.to_owned(), code.to_owned())).collect();
        circles(&files).len()
    }

    /// Files of a folder `a` with two files and a folder `room` of one.
    fn folder(module: &str, b: &str, c: &str, room: &str) -> usize {
        let module = format!("mod b; mod c; mod room; {module}");
        found(&[
            ("lib.rs", "pub mod a; pub use a::B;"),
            ("a/mod.rs", &module),
            ("a/b.rs", b),
            ("a/c.rs", c),
            ("a/room/mod.rs", "mod d; pub use d::D;"),
            ("a/room/d.rs", room),
        ])
    }

    #[test]
    fn trees_of_uses() {
        let path = |text: &str| names(text);
        assert_eq!(expanded("a::b"), [path("a::b")]);
        assert_eq!(expanded("a::{b, c::{d, e as f},\n g::*,}").len(), 4);
        assert_eq!(expanded("a::{self, b}"), [path("a"), path("a::b")]);
        assert_eq!(module_path("a/room/mod.rs"), path("a::room"));
        assert_eq!(module_path("lib.rs"), Path::new());
    }

    #[test]
    fn circles_of_files() {
        let (b, c) = ("use super::c::C; pub struct B(C);", "use super::b::B; pub struct C(B);");
        assert_eq!(folder("", b, "pub struct C;", ""), 0);
        assert_eq!(folder("", b, c, ""), 1);
        // in other words, and in places other than `use`
        assert_eq!(folder("", b, "pub struct C(crate::a::b::B);", ""), 1);
        assert_eq!(folder("", b, "fn f() { super::b::g() } pub struct C;", ""), 1);
        assert_eq!(folder("", "use super::{c::{C, D}};", c, ""), 1);
        // comments, strings and tests count for nothing
        assert_eq!(folder("", b, "// use super::b::B;\n/// super::b::B\npub struct C;", ""), 0);
        assert_eq!(folder("", b, "const S: &str = \"super::b::B\";", ""), 0);
        assert_eq!(folder("", b, "#[cfg(test)]\nmod tests { use super::super::b::B; }", ""), 0);
    }

    #[test]
    fn circles_through_re_exports() {
        let (b, c) = ("use super::c::C; pub struct B(C);", "use super::B; pub struct C(B);");
        assert_eq!(folder("pub use b::B; pub use c::C;", b, c, ""), 1);
        assert_eq!(folder("pub use b::*;", b, c, ""), 1);
        assert_eq!(folder("pub use b::B;", b, "use crate::B; pub struct C(B);", ""), 1);
        // what is re-exported for others is no use
        assert_eq!(
            folder("pub use b::B;", "use super::c::C; pub struct B(C);", "pub struct C;", ""),
            0
        );
    }

    #[test]
    fn circles_with_the_folder_itself() {
        // the folder defines X, and uses B
        let module = "pub use b::B; pub struct X; fn f(_: B) {}";
        assert_eq!(folder(module, "pub struct B;", "use super::X;", ""), 0);
        assert_eq!(folder(module, "use super::X; pub struct B;", "", ""), 1);
        assert_eq!(folder("use b::B; pub struct X;", "use super::X; pub struct B;", "", ""), 1);
        assert_eq!(folder("fn f() { b::g() } fn h() {}", "fn k() { super::h() }", "", ""), 1);
    }

    #[test]
    fn circles_with_a_folder_within() {
        let (b, d) =
            ("use super::room::D; pub struct B(D);", "use crate::a::b::B; pub struct D(B);");
        assert_eq!(folder("", b, "", "pub struct D;"), 0);
        assert_eq!(folder("", b, "", d), 1);
        assert_eq!(folder("", b, "", "use super::super::b::B; pub struct D(B);"), 1);
    }
}
