//! Case files: finding them and reading their directives. A line that looks like a directive and is not one is an error.

use std::fs;
use std::path::{Path, PathBuf};

/// One data file.
#[derive(Clone, Debug)]
pub struct Case {
    /// Folder and file name without the ending, `/` between: `ops/reduce`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// The program's text, directives included; without what stands below `// same as`.
    pub source: String,
    /// The graph below the line `// same as`, which gives the same values.
    pub same_as: Option<String>,
    /// The level that the text is of.
    pub level: Level,
    /// What is tested.
    pub kind: Kind,
    /// Values of parameters, by name.
    pub inputs: Vec<(String, String)>,
    /// Values of scalar parameters, by name.
    pub scalars: Vec<(String, i64)>,
    /// Values of results, by name.
    pub expected: Vec<(String, String)>,
    /// Bytes and rows of the near memory that a placed kernel is verified for.
    pub near: Option<(usize, usize)>,
    /// Absolute and relative, instead of the table's.
    pub tolerance: Option<(f64, f64)>,
}

/// A level of the compiler with a text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `func`.
    Graph,
    /// `kernel`.
    Kernel,
    /// `module`.
    Module,
}

/// What a case tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text is taken and prints back, or is refused as marked.
    Parse,
    /// The program verifies, or is refused as marked.
    Verify,
    /// Every engine gives the same values.
    Run,
    /// Passes print what the snapshot holds and keep the values.
    Pass(String),
    /// The kernel under that schedule prints what the snapshot holds, and the values stay.
    Schedule(String),
    /// Every level prints what its snapshot holds, and the values stay.
    Pipeline,
}

/// Every case below the folders of the data, by name.
pub fn all(data: &Path) -> Result<Vec<Case>, String> {
    let folders = [
        "parse",
        "verify",
        "ops",
        "passes",
        "kernels",
        "schedules",
        "modules",
        "programs",
        "regressions",
    ];
    let mut paths = Vec::new();
    for folder in folders {
        collect(&data.join(folder), "tir", &mut paths)?;
    }
    paths.sort();
    let mut cases: Vec<Case> =
        paths.iter().map(|path| read(data, path)).collect::<Result<_, String>>()?;
    // The examples are cases too, so that they cannot rot.
    let examples = data.parent().unwrap_or(data).join("examples");
    let mut paths = Vec::new();
    collect(&examples.join("graphs"), "tir", &mut paths)?;
    paths.sort();
    for path in &paths {
        cases.push(read(&examples, path)?);
    }
    Ok(cases)
}

/// The files with that ending below a folder; none where there is no folder.
pub fn collect(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) -> Result<(), String> {
    if !folder.exists() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if path.is_dir() {
            collect(&path, ending, found)?;
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    Ok(())
}

/// Reads one case; its name is relative to `root`.
pub fn read(root: &Path, path: &Path) -> Result<Case, String> {
    let source =
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let relative = path.strip_prefix(root).unwrap_or(path).with_extension("");
    let name = relative.to_string_lossy().replace('\\', "/");
    parse(name.clone(), path.to_path_buf(), source).map_err(|error| format!("{name}: {error}"))
}

fn parse(name: String, path: PathBuf, source: String) -> Result<Case, String> {
    let mut kind = None;
    let mut case = Case {
        name,
        path,
        level: level(&source),
        source: String::new(),
        same_as: None,
        kind: Kind::Run,
        inputs: Vec::new(),
        scalars: Vec::new(),
        expected: Vec::new(),
        near: None,
        tolerance: None,
    };
    for line in source.lines() {
        let Some(comment) = line.strip_prefix("//") else { break };
        let comment = comment.trim();
        let (word, rest) = comment.split_once(' ').unwrap_or((comment, ""));
        match word {
            "test:" => kind = Some(read_kind(rest)?),
            "input" => case.inputs.push(assignment(comment, rest)?),
            "expect" => case.expected.push(assignment(comment, rest)?),
            "scalar" => {
                let (name, value) = assignment(comment, rest)?;
                let value = value.parse().map_err(|_| format!("no whole number in `{comment}`"))?;
                case.scalars.push((name, value));
            }
            "near" => case.near = Some(read_near(comment, rest)?),
            "tolerance" => case.tolerance = Some(read_tolerance(comment, rest)?),
            _ => {}
        }
    }
    case.kind = kind.ok_or("no line `// test: …` at the head of the file")?;
    match source.split_once(SAME_AS) {
        Some((program, graph)) => {
            case.source = format!("{program}\n");
            case.same_as = Some(graph.to_owned());
        }
        None => case.source = source,
    }
    Ok(case)
}

/// What stands between a program and the graph that it is compared with.
const SAME_AS: &str = "\n// same as\n";

fn level(source: &str) -> Level {
    let code = source.lines().find(|line| !line.trim().is_empty() && !line.starts_with("//"));
    match code.and_then(|line| line.split_whitespace().next()) {
        Some("kernel") => Level::Kernel,
        Some("module") => Level::Module,
        _ => Level::Graph,
    }
}

fn read_kind(text: &str) -> Result<Kind, String> {
    let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    match (word, rest.trim()) {
        ("parse", "") => Ok(Kind::Parse),
        ("verify", "") => Ok(Kind::Verify),
        ("run", "") => Ok(Kind::Run),
        ("pipeline", "") => Ok(Kind::Pipeline),
        ("schedule", schedule) if !schedule.is_empty() => Ok(Kind::Schedule(schedule.to_owned())),
        ("pass", passes) if !passes.is_empty() => Ok(Kind::Pass(passes.to_owned())),
        _ => Err(format!("there is no test `{text}`")),
    }
}

fn assignment(line: &str, text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("no `=` in `{line}`"))?;
    Ok((name.trim().trim_start_matches('%').to_owned(), value.trim().to_owned()))
}

fn read_near(line: &str, text: &str) -> Result<(usize, usize), String> {
    let (bytes, rows) = text.split_once(',').ok_or_else(|| format!("no `,` in `{line}`"))?;
    let number = |text: &str, name: &str| {
        let value = text.trim().strip_prefix(name).and_then(|rest| rest.trim().strip_prefix('='));
        let value = value.ok_or_else(|| format!("no `{name} = …` in `{line}`"))?;
        value.trim().parse::<usize>().map_err(|_| format!("no number `{value}` in `{line}`"))
    };
    Ok((number(bytes, "bytes")?, number(rows, "rows")?))
}

fn read_tolerance(line: &str, text: &str) -> Result<(f64, f64), String> {
    let (absolute, relative) = text.split_once(',').ok_or_else(|| format!("no `,` in `{line}`"))?;
    let number = |text: &str| {
        text.trim().parse::<f64>().map_err(|_| format!("no number `{text}` in `{line}`"))
    };
    Ok((number(absolute)?, number(relative)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str) -> Result<Case, String> {
        parse("x".into(), PathBuf::from("x.tir"), source.into())
    }

    #[test]
    fn directives_stand_at_the_head() {
        let case = check("// test: pass simplify,fuse{a=1}\n// Why.\n// input x = [1]\nkernel @a")
            .unwrap();
        assert_eq!(case.kind, Kind::Pass("simplify,fuse{a=1}".into()));
        assert_eq!(case.inputs, [("x".to_owned(), "[1]".to_owned())]);
        assert_eq!(case.level, Level::Kernel);
    }

    #[test]
    fn a_graph_may_stand_below() {
        let case = check("// test: run\nkernel @a {\n}\n// same as\nfunc @main").unwrap();
        assert_eq!(case.source, "// test: run\nkernel @a {\n}\n");
        assert_eq!(case.same_as.as_deref(), Some("func @main"));
        assert_eq!(case.level, Level::Kernel);
    }

    #[test]
    fn a_case_says_what_it_tests() {
        assert!(check("func @main()").is_err());
        assert!(check("// test: nothing\n").is_err());
        assert!(check("// test: run\n// tolerance 1e-3\n").is_err());
    }
}
