//! How far an engine may be from the reference, by element type; and the comparison. NaN equals NaN.

use crate::engine::Engine;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::DType;

/// Absolute and relative: |a − e| ≤ absolute + relative · |e|.
pub type Tolerance = (f64, f64);

/// The table. Engines that do the same arithmetic in the same order are exact; those that reorder sums or use their own
/// transcendental functions differ by a few units of the last place of what is summed.
pub fn of(engine: Engine, dtype: DType) -> Tolerance {
    match engine {
        Engine::Reference | Engine::Roundtrip => (0.0, 0.0),
        // Products are summed in f32 in another order, and engines have functions of their own.
        Engine::Trn2 if dtype == DType::F32 => (1e-3, 1e-3),
        Engine::Optimized | Engine::Kernels | Engine::Host | Engine::Trn2 => match dtype {
            DType::Bool
            | DType::I4
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U4
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64 => (0.0, 0.0),
            DType::F64 => (1e-12, 1e-12),
            DType::F32 => (1e-5, 1e-5),
            DType::F16 => (2e-3, 2e-3),
            DType::BF16 => (1.6e-2, 1.6e-2),
            DType::F8E4M3 => (0.125, 0.125),
            DType::F8E5M2 => (0.25, 0.25),
            DType::F4E2M1 => (0.5, 0.5),
        },
    }
}

/// How far written expectations may be from the reference: they are written in decimal.
pub fn written(dtype: DType) -> Tolerance {
    match of(Engine::Host, dtype) {
        (absolute, relative) if dtype == DType::F64 => (absolute * 100.0, relative * 100.0),
        tolerance => tolerance,
    }
}

/// `Err` with the first difference where the tensors differ by more than that.
pub fn compare(actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if actual.ty() != expected.ty() {
        return Err(format!("type {} instead of {}", actual.ty(), expected.ty()));
    }
    if actual.bytes() == expected.bytes() {
        return Ok(());
    }
    if !actual.dtype().is_float() {
        let (actual, expected) = (actual.to_i64(), expected.to_i64());
        return match actual.iter().zip(&expected).position(|(a, e)| a != e) {
            Some(at) => Err(format!("element {at} is {} instead of {}", actual[at], expected[at])),
            None => Ok(()),
        };
    }
    let (actual, expected) = (actual.values().to_f64(), expected.values().to_f64());
    let wrong: Vec<usize> =
        (0..actual.len()).filter(|&at| !close(actual[at], expected[at], tolerance)).collect();
    let Some(&at) = wrong.first() else { return Ok(()) };
    Err(format!(
        "{} of {} elements differ; element {at} is {} instead of {}",
        wrong.len(),
        actual.len(),
        actual[at],
        expected[at]
    ))
}

/// Whether one number is near enough to another.
pub fn close(actual: f64, expected: f64, (absolute, relative): Tolerance) -> bool {
    actual == expected
        || (actual.is_nan() && expected.is_nan())
        || (expected.is_finite()
            && (actual - expected).abs() <= absolute + relative * expected.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_and_nans_equal_only_themselves() {
        let loose = (1.0, 1.0);
        assert!(close(f64::NAN, f64::NAN, loose));
        assert!(close(f64::INFINITY, f64::INFINITY, loose));
        assert!(!close(1e300, f64::INFINITY, loose));
        assert!(!close(f64::NAN, 0.0, loose));
    }

    #[test]
    fn types_must_be_the_same() {
        let (one, two) = (Tensor::from_slice(&[1], &[1f32]), Tensor::from_slice(&[1], &[1f64]));
        assert!(compare(&one, &two, (1.0, 1.0)).is_err());
    }
}
