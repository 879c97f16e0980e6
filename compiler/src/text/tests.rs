//! The text form as a whole: every form of the grammar prints, parses and is refused as it should be.

use super::*;
use std::fmt::Write;

/// Every form of the grammar, as it is printed.
const FORMS: &str = r#"func @main(%x: f32[4, 8], %w: f32[8, 2], %"cache/k:0": f32[4, 2]) -> (y: f32[4, 2], "cache/k:1": f32[4, 2] state %"cache/k:0", i64: i64[4, 2], "": f32[]) {
  %a: f32[4, 2] = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %b: f32[4, 2] = exp %a from ["conv/1", "relu \"two\""]
  (%v: f32[4, 2], %i: i64[4, 2]) = sort %b {axis = 1, descending = true}
  %c: f32[2, 2] = constant {value = [[1.0, -0.5], [inf, nan]]}
  %zero: f32[100, 100] = constant {value = splat(-0.0)}
  %odd: f32[] = constant {value = hex("0100c07f")}
  %empty: i8[0, 1000] = constant {value = hex("")}
  %flag: bool[] = constant {value = true}
  %0: u64[1] = constant {value = [18446744073709551615]}
  %p: f32[1000000, 1000000] = parameter {name = "a/b c"}
  %r: f32[4, 2] = for %b {count = 3} do (%step: i64[], %s: f32[4, 2]) {
    %n: f32[4, 2] = add %s, %s
    yield %n
  }
  %chosen: f32[4, 2] = if %flag do () {
    %n: f32[4, 2] = neg %r
    yield %n
  } do () {
    yield %r
  }
  %sum: f32[] = reduce %chosen {combine = sum, axes = [0, 1], accumulate = f32}
  %called: f32[4, 2] = call %chosen {function = "helper 2"}
  return %called, %r, %i, %sum
}

func @"helper 2"(%x: f32[4, 2]) -> (y: f32[4, 2]) {
  return %x
}
"#;

fn parse(source: &str) -> Graph {
    parse_graph(source)
        .unwrap_or_else(|problems| panic!("{}", render(&problems, "test.tir", Some(source))))
}

#[test]
fn every_form_is_printed_as_it_is_read() {
    let graph = parse(FORMS);
    assert_eq!(print_full(&graph), FORMS);
    assert!(same(&parse(&print_full(&graph)), &graph));
    assert_eq!(graph.entry().state, [(2, 1)]);
    assert_eq!(graph.origins.len(), 2);
}

#[test]
fn types_origins_and_names_of_results_may_be_left_out() {
    let terse = "func @f(%x: f32[2, 3]) -> f32[2, 3] { %y = exp %x %z = add %x, %y, return %z }";
    let full = "func @f(%x: f32[2, 3]) -> (z: f32[2, 3]) {\n  %y: f32[2, 3] = exp %x\n  %z: f32[2, 3] = add %x, %y\n  return %z\n}\n";
    assert_eq!(parse(terse).to_string(), full);
    let bare = "func @f(%x: f32[2, 3]) { %y = exp %x return %y, %x }";
    assert_eq!(parse(bare).entry().result_names, ["y", "x"]);
    let called = "func @f(%x: f32[2]) { %y = call %x {function = g} return %y } func @g(%x: f32[2]) -> f32[2] { return %x }";
    assert_eq!(
        parse(called).to_string().lines().nth(1),
        Some("  %y: f32[2] = call %x {function = \"g\"}")
    );
}

#[test]
fn values_without_names_get_numbers_that_no_name_has() {
    let mut graph = Graph::new("main");
    let function = graph.entry_mut();
    let x = function.parameter(crate::types::TensorType::new(crate::types::DType::F32, &[2]), "1");
    let mut builder = crate::graph::Builder::new(function);
    let mut value = x;
    for _ in 0..3 {
        value = builder.map(crate::scalar::ScalarFn::Neg, &[value]).expect("it fits");
    }
    let nodes = builder.nodes;
    function.values[value].name = Some("1".to_owned());
    function.body.nodes = nodes;
    function.result(value, "y");
    let expected = "func @main(%1: f32[2]) -> (y: f32[2]) {\n  %0: f32[2] = neg %1\n  %2: f32[2] = neg %0\n  %1.1: f32[2] = neg %2\n  return %1.1\n}\n";
    assert_eq!(graph.to_string(), expected);
    assert!(same(&parse(expected), &graph));
    assert!(!same(&parse(&expected.replace("neg %2", "neg %0")), &graph));
}

#[test]
fn large_constants_are_elided_unless_all_is_asked_for() {
    let source = "func @main() { %a: i32[17] = constant {value = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]} return %a }";
    let graph = parse(source);
    let short = graph.to_string();
    assert!(short.contains("%a: i32[17] = constant {value = elided(\""), "{short}");
    let problems = parse_graph(&short).expect_err("the data is not there");
    assert_eq!(problems.0[0].code, Code::MissingData);
    assert!(same(&parse(&print_full(&graph)), &graph));
}

#[test]
fn every_bit_of_a_constant_survives() {
    use crate::tensor::Tensor;
    use crate::types::{DType, TensorType};
    arbtest::arbtest(|u| {
        let dtype = *u.choose(&DType::ALL)?;
        let shape = [u.int_in_range(0..=3)?, u.int_in_range(0..=150)?];
        let ty = TensorType::new(dtype, &shape);
        let data = u.bytes(ty.bytes())?.to_vec();
        let tensor = Tensor::new(ty, data.into()).expect("as many bytes as the type has");
        let mut graph = Graph::new("main");
        let function = graph.entry_mut();
        let mut builder = crate::graph::Builder::new(function);
        let value = builder.constant(tensor);
        function.body.nodes = builder.nodes;
        function.result(value, "y");
        let text = print_full(&graph);
        assert!(same(&parse(&text), &graph), "{text}");
        Ok(())
    })
    .budget_ms(500);
}

/// One mistake a line; what is said about each is in the snapshot.
const MISTAKES: &[&str] = &[
    "",
    "func",
    "func @main(",
    "func @main() { return",
    "module @main() {}",
    "func @f(%x: f32[2]) { %y = exp %x }",
    "func @f(%x: f32[2]) { yield %x }",
    "func @f(%x: f32[2]) { return %x return %x }",
    "func @f(%x: f32[2]) { return %x %y = exp %x }",
    "func @f(%x) { return %x }",
    "func @f(%x: f33[2]) { return %x }",
    "func @f(%x: f32[99999999, 99999999]) { return %x }",
    "func @f(%x: f32[-1]) { return %x }",
    "func @f(%x: f32[2]) { %y = exp %x\n %z = add %y %x\n %u = neg\n %v = expp %z\n return %v }",
    "func @f(%x: f32[2]) { %y = exp {axis = } %x\n %z = exp %q\n return %z }",
    "func @f(%x: f32[2]) { %yes = exp %x\n %z = exp %yess\n return %z }",
    "func @f(%x: f32[2]) { %x = exp %x\n return %x }",
    "func @f(%x: f32[2]) { return %x }\nfunc @f(%x: f32[2]) { return %x }",
    "func @f(%x: f32[2]) { %y = redcue %x\n return %y }",
    "func @f(%x: f32[2]) { %y = reduce %x {combine = mean, axis = [0], accumulate = f32, accumulate = f64}\n return %y }",
    "func @f(%x: f32[2]) { %y: f32[3] = exp %x\n return %y }",
    "func @f(%x: f32[2]) { (%y, %z) = exp %x\n return %y }",
    "func @f(%x: f32[2], %w: f32[3]) { %y = add %x, %w\n return %y }",
    "func @f(%x: f32[2]) -> (y: f32[3]) { return %x }",
    "func @f(%x: f32[2]) -> (y: f32[2] state %z) { return %x, %x }",
    "func @f() { %y = constant {value = 1}\n return %y }",
    "func @f() { %y = iota {axis = 0}\n return %y }",
    "func @f() { %y: i8[2] = constant {value = [1, 128]}\n return %y }",
    "func @f() { %y: f32[2] = constant {value = [1.0]}\n return %y }",
    "func @f() { %y: f32[2] = constant {value = 1.0}\n return %y }",
    "func @f() { %y: f32[2] = constant {value = hex(\"00\")}\n return %y }",
    "func @f() { %y: f32[2] = constant {value = hex(\"0g\")}\n return %y }",
    "func @f() { %y: f32[2] = constant {value = [-x, 1]}\n return %y }",
    "func @f() { %y: f32[1000000, 1000000] = constant {value = splat(0.0)}\n return %y }",
    "func @f() { %y: f32[2] = constant {value = elided(\"1234\")}\n return %y }",
    "func @f(%x: f32[2]) { %y = for %x {count = 2} do (%i: i64[], %s: f32[2]) { %n = neg %s }\n return %y }",
    "func @f(%x: f32[2]) { %y = for %x {count = 2} do (%i: i64[], %s: f32[2]) { %x = neg %s yield %x }\n return %y }",
    "func @f(%x: f32[2]) { %y = exp %x $ \n %z = neg %y \"abc\n return %z }",
    "func @f(%x: f32[2]) { %y = exp %x { \n %z = neg %y\n return %z }",
    "func @f(%x: f32[2]) { %y = (exp %x)\n %z = neg %y\n return %z }\nfunc @g( { return }\nfunc @h() { return }",
    "func @f(%x: f32[2]) { %y = transpose %x {perm = [99999999999999999999]}\n return %y }",
];

#[test]
fn every_mistake_is_explained_where_it_is() {
    let mut report = String::new();
    for source in MISTAKES {
        let problems = parse_graph(source).expect_err(source);
        writeln!(report, "{source}\n-----\n{}=====", render(&problems, "test.tir", Some(source)))
            .expect("a string");
    }
    insta::assert_snapshot!(report);
}

#[test]
fn any_text_gives_a_graph_or_problems() {
    const SOUP: &[&str] = &[
        "func",
        "@f",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "=",
        "->",
        "-",
        "%a",
        "%b",
        "%c",
        "f32",
        "f32[2]",
        "1",
        "0.5",
        "exp",
        "add",
        "for",
        "do",
        "yield",
        "return",
        "state",
        "from",
        "\"t\"",
        "constant",
        "value",
        "splat",
        "hex",
        "count",
        "\"",
        "\\",
        "//",
        "\n",
        "é",
        "\u{0}",
        "func @f(%a: f32[2]) {",
        "%b = exp %a",
        "{count = 2} do (%i: i64[]) {",
        "return %a }",
        "999999999999999999999999999999999999999999",
        "nan",
    ];
    arbtest::arbtest(|u| {
        let mut source = String::new();
        for _ in 0..u.int_in_range(0..=60)? {
            source.push_str(u.choose(SOUP)?);
            if u.ratio(9, 10)? {
                source.push(' ');
            }
        }
        match parse_graph(&source) {
            Ok(graph) => assert!(same(&parse(&print_full(&graph)), &graph)),
            Err(problems) => {
                assert!(problems.has_errors());
                render(&problems, "test.tir", Some(&source));
            }
        }
        Ok(())
    })
    .budget_ms(1000);
}

#[test]
fn long_files_take_time_in_proportion() {
    let mut source = String::from("func @f(%v0: f32[2]) {\n");
    for index in 1..=100_000 {
        writeln!(source, "  %v{index} = neg %v{}", index - 1).expect("a string");
    }
    source.push_str("  return %v100000\n}\n");
    assert_eq!(parse(&source).entry().nodes.len(), 100_000);
    let broken = source.replace("neg", "= neg");
    let problems = parse_graph(&broken).expect_err("every line is wrong");
    assert_eq!(problems.0.len(), 100_000);
    assert!(render(&problems, "test.tir", Some(&broken)).ends_with("... and 99950 more\n"));
}
