//! The examples on the modeled cores: what they take, cycle by cycle, and what the checker finds when the programs that
//! were compiled from them are damaged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use systole_compiler::module::Module;
use systole_compiler::{pipeline, text};
use systole_systolic::check::{self, Kind};
use systole_systolic::isa::Op;
use systole_systolic::limits::Limits;
use systole_systolic::lower::{self, Options};
use systole_systolic::machine::Machine;
use systole_systolic::program::{Instruction, Item, Program, Side};
use systole_systolic::simulate::{self, Mode, Report};

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/graphs");
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the folder is part of the repository")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tir"))
        .collect();
    found.sort();
    found
}

fn core(name: &str) -> Machine {
    Machine::preset(name).expect("it is a preset")
}

fn compiled(path: &Path, core: &Machine) -> Program {
    let source = std::fs::read_to_string(path).expect("the file can be read");
    let graph = text::parse_graph(&source).expect("the examples are right");
    let limits = Limits::of(core);
    let module: Module =
        pipeline::compile(graph, &limits.tiled(), pipeline::DEFAULT, &mut pipeline::Silent)
            .expect("the examples compile")
            .expect("nobody stops it");
    let compiled = lower::compile(&module, &limits, &Options::default());
    compiled.unwrap_or_else(|error| panic!("{}: {error}", path.display())).program
}

/// The time of an example; all that it depends on is where a sequence of tokens stands, and from where parts are taken.
fn time(program: &Program, core: &Machine) -> Report {
    let scalars = BTreeMap::from([("position".to_owned(), 3), ("zero".to_owned(), 0)]);
    let options = simulate::Options { scalars: &scalars, ..simulate::Options::default() };
    simulate::run(program, core, Mode::Time, &[], options).expect("nothing else depends on data")
}

#[test]
fn cycle_tables() {
    for path in files() {
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let mut table = String::new();
        for machine in ["trn1", "trn2", "trn3"] {
            let core = core(machine);
            let program = compiled(&path, &core);
            let report = time(&program, &core);
            assert_eq!(
                report,
                time(&program, &core),
                "{name} on {machine} differs from run to run"
            );
            let cycles = report.time_us * core.clocks.tensor_ghz * 1e3;
            writeln!(table, "{machine}: {cycles:.0} cycles of TensorE").expect("strings take all");
            for (engine, held) in &report.engines {
                let engine = simulate::engine_name(*engine);
                writeln!(
                    table,
                    "  {engine} {} instructions, {:.3} us",
                    held.instructions, held.active_us
                )
                .expect("strings take all");
            }
            for call in &report.calls {
                writeln!(table, "  @{} {:.3} us", call.kernel, call.time_us)
                    .expect("strings take all");
            }
        }
        insta::assert_snapshot!(format!("cycles-{name}"), table);
    }
}

fn each(items: &mut [Item], change: &mut impl FnMut(&mut Instruction)) {
    for item in items {
        match item {
            Item::Instruction(instruction) => change(instruction),
            Item::Loop { body, .. } => each(body, change),
        }
    }
}

/// Damages the instruction of that number over all kernels; whether `damage` did anything to it.
fn damaged(
    program: &Program,
    number: usize,
    damage: impl Fn(&mut Instruction) -> bool,
) -> Option<Program> {
    let mut program = program.clone();
    let (mut at, mut done) = (0, false);
    for kernel in &mut program.kernels {
        for items in kernel.streams.values_mut() {
            each(items, &mut |instruction| {
                if at == number {
                    done = damage(instruction);
                }
                at += 1;
            });
        }
    }
    done.then_some(program)
}

fn count(program: &Program) -> usize {
    let mut program = program.clone();
    let mut count = 0;
    for kernel in &mut program.kernels {
        for items in kernel.streams.values_mut() {
            each(items, &mut |_| count += 1);
        }
    }
    count
}

/// Damages an instruction, where it has what is to be damaged.
type Fault<'a> = &'a dyn Fn(&mut Instruction) -> bool;

#[test]
#[expect(clippy::wildcard_enum_match_arm, reason = "only transfers are moved out of range")]
fn damaged_programs_are_found_out() {
    let core = core("trn2");
    let limits = check::Limits::of(&core);
    for path in files() {
        let program = compiled(&path, &core);
        let right = check::check(&program, &limits);
        assert!(right.is_ok(), "{}: {right:?}", path.display());
        let mut seeded = 0;
        // A sample of the instructions, so that the test takes a moment only.
        let total = count(&program);
        let step = (total / 24).max(1);
        for number in (0..total).step_by(step) {
            let faults: [(&str, Fault<'_>); 4] = [
                ("a dropped wait", &|one| one.waits.pop().is_some()),
                ("a dropped signal", &|one| one.signals.pop().is_some()),
                ("a call that is not waited for", &|one| {
                    let had = !one.calls.is_empty() && matches!(one.op, Op::Dma(_));
                    if had {
                        one.calls.clear();
                    }
                    had
                }),
                ("a partition out of range", &|one| match &mut one.op {
                    Op::Dma(dma) => match &mut dma.to {
                        Side::Near { partition, .. } => {
                            partition.constant += 128;
                            true
                        }
                        Side::Far { offset, .. } => {
                            offset.constant += 1 << 40;
                            true
                        }
                    },
                    _ => false,
                }),
            ];
            for (what, fault) in faults {
                let Some(broken) = damaged(&program, number, fault) else { continue };
                seeded += 1;
                let found = check::check(&broken, &limits);
                // The first call on a tensor may have been waited for by another instruction of the same engine.
                if what.starts_with("a call") && found.is_ok() {
                    continue;
                }
                assert!(found.is_err(), "{}: {what} in instruction {number}", path.display());
            }
        }
        assert!(seeded > 4, "{}: only {seeded} faults", path.display());
    }
}

/// A semaphore that is taken out altogether leaves no token behind: only races can tell.
#[test]
fn missing_semaphores_are_races() {
    let core = core("trn2");
    let limits = check::Limits::of(&core);
    let (mut taken, mut found) = (0, 0);
    for path in files() {
        let program = compiled(&path, &core);
        for kernel in 0..program.kernels.len() {
            for semaphore in 0..program.kernels[kernel].semaphores.len().min(8) {
                let mut broken = program.clone();
                for items in broken.kernels[kernel].streams.values_mut() {
                    each(items, &mut |one| {
                        one.waits.retain(|other| usize::from(other.0) != semaphore);
                        one.signals.retain(|other| usize::from(other.0) != semaphore);
                    });
                }
                taken += 1;
                if let Err(problems) = check::check(&broken, &limits) {
                    let race = |kind| {
                        matches!(
                            kind,
                            Kind::Race | Kind::Uninitialized | Kind::Lost | Kind::Overlap
                        )
                    };
                    assert!(problems.iter().any(|problem| race(problem.kind)), "{problems:?}");
                    found += 1;
                }
            }
        }
    }
    // Some order follows from other semaphores too.
    assert!(found * 2 > taken, "only {found} of {taken} missing semaphores were found");
}
