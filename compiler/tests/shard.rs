//! Programs that are divided among ranks give what they give on one device.

use arbtest::arbitrary::Unstructured;
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::evaluate::{self, Budget};
use systole_compiler::generate::{self, Options};
use systole_compiler::graph::Graph;
use systole_compiler::mesh::{Mesh, Sharding};
use systole_compiler::op::{Kind, Op};
use systole_compiler::passes::shard::{self, BytesSent, Divided};
use systole_compiler::pipeline::{self, Silent};
use systole_compiler::ranks;
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::{Class, DType, TensorType};
use systole_compiler::{text, verify};

/// Numbers in -1..1 that depend on the seed and position alone.
fn input(ty: &TensorType, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let count = ty.count();
    let values = match ty.dtype.class() {
        Class::Bool => Values::Bool((0..count).map(|_| next() % 2 == 0).collect()),
        Class::Signed => Values::Int((0..count).map(|_| (next() % 4) as i64).collect()),
        Class::Unsigned => Values::Uint((0..count).map(|_| next() % 4).collect()),
        Class::Float if ty.dtype == DType::F64 => {
            Values::F64((0..count).map(|_| (next() % 2001) as f64 / 1000.0 - 1.0).collect())
        }
        Class::Float => {
            Values::F32((0..count).map(|_| (next() % 2001) as f32 / 1000.0 - 1.0).collect())
        }
    };
    Tensor::from_values(ty.dtype, &ty.shape, &values)
}

fn machine() -> systole_compiler::machine::Machine {
    use systole_compiler::machine::{ContractTile, Machine};
    Machine {
        name: "test".into(),
        near_rows: 1,
        schedules: false,
        widens: Vec::new(),
        bytes_together: 0,
        weights: None,
        near_bytes: 256 << 10,
        vector_elements: 4,
        contract: ContractTile { m: (8, 64), n: (16, 256), k: (1, 256) },
        attention: None,
        map_elements: 4096,
        reduce_elements: 4096,
        native: systole_compiler::scalar::ScalarFn::CATALOG
            .iter()
            .map(|(function, _)| *function)
            .collect(),
    }
}

fn primitive(graph: Graph) -> Graph {
    pipeline::optimize(graph, &machine(), &["inline-calls", "expand"], &mut Silent)
        .expect("it expands")
        .expect("nothing stops it")
}

fn divided(graph: &Graph) -> Result<Divided, Diagnostics> {
    let divided = shard::divide(&primitive(graph.clone()), &BytesSent)?;
    for program in &divided.programs {
        verify::graph(&program.graph).unwrap_or_else(|error| panic!("{error}\n{}", program.graph));
        let printed = text::print_full(&program.graph);
        let read = text::parse_graph(&printed).unwrap_or_else(|problems| {
            panic!("{}", text::render(&problems, "rank", Some(&printed)))
        });
        assert!(text::same(&program.graph, &read), "{printed}");
    }
    let graphs: Vec<&Graph> = divided.programs.iter().map(|program| &program.graph).collect();
    ranks::check(&graphs, &divided.program_of)
        .unwrap_or_else(|error| panic!("{error}\n{}", graphs[0]));
    Ok(divided)
}

fn inputs(graph: &Graph) -> Vec<Tensor> {
    let function = graph.entry();
    let params = function.body.params.iter().enumerate();
    params.map(|(seed, &param)| input(function.ty(param), seed as u64 + 1)).collect()
}

/// The results of all ranks, joined; by the graphs of ranks or by their modules.
fn run(divided: &Divided, inputs: &[Tensor], compiled: bool) -> Vec<Tensor> {
    let modules: Vec<_> = divided
        .programs
        .iter()
        .filter(|_| compiled)
        .map(|program| {
            pipeline::compile(program.graph.clone(), &machine(), pipeline::DEFAULT, &mut Silent)
                .unwrap_or_else(|error| panic!("{error}\n{}", program.graph))
                .expect("nothing stops it")
        })
        .collect();
    let results = ranks::run(divided.mesh.ranks(), |why| why, &|rank, exchange| {
        let inputs = divided.inputs(rank, inputs);
        let number = divided.program_of[rank];
        let results = match modules.get(number) {
            Some(module) => {
                systole_compiler::module::evaluate_as(module, &inputs, &Budget::UNLIMITED, exchange)
            }
            None => {
                let graph = &divided.programs[number].graph;
                evaluate::graph_as(graph, &inputs, &Budget::UNLIMITED, exchange)
            }
        };
        results.map_err(|error| error.to_string())
    });
    let results = results.unwrap_or_else(|why| panic!("{why}\n{}", divided.programs[0].graph));
    divided.outputs(&results)
}

fn close(found: &[Tensor], expected: &[Tensor], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.ty(), expected.ty(), "{what}");
        for (x, y) in found.values().to_f64().into_iter().zip(expected.values().to_f64()) {
            let near = (x - y).abs() <= 2e-5 + 2e-5 * y.abs();
            assert!(near || x == y || (x.is_nan() && y.is_nan()), "{x} is not {y}\n{what}");
        }
    }
}

/// What the ranks' program exchanges, in order.
fn exchanges(divided: &Divided) -> Vec<&'static str> {
    let mut found = Vec::new();
    for program in &divided.programs {
        let function = program.graph.entry();
        function.visit(&function.body, &mut |id| {
            let op = &function.nodes[id].op;
            if op.kind() == Kind::Collective && !matches!(op, Op::Rank(_)) {
                found.push(op.name());
            }
        });
    }
    found
}

fn check(source: &str, expected: Option<&[&str]>) {
    let graph = text::parse_graph(source)
        .unwrap_or_else(|problems| panic!("{}", text::render(&problems, "test", Some(source))));
    verify::graph(&graph).expect("it verifies");
    let inputs = inputs(&graph);
    let reference = evaluate::graph(&graph, &inputs, &Budget::UNLIMITED).expect("it has values");
    let divided = divided(&graph).unwrap_or_else(|error| panic!("{error}"));
    let program = divided.programs[0].graph.to_string();
    let found = run(&divided, &inputs, false);
    close(&found, &reference, &program);
    // The same on every run.
    assert_eq!(found, run(&divided, &inputs, false));
    close(&run(&divided, &inputs, true), &reference, &program);
    if let Some(expected) = expected {
        assert_eq!(exchanges(&divided), expected, "{program}");
    }
}

/// Two products with a function between them; a batch of 8, widths 16 and 32.
fn mlp(mesh: &str, x: &str, w1: &str, w2: &str, y: &str) -> String {
    format!(
        "mesh @m [{mesh}]
func @main(%x: f32[8, 16]{x}, %w1: f32[16, 32]{w1}, %b1: f32[32], %w2: f32[32, 16]{w2}) -> (y: f32[8, 16]{y}) {{
  %h = contract %x, %w1 {{batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}}
  %b = broadcast %b1 {{shape = [8, 32], dims = [1]}}
  %s = add %h, %b
  %g = gelu %s
  %y = contract %g, %w2 {{batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}}
  return %y
}}"
    )
}

#[test]
fn an_mlp_over_a_batch_exchanges_nothing() {
    for ranks in [2, 4, 8] {
        check(&mlp(&format!("dp = {ranks}"), " {dp, _}", "", "", ""), Some(&[]));
    }
}

#[test]
fn an_mlp_by_columns_and_rows_joins_once() {
    for ranks in [2, 4, 8] {
        let mesh = format!("tp = {ranks}");
        check(&mlp(&mesh, "", " {_, tp}", " {tp, _}", ""), Some(&["all-reduce"]));
        // The second weight follows from the first.
        check(&mlp(&mesh, "", " {_, tp}", "", ""), Some(&["all-reduce"]));
    }
}

#[test]
fn an_mlp_over_sequences_scatters_and_gathers() {
    for ranks in [2, 4, 8] {
        let source = mlp(&format!("tp = {ranks}"), " {tp, _}", " {_, tp}", " {tp, _}", " {tp, _}");
        check(&source, Some(&["all-gather", "reduce-scatter"]));
    }
}

#[test]
fn an_mlp_on_a_mixed_mesh() {
    let source = mlp("dp = 2, tp = 4", " {dp, _}", " {_, tp}", " {tp, _}", " {dp, _}");
    check(&source, Some(&["all-reduce"]));
    check(&mlp("dp = 2, tp = 2", " {(dp, tp), _}", " {_, tp}", "", " {tp, dp}"), None);
    check(&mlp("dp = 2, tp = 2", " {dp, _}", " {dp, tp}", " {tp, dp}", " {dp, _}"), None);
}

#[test]
fn an_mlp_on_stages() {
    for mesh in ["pp = 2", "dp = 2, pp = 2", "pp = 2, tp = 2", "dp = 2, tp = 2, pp = 2"] {
        let dp = if mesh.contains("dp") { " {dp, _}" } else { "" };
        let tp = if mesh.contains("tp") { " {_, tp}" } else { "" };
        let source = mlp(mesh, dp, tp, "", " {_, _, pp = 1}");
        check(&source, None);
    }
}

#[test]
fn microbatches_pass_through_stages() {
    let source = "mesh @m [pp = 2]
func @main(%x: f32[8, 16], %w1: f32[16, 16], %w2: f32[16, 16] {_, _, pp = 1}) -> (y: f32[8, 16]) {
  %a = slice %x {start = [0, 0], limit = [4, 16], stride = [1, 1]}
  %b = slice %x {start = [4, 0], limit = [8, 16], stride = [1, 1]}
  %a1 = contract %a, %w1 {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %b1 = contract %b, %w1 {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %a2 = contract %a1, %w2 {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %b2 = contract %b1, %w2 {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %y = concat %a2, %b2 {axis = 0}
  return %y
}";
    check(source, Some(&["permute"; 4]));
}

/// Heads of 8, a sequence of 8, a width of 16.
fn attention(mesh: &str, x: &str, w: &str, y: &str) -> String {
    format!(
        "mesh @m [{mesh}]
func @main(%x: f32[2, 8, 16]{x}, %wq: f32[16, 8, 4]{w}, %wk: f32[16, 8, 4]{w}, %wv: f32[16, 8, 4]{w}, %wo: f32[8, 4, 16]) -> (y: f32[2, 8, 16]{y}) {{
  %q0 = contract %x, %wq {{batch = [], over = [[2, 0]], accumulate = f32, dtype = f32}}
  %k0 = contract %x, %wk {{batch = [], over = [[2, 0]], accumulate = f32, dtype = f32}}
  %v0 = contract %x, %wv {{batch = [], over = [[2, 0]], accumulate = f32, dtype = f32}}
  %s = contract %q0, %k0 {{batch = [[0, 0], [2, 2]], over = [[3, 3]], accumulate = f32, dtype = f32}}
  %p = softmax %s {{axis = 3}}
  %o = contract %p, %v0 {{batch = [[0, 0], [1, 2]], over = [[3, 1]], accumulate = f32, dtype = f32}}
  %y0 = contract %o, %wo {{batch = [], over = [[1, 0], [3, 1]], accumulate = f32, dtype = f32}}
  %y = add %y0, %x
  return %y
}}"
    )
}

#[test]
fn an_attention_block_by_batch_heads_and_sequence() {
    check(&attention("dp = 2", " {dp, _, _}", "", ""), Some(&[]));
    for ranks in [2, 4, 8] {
        check(&attention(&format!("tp = {ranks}"), "", " {_, tp, _}", ""), Some(&["all-reduce"]));
        check(&attention(&format!("sp = {ranks}"), " {_, sp, _}", "", " {_, sp, _}"), None);
        let mixed = format!("tp = {ranks}");
        check(&attention(&mixed, " {_, tp, _}", " {_, tp, _}", " {_, tp, _}"), None);
    }
    check(&attention("dp = 2, tp = 4", " {dp, _, _}", " {_, tp, _}", ""), Some(&["all-reduce"]));
    check(
        &attention("dp = 2, sp = 2, tp = 2", " {dp, sp, _}", " {_, tp, _}", " {dp, sp, _}"),
        None,
    );
}

/// Tokens go to experts by a mask, and come back weighted: 8 groups of 4 tokens, 8 experts.
#[test]
fn experts_exchange_all_to_all() {
    for ranks in [2, 4, 8] {
        let source = format!(
            "mesh @m [ep = {ranks}]
func @main(%x: f32[8, 4, 16] {{ep, _, _}}, %gate: f32[16, 8], %w1: f32[8, 16, 32] {{ep, _, _}}, %w2: f32[8, 32, 16] {{ep, _, _}}) -> (y: f32[8, 4, 16] {{ep, _, _}}) {{
  %l = contract %x, %gate {{batch = [], over = [[2, 0]], accumulate = f32, dtype = f32}}
  %p = softmax %l {{axis = 2}}
  %d = contract %p, %x {{batch = [[0, 0], [1, 1]], over = [], accumulate = f32, dtype = f32}}
  %e: f32[8, 4, 8, 16] {{_, _, ep, _}} = reshape %d {{shape = [8, 4, 8, 16]}}
  %h = contract %e, %w1 {{batch = [[2, 0]], over = [[3, 1]], accumulate = f32, dtype = f32}}
  %g = silu %h
  %o = contract %g, %w2 {{batch = [[0, 0]], over = [[3, 1]], accumulate = f32, dtype = f32}}
  %b: f32[8, 8, 4, 16] {{_, ep, _, _}} = reshape %o {{shape = [8, 8, 4, 16]}}
  %y: f32[8, 4, 16] = reduce %b {{combine = sum, axes = [0], accumulate = f32}}
  return %y
}}"
        );
        check(&source, Some(&["all-to-all", "all-to-all"]));
    }
}

#[test]
fn loops_and_branches_keep_their_shardings() {
    let source = "mesh @m [dp = 2, tp = 2]
func @main(%x: f32[8, 16] {dp, _}, %w: f32[16, 16] {_, tp}, %c: bool[]) -> (y: f32[8, 16], z: f32[8, 16]) {
  %y = for %x {count = 3} do (%i: i64[], %h: f32[8, 16]) {
    %p = contract %h, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
    %t = tanh %p
    yield %t
  }
  %z = if %c do () {
    %e = exp %y
    yield %e
  } do () {
    yield %x
  }
  return %y, %z
}";
    check(source, None);
}

#[test]
fn state_keeps_its_sharding() {
    let source = "mesh @m [tp = 2]
func @main(%cache: f32[4, 8] {_, tp}, %x: f32[1, 8], %at: i64[]) -> (after: f32[4, 8] state %cache) {
  %zero: i64[] = constant {value = 0}
  %after = dynamic-update %cache, %x, %at, %zero
  return %after
}";
    check(source, Some(&[]));
}

#[test]
fn conflicts_name_both_origins() {
    let source = "mesh @m [tp = 2]
func @main(%a: f32[4, 4] {tp, _}, %b: f32[4, 4] {_, tp}) -> (y: f32[4, 4]) {
  %y = add %a, %b
  return %y
}";
    let graph = text::parse_graph(source).expect("it parses");
    let divided = divided(&graph).expect("it is divided");
    let messages: Vec<&str> =
        divided.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "dimension 1 of %y is wanted on tp because of %b, but tp is on it because of %a, and stays"
        ]
    );
    check(source, None);
}

#[test]
fn partial_sums_wait_where_the_program_says_so() {
    let source = "mesh @m [tp = 2]
func @main(%x: f32[4, 8] {_, tp}, %w: f32[8, 4], %v: f32[8, 4]) -> (y: f32[4, 4]) {
  %a: f32[4, 4] {_, _, sum(tp)} = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %b: f32[4, 4] {_, _, sum(tp)} = contract %x, %v {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %s: f32[4, 4] {_, _, sum(tp)} = add %a, %b
  %y: f32[4, 4] {_, _} = transpose %s {perm = [1, 0]}
  return %y
}";
    check(source, Some(&["all-reduce"]));
}

/// Types in which another order of joining shows in the last digits alone: partial results of narrow floats round.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others give the type of their operands")]
fn is_wide(op: &Op, types: &[TensorType]) -> bool {
    let wide = |dtype: DType| !dtype.is_float() || dtype.bits() >= 32;
    let small = types.iter().all(|ty| ty.count() <= 1 << 12 && wide(ty.dtype));
    let gives = match op {
        Op::Convert(op) => op.dtype,
        Op::Contract(op) => op.dtype,
        Op::Convolve(op) => op.dtype,
        Op::Iota(op) => op.ty.dtype,
        Op::Constant(op) => op.value.dtype(),
        _ => DType::F32,
    };
    small
        && wide(gives)
        && op.kind() != Kind::Collective
        && !matches!(op, Op::Random(_) | Op::Parameter(_))
}

fn sharded(
    u: &mut Unstructured<'_>,
    graph: &mut Graph,
    mesh: &Mesh,
) -> arbtest::arbitrary::Result<()> {
    let function = graph.entry_mut();
    let values: Vec<_> = function.values.ids().collect();
    for value in values {
        if u.ratio(2, 3)? {
            continue;
        }
        let ty = function.ty(value).clone();
        let mut sharding = Sharding::whole(ty.rank());
        for axis in 0..mesh.axes.len() {
            if ty.rank() > 0 && u.ratio(2, 3)? {
                let dim = u.int_in_range(0..=ty.rank() - 1)?;
                sharding.dims[dim].push(axis);
                if sharding.check(&ty, mesh).is_err() {
                    sharding.dims[dim].pop();
                }
            }
        }
        function.shard(value, sharding);
    }
    Ok(())
}

#[test]
fn random_programs_with_random_shardings_give_what_they_give_alone() {
    let mut exchanged = 0;
    let mut different = 0;
    arbtest::arbtest(|u| {
        let options = Options { nodes: 6, depth: 1, accept: &is_wide };
        let mut graph = primitive(generate::graph(u, &options)?);
        let meshes: [&[(&str, usize)]; 5] =
            [&[("a", 2)], &[("a", 3)], &[("a", 2), ("b", 2)], &[("a", 4)], &[("a", 2), ("b", 3)]];
        let mesh = Mesh::new(u.choose(&meshes)?);
        sharded(u, &mut graph, &mesh)?;
        graph.mesh = Some(mesh);
        verify::graph(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
        let inputs = inputs(&graph);
        let Ok(reference) = evaluate::graph(&graph, &inputs, &Budget::UNLIMITED) else {
            return Ok(());
        };
        let divided = divided(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
        exchanged += exchanges(&divided).len();
        let found = run(&divided, &inputs, false);
        let same = |x: f64, y: f64| {
            x == y || (x - y).abs() <= 1e-3 + 1e-3 * y.abs() || x.is_nan() && y.is_nan()
        };
        for (found, expected) in found.iter().zip(&reference) {
            assert_eq!(found.ty(), expected.ty());
            let pairs = found.values().to_f64().into_iter().zip(expected.values().to_f64());
            different += pairs.filter(|&(x, y)| !same(x, y)).count();
            assert_eq!(different, 0, "{graph}\n{}", divided.programs[0].graph);
        }
        Ok(())
    })
    .budget_ms(4000);
    assert!(exchanged > 0);
}
