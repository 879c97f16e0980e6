//! Lowered kernels give what the graph gives: small graphs through every pass, against the reference.

use systole_compiler::evaluate::{self, Budget};
use systole_compiler::machine::{ContractTile, Machine};
use systole_compiler::pipeline;
use systole_compiler::tensor::Tensor;
use systole_compiler::text;

fn machine() -> Machine {
    Machine {
        name: "small".to_owned(),
        near_rows: 1,
        near_bytes: 1 << 10,
        vector_elements: 4,
        contract: ContractTile { m: (4, 8), n: (8, 16), k: (1, 1 << 20) },
        map_elements: 16,
        native: Vec::new(),
    }
}

use std::collections::BTreeMap;
use systole_compiler::kernel;
use systole_compiler::module::{BufferId, Lifetime, Module, ScalarSource, Step};
use systole_compiler::tensor::Values;
use systole_compiler::types::TensorType;

struct Run<'m> {
    module: &'m Module,
    values: BTreeMap<BufferId, Tensor>,
}
impl Run<'_> {
    fn memory(&self, mut b: BufferId) -> BufferId {
        while let Some(s) = self.module.buffers[b].alias {
            b = s;
        }
        b
    }
    fn get(&self, b: BufferId) -> Tensor {
        let buffer = &self.module.buffers[b];
        if let Lifetime::Constant(t) = &buffer.lifetime {
            return t.clone();
        }
        let m = self.memory(b);
        if let Lifetime::Constant(t) = &self.module.buffers[m].lifetime {
            return t.reshaped(&buffer.ty.shape).unwrap();
        }
        let t = self
            .values
            .get(&m)
            .cloned()
            .unwrap_or_else(|| Tensor::zeros(self.module.buffers[m].ty.clone()));
        t.reshaped(&buffer.ty.shape).unwrap()
    }
    fn set(&mut self, b: BufferId, t: Tensor) {
        let m = self.memory(b);
        let t = t.reshaped(&self.module.buffers[m].ty.shape.clone()).unwrap();
        self.values.insert(m, t);
    }
    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Kernel { kernel, operands, scalars, .. } => {
                    let mut tensors: Vec<Tensor> = operands.iter().map(|&b| self.get(b)).collect();
                    let scalars: Vec<i64> = scalars
                        .iter()
                        .zip(self.module.kernels[*kernel].vars.iter())
                        .map(|(s, (_, v))| {
                            let x = match s {
                                ScalarSource::Constant(c) => *c,
                                ScalarSource::Buffer(b) => self.get(*b).to_i64()[0],
                            };
                            match v.kind {
                                kernel::VarKind::Scalar(l, h) => x.clamp(l, h),
                                kernel::VarKind::Loop => panic!("scalars come first"),
                            }
                        })
                        .collect();
                    kernel::evaluate(
                        &self.module.kernels[*kernel],
                        &mut tensors,
                        &scalars,
                        &Budget::UNLIMITED,
                    )
                    .unwrap();
                    for ((_, o), (&b, t)) in self.module.kernels[*kernel]
                        .operands
                        .iter()
                        .zip(operands.iter().zip(tensors))
                    {
                        if o.role.writes() {
                            self.set(b, t);
                        }
                    }
                }
                Step::Copy { from, to } => {
                    let t = self.get(*from);
                    self.set(*to, t);
                }
                Step::If { condition, then, otherwise } => {
                    let c = self.get(*condition).to_i64()[0] != 0;
                    self.steps(if c { then } else { otherwise });
                }
                Step::While { before, condition, body } => loop {
                    self.steps(before);
                    if self.get(*condition).to_i64()[0] == 0 {
                        break;
                    }
                    self.steps(body);
                },
                Step::For { count, counter, body } => {
                    for i in 0..*count {
                        self.set(*counter, Tensor::scalar(i as i64));
                        self.steps(body);
                    }
                }
            }
        }
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

    let f = graph.entry();
    let inputs: Vec<Tensor> =
        f.body.params.iter().enumerate().map(|(i, &p)| random(f.ty(p), i as u64 + 1)).collect();
    let expected = evaluate::graph(&graph, &inputs, &Budget::UNLIMITED).unwrap();
    let m = machine();
    let optimized =
        pipeline::optimize(graph.clone(), &m, pipeline, &mut pipeline::Silent).unwrap().unwrap();

    let got = evaluate::graph(&optimized, &inputs, &Budget::UNLIMITED).unwrap();
    compare(&expected, &got, &format!("optimized\n{optimized}"));
    let module = pipeline::compile(graph, &m, pipeline, &mut pipeline::Silent)
        .unwrap_or_else(|e| panic!("{e}\n{optimized}"))
        .unwrap();
    let mut run = Run { module: &module, values: BTreeMap::new() };
    for (&b, t) in module.inputs.iter().zip(&inputs) {
        run.set(b, t.clone());
    }
    run.steps(&module.load_steps);
    run.steps(&module.steps);
    let got: Vec<Tensor> = module.outputs.iter().map(|(_, b)| run.get(*b)).collect();
    compare(&expected, &got, &format!("{optimized}\n{:#?}", module.kernels));
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
