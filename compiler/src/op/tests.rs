//! Rules that hold for every op of the catalogue.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it is about")]

use super::*;
use crate::evaluate::{self, Budget};
use crate::graph::{Builder, Function};
use crate::tensor::Values;
use crate::types::DType;

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

/// Attributes with one of their numbers replaced.
fn spoiled(value: &AttrValue, new: i64, place: &mut usize) -> AttrValue {
    match value {
        AttrValue::Int(old) => {
            *place = place.wrapping_sub(1);
            AttrValue::Int(if *place == usize::MAX { new } else { *old })
        }
        AttrValue::List(items) => {
            AttrValue::List(items.iter().map(|item| spoiled(item, new, place)).collect())
        }
        AttrValue::Float(_)
        | AttrValue::Bool(_)
        | AttrValue::Word(_)
        | AttrValue::Text(_)
        | AttrValue::Type(_)
        | AttrValue::Tensor(_) => value.clone(),
    }
}

#[test]
fn no_attribute_makes_a_type_rule_or_a_small_value_panic() {
    let numbers = [0, 1, 2, 7, 1 << 20, 1 << 43, i64::MAX / 2, i64::MAX];
    for &(name, _, _, sampler) in CATALOG {
        for seed in 0..40 {
            let data = noise(seed, 200);
            let Ok((op, types)) = sampler(&mut Unstructured::new(&data)) else { continue };
            let mut writer = AttrWriter::default();
            op.write(&mut writer);
            for (number, place) in numbers.iter().flat_map(|&n| (0..8).map(move |place| (n, place)))
            {
                let mut place = place;
                let spoil = |(key, value): &(&str, AttrValue)| Attribute {
                    key: (*key).to_owned(),
                    value: spoiled(value, number, &mut place),
                    span: Default::default(),
                };
                let attributes: Vec<Attribute> = writer.attributes.iter().map(spoil).collect();
                let mut reader = AttrReader::new(&attributes, Default::default());
                reader.result_types = vec![TensorType::new(DType::F32, &[3, 2])];
                let name = if name == "map" { op.name() } else { name };
                if let Some(op) = Op::read(name, &mut reader) {
                    try_out(&op, &types);
                }
            }
        }
    }
}

#[test]
fn no_operand_makes_a_type_rule_or_a_small_value_panic() {
    let samples: Vec<(Op, Vec<TensorType>)> = (0..20)
        .flat_map(|seed| {
            let data = noise(seed, 200);
            let sample = move |row: &(_, _, _, Sampler)| row.3(&mut Unstructured::new(&data)).ok();
            CATALOG.iter().filter_map(sample).collect::<Vec<_>>()
        })
        .collect();
    for (position, (op, types)) in samples.iter().enumerate() {
        for step in 1..40 {
            let (_, others) = &samples[(position + step * 7) % samples.len()];
            try_out(op, others);
            let mut mixed = types.clone();
            if let (Some(mine), Some(other)) = (mixed.get_mut(step % 3), others.first()) {
                *mine = other.clone();
            }
            try_out(op, &mixed);
            mixed.pop();
            try_out(op, &mixed);
            let mut empty = types.clone();
            for ty in &mut empty {
                ty.shape.iter_mut().filter(|size| **size == step).for_each(|size| *size = 0);
            }
            try_out(op, &empty);
        }
    }
}

/// Infers, and evaluates where that is allowed and small.
fn try_out(op: &Op, types: &[TensorType]) {
    let mut function = Function::default();
    let params: Vec<ValueId> = types.iter().map(|ty| function.parameter(ty.clone(), "x")).collect();
    let mut builder = Builder::new(&mut function);
    let Ok(results) = builder.add_many(op.clone(), &params, Vec::new()) else { return };
    function.body.nodes = builder.nodes;
    function.body.results = results.to_vec();
    let inputs: Vec<Tensor> = types.iter().map(|ty| tensor(ty, 3)).collect();
    let budget = Budget { bytes: 1 << 16, ..Budget::UNLIMITED };
    if let Ok(outputs) = evaluate::function(&function, &inputs, &budget) {
        for (&result, output) in results.iter().zip(&outputs) {
            assert_eq!(function.ty(result), output.ty(), "{op:?} of {types:?}");
        }
    }
}
