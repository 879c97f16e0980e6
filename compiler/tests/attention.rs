//! Attention of random shapes, masks and tiles, against the graph before anything was fused: what rows give that see little,
//! and nothing, is the same.

use arbitrary::Unstructured;
use systole_compiler::evaluate::{self, Budget};
use systole_compiler::kernel::{Stmt, TileOp};
use systole_compiler::machine::{AttentionTile, ContractTile, Machine};
use systole_compiler::pipeline::{self, Silent};
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::{Class, TensorType};
use systole_compiler::{module, text};

fn machine(attention: AttentionTile) -> Machine {
    Machine {
        name: "random".to_owned(),
        near_rows: 1,
        near_bytes: 1 << 16,
        vector_elements: 4,
        contract: ContractTile { m: (4, 64), n: (8, 64), k: (1, 1 << 20) },
        attention: Some(attention),
        map_elements: 64,
        reduce_elements: 64,
        schedules: false,
        widens: Vec::new(),
        bytes_together: 0,
        weights: None,
        native: Vec::new(),
    }
}

/// A mask entry, a score far from others, or an ordinary number.
fn float(u: &mut Unstructured<'_>, is_mask: bool) -> arbitrary::Result<f64> {
    let ordinary = f64::from(u.int_in_range(-16..=16)?) / 8.0;
    if !is_mask {
        return Ok(ordinary);
    }
    Ok(*u.choose(&[0.0, 0.0, f64::NEG_INFINITY, f64::from(f32::MIN), -1e9, ordinary, 80.0])?)
}

fn input(u: &mut Unstructured<'_>, ty: &TensorType, is_mask: bool) -> arbitrary::Result<Tensor> {
    let count = ty.count();
    let values = match ty.dtype.class() {
        Class::Bool => {
            // Some masks hide whole rows.
            let most = u.int_in_range(0..=3)?;
            let seen = |u: &mut Unstructured<'_>| Ok(u.int_in_range(0..=3)? < most);
            Values::Bool((0..count).map(|_| seen(u)).collect::<arbitrary::Result<_>>()?)
        }
        Class::Float | Class::Signed | Class::Unsigned => {
            let values = (0..count).map(|_| float(u, is_mask));
            Values::F64(values.collect::<arbitrary::Result<_>>()?)
        }
    };
    Ok(Tensor::from_values(ty.dtype, &ty.shape, &values))
}

fn program(u: &mut Unstructured<'_>) -> arbitrary::Result<String> {
    let (batch, groups) = (u.int_in_range(1..=2)?, u.int_in_range(1..=2)?);
    let heads = groups * u.int_in_range(1..=3)?;
    let (queries, keys) = (u.int_in_range(1..=9)?, u.int_in_range(1..=13)?);
    let (depth, width) = (u.int_in_range(1..=5)?, u.int_in_range(1..=9)?);
    let dtype = *u.choose(&["f32", "f32", "bf16"])?;
    let causal = if u.arbitrary()? { ", causal = true" } else { "" };
    let (mask, operand) = match u.int_in_range(0..=3)? {
        0 => (format!(", %m: bool[{batch}, 1, {queries}, {keys}]"), ", %m"),
        1 => (format!(", %m: f32[1, {heads}, 1, {keys}]"), ", %m"),
        2 => (format!(", %m: f32[1, 1, {queries}, {keys}]"), ", %m"),
        _ => (String::new(), ""),
    };
    Ok(format!(
        "func @main(%q: {dtype}[{batch}, {heads}, {queries}, {depth}], \
         %k: {dtype}[{batch}, {groups}, {keys}, {depth}], \
         %v: {dtype}[{batch}, {groups}, {keys}, {width}]{mask}) -> \
         (y: {dtype}[{batch}, {heads}, {queries}, {width}]) {{\n  \
         %y = attention %q, %k, %v{operand} {{scale = 0.5{causal}}}\n  return %y\n}}\n"
    ))
}

fn products(body: &[Stmt]) -> usize {
    let count = |stmt: &Stmt| match stmt {
        Stmt::Define { op: TileOp::Contract { .. }, .. } => 1,
        Stmt::For(inner) => products(&inner.body),
        Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => 0,
    };
    body.iter().map(count).sum()
}

#[test]
fn tiles_of_attention_give_what_it_means() {
    arbtest::arbtest(|u| {
        let source = program(u)?;
        let graph = text::parse_graph(&source).expect("the text is a graph");
        let function = graph.entry();
        let params: Vec<TensorType> =
            function.body.params.iter().map(|&param| function.values[param].ty.clone()).collect();
        let mut inputs = Vec::new();
        for (position, ty) in params.iter().enumerate() {
            inputs.push(input(u, ty, position == 3)?);
        }
        let tile = AttentionTile {
            queries: u.int_in_range(1..=6)?,
            keys: u.int_in_range(1..=5)?,
            most_scores: u.int_in_range(0..=40)?,
        };
        let wanted = evaluate::graph(&graph, &inputs, &Budget::UNLIMITED).expect("it has values");
        let compiled =
            pipeline::compile(graph.clone(), &machine(tile), pipeline::DEFAULT, &mut Silent);
        let compiled = compiled.expect("it compiles").expect("nothing stops it");
        // Over one key there is nothing to weigh.
        let is_fused = compiled.kernels.iter().any(|(_, kernel)| products(&kernel.body) == 2);
        assert!(is_fused || params[1].shape[2] == 1, "attention is one kernel:\n{compiled}");
        let found =
            module::evaluate(&compiled, &inputs, &Budget::UNLIMITED).expect("it has values");
        let tolerance = if params[0].dtype.bits() < 32 { 2e-2 } else { 1e-5 };
        let pairs = found[0].values().to_f64().into_iter().zip(wanted[0].values().to_f64());
        for (found, wanted) in pairs {
            let same = found == wanted || found.is_nan() && wanted.is_nan();
            assert!(
                same || (found - wanted).abs() <= tolerance * (1.0 + wanted.abs()),
                "{found} is not {wanted} with {tile:?}:\n{source}{compiled}"
            );
        }
        Ok(())
    })
    .budget_ms(2000);
}
