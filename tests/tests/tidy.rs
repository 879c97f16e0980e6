//! What every change must keep: crate edges, file heads, data files for each op and pass, current docs, clean text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use systole_compiler::op::{self, Kind};
use systole_compiler::passes;
use systole_compiler::scalar::ScalarFn;
use systole_tests::{case, data, docs, skips, workspace};

/// Which of our crates each crate may depend on.
const EDGES: &[(&str, &[&str])] = &[
    ("compiler", &[]),
    ("targets/catalog", &[]),
    ("targets/interconnect", &["systole-catalog"]),
    ("targets/systolic", &["systole-compiler", "systole-catalog"]),
    ("targets/host", &["systole-compiler", "systole-catalog"]),
    (
        "runtime",
        &[
            "systole-compiler",
            "systole-catalog",
            "systole-interconnect",
            "systole-systolic",
            "systole-host",
        ],
    ),
    ("bench", &["systole"]),
    ("examples", &["systole", "systole-compiler"]),
    (
        "tests",
        &[
            "systole",
            "systole-compiler",
            "systole-catalog",
            "systole-interconnect",
            "systole-systolic",
            "systole-host",
        ],
    ),
];

/// What must not stand in any file: places of one machine, and notes to oneself.
const BANNED: &[&str] = &["/work/", "/root/", "/home/", "/tmp/bash", "TODO", "FIXME", "XXX"];

/// Where `unsafe` may stand: the modules that DESIGN names, in crates that deny it elsewhere; the command line's
/// allocator, which keeps the limit of memory (an allocator cannot be written otherwise), and that of a test, which
/// counts allocations; and the host's benchmark, which calls micro-kernels alone, as generated code does.
const UNSAFE: &[&str] = &[
    "targets/host/src/",
    "targets/host/examples/contract_bench.rs",
    "runtime/src/mapping.rs",
    "runtime/src/cli/memory.rs",
    "runtime/tests/counting/",
];

fn files(endings: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the workspace can be read") {
            let path = entry.expect("the workspace can be read").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy();
            if name == "target" || name == ".git" || name == "__pycache__" {
                continue;
            }
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&workspace(), &mut found);
    found.retain(|path| {
        let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned());
        endings.contains(&ending.unwrap_or_default().as_str())
    });
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn crates_depend_only_along_the_allowed_edges() {
    let mut problems = Vec::new();
    for (member, allowed) in EDGES {
        let manifest = fs::read_to_string(workspace().join(member).join("Cargo.toml"))
            .expect("every member has a manifest");
        let dependencies = manifest
            .lines()
            .skip_while(|line| !line.contains("dependencies]"))
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|name| name.starts_with("systole"));
        for name in dependencies.filter(|name| !allowed.contains(name)) {
            problems.push(format!("{member} depends on {name}: see ARCHITECTURE.md"));
        }
    }
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("there is a manifest");
    let members =
        manifest.lines().find(|line| line.starts_with("members")).expect("it lists members");
    let listed = members.matches('"').count() / 2;
    assert_eq!(listed, EDGES.len(), "a member of the workspace has no row in this test");
    none(problems);
}

#[test]
fn every_rust_file_says_what_it_is() {
    let silent = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("source is text");
        !text.starts_with("//!")
    };
    let problems = files(&["rs"]).into_iter().filter(silent);
    none(problems.map(|path| format!("{} does not start with `//!`", shown(&path))).collect());
}

#[test]
fn unsafe_code_stays_in_its_modules() {
    let mut problems = Vec::new();
    for path in files(&["rs"]) {
        let name = shown(&path);
        let text = fs::read_to_string(&path).expect("source is text");
        let has = text.lines().any(|line| {
            let code = line.trim_start();
            !code.starts_with("//") && (code.contains("unsafe {") || code.contains("unsafe fn"))
        });
        if has
            && !UNSAFE.iter().any(|allowed| name.starts_with(allowed))
            && name != "tests/tests/tidy.rs"
        {
            problems.push(name);
        }
    }
    none(problems);
}

#[test]
fn every_op_has_a_data_file() {
    let mut names = Vec::new();
    case::collect(&data().join("ops"), "tir", &mut names).expect("the data can be read");
    let has = |op: &str| {
        names.iter().any(|path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            stem == op || stem.strip_prefix(op).is_some_and(|rest| rest.starts_with('-'))
        })
    };
    // `map` is written by its functions' names; collectives get their meaning with ranks.
    let wanted = op::CATALOG.iter().filter(|(name, kind, ..)| {
        *name != "map" && *kind != Kind::Collective && *name != "fusion"
    });
    let missing = wanted.filter(|(name, ..)| !has(name));
    none(missing.map(|(name, ..)| format!("there is no tests/ops/{name}.tir")).collect());
}

#[test]
fn every_scalar_function_is_used_by_a_case() {
    let mut used = BTreeSet::new();
    for case in case::all(&data()).expect("the data can be read") {
        if case.name.starts_with("ops/") {
            let words = case.source.split(|sign: char| !(sign.is_alphanumeric() || sign == '-'));
            used.extend(words.map(str::to_owned));
        }
    }
    let missing = ScalarFn::CATALOG.iter().filter(|(function, _)| !used.contains(function.name()));
    none(missing.map(|(f, _)| format!("no case of tests/ops uses `{}`", f.name())).collect());
}

#[test]
fn every_pass_has_a_folder_of_cases() {
    let graph = passes::GRAPH_PASSES.iter().map(|pass| pass.name);
    let kernel = passes::KERNEL_PASSES.iter().map(|pass| pass.name);
    let module = passes::MODULE_PASSES.iter().map(|pass| pass.name);
    let mut problems = Vec::new();
    for name in graph.chain(kernel).chain(module) {
        let mut found = Vec::new();
        case::collect(&data().join("passes").join(name), "tir", &mut found)
            .expect("it can be read");
        if found.is_empty() {
            problems.push(format!("there is no case in tests/passes/{name}/"));
        }
    }
    none(problems);
}

#[test]
fn generated_pages_are_current() {
    let mut problems = Vec::new();
    for (name, text) in docs::pages() {
        if fs::read_to_string(workspace().join("docs").join(name)).unwrap_or_default() != text {
            problems
                .push(format!("docs/{name} is not current: cargo run -p systole-tests --bin docs"));
        }
    }
    none(problems);
}

#[test]
fn no_file_holds_banned_words() {
    let mut problems = Vec::new();
    let endings = ["rs", "md", "toml", "py", "tir", "txt", "lalrpop", "snap", "yml", ""];
    for path in files(&endings) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if shown(&path) == "tests/tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in BANNED.iter().filter(|word| line.contains(*word)) {
                problems.push(format!("{}:{}: `{word}`", shown(&path), number + 1));
            }
        }
    }
    none(problems);
}

#[test]
fn every_snapshot_belongs_to_a_case() {
    let mut problems = Vec::new();
    for path in files(&["snap"]) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.split('.').next().unwrap_or("");
        let folder = path.parent().expect("a file lies in a folder");
        let in_data = folder.starts_with(data()) && !folder.ends_with("snapshots");
        let case = if folder.ends_with("pipeline") {
            let examples = workspace().join("examples");
            let graph = examples.join("graphs").join(format!("{stem}.tir"));
            graph.exists() || examples.join(stem).is_dir()
        } else {
            folder.join(format!("{stem}.tir")).exists()
        };
        if in_data && !case {
            problems.push(format!("{} has no case", shown(&path)));
        }
    }
    none(problems);
}

#[test]
fn every_skip_covers_a_case() {
    let cases = case::all(&data()).expect("the data can be read");
    let rows = skips::read(&data().join("skips.txt")).expect("the rows can be read");
    let useless = rows
        .into_iter()
        .filter(|row| !cases.iter().any(|case| row.covers(&row.engine, &case.name)));
    none(useless.map(|row| format!("skips.txt: no case is called {}", row.case)).collect());
}

/// The verifier of each level, whose head numbers the rules.
const VERIFIERS: &[(&str, &str)] = &[
    ("graph", "compiler/src/verify.rs"),
    ("kernel", "compiler/src/kernel/verify/mod.rs"),
    ("module", "compiler/src/module/verify.rs"),
];

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let read = |path: &str| fs::read_to_string(workspace().join(path)).unwrap_or_default();
    let rows = read("tests/verify/in-rust.txt");
    let rows: Vec<Vec<&str>> = rows
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(' ').collect())
        .collect();
    let cases = case::all(&data()).expect("the data can be read");
    let mut problems = Vec::new();
    let mut known = 0;
    for (level, path) in VERIFIERS {
        let head = read(path);
        let rules = head
            .lines()
            .filter_map(|line| line.strip_prefix("//! ")?.split_once(". ")?.0.parse().ok());
        let rules: Vec<usize> = rules.collect();
        if rules.len() < 12 || !rules.iter().copied().eq(1..=rules.len()) {
            problems.push(format!("{path} numbers {} rules", rules.len()));
        }
        for rule in rules {
            let mark = format!("error[verify]: rule {rule}: ");
            let folder = format!("verify/{level}/");
            let in_data = cases
                .iter()
                .any(|case| case.name.starts_with(&folder) && case.source.contains(&mark));
            let row = rows.iter().find(|row| row[..2] == [*level, &rule.to_string()]);
            known += usize::from(row.is_some());
            match row {
                Some(row) if in_data => problems.push(format!("in-rust.txt: {row:?} has a case")),
                Some(row) if !read(row[2]).contains(&format!("\"rule {rule}: ")) => {
                    problems.push(format!("in-rust.txt: {row:?} has no test there"));
                }
                None if !in_data => {
                    problems.push(format!("no case of tests/{folder} breaks rule {rule}"));
                }
                Some(_) | None => {}
            }
        }
    }
    if known != rows.len() {
        problems.push("in-rust.txt: a row is of no rule, or one rule has two".to_owned());
    }
    none(problems);
}
