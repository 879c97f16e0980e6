//! Same in, same out: what is printed, saved and computed of the examples does not change from run to run, nor with the
//! number of threads.

mod support;

use std::path::{Path, PathBuf};
use support::systole;

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let graphs = std::fs::read_dir(folder.join("graphs")).expect("the examples' graphs");
    let mut found: Vec<PathBuf> = graphs
        .map(|entry| entry.expect("a folder that can be read").path())
        .filter(|path| path.extension().is_some_and(|end| end == "tir"))
        .collect();
    found.push(folder.join("digits/model.onnx"));
    found.sort();
    found
}

/// The bytes that a command puts into the file that it is told to write.
fn written(arguments: &[&str], name: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = systole(folder.path(), &[arguments, &[name][..]].concat());
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    std::fs::read(folder.path().join(name)).expect("what was written")
}

fn size(model: &str) -> &'static [&'static str] {
    if model.ends_with(".onnx") { &["--dim", "batch=3"] } else { &[] }
}

#[test]
fn every_level_is_printed_alike() {
    for path in examples() {
        let model = path.to_str().expect("a path in Unicode");
        let levels = ["graph", "kernels", "module", "clif", "asm"].map(|level| ("host", level));
        for (target, level) in levels.into_iter().chain([("trn2", "asm")]) {
            let threads: &[&str] = if target == "host" { &["1", "2"] } else { &[] };
            let line = |more: &[&str]| {
                let words = ["compile", model, "--target", target, "--emit", level];
                written(&[&words[..], size(model), more, &["-o"][..]].concat(), "text")
            };
            let first = line(&[]);
            assert!(!first.is_empty(), "{model} {level}");
            assert!(first == line(&[]), "{model}: {level} of {target} changes");
            for &count in threads {
                let other = line(&["--threads", count]);
                assert!(first == other, "{model}: {level} changes on {count} threads");
            }
        }
    }
}

#[test]
fn programs_are_saved_alike() {
    for path in examples() {
        let model = path.to_str().expect("a path in Unicode");
        let save =
            || written(&[&["compile", model][..], size(model), &["-o"][..]].concat(), "a.systole");
        assert!(save() == save(), "{model}: the saved program changes");
    }
}

#[test]
fn outputs_are_the_same_on_any_number_of_threads() {
    for path in examples() {
        let model = path.to_str().expect("a path in Unicode");
        let run = |threads: &str| {
            let words = ["run", model, "--input", "*=random:1", "--threads", threads];
            written(&[&words[..], size(model), &["--outputs"][..]].concat(), "y.npz")
        };
        let first = run("1");
        for threads in ["1", "2", "5"] {
            assert!(first == run(threads), "{model}: outputs change on {threads} threads");
        }
    }
}
