//! Programs are compiled for the machine at hand: its memories, its array, its generation.

use std::path::Path;
use systole_compiler::kernel;
use systole_compiler::module::Module;
use systole_systolic::check;
use systole_systolic::isa::check_program;
use systole_systolic::limits::Limits;
use systole_systolic::lower::{self, CompileError, Options};
use systole_systolic::machine::{Machine, preset_text};
use systole_systolic::program::Program;
use systole_systolic::simulate::{self, Mode};

fn machine(name: &str, settings: &[&str]) -> Machine {
    let text = preset_text(name).unwrap_or_else(|| panic!("no preset {name}"));
    Machine::with_settings(&text, name, settings).unwrap_or_else(|problems| panic!("{problems}"))
}

fn kernel_text(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kernels");
    let source = std::fs::read_to_string(folder.join(format!("{name}.tir"))).expect("it is there");
    let start = source.find("kernel @").expect("the file holds a kernel");
    let end = source[start..].find("\n}\n").expect("the kernel ends") + start + 3;
    source[start..end].to_owned()
}

fn compile(text: &str, machine: &Machine) -> Result<Program, CompileError> {
    let kernel = kernel::parse(text).unwrap_or_else(|error| panic!("{error:?}"));
    let scalars = kernel.scalars().into_iter().map(|(_, _, high)| high);
    let module = Module::of_kernel(&kernel, &scalars.collect::<Vec<i64>>());
    let options = Options { as_written: true, ..Options::default() };
    Ok(lower::compile(&module, &Limits::of(machine), &options)?.program)
}

fn time(program: &Program, machine: &Machine) -> f64 {
    simulate::run(program, machine, Mode::Time, &[], simulate::Options::default())
        .unwrap_or_else(|error| panic!("{error}"))
        .time_us
}

/// A product that needs several banks, and tiles of every size.
const PRODUCT: &str = "kernel @product(%a: bf16[k: 512, m: 512], %b: bf16[k: 512, n: 1024]) -> (%y: f32[m: 512, n: 1024]) {
  %l: near bf16[k: 512, m: 512] = load %a[0, 0]
  %r: near bf16[k: 512, n: 1024] = load %b[0, 0]
  store %y[0, 0] = contract (fill 0.0), %l, %r over k
}
";

#[test]
fn programs_keep_to_the_limits_of_their_machine() {
    let machines: &[(&str, &[&str])] = &[
        ("trn1", &[]),
        ("trn2", &[]),
        ("trn3", &[]),
        ("trn4", &[]),
        ("trn2", &["psum.bank_bytes=1024"]),
        ("trn2", &["psum.bank_count=4"]),
        ("trn2", &["sbuf.usable_bytes=65536"]),
        ("trn2", &["array.moving_elements_max=256"]),
    ];
    let names = ["attention", "conv", "depthwise", "embedding", "layer-norm", "lstm", "softmax"];
    let mut texts: Vec<String> = names.iter().map(|name| kernel_text(name)).collect();
    texts.push(PRODUCT.to_owned());
    for (name, settings) in machines {
        let machine = machine(name, settings);
        for text in &texts {
            let what = format!("{name} {settings:?}\n{text}");
            let program = compile(text, &machine).unwrap_or_else(|error| panic!("{what}: {error}"));
            let broken = check::check(&program, &check::Limits::of(&machine));
            assert!(broken.is_ok(), "{what}: {broken:?}");
            let broken = check_program(&program, &machine);
            assert!(broken.is_ok(), "{what}: {broken:?}");
        }
    }
}

#[test]
fn smaller_machines_take_longer_for_the_same_product() {
    let whole = machine("trn2", &[]);
    let before = time(&compile(PRODUCT, &whole).expect("it fits"), &whole);
    for setting in ["psum.bank_bytes=512", "array.moving_elements_max=64", "psum.bank_count=2"] {
        let less = machine("trn2", &[setting]);
        let after = time(&compile(PRODUCT, &less).expect("it fits"), &less);
        assert!(after > before, "{setting}: {before} to {after}");
    }
}

/// Tiles that somebody wrote.
const WRITTEN: &str = "kernel @written(%a: bf16[k: 512, m: 512], %b: bf16[k: 512, n: 1024]) -> (%y: f32[m: 512, n: 1024]) {
  for %m in 0..512 step 256 parallel {
    %l: near bf16[k: 512, m: 256] = load %a[0, %m]
    %r: near bf16[k: 512, n: 1024] = load %b[0, 0]
    store %y[%m, 0] = contract (fill 0.0), %l, %r over k
  }
}
";

#[test]
fn tiles_that_do_not_fit_twice_are_kept_once() {
    // Twice 2048 bytes of %l, once 8192 of %r, and once or twice 8192 of the result.
    let small = machine("trn2", &["sbuf.usable_bytes=24576"]);
    let program = compile(WRITTEN, &small).expect("it fits once");
    let large = machine("trn2", &[]);
    assert!(time(&program, &small) > time(&compile(WRITTEN, &large).expect("it fits"), &large));
}

#[test]
fn written_tiles_that_exceed_the_memory_are_told_with_all_that_is_live() {
    let small = machine("trn2", &["sbuf.usable_bytes=8192"]);
    let Err(CompileError::DoesNotFit(what)) = compile(WRITTEN, &small) else {
        panic!("it fits into 8 KiB");
    };
    for word in ["@written", "%r takes", "of 8192 are free", "%l (", "largest tile that would fit"]
    {
        assert!(what.contains(word), "no `{word}` in: {what}");
    }
}

#[test]
fn arrays_of_other_sizes_are_refused_in_words() {
    let narrow = machine("trn2", &["array.row_count=64"]);
    let Err(CompileError::Unsupported(why)) = compile(PRODUCT, &narrow) else {
        panic!("it is compiled");
    };
    assert!(why[0].1.contains("128 partitions"), "{why:?}");
}
