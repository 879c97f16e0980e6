//! The backward pass against finite differences in f64: every scalar function, every operation, and composites. A case
//! is a function in text; what each floating-point parameter is worth is held against what small changes do.

use std::collections::BTreeSet;
use systole_compiler::evaluate::{self, Budget};
use systole_compiler::graph::{Builder, Graph, ValueId};
use systole_compiler::kernel::Combine;
use systole_compiler::op::{CATALOG, Reduce};
use systole_compiler::passes::gradient::differentiate;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::text;
use systole_compiler::types::{DType, TensorType};

/// Distinct numbers from `low` to `high`, far enough apart that a small change exchanges none.
fn spread(ty: &TensorType, seed: usize, [low, high]: [f64; 2]) -> Tensor {
    let count = ty.count();
    let step =
        (0..).map(|more| count * 2 / 3 + 1 + more).find(|&step| gcd(step, count.max(1)) == 1);
    let step = step.expect("some number has no common divisor");
    let values: Vec<f64> = (0..count)
        .map(|i| {
            let place = (i * step + seed * 5 + 1) % count;
            low + (high - low) * (place as f64 + 0.37) / count as f64
        })
        .collect();
    Tensor::from_values(ty.dtype, &ty.shape, &Values::F64(values))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The graph with one result, the sum of all results times weights that tell them apart.
fn weighed(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let function = graph.entry_mut();
    let results = std::mem::take(&mut function.body.results);
    function.result_names.clear();
    let nodes = std::mem::take(&mut function.body.nodes);
    let mut builder = Builder::new(function);
    builder.nodes = nodes;
    let mut total: Option<ValueId> = None;
    for (index, &result) in results.iter().enumerate() {
        let ty = builder.ty(result).clone();
        if ty.dtype != DType::F64 {
            continue;
        }
        let weight = builder.constant(spread(&ty, index + 3, [-1.0, 1.5]));
        let part = builder.map(ScalarFn::Mul, &[result, weight]).expect("one shape");
        let axes = (0..ty.rank()).collect();
        let sum = Reduce { combine: Combine::Sum, axes, accumulate: DType::F64 };
        let part = builder.add(sum, &[part]).expect("a sum");
        total = Some(match total {
            Some(total) => builder.map(ScalarFn::Add, &[total, part]).expect("scalars"),
            None => part,
        });
    }
    let nodes = std::mem::take(&mut builder.nodes);
    function.body.nodes = nodes;
    function.result(total.expect("a case has a result of f64"), "loss");
    graph
}

fn run(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    evaluate::graph(graph, inputs, &Budget::UNLIMITED)
        .unwrap_or_else(|error| panic!("{error}\n{graph}"))
}

/// Checks a case whose f64 parameters lie in `range`; others are small integers, or bools.
fn check_in(source: &str, range: [f64; 2]) {
    let graph = text::parse_graph(source)
        .unwrap_or_else(|error| panic!("{}", text::render(&error, "case", Some(source))));
    let graph = weighed(&graph);
    let with = differentiate(&graph).unwrap_or_else(|error| panic!("{error}\n{source}"));
    systole_compiler::verify::graph(&with).unwrap_or_else(|error| panic!("{error}\n{with}"));
    let function = graph.entry();
    let mut inputs: Vec<Tensor> = Vec::new();
    for (index, &param) in function.body.params.iter().enumerate() {
        let ty = function.ty(param);
        inputs.push(if ty.dtype == DType::F64 {
            spread(ty, index, range)
        } else if ty.dtype == DType::Bool {
            let values = (0..ty.count()).map(|i| i % 3 != 1).collect();
            Tensor::from_values(ty.dtype, &ty.shape, &Values::Bool(values))
        } else {
            let values = (0..ty.count() as i64).map(|i| (i * 2 + 1) % 4).collect();
            Tensor::from_values(ty.dtype, &ty.shape, &Values::Int(values))
        });
    }
    let found = run(&with, &inputs);
    let mut gradients = found[1..].iter();
    for index in 0..inputs.len() {
        if inputs[index].dtype() != DType::F64 {
            continue;
        }
        let gradient = gradients.next().expect("every f64 parameter has one").values().to_f64();
        let original = inputs[index].clone();
        for (place, &gradient) in gradient.iter().enumerate() {
            const STEP: f64 = 1e-5;
            let mut loss = |by: f64| {
                let mut values = original.values().to_f64();
                values[place] += by;
                inputs[index] =
                    Tensor::from_values(DType::F64, original.shape(), &Values::F64(values));
                run(&graph, &inputs)[0].values().to_f64()[0]
            };
            let slope = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            assert!(
                (gradient - slope).abs() <= 1e-6 + 1e-6 * slope.abs().max(gradient.abs()),
                "parameter {index}, element {place}: {gradient}, but a change gives {slope}\n{source}"
            );
        }
        inputs[index] = original;
    }
}

fn check(source: &str) {
    check_in(source, [-1.3, 1.7]);
}

#[test]
fn every_scalar_function() {
    for &(function, _) in ScalarFn::CATALOG {
        if function.derivative().is_none() || function == ScalarFn::Select {
            continue;
        }
        let name = function.name();
        let above_zero =
            [ScalarFn::Sqrt, ScalarFn::Rsqrt, ScalarFn::Log, ScalarFn::Pow].contains(&function);
        let within_one =
            [ScalarFn::Asin, ScalarFn::Acos, ScalarFn::Atanh, ScalarFn::Log1p].contains(&function);
        let range = if above_zero {
            [0.2, 3.0]
        } else if within_one {
            [-0.8, 0.8]
        } else if function == ScalarFn::Acosh {
            [1.2, 3.0]
        } else {
            [-2.1, 2.3]
        };
        let source = if function.arity() == 1 {
            format!("func @main(%x: f64[7]) {{ %y = {name} %x return %y }}")
        } else {
            format!("func @main(%x: f64[7], %z: f64[7]) {{ %y = {name} %x, %z return %y }}")
        };
        check_in(&source, range);
    }
    check("func @main(%c: bool[6], %x: f64[6], %z: f64[6]) { %y = select %c, %x, %z return %y }");
}

/// Every case but those of scalar functions.
const CASES: &[&str] = &[
    "func @main(%x: f64[3, 4]) { %y = reduce %x {combine = sum, axes = [1], accumulate = f64} return %y }",
    "func @main(%x: f64[3, 4]) { %y = reduce %x {combine = max, axes = [0], accumulate = f64} return %y }",
    "func @main(%x: f64[3, 4]) { %y = reduce %x {combine = min, axes = [0, 1], accumulate = f64} return %y }",
    "func @main(%x: f64[2, 3, 2]) { %y = reduce %x {combine = product, axes = [0, 2], accumulate = f64} return %y }",
    "func @main(%x: f64[3, 4]) { %y = scan %x {combine = sum, axis = 1, accumulate = f64} return %y }",
    "func @main(%x: f64[3, 4]) { %y = scan %x {combine = sum, axis = 0, exclusive = true, reverse = true, accumulate = f64} return %y }",
    "func @main(%x: f64[2, 4]) { %y = scan %x {combine = product, axis = 1, accumulate = f64} return %y }",
    "func @main(%x: f64[2, 4]) { %y = scan %x {combine = product, axis = 1, exclusive = true, reverse = true, accumulate = f64} return %y }",
    "func @main(%x: f64[2, 5]) { %y = scan %x {combine = max, axis = 1, accumulate = f64} return %y }",
    "func @main(%x: f64[2, 5]) { %y = scan %x {combine = min, axis = 1, reverse = true, accumulate = f64} return %y }",
    "func @main(%a: f64[2, 3, 4], %b: f64[4, 2, 5]) { %y = contract %a, %b {batch = [[0, 1]], over = [[2, 0]], accumulate = f64, dtype = f64} return %y }",
    "func @main(%a: f64[3, 2, 4], %b: f64[2, 5, 3]) { %y = contract %a, %b {batch = [], over = [[1, 0], [0, 2]], accumulate = f64, dtype = f64} return %y }",
    "func @main(%x: f64[2, 4, 5, 6], %w: f64[6, 2, 3, 2]) { %y = convolve %x, %w {strides = [1, 2], dilations = [1, 2], low = [1, 0], high = [0, 1], groups = 2, accumulate = f64, dtype = f64} return %y }",
    "func @main(%x: f64[1, 2, 7], %w: f64[3, 2, 2]) { %y = convolve %x, %w {strides = [3], dilations = [1], low = [2], high = [0], groups = 1, accumulate = f64, dtype = f64} return %y }",
    "func @main(%x: f64[5, 6]) { %y = window-reduce %x {combine = sum, window = [2, 3], strides = [2, 1], dilations = [1, 2], low = [1, 0], high = [0, 1], accumulate = f64} return %y }",
    "func @main(%x: f64[5, 6]) { %y = window-reduce %x {combine = max, window = [2, 3], strides = [1, 2], dilations = [2, 1], low = [0, 1], high = [1, 0], accumulate = f64} return %y }",
    "func @main(%x: f64[6]) { %y = window-reduce %x {combine = product, window = [3], strides = [2], dilations = [1], low = [1], high = [0], accumulate = f64} return %y }",
    "func @main(%x: f64[3, 4]) { %y = reshape %x {shape = [2, 6]} return %y }",
    "func @main(%x: f64[2, 3, 4]) { %y = transpose %x {perm = [2, 0, 1]} return %y }",
    "func @main(%x: f64[3, 1]) { %y = broadcast %x {shape = [2, 3, 4], dims = [1, 2]} return %y }",
    "func @main(%x: f64[5, 6]) { %y = slice %x {start = [1, 0], limit = [4, 6], stride = [1, 4]} return %y }",
    "func @main(%x: f64[2, 3], %v: f64[]) { %y = pad %x, %v {low = [1, 0], high = [0, 2], interior = [2, 1]} return %y }",
    "func @main(%x: f64[2, 3], %z: f64[2, 2]) { %y = concat %x, %z, %x {axis = 1} return %y }",
    "func @main(%x: f64[2, 3]) { %y = reverse %x {axes = [0, 1]} return %y }",
    "func @main(%x: f64[4, 2], %i: i64[3]) { %y = gather %x, %i {axis = 0} return %y }",
    "func @main(%x: f64[2, 3], %i: i32[2, 2]) { %y = gather %x, %i {axis = 1} return %y }",
    "func @main(%x: f64[3, 2], %i: i64[4], %u: f64[4, 2]) { %y = scatter %x, %i, %u {axis = 0, combine = sum} return %y }",
    "func @main(%x: f64[3, 2], %i: i64[4], %u: f64[4, 2]) { %y = scatter %x, %i, %u {axis = 0} return %y }",
    "func @main(%x: f64[2, 4], %i: i64[3], %u: f64[2, 3]) { %y = scatter %x, %i, %u {axis = 1, combine = max} return %y }",
    "func @main(%x: f64[2, 4], %i: i64[3], %u: f64[2, 3]) { %y = scatter %x, %i, %u {axis = 1, combine = product} return %y }",
    "func @main(%x: f64[3, 4]) { (%y: f64[3, 4], %p: i64[3, 4]) = sort %x {axis = 1, descending = true} return %y }",
    "func @main(%x: f64[4, 3]) { (%y: f64[2, 3], %p: i64[2, 3]) = top-k %x {k = 2, axis = 0} return %y }",
    "func @main(%x: f64[4, 5], %i: i64[], %j: i64[]) { %y = dynamic-slice %x, %i, %j {sizes = [2, 3]} return %y }",
    "func @main(%x: f64[4, 5], %u: f64[2, 3], %i: i64[], %j: i64[]) { %y = dynamic-update %x, %u, %i, %j return %y }",
    "func @main(%x: f64[4]) { %f = convert %x {dtype = f64} %s = sin %f %y = mul %s, %x return %y }",
    "func @main(%x: f64[3]) { %y = all-reduce %x {combine = sum, groups = [[0]]} return %y }",
    "func @main(%x: f64[3]) { %y = all-gather %x {axis = 0, groups = [[0]]} return %y }",
    "func @main(%x: f64[3]) { %y = reduce-scatter %x {combine = sum, axis = 0, groups = [[0]]} return %y }",
    "func @main(%x: f64[3]) { %y = all-to-all %x {split = 0, concat = 0, groups = [[0]]} return %y }",
    "func @main(%x: f64[3]) { %y = permute %x {pairs = [[0, 0]]} return %y }",
    "func @main(%x: f64[3, 4]) { %y = softmax %x {axis = 1} return %y }",
    "func @main(%x: f64[3, 4]) { %y = log-softmax %x {axis = 0} return %y }",
    "func @main(%x: f64[3, 4], %s: f64[4], %b: f64[4]) { %y = layer-norm %x, %s, %b {axis = 1, epsilon = 0.001} return %y }",
    "func @main(%x: f64[3, 4], %s: f64[4]) { %y = rms-norm %x, %s {axis = 1, epsilon = 0.001} return %y }",
    "func @main(%x: f64[7]) { %y = gelu %x return %y }",
    "func @main(%x: f64[7]) { %y = silu %x return %y }",
    "func @main(%q: f64[1, 4, 3, 2], %k: f64[1, 2, 5, 2], %v: f64[1, 2, 5, 3]) { %y = attention %q, %k, %v {scale = 0.7, causal = true} return %y }",
    "func @main(%x: f64[3], %z: f64[3], %c: bool[]) {
       %y: f64[3] = if %c do () { %a = mul %x, %z yield %a } do () { %b = exp %z yield %b }
       return %y }",
    "func @main(%x: f64[3], %w: f64[3]) {
       %y: f64[3] = for %x {count = 4} do (%i: i64[], %c: f64[3]) { %a = mul %c, %w %b = sin %a %d = add %b, %c yield %d }
       %z = mul %y, %x
       return %z }",
];

#[test]
fn every_operation() {
    for case in CASES {
        check(case);
    }
}

#[test]
fn no_operation_is_left_out() {
    let words: BTreeSet<&str> = CASES.iter().flat_map(|case| case.split_whitespace()).collect();
    // What has no derivative, and what other passes replace before: a call is inlined, fusions come later, and nothing
    // says how often a `while` runs. A rank's number is an integer.
    let without = [
        "constant",
        "parameter",
        "iota",
        "random",
        "arg-reduce",
        "map",
        "call",
        "fusion",
        "while",
        "rank",
    ];
    for (name, _, _, _) in CATALOG {
        assert!(words.contains(name) || without.contains(name), "no case has {name}");
    }
}

#[test]
fn values_that_are_used_twice_are_worth_both() {
    check(
        "func @main(%x: f64[3]) {
      %a = mul %x, %x
      %b = add %a, %x
      %c = mul %a, %b
      return %c, %b }",
    );
}

#[test]
fn zeros_have_products_too() {
    let source = "func @main(%x: f64[4]) {
      %y = reduce %x {combine = product, axes = [0], accumulate = f64}
      %z = scan %x {combine = product, axis = 0, accumulate = f64}
      return %y, %z }";
    let graph = weighed(&text::parse_graph(source).expect("it parses"));
    let with = differentiate(&graph).expect("it has a derivative");
    let x = Tensor::from_slice(&[4], &[2.0, 0.0, 3.0, 0.5]);
    let gradient = run(&with, &[x])[1].values().to_f64();
    assert!(gradient.iter().all(|value| value.is_finite()), "{gradient:?}");
}

#[test]
fn what_has_no_derivative_says_so() {
    let source = "func @main(%x: f64[]) {
      %y: f64[] = while %x do (%c: f64[]) { %n = lt %c, %c yield %n } do (%c: f64[]) { %d = exp %c yield %d }
      return %y }";
    let Ok(graph) = text::parse_graph(source) else { panic!("the case does not parse") };
    let error = differentiate(&graph).expect_err("a while has none").to_string();
    assert!(error.contains("`while` has no derivative"), "{error}");
    let integer = text::parse_graph("func @main(%x: i64[]) { return %x }").expect("it parses");
    let error = differentiate(&integer).expect_err("not a float").to_string();
    assert!(error.contains("not a floating-point scalar"), "{error}");
}
