//! Embeds the runtime: loads a model and a bundle of images, compiles for this CPU, and reads the digits.
#![expect(clippy::print_stdout, reason = "a program prints what it found")]

use systole::data::Bundle;
use systole::{Compiler, Error, Model, Target, inputs};

fn main() -> Result<(), Error> {
    let model = Model::from_path(systole_examples::file("digits/model.onnx"))?;
    let program = Compiler::new().target(Target::host()).compile(&model)?;

    let mut images = Bundle::open(&systole_examples::file("digits/images.npz"))?;
    let image = images.read("image")?.into_tensor(None)?;
    let outputs = program.run(inputs! { "image" => image })?;

    let digits = outputs.get("digit")?.as_slice::<i64>()?;
    let scores = outputs.get("scores")?.as_slice::<f32>()?;
    for (digit, scores) in digits.iter().zip(scores.chunks(10)) {
        let best = scores.iter().copied().fold(f32::MIN, f32::max);
        let total: f32 = scores.iter().map(|score| (score - best).exp()).sum();
        println!("{digit}, {:.0} % sure", 100.0 / total);
    }
    Ok(())
}
