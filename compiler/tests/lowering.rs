//! Lowered kernels give what the graph gives: small graphs through every pass, against the reference.

use systole_compiler::evaluate::{self, Budget};
use systole_compiler::machine::{AttentionTile, ContractTile, Machine};
use systole_compiler::module::{self, Module};
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::TensorType;
use systole_compiler::{pipeline, text, verify};

fn machine() -> Machine {
    Machine {
        name: "small".to_owned(),
        near_rows: 1,
        near_bytes: 1 << 10,
        vector_elements: 4,
        contract: ContractTile { m: (4, 8), n: (8, 16), k: (1, 1 << 20) },
        attention: Some(AttentionTile { queries: 2, keys: 2, most_scores: 4 }),
        map_elements: 16,
        reduce_elements: 16,
        schedules: false,
        widens: Vec::new(),
        bytes_together: 0,
        weights: None,
        native: Vec::new(),
    }
}

fn random(ty: &TensorType, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f64> = (0..ty.count())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 2001) as f64 / 500.0 - 2.0
        })
        .collect();
    Tensor::from_values(ty.dtype, &ty.shape, &Values::F64(values))
}

fn check_with(source: &str, pipeline: &[&str]) -> Module {
    let graph = text::parse_graph(source)
        .unwrap_or_else(|e| panic!("{}", text::render(&e, "t", Some(source))));
    verify::graph(&graph).unwrap_or_else(|e| panic!("{e}"));
    let f = graph.entry();
    let inputs: Vec<Tensor> =
        f.body.params.iter().enumerate().map(|(i, &p)| random(f.ty(p), i as u64 + 1)).collect();
    let expected = evaluate::graph(&graph, &inputs, &Budget::UNLIMITED).unwrap();
    let m = machine();
    let optimized =
        pipeline::optimize(graph.clone(), &m, pipeline, &mut pipeline::Silent).unwrap().unwrap();
    verify::graph(&optimized).unwrap_or_else(|e| panic!("{e}\n{optimized}"));
    let got = evaluate::graph(&optimized, &inputs, &Budget::UNLIMITED).unwrap();
    compare(&expected, &got, &format!("optimized\n{optimized}"));
    let module = pipeline::compile(graph, &m, pipeline, &mut pipeline::Silent)
        .unwrap_or_else(|e| panic!("{e}\n{optimized}"))
        .unwrap();
    module::verify(&module).unwrap_or_else(|e| panic!("{e}\n{module}"));
    let got = module::evaluate(&module, &inputs, &Budget::UNLIMITED).unwrap();
    compare(&expected, &got, &format!("{optimized}\n{module}"));
    module
}

fn compare(expected: &[Tensor], got: &[Tensor], what: &str) {
    for (e, g) in expected.iter().zip(got) {
        assert_eq!(e.ty(), g.ty());
        for (i, (x, y)) in e.values().to_f64().iter().zip(g.values().to_f64()).enumerate() {
            assert!(
                (x - y).abs() <= 1e-4 + 1e-4 * x.abs() || (x.is_nan() && y.is_nan()),
                "element {i}: {x} {y}\n{what}"
            );
        }
    }
}

fn check(source: &str) -> Module {
    check_with(source, pipeline::NONE);
    check_with(source, pipeline::DEFAULT)
}

#[test]
fn softmax_is_one_kernel() {
    let m = check(
        "func @main(%x: f32[4, 6, 33]) -> (y: f32[4, 6, 33]) { %y = softmax %x {axis = 2} return %y }",
    );
    assert_eq!(m.steps.len(), 1);
}

#[test]
fn dense_with_epilogue_is_one_kernel() {
    let m = check(
        "func @main(%x: f32[16, 32], %w: f32[32, 48], %b: f32[48]) -> (y: f32[16, 48]) {
      %a = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
      %c = broadcast %b {shape = [16, 48], dims = [1]}
      %d = add %a, %c
      %y = tanh %d
      return %y }",
    );
    assert_eq!(m.steps.len(), 1);
}

#[test]
fn attention_heads_are_views() {
    let m = check("func @main(%x: f32[2, 8, 12], %k: f32[2, 8, 12]) -> (y: f32[2, 8, 24]) {
      %a = reshape %x {shape = [2, 8, 3, 4]}
      %b = transpose %a {perm = [0, 2, 1, 3]}
      %c = reshape %k {shape = [2, 8, 3, 4]}
      %d = transpose %c {perm = [0, 2, 3, 1]}
      %e = contract %b, %d {batch = [[0, 0], [1, 1]], over = [[3, 2]], accumulate = f32, dtype = f32}
      %f = transpose %e {perm = [0, 2, 1, 3]}
      %y = reshape %f {shape = [2, 8, 24]}
      return %y }");
    assert!(m.steps.len() <= 2, "{:#?}", m.kernels);
}

#[test]
fn convolutions_with_groups_pads_and_strides() {
    for (groups, o, c) in [(1, 6, 4), (2, 6, 4), (4, 4, 4), (4, 8, 4)] {
        check(&format!("func @main(%x: f32[2, {c}, 9, 8], %w: f32[{o}, {}, 3, 3], %b: f32[{o}]) -> (y: f32[2, {o}, 5, 8]) {{
          %a = convolve %x, %w {{strides = [2, 1], dilations = [1, 1], low = [1, 1], high = [1, 1], groups = {groups}, accumulate = f32, dtype = f32}}
          %c = broadcast %b {{shape = [2, {o}, 5, 8], dims = [1]}}
          %y = add %a, %c
          return %y }}", c / groups));
    }
}

#[test]
fn layer_norm_is_one_kernel() {
    let m = check(
        "func @main(%x: f32[4, 6], %r: f32[4, 6]) -> (y: f32[4, 6], s: f32[4, 6]) {
      %s = add %x, %r
      %m = reduce %s {combine = sum, axes = [1], accumulate = f32}
      %n = broadcast %m {shape = [4, 6], dims = [0]}
      %d = sub %s, %n
      %q = mul %d, %d
      %v = reduce %q {combine = sum, axes = [1], accumulate = f32}
      %w = sqrt %v
      %u = broadcast %w {shape = [4, 6], dims = [0]}
      %y = div %d, %u
      return %y, %s }",
    );
    assert_eq!(m.steps.len(), 1);
}

#[test]
fn pools_slices_pads_concats_gathers() {
    check("func @main(%x: f32[1, 3, 8, 8], %i: i64[5]) -> (y: f32[1, 3, 4, 4], z: f32[1, 6, 8, 8], g: f32[1, 3, 5, 8], p: f32[1, 3, 12, 9]) {
      %y = window-reduce %x {combine = max, window = [1, 1, 3, 3], strides = [1, 1, 2, 2], dilations = [1, 1, 1, 1], low = [0, 0, 1, 1], high = [0, 0, 0, 0], accumulate = f32}
      %a = exp %x
      %z = concat %x, %a {axis = 1}
      %g = gather %x, %i {axis = 2}
      %v = constant {value = 1.5}: f32[]
      %w: f32[] = constant {value = 1.5}
      %p = pad %x, %w {low = [0, 0, 1, 1], high = [0, 0, 3, 0], interior = [0, 0, 0, 0]}
      return %y, %z, %g, %p }".replace("      %v = constant {value = 1.5}: f32[]\n", "").as_str());
}

#[test]
fn order_and_control() {
    check("func @main(%x: f32[4, 5], %c: bool[]) -> (a: f32[4, 2], b: i64[4, 2], s: f32[4, 5], m: i64[4], f: f32[4, 5], i: f32[4, 5]) {
      (%a, %b) = top-k %x {k = 2, axis = 1}
      %s = scan %x {combine = sum, axis = 1, accumulate = f32}
      %m = arg-reduce %x {combine = max, axis = 1}
      %f = for %x {count = 3} do (%n: i64[], %v: f32[4, 5]) { %w = add %v, %x  yield %w }
      %i = if %c do () { %p = exp %x yield %p } do () { yield %x }
      return %a, %b, %s, %m, %f, %i }");
}
