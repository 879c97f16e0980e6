//! No input, however broken, makes the binary panic, hang or take memory without bound: mutated and truncated files end
//! with an exit code from 0 to 6. `tests/fuzz/mutate.py` does the same with as many files as one likes.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// A file with a few bytes changed, a piece repeated or left out, or its end missing.
fn mutated(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut file = original.to_vec();
    for _ in 0..1 + random.below(4) {
        if file.is_empty() {
            break;
        }
        let at = random.below(file.len());
        let end = (at + 1 + random.below(32)).min(file.len());
        match random.below(6) {
            0 => file[at] = random.next() as u8,
            1 => file[at] ^= 1 << random.below(8),
            2 => file[at..end].fill([0, 0xff, 0x7f, b'9'][random.below(4)]),
            3 => file.truncate(at),
            4 => drop(file.drain(at..end)),
            _ => {
                let piece = file[at..end].to_vec();
                let place = random.below(file.len());
                file.splice(place..place, piece);
            }
        }
    }
    file
}

/// Runs each file and gives those that did not end as they should.
fn failures(name: &str, verb: &[&str], files: Vec<Vec<u8>>) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let failures = Mutex::new(Vec::new());
    let files: Vec<(PathBuf, Vec<u8>)> = files
        .into_iter()
        .enumerate()
        .map(|(index, file)| (folder.path().join(format!("{index}-{name}")), file))
        .collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for chunk in files.chunks(files.len().div_ceil(workers).max(1)) {
            let failures = &failures;
            scope.spawn(move || {
                for (path, file) in chunk {
                    fs::write(path, file).expect("a file");
                    if let Some(failure) = failure(verb, path) {
                        failures.lock().expect("no panic").push(failure);
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no panic")
}

fn failure(verb: &[&str], path: &Path) -> Option<String> {
    let limits = ["--time-limit", "1s", "--mem-limit", "1GiB"];
    let file = path.to_str().expect("text");
    let arguments = [&verb[..1], &[file], &verb[1..], &limits].concat();
    let folder = path.parent().expect("a folder");
    let ended = support::systole(folder, &arguments);
    let fine = ended.code.is_some_and(|code| (0..=6).contains(&code));
    (!fine).then(|| format!("{file}: {:?}\n{}", ended.code, ended.err))
}

fn check(name: &str, verb: &[&str], original: &[u8], count: usize) {
    let mut random = Random(name.len() as u64 + count as u64);
    let files = (0..count).map(|_| mutated(original, &mut random)).collect();
    let failures = failures(name, verb, files);
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

const RUN: &[&str] = &["run", "--target", "kernels", "--input", "*=random:0", "--dim", "batch=2"];

#[test]
fn broken_onnx_files_end_with_a_code() {
    check("dense.onnx", RUN, &support::dense(), 100);
    check("reshape.onnx", &RUN[..5], &support::reshape(), 50);
}

#[test]
fn broken_graphs_end_with_a_code() {
    let text = "func @main(%x: f32[4, 8], %i: i64[3]) -> (y: f32[3, 8], s: f32[4]) {\n\
        \x20 %a = softmax %x {axis = 1}\n  %g = gather %a, %i {axis = 0}\n\
        \x20 %s = reduce %x {combine = sum, axes = [1], accumulate = f32}\n  return %g, %s\n}\n";
    check("graph.tir", &RUN[..5], text.as_bytes(), 100);
}

#[test]
fn broken_arrays_end_with_a_code() {
    let folder = support::folder(&[(
        "same.tir",
        b"func @main(%x: f32[2, 3]) -> (x: f32[2, 3]) {\n  return %x\n}\n",
    )]);
    for name in ["x.npy", "x.npz", "x.pb"] {
        let arguments = [
            "run",
            "same.tir",
            "--target",
            "reference",
            "--input",
            "x=random:0",
            "--outputs",
            name,
        ];
        let ended = support::systole(folder.path(), &arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let original = fs::read(folder.path().join(name)).expect("a file");
        check(name, &["inspect"], &original, 40);
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = |open: &str, close: &str, count: usize| {
        format!(
            "func @main(%x: f32[2]) -> f32[2] {{\n  %y = exp %x {{a = {}{}}}\n  return %y\n}}\n",
            open.repeat(count),
            close.repeat(count)
        )
        .into_bytes()
    };
    let blocks = format!(
        "func @main(%x: f32[]) -> f32[] {{\n{}{}",
        "%y = for %x {count = 1} do (%i: i64[], %a: f32[]) {\n".repeat(20_000),
        "yield %x\n}\n".repeat(20_000)
    );
    // Field 7 (graph), field 1 (node), field 5 (attribute), field 6 (graph), and again.
    let mut message = Vec::new();
    for level in 0..20_000 {
        let field = [0x0a, 0x2a, 0x32][level % 3];
        let mut outer = vec![field];
        let mut length = message.len();
        while length >= 128 {
            outer.push(length as u8 | 128);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&message);
        message = outer;
    }
    let texts = vec![
        deep("[", "]", 100_000),
        deep("(", ")", 100_000),
        deep("{a = ", "}", 50_000),
        blocks.into_bytes(),
    ];
    let failures =
        [failures("deep.tir", &["opt"], texts), failures("deep.onnx", &["inspect"], vec![message])];
    assert!(failures.iter().all(Vec::is_empty), "{failures:?}");
}

/// Small programs that once made it panic, with what runs them and the exit code that they deserve.
#[test]
fn programs_that_once_broke_it_end_well() {
    const STAGED: &str = "mesh @m [dp = 2, tp = 4, pp = 2]\n\
        func @main(%x: f32[8, 16] {(dp, tp), _}, %w: f32[16, 8] {_, tp}) -> (y: f32[8, 8] {dp, _, sum(tp), pp = 1}, z: f32[8, 8]) {\n  \
        %y: f32[8, 8] {dp, _, sum(tp), pp = 1} = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}\n  \
        (%s: f32[8, 8] {dp, _}, %p) = sort %y {axis = 1}\n  return %y, %s\n}\n";
    const FUSED: &str = "func @main(%x: f32[4]) -> (y: f32[4], z: f32[4]) {\n  \
        (%y, %z) = fusion %x do (%a: f32[4]) {\n    %b = exp %a\n    %c = neg %b\n    yield %b, %c\n  }\n  return %y, %z\n}\n";
    const FILLED: &str = "func @main(%x: f32[4]) -> (y: f32[4], z: f32[4]) {\n  %0: f32[] = constant {value = 2.0}\n  \
        %z: f32[4] = broadcast %0 {shape = [4], dims = []}\n  %y = exp %x\n  return %y, %z\n}\n";
    let cases: [(&str, &[&str], i32); 3] = [
        (STAGED, &["run", "p.tir", "--input", "*=random:0"], 3),
        (FUSED, &["run", "p.tir", "--input", "*=random:0", "--mesh", "dp=2"], 3),
        (FILLED, &["profile", "p.tir", "--precision", "bf16-all"], 0),
    ];
    for (text, arguments, code) in cases {
        let folder = support::folder(&[("p.tir", text.as_bytes())]);
        let ended = support::systole(folder.path(), arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}\n{text}");
    }
}
