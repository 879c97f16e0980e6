//! Rules that hold for every op of the catalogue.

use super::*;
use crate::evaluate::{self, Budget};
use crate::graph::{Builder, Function};
use crate::tensor::Values;

/// Bytes that look random, the same at every run.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(ty: &TensorType, seed: u64) -> Tensor {
    let small = |byte: u8| i64::from(byte % 13) - 5;
    let values = noise(seed, ty.count()).into_iter().map(small).collect();
    Tensor::from_values(ty.dtype, &ty.shape, &Values::Int(values))
}

#[test]
fn every_sample_infers_and_evaluates_to_the_inferred_types() {
    for &(name, kind, _, sampler) in CATALOG {
        let mut sampled = 0;
        for seed in 0..200 {
            let data = noise(seed, 200);
            let Ok((op, types)) = sampler(&mut Unstructured::new(&data)) else { continue };
            sampled += 1;
            let mut function = Function::default();
            let params: Vec<ValueId> =
                types.iter().map(|ty| function.parameter(ty.clone(), "x")).collect();
            let mut builder = Builder::new(&mut function);
            let results = match builder.add_many(op.clone(), &params, Vec::new()) {
                Ok(results) => results,
                Err(error) => panic!("{op:?} of {types:?}: {error}"),
            };
            function.body.nodes = builder.nodes;
            function.body.results = results.to_vec();
            let inputs: Vec<Tensor> =
                (1..).zip(&types).map(|(i, ty)| tensor(ty, seed + i)).collect();
            let outputs = evaluate::function(&function, &inputs, &Budget::UNLIMITED);
            let outputs = outputs.unwrap_or_else(|error| panic!("{op:?} of {types:?}: {error}"));
            for (&result, output) in results.iter().zip(&outputs) {
                assert_eq!(function.ty(result), output.ty(), "{op:?} of {types:?}");
            }
            let operands: Vec<&TensorType> = types.iter().collect();
            match op.simplify(&operands) {
                Some(Simpler::Operand(position)) => assert_eq!(outputs[0], inputs[position]),
                Some(Simpler::Op(simpler)) => assert_eq!(outputs, simpler.evaluate(&inputs)),
                None => {}
            }
        }
        let has_operands_alone = kind != Kind::Control && name != "parameter";
        assert_eq!(sampled > 150, has_operands_alone, "{name} was sampled {sampled} times");
    }
}

#[test]
fn attributes_read_back_as_they_were_written() {
    for &(name, _, _, sampler) in CATALOG {
        for seed in 0..50 {
            let data = noise(seed, 200);
            let Ok((op, _)) = sampler(&mut Unstructured::new(&data)) else { continue };
            let mut writer = AttrWriter::default();
            op.write(&mut writer);
            let attributes: Vec<Attribute> = writer
                .attributes
                .into_iter()
                .map(|(key, value)| Attribute { key: key.into(), value, span: Default::default() })
                .collect();
            let mut reader = AttrReader::new(&attributes, Default::default());
            reader.result_types = match &op {
                Op::Iota(iota) => vec![iota.ty.clone()],
                Op::Random(random) => vec![random.ty.clone()],
                _ => Vec::new(),
            };
            let name = if name == "map" { op.name() } else { name };
            assert_eq!(Op::read(name, &mut reader), Some(op));
            assert!(reader.finish().0.is_empty());
        }
    }
}
