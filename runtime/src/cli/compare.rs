//! Compares outputs with expected ones: |a - e| <= atol + rtol * |e|, integers and bools exactly, NaN equals NaN.

use super::failure::Failure;
use super::show;
use serde_json::{Value, json};
use std::path::Path;
use systole::data::Bundle;
use systole::{DType, Outputs, Tensor};
use systole_compiler::tensor::shape_text;

/// How far apart all compared outputs are.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) ok: bool,
    max_abs: f64,
    max_rel: f64,
    /// A line for each output.
    pub(super) lines: Vec<String>,
}

impl Comparison {
    /// The `compare` of `run --json`. A difference that is no number is null.
    pub(super) fn json(&self) -> Value {
        json!({"ok": self.ok, "max_abs": self.max_abs, "max_rel": self.max_rel})
    }
}

/// Compares with every array of a bundle; each must be an output.
pub(super) fn with_bundle(
    outputs: &Outputs,
    path: &Path,
    tolerance: Option<(f64, f64)>,
) -> Result<Comparison, Failure> {
    let mut bundle = Bundle::open(path)?;
    let mut all = Comparison { ok: true, ..Comparison::default() };
    if bundle.names().is_empty() {
        return Err(Failure::usage(format!("{} holds nothing to compare with", path.display())));
    }
    for name in bundle.names().to_vec() {
        let actual = outputs.get(&name)?.tensor();
        let expected = bundle.read(&name)?.into_tensor(Some(actual.dtype()))?;
        let difference = tensors(actual, &expected, tolerance);
        all.ok &= difference.is_none_too_large();
        all.max_abs = larger(all.max_abs, difference.max_abs);
        all.max_rel = larger(all.max_rel, difference.max_rel);
        all.lines.push(format!("{name}: {difference}"));
    }
    for (name, _) in outputs.iter() {
        if !bundle.names().iter().any(|known| known == name) {
            all.lines.push(format!("{name}: not compared, nothing is expected of it"));
        }
    }
    Ok(all)
}

/// How two tensors differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Set where they cannot be compared by element.
    types: Option<String>,
    max_abs: f64,
    max_rel: f64,
    count: usize,
    different: usize,
    first: Option<String>,
}

impl Difference {
    /// Whether every element is within the tolerance.
    pub(super) fn is_none_too_large(&self) -> bool {
        self.types.is_none() && self.different == 0
    }
}

/// Compares element by element.
pub(super) fn tensors(
    actual: &Tensor,
    expected: &Tensor,
    tolerance: Option<(f64, f64)>,
) -> Difference {
    let mut difference = Difference { count: expected.count(), ..Difference::default() };
    if actual.ty() != expected.ty() {
        difference.types = Some(format!("is {}, expected {}", actual.ty(), expected.ty()));
        (difference.max_abs, difference.max_rel) = (f64::INFINITY, f64::INFINITY);
        return difference;
    }
    if actual.bytes() == expected.bytes() {
        return difference;
    }
    let (absolute, relative) = tolerance.unwrap_or_else(|| default_tolerance(expected.dtype()));
    let is_float = expected.dtype().is_float();
    // 64-bit integers do not all fit f64, so whether they are equal is asked of the integers.
    let exact = (!is_float).then(|| (actual.to_i64(), expected.to_i64()));
    let (actuals, expecteds) = (actual.values().to_f64(), expected.values().to_f64());
    for (index, (&a, &e)) in actuals.iter().zip(&expecteds).enumerate() {
        let equal = match &exact {
            Some((a, e)) => a[index] == e[index],
            None => a == e || (a.is_nan() && e.is_nan()),
        };
        if equal {
            continue;
        }
        let apart = (a - e).abs();
        let apart = if apart.is_nan() { f64::INFINITY } else { apart };
        difference.max_abs = larger(difference.max_abs, apart);
        difference.max_rel =
            larger(difference.max_rel, if e == 0.0 { f64::INFINITY } else { apart / e.abs() });
        let within = is_float && apart.is_finite() && apart <= absolute + relative * e.abs();
        if !within {
            difference.different += 1;
            let at =
                || format!("first at {}: {a}, expected {e}", position(index, expected.shape()));
            difference.first.get_or_insert_with(at);
        }
    }
    difference
}

fn default_tolerance(dtype: DType) -> (f64, f64) {
    if dtype.is_float() && dtype.bits() < 32 { (1e-2, 1e-2) } else { (1e-4, 1e-4) }
}

fn larger(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

fn position(mut index: usize, shape: &[usize]) -> String {
    let mut digits = vec![0; shape.len()];
    for (digit, &size) in digits.iter_mut().zip(shape).rev() {
        *digit = index % size;
        index /= size;
    }
    shape_text(&digits)
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(types) = &self.types {
            return write!(f, "FAILED, {types}");
        }
        let (absolute, relative) = (show::rounded(self.max_abs), show::rounded(self.max_rel));
        let text = format!("largest difference {absolute} absolute, {relative} relative");
        match &self.first {
            Some(first) => write!(
                f,
                "FAILED, {} of {} elements differ, {first}; {text}",
                self.different, self.count
            ),
            None => write!(f, "ok, {text}"),
        }
    }
}
