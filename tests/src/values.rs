//! Values of inputs and expectations: written out, or random by seed. The same text gives the same bytes everywhere.

use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::{Class, DType, TensorType};

/// The tensor of that type that a SPEC describes.
pub fn read(spec: &str, ty: &TensorType) -> Result<Tensor, String> {
    if let Some(random) = spec.strip_prefix("random:") {
        let (seed, range) = random.split_once(':').unwrap_or((random, ""));
        let seed = seed.trim().parse().map_err(|_| format!("no seed in `{spec}`"))?;
        if range.is_empty() {
            return Ok(self::random(ty, seed, default_range(ty.dtype)));
        }
        let (low, high) = range.split_once("..").ok_or_else(|| format!("no `..` in `{spec}`"))?;
        let bound = |text: &str| {
            text.trim().parse::<f64>().map_err(|_| format!("no number `{text}` in `{spec}`"))
        };
        return Ok(self::random(ty, seed, (bound(low)?, bound(high)?)));
    }
    let words: Vec<&str> = spec
        .split(|sign: char| sign == '[' || sign == ']' || sign == ',' || sign.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect();
    let words = match words.as_slice() {
        &[word] if !spec.starts_with('[') => vec![word; ty.count()],
        _ => words,
    };
    if words.len() != ty.count() {
        return Err(format!("{} values for {ty}, which has {}", words.len(), ty.count()));
    }
    Ok(Tensor::from_values(ty.dtype, &ty.shape, &numbers(&words, ty.dtype)?))
}

fn numbers(words: &[&str], dtype: DType) -> Result<Values, String> {
    fn each<T: std::str::FromStr>(words: &[&str], dtype: DType) -> Result<Vec<T>, String> {
        words
            .iter()
            .map(|word| word.parse().map_err(|_| format!("`{word}` is no {dtype}")))
            .collect()
    }
    Ok(match dtype.class() {
        Class::Bool => {
            Values::Bool(words.iter().map(|&word| matches!(word, "true" | "1")).collect())
        }
        Class::Signed => Values::Int(each(words, dtype)?),
        Class::Unsigned => Values::Uint(each(words, dtype)?),
        Class::Float if dtype == DType::F64 => Values::F64(each(words, dtype)?),
        Class::Float => Values::F32(each(words, dtype)?),
    })
}

fn default_range(dtype: DType) -> (f64, f64) {
    match dtype.class() {
        Class::Bool => (0.0, 2.0),
        Class::Signed => (-8.0, 8.0),
        Class::Unsigned => (0.0, 8.0),
        Class::Float => (-2.0, 2.0),
    }
}

/// Elements drawn evenly from `low..high`, by seed and position alone.
pub fn random(ty: &TensorType, seed: u64, (low, high): (f64, f64)) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let drawn: Vec<f64> = (0..ty.count())
        .map(|_| {
            let unit = (next(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
            low + unit * (high - low)
        })
        .collect();
    let values = match ty.dtype.class() {
        Class::Bool => Values::Bool(drawn.iter().map(|&value| value >= 1.0).collect()),
        Class::Signed => Values::Int(drawn.iter().map(|value| value.floor() as i64).collect()),
        Class::Unsigned => Values::Uint(drawn.iter().map(|value| value.floor() as u64).collect()),
        Class::Float => Values::F64(drawn),
    };
    Tensor::from_values(ty.dtype, &ty.shape, &values)
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, dtype: DType, shape: &[usize]) -> Result<Vec<f64>, String> {
        read(spec, &TensorType::new(dtype, shape)).map(|tensor| tensor.values().to_f64())
    }

    #[test]
    fn lists_may_be_nested() {
        assert_eq!(check("[[1, 2], [3, -4]]", DType::I32, &[2, 2]), Ok(vec![1.0, 2.0, 3.0, -4.0]));
        assert_eq!(check("[true, false]", DType::Bool, &[2]), Ok(vec![1.0, 0.0]));
        assert_eq!(check("[inf, -inf]", DType::F16, &[2]), Ok(vec![f64::INFINITY, -f64::INFINITY]));
    }

    #[test]
    fn one_number_fills() {
        assert_eq!(check("0.5", DType::F32, &[3]), Ok(vec![0.5; 3]));
        assert!(check("[0.5]", DType::F32, &[3]).is_err());
    }

    #[test]
    fn random_values_stay_in_their_range() {
        let values = check("random:3:2..5", DType::I64, &[100]).unwrap();
        assert!(values.iter().all(|value| (2.0..5.0).contains(value)));
        assert_ne!(check("random:1", DType::F32, &[4]), check("random:2", DType::F32, &[4]));
    }
}
