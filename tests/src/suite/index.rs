//! The index of the prepared ONNX tests, which `onnx_suite/prepare.py` writes and describes.

use std::fs;
use std::path::{Path, PathBuf};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::{DType, TensorType};

/// One test: a model and what it must give.
#[derive(Clone, Debug, Default)]
pub struct Test {
    /// Category and name, `/` between.
    pub name: String,
    /// The folder with `model.onnx` and `values.bin`.
    pub folder: PathBuf,
    /// Every operator that the model uses, sorted.
    pub ops: Vec<String>,
    /// Absolute and relative.
    pub tolerance: (f64, f64),
    /// Inputs and outputs, several times.
    pub sets: Vec<Set>,
    /// What among the inputs and outputs is not a tensor of our types.
    pub others: Vec<String>,
}

/// Inputs and outputs, in the order of their bytes.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// What goes in.
    pub inputs: Vec<(String, TensorType)>,
    /// What comes out.
    pub outputs: Vec<(String, TensorType)>,
}

/// Named tensors.
pub type Tensors = Vec<(String, Tensor)>;

impl Test {
    /// What comes before the `/` of the name.
    pub fn category(&self) -> &str {
        self.name.split('/').next().unwrap_or("")
    }

    /// The inputs and outputs of each set.
    pub fn values(&self) -> Result<Vec<(Tensors, Tensors)>, String> {
        let path = self.folder.join("values.bin");
        let data = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut rest = bytes::Bytes::from(data);
        let mut take = |(name, ty): &(String, TensorType)| {
            if ty.bytes() > rest.len() {
                return Err(format!("{} ends within `{name}`", path.display()));
            }
            let tensor = Tensor::new(ty.clone(), rest.split_to(ty.bytes()));
            Ok((name.clone(), tensor.expect("as many bytes as the type has")))
        };
        self.sets
            .iter()
            .map(|set| {
                let inputs = set.inputs.iter().map(&mut take).collect::<Result<_, String>>()?;
                let outputs = set.outputs.iter().map(&mut take).collect::<Result<_, String>>()?;
                Ok((inputs, outputs))
            })
            .collect()
    }
}

/// Every test of a prepared folder.
pub fn read(folder: &Path) -> Result<Vec<Test>, String> {
    let path = folder.join("index.txt");
    let text = fs::read_to_string(&path).map_err(|error| {
        format!("{}: {error} (`tests/onnx_suite/prepare.py` writes it)", path.display())
    })?;
    let mut tests: Vec<Test> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let problem = || format!("{}:{}: not understood: {line}", path.display(), number + 1);
        if let ["test", name] = fields[..] {
            let folder = folder.join(name);
            tests.push(Test { name: name.to_owned(), folder, ..Test::default() });
            continue;
        }
        let Some(test) = tests.last_mut() else { return Err(problem()) };
        read_line(test, &fields).ok_or_else(problem)?;
    }
    Ok(tests)
}

fn read_line(test: &mut Test, fields: &[&str]) -> Option<()> {
    match *fields {
        ["ops", ref ops @ ..] => test.ops = ops.iter().map(|op| (*op).to_owned()).collect(),
        ["near", absolute, relative] => {
            test.tolerance = (absolute.parse().ok()?, relative.parse().ok()?);
        }
        ["set"] => test.sets.push(Set::default()),
        ["input", name, dtype, shape] => {
            test.sets.last_mut()?.inputs.push((name.to_owned(), read_type(dtype, shape)?));
        }
        ["output", name, dtype, shape] => {
            test.sets.last_mut()?.outputs.push((name.to_owned(), read_type(dtype, shape)?));
        }
        ["other", side, name, what] => test.others.push(format!("{side} {name} is {what}")),
        ["end"] => {}
        _ => return None,
    }
    Some(())
}

fn read_type(dtype: &str, shape: &str) -> Option<TensorType> {
    let sizes: Result<Vec<usize>, _> =
        shape.split(',').filter(|size| !size.is_empty()).map(str::parse).collect();
    let ty = TensorType::new(DType::from_name(dtype)?, &sizes.ok()?);
    ty.checked_count().is_some().then_some(ty)
}
