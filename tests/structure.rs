//! The floors, the order of files, the sizes and the home of `unsafe`, read from the sources.
// a test that fails says so by panicking, and its indices are of its own making
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "structure/circles.rs"]
mod circles;

use std::fs;
use std::path::Path;

/// The floor of every folder; a file of the top level counts as a folder.
const FLOORS: [(&str, u32); 24] = [
    ("config_file", 0),
    ("error", 0),
    ("numeric", 0),
    ("kernel", 1),
    ("linalg", 1),
    ("quant", 1),
    // ranges of numbers: needs nothing but errors, and state dicts are checked with them
    ("hyper", 1),
    ("params", 1),
    ("state", 2),
    ("tree", 2),
    ("optim", 3),
    // loss scaling and the guard decide whether an optimizer steps
    ("gradient", 4),
    ("schedule", 4),
    ("first_order", 4),
    // uses norms and copies of gradients
    ("zeroth_order", 5),
    ("second_order", 5),
    ("error_feedback", 5),
    ("low_rank", 5),
    // random numbers are those of zeroth order
    ("discrete", 6),
    // sends what the compressors of error_feedback make of a gradient
    ("distributed", 6),
    ("constrained", 5),
    // uses the factors of second_order
    ("curvature", 6),
    ("wrappers", 7),
    ("prelude", 8),
];

/// Arrows between neighbours that are meant.
const EXCEPTIONS: [(&str, &str, &str); 4] = [
    ("config_file", "error", "errors name the field that was meant in one way"),
    ("quant", "kernel", "codecs are loops, compiled for every instruction set"),
    ("linalg", "kernel", "every decomposition looks for numbers that are not finite"),
    ("tree", "state", "trees that own their values are saved in state dicts"),
];

/// Where `unsafe` may stand.
fn may_be_unsafe(path: &str) -> bool {
    path.starts_with("kernel/") || path == "linalg/faer.rs"
}

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;
const ARGUMENTS: usize = 6;

/// The source with comments, strings and test modules blanked out, line by line.
fn code_of(source: &str) -> String {
    let tests = source.match_indices("#[cfg(test)]\n").find(|(at, attribute)| {
        let mut lines = source[at + attribute.len()..].lines();
        lines.find(|line| !line.starts_with("#[")).is_some_and(|line| line.starts_with("mod "))
    });
    let source = tests.map_or(source, |(at, _)| &source[..at]);
    let mut code = String::with_capacity(source.len());
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('/', Some('/')) => while rest.next_if(|&c| c != '\n').is_some() {},
            ('/', Some('*')) => {
                let mut last = ' ';
                while let Some(c) = rest.next().filter(|&c| (last, c) != ('*', '/')) {
                    last = c;
                    code.extend((c == '\n').then_some(c));
                }
            }
            ('"', _) => {
                code.push('"');
                while let Some(c) = rest.next().filter(|&c| c != '"') {
                    let escaped = if c == '\\' { rest.next() } else { None };
                    code.extend([Some(c), escaped].into_iter().flatten().filter(|&c| c == '\n'));
                }
                code.push('"');
            }
            // a character, not a lifetime: '"' and '{' would confuse what follows
            ('\'', Some('\\')) => while rest.next_if(|&c| c != '\'').is_some() {},
            ('\'', Some(&next)) => {
                let mut ahead = rest.clone();
                ahead.next();
                if ahead.next() == Some('\'') {
                    rest.next();
                    rest.next();
                } else {
                    code.extend([c, next]);
                    rest.next();
                }
            }
            _ => code.push(c),
        }
    }
    code
}

/// Folders that `code` names behind `crate::`, also in braces.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    found.push(name(&list[start..]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(name(&list[start..]));
                    start = i + 1;
                }
                _ => {}
            }
        }
    }
    found
}

/// What is wrong with the arrows of the file at `path`.
fn wrong_arrows(path: &str, code: &str) -> Vec<String> {
    let floor = |name: &str| FLOORS.iter().find(|(folder, _)| *folder == name).map(|f| f.1);
    let own = path.split(['/', '.']).next().unwrap();
    let Some(own_floor) = floor(own) else {
        // the crate's root has no floor, and every folder must have one
        return if own == "lib" { Vec::new() } else { vec![format!("{path}: has no floor")] };
    };
    let mut wrong = Vec::new();
    for target in uses(code) {
        // names of the root (`Error`, macros) belong to no folder
        let Some(floor) = floor(&target).filter(|_| target != own) else { continue };
        let excepted = EXCEPTIONS.iter().any(|(from, to, _)| (*from, *to) == (own, &target));
        if floor > own_floor || floor == own_floor && !excepted {
            wrong.push(format!("{path} (floor {own_floor}) uses {target} (floor {floor})"));
        }
    }
    // from the first file of a folder, `super` is the root: a way around the names above
    let root = path.ends_with("mod.rs") && path.matches('/').count() == 1 || !path.contains('/');
    if root && code.contains("super::") || code.contains("super::super::super") {
        wrong.push(format!("{path}: climbs to the root with `super`"));
    }
    wrong
}

/// A function: its name, its first line, its lines and its arguments.
#[derive(Debug, PartialEq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
    arguments: usize,
}

/// Number of parts of a bracketed list that commas separate on its own level.
fn parts(list: &str) -> usize {
    let (mut depth, mut parts, mut empty, mut last) = (0, 0, true, ' ');
    for c in list.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            '>' if last == '-' => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts += usize::from(!empty);
                empty = true;
                continue;
            }
            _ => {}
        }
        last = c;
        empty &= c.is_whitespace();
    }
    parts + usize::from(!empty)
}

/// The index behind the bracket that closes the one at `open`.
fn closing(code: &str, open: usize, (left, right): (char, char)) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        depth += i32::from(c == left) - i32::from(c == right);
        if depth == 0 {
            return Some(open + i + 1);
        }
    }
    None
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let rest = &code[at + word.len()..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if before.is_alphanumeric() || before == '_' || name.is_empty() {
            continue;
        }
        // the argument list is the first parenthesis outside the generic parameters
        let (mut angles, mut last, mut open) = (0, ' ', None);
        for (i, c) in rest.char_indices() {
            angles += i32::from(c == '<') - i32::from(c == '>' && last != '-');
            if c == '(' && angles == 0 {
                open = Some(at + word.len() + i);
                break;
            }
            last = c;
        }
        let Some(open) = open else { continue };
        let Some(end) = closing(code, open, ('(', ')')) else { continue };
        let line = code[..at].matches('\n').count() + 1;
        let body = code[end..].find(['{', ';']).map(|i| end + i);
        let lines = match body.filter(|&body| code[body..].starts_with('{')) {
            Some(body) => {
                let close = closing(code, body, ('{', '}')).unwrap_or(code.len());
                code[at..close].matches('\n').count() + 1
            }
            None => 1,
        };
        found.push(Function { name, line, lines, arguments: parts(&code[open + 1..end - 1]) });
    }
    found
}

/// What is wrong with the sizes of the file at `path`.
fn wrong_sizes(path: &str, code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = code.lines().count();
    if lines > FILE_LINES {
        wrong.push(format!("{path}: {lines} lines"));
    }
    for Function { name, line, lines, arguments } in functions(code) {
        if lines > FUNCTION_LINES {
            wrong.push(format!("{path}:{line}: `{name}` has {lines} lines"));
        }
        if arguments > ARGUMENTS {
            wrong.push(format!("{path}:{line}: `{name}` takes {arguments} arguments"));
        }
    }
    wrong
}

/// Places where the word `unsafe` stands in `code`, as a word of its own.
fn unsafe_lines(code: &str) -> Vec<usize> {
    let word = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    (1..).zip(code.lines()).filter(|(_, line)| word(line)).map(|(i, _)| i).collect()
}

/// Every source file: its path below `src`, and its text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn check_all(check: impl Fn(&str, &str) -> Vec<String>) {
    let files = sources();
    let wrong = files.iter().flat_map(|(path, source)| check(path, &code_of(source)));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_arrow_goes_up_or_sideways() {
    check_all(wrong_arrows);
}

#[test]
fn files_functions_and_argument_lists_are_short() {
    check_all(wrong_sizes);
}

#[test]
fn unsafe_has_two_homes() {
    check_all(|path, code| {
        let lines = if may_be_unsafe(path) { Vec::new() } else { unsafe_lines(code) };
        lines.into_iter().map(|line| format!("{path}:{line}: unsafe")).collect()
    });
}

/// Rules in `code`: the `X` of `impl Rule for X`.
fn rules(code: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric()).collect();
    code.match_indices("impl Rule for ").map(|(at, text)| name(&code[at + text.len()..])).collect()
}

#[test]
fn every_optimizer_is_in_the_list() {
    let mut listed: Vec<&str> = Vec::new();
    macro_rules! list {
        ($rule:ident) => {
            listed.push(stringify!($rule));
        };
    }
    eigenstep::for_each_first_order!(list);
    let files = sources();
    let folder = files.iter().filter(|(path, _)| path.starts_with("first_order/"));
    let found: Vec<String> = folder.flat_map(|(_, source)| rules(&code_of(source))).collect();
    let missing: Vec<_> = found.iter().filter(|rule| !listed.contains(&rule.as_str())).collect();
    assert!(missing.is_empty(), "not in `for_each_first_order!`: {missing:?}");
    assert!(found.len() >= 10 && found.len() == listed.len(), "{found:?} but {listed:?}");
}

/// Every exception must still be needed, and have a reason.
#[test]
fn exceptions_are_in_use() {
    let files = sources();
    for (from, to, reason) in EXCEPTIONS {
        let mut of_folder = files.iter().filter(|(path, _)| path.starts_with(from));
        let needed = of_folder.any(|(_, source)| uses(&code_of(source)).iter().any(|u| u == to));
        assert!(needed && !reason.is_empty(), "{from} → {to} is not needed any more");
    }
}

/// Each check finds what it is there for.
mod scanner {
    use super::*;

    #[test]
    fn arrows() {
        let wrong = |path, code: &str| wrong_arrows(path, &code_of(code)).len();
        assert_eq!(wrong("kernel/sweep.rs", "use crate::numeric::Real;"), 0);
        assert_eq!(wrong("kernel/sweep.rs", "use crate::optim::Rule;"), 1);
        assert_eq!(wrong("kernel/sweep.rs", "use crate::{numeric::Real, optim::{Rule, Slot}};"), 1);
        assert_eq!(wrong("kernel/sweep.rs", "use crate::{\n    numeric,\n    state,\n};"), 1);
        assert_eq!(wrong("kernel/sweep.rs", "fn f() { crate::hyper::g() }"), 1);
        assert_eq!(wrong("params/a.rs", "use crate::state::X;"), 1);
        assert_eq!(wrong("params/a.rs", "use crate::params::X; use crate::Error;"), 0);
        assert_eq!(wrong("linalg/a.rs", "use crate::quant::X;"), 1);
        assert_eq!(wrong("quant/a.rs", "use crate::kernel::Isa;"), 0);
        assert_eq!(wrong("hyper.rs", "use super::state::X;"), 1);
        assert_eq!(wrong("optim/mod.rs", "use super::schedule::X;"), 1);
        assert_eq!(wrong("optim/a.rs", "use super::rule::X;"), 0);
        assert_eq!(wrong("surprise/mod.rs", ""), 1);
        // comments, strings and tests are no arrows
        assert_eq!(wrong("error.rs", "/// crate::optim\n// crate::optim\n/* crate::optim */"), 0);
        assert_eq!(wrong("error.rs", "const S: &str = \"a \\\" crate::optim\";"), 0);
        assert_eq!(wrong("error.rs", "#[cfg(test)]\nmod tests { use crate::optim; }"), 0);
        let allowing = "#[cfg(test)]\n#[allow(dead_code)]\nmod tests { use crate::optim; }";
        assert_eq!(wrong("error.rs", allowing), 0);
        assert_eq!(wrong("error.rs", "#[cfg(test)]\nuse crate::optim;"), 1);
        assert_eq!(wrong("error.rs", "const Q: char = '\"'; use crate::optim;"), 1);
        assert_eq!(wrong("error.rs", "fn f<'a>(x: &'a str) {} use crate::optim;"), 1);
    }

    #[test]
    fn sizes() {
        let body = |lines| format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines));
        assert_eq!(wrong_sizes("a.rs", &body(58)).len(), 0);
        assert_eq!(wrong_sizes("a.rs", &body(59)).len(), 1);
        assert_eq!(wrong_sizes("a.rs", &"const X: u8 = 0;\n".repeat(501)).len(), 1);
        assert_eq!(wrong_sizes("a.rs", &"const X: u8 = 0;\n".repeat(500)).len(), 0);
        let six = "fn f<F: Fn(u8, u8) -> u8>(&self, a: (u8, u8), b: [X<u8, u8>; 2], c: F, d: impl Fn(u8, u8) -> X<u8, u8>, e: u8,) {}";
        assert_eq!(functions(six)[0].arguments, 6);
        let seven = "fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8);";
        assert_eq!(wrong_sizes("a.rs", seven).len(), 1);
        let found = functions("\npub const fn g() -> u8 {\n    1\n}\n");
        let expected = Function { name: "g".into(), line: 2, lines: 3, arguments: 0 };
        assert_eq!(found, [expected]);
        // braces in strings and characters do not count
        let tricky = code_of("fn f() {\n    a(\"}\");\n    b('{');\n}\nfn g() {}\n");
        assert_eq!(functions(&tricky)[0].lines, 4);
    }

    #[test]
    fn unsafety() {
        assert_eq!(unsafe_lines(&code_of("a\nunsafe { x() }")), [2]);
        assert!(unsafe_lines(&code_of("// unsafe\n#![deny(unsafe_code)]\n\"unsafe\"")).is_empty());
        assert!(may_be_unsafe("kernel/isa.rs") && may_be_unsafe("linalg/faer.rs"));
        assert!(!may_be_unsafe("linalg/native.rs") && !may_be_unsafe("optim/kernel/a.rs"));
    }

    #[test]
    fn the_list() {
        assert_eq!(rules("impl Rule for Sgd {}\nimpl Rule for AdamW {"), ["Sgd", "AdamW"]);
    }
}

/// A structure that is read from a file refuses fields that it does not know, unless it is data and no configuration.
#[test]
fn configurations_refuse_unknown_fields() {
    const DATA: [&str; 4] = ["LossLog", "Entry", "StateTensor", "StateDict"];
    let mut found = 0;
    for (path, source) in sources() {
        let mut attributes = String::new();
        for line in source.lines().map(str::trim) {
            let name = line.strip_prefix("pub struct ").or(line.strip_prefix("struct "));
            let name = name.and_then(|rest| rest.split([' ', '<', '(', ';']).next());
            if let Some(name) = name.filter(|_| line.ends_with('{'))
                && attributes.contains("serde::Deserialize")
                && !DATA.contains(&name)
            {
                found += 1;
                let strict = attributes.contains("deny_unknown_fields");
                assert!(strict || attributes.contains("transparent"), "{path}: {name}");
            }
            // attributes may go over several lines; an item ends in one of these
            match line.ends_with(['{', '}', ';']) || line.is_empty() {
                true => attributes.clear(),
                false => attributes += line,
            }
        }
    }
    assert!(found > 60, "{found}");
}
