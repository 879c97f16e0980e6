//! Runs every folder of trained models (`model.onnx`, `inputs.npz`, `expected.npz`) and compares the outputs.

use crate::tolerance;
use std::path::{Path, PathBuf};
use std::time::Instant;
use systole::data::Bundle;
use systole::{Compiler, Inputs, Model, Target};

/// |a − e| ≤ 1e-3 + 1e-3·|e|; integers are exact.
const TOLERANCE: tolerance::Tolerance = (1e-3, 1e-3);

/// The folders below `folder` that hold a model, sorted.
pub fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join("model.onnx").is_file())
        .collect();
    found.sort();
    Ok(found)
}

/// Runs one model. Gives a line of figures, or what is wrong.
pub fn run(folder: &Path, target: &Target) -> Result<String, String> {
    let mut bundle = Bundle::open(&folder.join("inputs.npz")).map_err(text)?;
    let mut inputs = Inputs::new();
    for name in bundle.names().to_vec() {
        inputs = inputs.with(
            name.as_str(),
            bundle.read(&name).and_then(|a| a.into_tensor(None)).map_err(text)?,
        );
    }
    let start = Instant::now();
    let model = Model::from_path(folder.join("model.onnx")).map_err(text)?;
    let program = Compiler::new().target(target.clone()).compile(&model).map_err(text)?;
    let outputs = program.run(inputs).map_err(text)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut expected = Bundle::open(&folder.join("expected.npz")).map_err(text)?;
    let mut worst = 0.0;
    for name in expected.names().to_vec() {
        let actual = outputs.get(&name).map_err(text)?.tensor();
        let wanted =
            expected.read(&name).and_then(|a| a.into_tensor(Some(actual.dtype()))).map_err(text)?;
        tolerance::compare(actual, &wanted, TOLERANCE)
            .map_err(|error| format!("{name}: {error}"))?;
        let pairs = actual.values().to_f64().into_iter().zip(wanted.values().to_f64());
        worst = pairs.map(|(a, e)| (a - e).abs()).fold(worst, f64::max);
    }
    Ok(format!("largest difference {worst:.2e}, {seconds:.2} s with compilation"))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
