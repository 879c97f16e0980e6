//! Embeds the runtime: four threads run one `Program` at the same time, each on images of its own.
#![expect(clippy::print_stdout, reason = "a program prints what it found")]

use std::thread;
use systole::data::Bundle;
use systole::{Compiler, Error, Model, Program, Tensor, inputs};

const THREADS: usize = 4;

fn main() -> Result<(), Error> {
    let model = Model::from_path(systole_examples::file("digits/model.onnx"))?;
    let program = Compiler::new().threads(1).compile(&model)?;

    let mut bundle = Bundle::open(&systole_examples::file("digits/images.npz"))?;
    let images = bundle.read("image")?.into_tensor(None)?;
    let count = images.shape()[0];

    // A clone is a second handle to the same code and weights.
    let workers: Vec<_> = (0..THREADS)
        .map(|worker| {
            let (program, images) = (program.clone(), images.clone());
            thread::spawn(move || {
                let own = (0..count).filter(|index| index % THREADS == worker);
                own.map(|index| Ok((index, read(&program, &images, index)?))).collect()
            })
        })
        .collect();

    let mut digits = vec![0; count];
    for worker in workers {
        let read: Result<Vec<(usize, i64)>, Error> = worker.join().expect("no worker panics");
        read?.into_iter().for_each(|(index, digit)| digits[index] = digit);
    }
    println!("{digits:?}");
    Ok(())
}

/// The digit on one of the images. The batch size is bound by what is given; its program is compiled once and kept.
fn read(program: &Program, images: &Tensor, index: usize) -> Result<i64, Error> {
    let pixels = images.as_slice::<f32>().expect("pixels are f32");
    let image = Tensor::from_slice(&[1, 1, 8, 8], &pixels[index * 64..(index + 1) * 64]);
    let outputs = program.run(inputs! { "image" => image })?;
    Ok(outputs.get("digit")?.as_slice::<i64>()?[0])
}
