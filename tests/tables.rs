//! Every method is in the tables that lead to it: README, first page of the documentation, page of its
//! module. Read from the sources, so that a new method fails by its name.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Names = BTreeSet<String>;

/// Modules whose tables list methods; each method of theirs is in the README and on the first page, too.
const PAGES: [&str; 6] =
    ["first_order", "second_order", "low_rank", "error_feedback", "curvature", "constrained"];

/// Headers of the first column of tables that list methods.
const METHOD: [&str; 3] = ["method", "object", "type"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The `mod.rs` of every folder of `src`, by the folder's path.
fn module_pages() -> BTreeMap<String, String> {
    fn walk(folder: &Path, pages: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, pages);
            } else if path.file_name().is_some_and(|name| name == "mod.rs") {
                let name = folder.strip_prefix(root().join("src")).unwrap().to_str().unwrap();
                pages.insert(name.replace('\\', "/"), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut pages = BTreeMap::new();
    walk(&root().join("src"), &mut pages);
    pages
}

/// The names of types in a cell: what begins with a capital between backticks.
fn names_in(cell: &str) -> Names {
    let quoted = cell.split('`').skip(1).step_by(2);
    let name = |text: &&str| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.chars().all(char::is_alphanumeric)
    };
    quoted.filter(name).map(str::to_owned).collect()
}

/// The names in the first columns of tables whose first header is one of `headers`; lines of tables begin
/// with `prefix`.
fn names_in_tables(text: &str, prefix: &str, headers: &[&str]) -> Names {
    let (mut names, mut listed, mut inside) = (Names::new(), false, false);
    for line in text.lines() {
        let Some(row) = line.strip_prefix(prefix) else {
            inside = false;
            continue;
        };
        let cell = row.trim_start_matches('|').split('|').next().unwrap_or_default().trim();
        if !inside {
            (inside, listed) = (true, headers.contains(&cell));
        } else if listed {
            names.extend(names_in(cell));
        }
    }
    names
}

fn of_module(text: &str, headers: &[&str]) -> Names {
    names_in_tables(text, "//! |", headers)
}

/// A list `for_each_…!`: the methods that it names itself, and the lists that it includes.
#[derive(Debug, Default, PartialEq)]
struct List {
    name: String,
    methods: Names,
    includes: Names,
}

/// The lists of a file.
fn lists(source: &str) -> Vec<List> {
    let starts = source.match_indices("macro_rules! for_each_");
    let list = |(at, start): (usize, &str)| {
        let rest = &source[at + start.len()..];
        let body = rest.split("\n}").next().unwrap();
        let word =
            |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let all = |mark: &str| {
            body.match_indices(mark).map(|(i, _)| word(&body[i + mark.len()..])).collect()
        };
        List { name: word(rest), methods: all("$macro!("), includes: all("$crate::for_each_") }
    };
    starts.map(list).collect()
}

/// All lists, with the folder that holds each.
fn all_lists() -> Vec<(String, List)> {
    let pages = module_pages().into_iter();
    pages
        .flat_map(|(page, text)| lists(&text).into_iter().map(move |list| (page.clone(), list)))
        .collect()
}

fn assert_none(missing: impl IntoIterator<Item = String>) {
    let missing: Vec<String> = missing.into_iter().collect();
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

fn readme(headers: &[&str]) -> Names {
    names_in_tables(&read("README.md"), "|", headers)
}

fn first_page(headers: &[&str]) -> Names {
    of_module(&read("src/lib.rs"), headers)
}

#[test]
fn every_method_of_a_list_is_in_the_tables_that_lead_to_it() {
    let (readme, first, pages) = (readme(&["method"]), first_page(&["method"]), module_pages());
    let lists = all_lists();
    let mut missing = Vec::new();
    for (page, list) in &lists {
        let included = lists.iter().filter(|(_, other)| list.includes.contains(&other.name));
        let methods = list.methods.iter().chain(included.flat_map(|(_, other)| &other.methods));
        let own = of_module(&pages[page], &METHOD);
        for method in methods {
            let tables = [
                (format!("src/{page}/mod.rs"), &own),
                ("src/lib.rs".to_owned(), &first),
                ("README.md".to_owned(), &readme),
            ];
            let lacking = tables.into_iter().filter(|(_, names)| !names.contains(method));
            missing.extend(lacking.map(|(file, _)| {
                format!(
                    "`{method}` of `for_each_{}!` is in no table of methods in {file}",
                    list.name
                )
            }));
        }
    }
    assert_none(missing);
}

#[test]
fn readme_and_first_page_have_the_same_methods_wrappers_and_estimators() {
    for header in ["method", "wrapper", "estimator"] {
        let (readme, first) = (readme(&[header]), first_page(&[header]));
        assert!(readme.len() >= 5, "no table of {header}s in README.md: {readme:?}");
        let lacks = |file: &'static str, name: &String| {
            format!("`{name}` is in no table of {header}s in {file}")
        };
        assert_none(readme.difference(&first).map(|name| lacks("src/lib.rs", name)));
        assert_none(first.difference(&readme).map(|name| lacks("README.md", name)));
    }
}

#[test]
fn the_pages_of_modules_have_the_methods_of_the_first_page() {
    let (first, pages) = (first_page(&["method"]), module_pages());
    let mut listed = Names::new();
    for (page, text) in &pages {
        if !PAGES.contains(&page.split('/').next().unwrap()) {
            continue;
        }
        let names = of_module(text, &METHOD);
        assert_none(names.difference(&first).map(|name| {
            format!("`{name}` of src/{page}/mod.rs is in no table of methods in src/lib.rs")
        }));
        listed.extend(names);
    }
    assert_none(first.difference(&listed).map(|name| {
        format!("`{name}` of src/lib.rs is in no table of methods of a module's page")
    }));
    for (page, header) in [("zeroth_order", "estimator"), ("wrappers", "wrapper")] {
        assert_eq!(of_module(&pages[page], &[header]), first_page(&[header]), "{page}");
    }
}

/// The prelude takes whole families: they export methods and their options, nothing else.
#[test]
fn families_export_no_helper_types() {
    let pages = module_pages();
    let families = pages.iter().filter(|(page, _)| page.starts_with("first_order/"));
    let mut helpers = Vec::new();
    for (page, text) in families {
        for statement in text.split("pub use ").skip(1) {
            let names = statement.split(';').next().unwrap();
            let words = names.split(|c: char| !c.is_alphanumeric() && c != '_');
            let helper =
                |name: &&str| name.ends_with("GroupState") || name.ends_with("Coefficients");
            helpers.extend(words.filter(helper).map(|name| {
                format!(
                    "`{name}` of src/{page}/mod.rs is a helper: if users read it, export it from \
                     `first_order::group_state`; if not, from nowhere"
                )
            }));
        }
    }
    assert_none(helpers);
}

/// The lists are read as the compiler reads them.
#[test]
fn lists_are_read_right() {
    let mut compiled = Names::new();
    macro_rules! add {
        ($name:ident) => {
            compiled.insert(stringify!($name).to_owned());
        };
    }
    eigenstep::for_each_first_order!(add);
    let lists = all_lists();
    let find = |name: &str| &lists.iter().find(|(_, list)| list.name == name).unwrap().1;
    let includes = &find("first_order").includes;
    let read = includes.iter().flat_map(|name| find(name).methods.clone());
    assert_eq!(read.collect::<Names>(), compiled);
    assert!(compiled.contains("AdamW") && find("second_order").methods.contains("Shampoo"));
}

/// The tests above find what is missing.
#[test]
fn tables_are_read_right() {
    let text = "//! | method | state |\n//! |---|---|\n//! | [`Adam`](a::Adam), [`B2`] around `any` | `C` |\n\
                //!\n//! | type | is |\n//! |---|---|\n//! | [`Other`] | – |\n";
    let names = |headers: &[&str]| of_module(text, headers).into_iter().collect::<Vec<_>>();
    assert_eq!(names(&["method"]), ["Adam", "B2"]);
    assert_eq!(names(&["type"]), ["Other"]);
    assert!(names(&["estimator"]).is_empty());
    let text = "| method | state |\n|---|---|\n| `Spsa`: MeZO, `x` | 1 |\n";
    assert_eq!(names_in_tables(text, "|", &["method"]).into_iter().collect::<Vec<_>>(), ["Spsa"]);
    let source = "macro_rules! for_each_a {\n    ($macro:ident) => {\n        $macro!(X);\n        \
                  $crate::for_each_b!($macro);\n    };\n}\nother!(Y);\n";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Names>();
    let expected = List { name: "a".into(), methods: set(&["X"]), includes: set(&["b"]) };
    assert_eq!(lists(source), [expected]);
}
