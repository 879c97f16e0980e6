//! Compiles the kernel cases for aarch64, links each with a small C program, runs it under `qemu-aarch64` and compares the
//! values with the reference's: `aarch64 [FILTER]`. Needs `qemu-aarch64` and `aarch64-linux-gnu-gcc` (Debian: qemu-user,
//! gcc-aarch64-linux-gnu, libc6-dev-arm64-cross) and fails without them.
#![expect(clippy::print_stdout, reason = "a command prints what it found")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use systole_compiler::kernel::{Affine, Kernel, LoopKind, Role, Stmt, Term, VarId};
use systole_compiler::narrow;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::DType;
use systole_tests::case::{self, Case, Kind, Level};
use systole_tests::engine::Engine;
use systole_tests::levels::Program;
use systole_tests::{data, execute, tolerance};

const GCC: &str = "aarch64-linux-gnu-gcc";
const QEMU: &str = "qemu-aarch64";

/// How many cases must run, so that a fault of this command does not look like success.
const LEAST: usize = 15;

/// How a case ended.
enum Outcome {
    Same,
    /// The code calls what only the library has.
    LeftOut(String),
}

fn main() -> ExitCode {
    for tool in [GCC, QEMU] {
        if run(Command::new(tool).arg("--version"), &[]).is_err() {
            println!("{tool} is not installed: nothing was run");
            return ExitCode::from(2);
        }
    }
    let filter = std::env::args().nth(1);
    let cases = match case::all(&data()) {
        Ok(cases) => cases,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    let wanted = cases.iter().filter(|case| {
        case.level == Level::Kernel
            && case.kind == Kind::Run
            && filter.as_ref().is_none_or(|filter| case.name.contains(filter))
    });
    let (mut same, mut failed) = (0, 0);
    for case in wanted {
        match check(case) {
            Ok(Outcome::Same) => {
                println!("{}: same", case.name);
                same += 1;
            }
            Ok(Outcome::LeftOut(why)) => println!("{}: left out, {why}", case.name),
            Err(error) => {
                println!("{}: {error}", case.name);
                failed += 1;
            }
        }
    }
    println!("{same} give the reference's values on aarch64, {failed} do not");
    if failed > 0 || filter.is_none() && same < LEAST {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn check(case: &Case) -> Result<Outcome, String> {
    let program = Program::parse(case.level, &case.source).map_err(|error| error.to_string())?;
    program.verify().map_err(|error| error.to_string())?;
    let Program::Kernel(kernel) = &program else { return Err("it is no kernel".to_owned()) };
    let (inputs, scalars) = execute::arguments(case, &program)?;
    let expected = execute::run(Engine::Reference, &program, &inputs, &scalars)?;
    let module = execute::compile(&program, &scalars, &execute::machine())?;
    let object = systole_host::object(&module, "aarch64")?;

    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = |name: &str| folder.path().join(name);
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(file(name), bytes).map_err(|error| error.to_string())
    };
    write("kernel.o", &object)?;
    write("main.c", driver(kernel, &scalars)?.as_bytes())?;
    let linked = link(folder.path());
    if let Err(error) = linked {
        let missing = error.lines().find_map(|line| line.split_once("undefined reference to `"));
        return match missing {
            Some((_, rest)) => Ok(Outcome::LeftOut(format!(
                "it calls {}",
                rest.split('\'').next().unwrap_or(rest)
            ))),
            None => Err(error),
        };
    }
    let mut given = inputs.iter();
    let mut bytes = Vec::new();
    for (_, operand) in kernel.operands.iter() {
        let zeros = Tensor::zeros(operand.ty());
        let tensor = match operand.role {
            Role::Input | Role::Update => given.next().unwrap_or(&zeros),
            Role::Output => &zeros,
        };
        bytes.extend_from_slice(tensor.bytes());
    }
    let output = run(Command::new(QEMU).arg(file("main")), &bytes)?;
    let mut rest = output.as_slice();
    let mut written = expected.iter();
    for (_, operand) in kernel.operands.iter() {
        let ty = operand.ty();
        let length = Tensor::zeros(ty.clone()).bytes().len();
        let (own, behind) =
            rest.split_at_checked(length).ok_or("the program printed too little")?;
        rest = behind;
        if !operand.role.writes() {
            continue;
        }
        let actual =
            Tensor::new(ty.clone(), own.to_vec().into()).ok_or("the bytes are of another type")?;
        let expected = written.next().ok_or("the reference has fewer results")?;
        let tolerance = case.tolerance.unwrap_or_else(|| tolerance::of(Engine::Host, ty.dtype));
        tolerance::compare(&actual, expected, tolerance)
            .map_err(|error| format!("{}: {error}", operand.name))?;
    }
    Ok(Outcome::Same)
}

fn link(folder: &Path) -> Result<(), String> {
    let mut gcc = Command::new(GCC);
    gcc.args(["-O1", "-static", "-o", "main", "main.c", "kernel.o", "-lm"]).current_dir(folder);
    run(&mut gcc, &[]).map(drop)
}

/// What a command prints, given that input.
fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut pipe = child.stdin.take().ok_or("there is no input")?;
    // A command that does not read closes its end.
    let _ = pipe.write_all(input);
    drop(pipe);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// The positions of the outer parallel loops, which the function takes a part of.
fn positions(kernel: &Kernel, scalars: &[i64]) -> i64 {
    let vars: Vec<VarId> = kernel.scalars().into_iter().map(|(var, ..)| var).collect();
    let value = |affine: &Affine| {
        affine.evaluate(|term| match term {
            Term::Var(var) => {
                vars.iter().position(|&other| other == var).map_or(0, |index| scalars[index])
            }
            Term::Axis(_) => 0,
        })
    };
    let mut total = 1;
    let first = kernel.body.iter().take_while(|stmt| matches!(stmt, Stmt::Define { .. })).count();
    let mut body = &kernel.body[first..];
    let mut open: Vec<VarId> = Vec::new();
    while let [Stmt::For(inner)] = body {
        let ends = [&inner.start, &inner.end];
        let varies = ends.iter().any(|end| {
            end.terms().iter().any(|(term, _)| open.iter().any(|&var| *term == Term::Var(var)))
        });
        if inner.kind != LoopKind::Parallel || varies {
            break;
        }
        let span = (value(&inner.end) - value(&inner.start)).max(0);
        total *= (span + inner.step as i64 - 1) / inner.step as i64;
        open.push(inner.var);
        body = &inner.body;
    }
    total
}

/// The C program: it reads the operands' bytes, calls the kernel in two parts, and prints them.
fn driver(kernel: &Kernel, scalars: &[i64]) -> Result<String, String> {
    let mut text = HELPERS.to_owned();
    for dtype in [DType::F8E4M3, DType::F8E5M2, DType::F4E2M1] {
        let codes: Vec<u8> = (0..=255).collect();
        let values = narrow::decode(dtype, &codes).to_f64();
        let bits: Vec<String> =
            values.iter().map(|&value| format!("{:#x}", (value as f32).to_bits())).collect();
        write!(
            text,
            "static const uint32_t {dtype}[256] = {{{}}};\n\
             float systole_decode_{dtype}(uint32_t code) {{ float x; memcpy(&x, &{dtype}[code & 255], 4); return x; }}\n",
            bits.join(", ")
        )
        .expect("strings take all");
    }
    let sizes: Vec<String> = kernel
        .operands
        .iter()
        .map(|(_, operand)| Tensor::zeros(operand.ty()).bytes().len().to_string())
        .collect();
    let scalars_text: Vec<String> = scalars.iter().map(i64::to_string).collect();
    let (count, total) = (sizes.len(), positions(kernel, scalars));
    write!(
        text,
        "static const size_t sizes[{count}] = {{{}}};\n\
         static const int64_t scalars[] = {{{}0}};\n\
         int main(void) {{\n\
           uint8_t *operands[{count}];\n\
           uint8_t *scratch = aligned_alloc(64, 1 << 26);\n\
           for (int i = 0; i < {count}; i++) {{\n\
             operands[i] = aligned_alloc(64, (sizes[i] + 127) / 64 * 64);\n\
             if (fread(operands[i], 1, sizes[i], stdin) != sizes[i]) return 3;\n\
           }}\n\
           kernel0(operands, scalars, 0, {half}, scratch);\n\
           if ({half} < {total}) kernel0(operands, scalars, {half}, {total}, scratch);\n\
           for (int i = 0; i < {count}; i++) fwrite(operands[i], 1, sizes[i], stdout);\n\
           return 0;\n\
         }}\n",
        sizes.join(", "),
        scalars_text.iter().map(|scalar| format!("{scalar}, ")).collect::<String>(),
        half = (total + 1) / 2,
    )
    .expect("strings take all");
    Ok(text)
}

/// What generated code calls by name, from C's library.
const HELPERS: &str = r#"#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void kernel0(uint8_t **operands, const int64_t *scalars, int64_t begin, int64_t end, uint8_t *scratch);
#define ONE(name) \
  float systole_##name##_f32(float x) { return name##f(x); } \
  double systole_##name##_f64(double x) { return name(x); }
ONE(exp) ONE(exp2) ONE(expm1) ONE(log) ONE(log1p) ONE(sin) ONE(cos) ONE(tan) ONE(asin) ONE(acos) ONE(atan)
ONE(sinh) ONE(cosh) ONE(tanh) ONE(asinh) ONE(acosh) ONE(atanh) ONE(erf)
float systole_rem_f32(float x, float y) { return fmodf(x, y); }
double systole_rem_f64(double x, double y) { return fmod(x, y); }
float systole_pow_f32(float x, float y) { return powf(x, y); }
double systole_pow_f64(double x, double y) { return pow(x, y); }
float systole_atan2_f32(float x, float y) { return atan2f(x, y); }
double systole_atan2_f64(double x, double y) { return atan2(x, y); }
uint32_t systole_encode_f16(double x) { __fp16 h = (__fp16)x; uint16_t u; memcpy(&u, &h, 2); return u; }
/* Of a number that f32 holds. */
uint32_t systole_encode_bf16(double x) {
  float f = (float)x;
  uint32_t u;
  memcpy(&u, &f, 4);
  return f != f ? 0x7fc0 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
"#;
