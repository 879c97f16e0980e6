//! Values and tables for people to read.

use std::fmt::Write;
use systole::Tensor;
use systole_compiler::tensor::Values;

/// How many elements are shown.
const SHOWN: usize = 8;

/// One line: name, type and first elements.
pub(super) fn tensor_line(name: &str, tensor: &Tensor) -> String {
    let elements = first_elements(tensor);
    let more = if tensor.count() > SHOWN { " …" } else { "" };
    format!("{name}: {} = {}{more}", tensor.ty(), elements.join(" "))
}

fn first_elements(tensor: &Tensor) -> Vec<String> {
    let count = tensor.count().min(SHOWN);
    let bytes = tensor.bytes().slice(..count * tensor.dtype().bytes());
    let flat = systole::TensorType::new(tensor.dtype(), &[count]);
    let Some(first) = Tensor::new(flat, bytes) else { return Vec::new() };
    match first.values() {
        Values::Bool(values) => values.iter().map(bool::to_string).collect(),
        Values::Int(values) => values.iter().map(i64::to_string).collect(),
        Values::Uint(values) => values.iter().map(u64::to_string).collect(),
        Values::F32(values) => {
            values.iter().map(|&value| float(f64::from(value), value.to_string())).collect()
        }
        Values::F64(values) => {
            values.iter().map(|&value| float(value, value.to_string())).collect()
        }
    }
}

/// The shortest digits that mean the value; very large and very small ones with an exponent.
fn float(value: f64, digits: String) -> String {
    let plain = value == 0.0 || !value.is_finite() || (1e-5..1e9).contains(&value.abs());
    if plain { digits } else { format!("{value:.6e}") }
}

/// A number with few digits, for differences.
pub(super) fn rounded(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if (1e-3..1e6).contains(&value.abs()) { format!("{value:.4}") } else { format!("{value:.2e}") }
}

/// Rows with aligned columns.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
