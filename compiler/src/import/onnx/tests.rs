//! Tiny models made in code: what binding makes of them, and what is said about each kind of mistake.

use super::Source;
use super::proto::{
    AttributeProto, DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};
use crate::diagnostic::{Code, Diagnostics};
use crate::evaluate::{self, Budget};
use crate::graph::Graph;
use crate::import::{Bindings, Dim};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use bytes::Bytes;
use prost::Message;

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        op_type: op.to_owned(),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i, r#type: 2, ..AttributeProto::default() }
}

fn graph_attribute(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto { name: name.to_owned(), g: Some(g), r#type: 5, ..AttributeProto::default() }
}

/// A value of f32 (1), i64 (7) or bool (9); a dimension that is not a number is a symbol, `?` is nothing.
fn value(name: &str, elem_type: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = |text: &&str| match text.parse() {
        Ok(size) => DimensionProto { dim_value: Some(size), dim_param: None },
        Err(_) if *text == "?" => DimensionProto::default(),
        Err(_) => DimensionProto { dim_value: None, dim_param: Some((*text).to_owned()) },
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type, shape });
    let r#type = Some(TypeProto { tensor_type, ..TypeProto::default() });
    ValueInfoProto { name: name.to_owned(), r#type }
}

fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: 1,
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

fn ints(name: &str, dims: &[i64], data: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        dims: dims.to_vec(),
        data_type: 7,
        int64_data: data.to_vec(),
        ..TensorProto::default()
    }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 18 }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn graph(inputs: Vec<ValueInfoProto>, nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    let output = outputs.iter().map(|name| value(name, 1, &[])).collect();
    GraphProto { input: inputs, node: nodes, output, ..GraphProto::default() }
}

fn parse(model: &ModelProto) -> Result<Source, Diagnostics> {
    Source::parse(model.encode_to_vec().into(), &|_| Err("there is no such file".to_owned()))
}

fn bind(model: &ModelProto) -> Result<Graph, Diagnostics> {
    parse(model)?.bind(&Bindings::default())
}

fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    evaluate::graph(graph, inputs, &Budget::UNLIMITED).expect("the graph evaluates")
}

fn ops(graph: &Graph) -> Vec<&'static str> {
    let entry = graph.entry();
    entry.body.nodes.iter().map(|&node| entry.nodes[node].op.name()).collect()
}

/// The codes of all problems, and what is said of them.
fn problems<T: std::fmt::Debug>(result: Result<T, Diagnostics>) -> (Vec<Code>, String) {
    let diagnostics = result.expect_err("something is wrong");
    (diagnostics.0.iter().map(|diagnostic| diagnostic.code).collect(), diagnostics.to_string())
}

#[test]
fn adds_and_keeps_names_and_origins() {
    let inputs = vec![value("x", 1, &["2"]), value("y", 1, &["2"])];
    let add = NodeProto { name: "first".to_owned(), ..node("Add", &["x", "y"], &["z"]) };
    let graph = bind(&model(graph(inputs, vec![add], &["z"]))).expect("the model is right");
    assert_eq!(ops(&graph), ["add"]);
    assert_eq!(graph.entry().result_names, ["z"]);
    assert_eq!(graph.origins.iter().collect::<Vec<_>>(), ["first"]);
    let inputs = [Tensor::from_slice(&[2], &[1f32, 2.0]), Tensor::from_slice(&[2], &[3f32, 4.0])];
    assert_eq!(evaluate(&graph, &inputs)[0], Tensor::from_slice(&[2], &[4f32, 6.0]));
}

#[test]
fn computations_of_shapes_vanish() {
    let nodes = vec![
        node("Shape", &["x"], &["shape"]),
        with(node("Gather", &["shape", "zero"], &["batch"]), int("axis", 0)),
        with(node("Concat", &["batch", "rest"], &["wanted"]), int("axis", 0)),
        node("Reshape", &["x", "wanted"], &["y"]),
    ];
    let mut graph = graph(vec![value("x", 1, &["2", "3", "4"])], nodes, &["y"]);
    graph.initializer = vec![ints("zero", &[1], &[0]), ints("rest", &[1], &[-1])];
    let graph = bind(&model(graph)).expect("the model is right");
    assert_eq!(ops(&graph), ["reshape"]);
    let entry = graph.entry();
    assert_eq!(*entry.ty(entry.body.results[0]), TensorType::new(DType::F32, &[2, 12]));
}

#[test]
fn weights_are_slices_of_the_file() {
    let mut graph =
        graph(vec![value("x", 1, &["2"])], vec![node("Mul", &["x", "w"], &["y"])], &["y"]);
    graph.initializer = vec![floats("w", &[2], &[2.0, 3.0])];
    let file = Bytes::from(model(graph).encode_to_vec());
    let source = Source::parse(file.clone(), &|_| Err(String::new())).expect("the model is right");
    let graph = source.bind(&Bindings::default()).expect("nothing is to bind");
    let entry = graph.entry();
    let weight = entry.nodes.iter().find_map(|(_, node)| {
        let crate::op::Op::Constant(constant) = &node.op else { return None };
        Some(constant.value.clone())
    });
    let place = weight.expect("the weight is a constant").bytes().as_ptr() as usize;
    let start = file.as_ptr() as usize;
    assert!((start..start + file.len()).contains(&place));
}

#[test]
fn nodes_may_stand_in_any_order() {
    let nodes = vec![node("Neg", &["a"], &["b"]), node("Abs", &["x"], &["a"])];
    let graph = bind(&model(graph(vec![value("x", 1, &["1"])], nodes, &["b"]))).expect("sorted");
    assert_eq!(ops(&graph), ["abs", "neg"]);
}

#[test]
fn calls_of_functions_are_replaced_by_their_bodies() {
    let mut body = node("LeakyRelu", &["a"], &["b"]);
    body.attribute.push(AttributeProto {
        name: "alpha".to_owned(),
        ref_attr_name: "slope".to_owned(),
        ..AttributeProto::default()
    });
    let function = FunctionProto {
        name: "Bent".to_owned(),
        domain: "own".to_owned(),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![body],
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 18 }],
        ..FunctionProto::default()
    };
    let mut call = node("Bent", &["x"], &["y"]);
    call.domain = "own".to_owned();
    call.attribute.push(AttributeProto {
        name: "slope".to_owned(),
        f: 0.5,
        r#type: 1,
        ..AttributeProto::default()
    });
    let mut model = model(graph(vec![value("x", 1, &["1"])], vec![call], &["y"]));
    model.functions = vec![function];
    let graph = bind(&model).expect("the model is right");
    let result = evaluate(&graph, &[Tensor::from_slice(&[1], &[-4f32])]);
    assert_eq!(result[0], Tensor::from_slice(&[1], &[-2f32]));
}

#[test]
fn functions_that_call_themselves_end() {
    let mut call = node("F", &["a"], &["b"]);
    call.domain = "own".to_owned();
    let mut again = call.clone();
    again.output = vec!["c".to_owned()];
    let function = FunctionProto {
        name: "F".to_owned(),
        domain: "own".to_owned(),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![call.clone(), again],
        ..FunctionProto::default()
    };
    let mut model = model(graph(vec![value("a", 1, &["1"])], vec![call], &["b"]));
    model.functions = vec![function];
    let (codes, text) = problems(bind(&model));
    assert_eq!(codes[0], Code::Unsupported, "{text}");
}

#[test]
fn branches_that_are_decided_vanish_and_others_stay() {
    let side = |op: &str| GraphProto {
        node: vec![node(op, &["x"], &["r"])],
        output: vec![value("r", 1, &[])],
        ..GraphProto::default()
    };
    let choice = with(
        with(node("If", &["c"], &["y"]), graph_attribute("then_branch", side("Neg"))),
        graph_attribute("else_branch", side("Abs")),
    );
    let inputs = vec![value("x", 1, &["1"]), value("c", 9, &[])];
    let source = parse(&model(graph(inputs, vec![choice], &["y"]))).expect("the model is right");
    let open = source.bind(&Bindings::default()).expect("the branches have one type");
    assert_eq!(ops(&open), ["if"]);
    let mut bindings = Bindings::default();
    let no = Tensor::from_values(DType::Bool, &[], &crate::tensor::Values::Bool(vec![false]));
    bindings.constants.insert("c".to_owned(), no);
    let decided = source.bind(&bindings).expect("the branch is known");
    assert_eq!(ops(&decided), ["abs"]);
    assert_eq!(decided.entry().body.params.len(), 1);
}

#[test]
fn loops_with_a_known_count_become_for_and_collect() {
    let body = GraphProto {
        input: vec![value("i", 7, &[]), value("go", 9, &[]), value("s", 1, &["1"])],
        node: vec![
            node("Identity", &["go"], &["on"]),
            node("Add", &["s", "x"], &["t"]),
            node("Identity", &["t"], &["seen"]),
        ],
        output: vec![value("on", 9, &[]), value("t", 1, &["1"]), value("seen", 1, &["1"])],
        ..GraphProto::default()
    };
    let repeat =
        with(node("Loop", &["n", "", "x"], &["last", "all"]), graph_attribute("body", body));
    let mut graph = graph(vec![value("x", 1, &["1"])], vec![repeat], &["last", "all"]);
    graph.initializer = vec![ints("n", &[], &[3])];
    let graph = bind(&model(graph)).expect("the model is right");
    assert!(ops(&graph).contains(&"for"));
    let results = evaluate(&graph, &[Tensor::from_slice(&[1], &[1f32])]);
    assert_eq!(results[0], Tensor::from_slice(&[1], &[4f32]));
    assert_eq!(results[1], Tensor::from_slice(&[3, 1], &[2f32, 3.0, 4.0]));
}

#[test]
fn four_bit_weights_are_unpacked() {
    let packed = TensorProto {
        name: "w".to_owned(),
        dims: vec![3],
        data_type: 22,
        raw_data: Some(Bytes::from_static(&[0x2f, 0x07])),
        ..TensorProto::default()
    };
    let cast = with(node("Cast", &["w"], &["y"]), int("to", 7));
    let mut graph = graph(Vec::new(), vec![cast], &["y"]);
    graph.initializer = vec![packed];
    let graph = bind(&model(graph)).expect("the model is right");
    assert_eq!(evaluate(&graph, &[])[0], Tensor::from_slice(&[3], &[-1i64, 2, 7]));
}

#[test]
fn unbound_dimensions_are_named_together() {
    let inputs = vec![value("x", 1, &["batch", "?"]), value("y", 1, &["batch", "time"])];
    let nodes = vec![node("Neg", &["x"], &["z"])];
    let source = parse(&model(graph(inputs, nodes, &["z"]))).expect("the model is right");
    let dims = source.signature().inputs[0].dims.clone();
    assert_eq!(dims, Some(vec![Dim::Symbol("batch".to_owned()), Dim::Unknown]));
    let (codes, text) = problems(source.bind(&Bindings::default()));
    assert_eq!(codes, [Code::UnboundDimension; 3]);
    for help in ["--dim batch=N", "--dim time=N", "--dim x.1=N"] {
        assert!(text.contains(help), "{text}");
    }
    let mut bindings = Bindings::default();
    bindings.dims.insert("time".to_owned(), 5);
    bindings.inputs.insert("x".to_owned(), TensorType::new(DType::F32, &[2, 3]));
    let graph = source.bind(&bindings).expect("every size is given");
    let entry = graph.entry();
    assert_eq!(*entry.ty(entry.body.params[1]), TensorType::new(DType::F32, &[2, 5]));
    bindings.dims.insert("batch".to_owned(), 7);
    let (codes, text) = problems(source.bind(&bindings));
    assert_eq!(codes, [Code::UnboundDimension], "{text}");
}

#[test]
fn shapes_that_depend_on_values_name_the_inputs() {
    let inputs = vec![value("x", 1, &["6"]), value("shape", 7, &["2"])];
    let nodes = vec![
        node("Neg", &["shape"], &["a"]),
        node("Neg", &["a"], &["b"]),
        node("Reshape", &["x", "b"], &["y"]),
    ];
    let source = parse(&model(graph(inputs, nodes, &["y"]))).expect("the model is right");
    let (codes, text) = problems(source.bind(&Bindings::default()));
    assert_eq!(codes, [Code::Unsupported], "{text}");
    let wanted = source.wanted_constants(&Bindings::default());
    assert_eq!(wanted.iter().collect::<Vec<_>>(), ["shape"]);
    let mut bindings = Bindings::default();
    bindings.constants.insert("shape".to_owned(), Tensor::from_slice(&[2], &[2i64, 3]));
    assert_eq!(ops(&source.bind(&bindings).expect("the shape is known")), ["reshape"]);
}

#[test]
fn missing_operators_are_counted_by_name() {
    let nodes = vec![
        node("Frobnicate", &["x"], &["a"]),
        node("Frobnicate", &["a"], &["b"]),
        node("Twist", &["b"], &["y"]),
    ];
    let (codes, text) = problems(bind(&model(graph(vec![value("x", 1, &["1"])], nodes, &["y"]))));
    assert_eq!(codes, [Code::Unsupported; 2]);
    assert!(text.contains("Frobnicate, which 2 nodes are of"), "{text}");
    assert!(text.contains("Twist"), "{text}");
}

#[test]
fn mistakes_of_nodes_come_together() {
    let inputs = vec![value("x", 1, &["2"]), value("y", 1, &["3"])];
    let nodes = vec![
        node("Add", &["x", "y"], &["a"]),
        node("Neg", &["a"], &["b"]),
        with(node("Softmax", &["x"], &["c"]), int("axis", 4)),
    ];
    let (codes, text) = problems(bind(&model(graph(inputs, nodes, &["b", "c"]))));
    assert_eq!(codes, [Code::OpType; 2], "{text}");
}

#[test]
fn names_and_cycles_are_checked() {
    let nodes = vec![
        node("Add", &["x", "nowhere"], &["a"]),
        node("Neg", &["c"], &["b"]),
        node("Neg", &["b"], &["c"]),
        node("Abs", &["x"], &["a"]),
    ];
    let (codes, text) =
        problems(parse(&model(graph(vec![value("x", 1, &["1"])], nodes, &["a", "z"]))));
    let wanted = [Code::DuplicateName, Code::Malformed, Code::UnknownName, Code::UnknownName];
    assert_eq!(codes, wanted, "{text}");
}

#[test]
fn tensors_have_the_data_of_their_shapes() {
    let mut negative = floats("negative", &[-1], &[1.0]);
    negative.data_type = 1;
    let mut odd = floats("odd", &[2], &[1.0, 2.0]);
    odd.data_type = 99;
    let mut graph = graph(Vec::new(), Vec::new(), &[]);
    graph.initializer = vec![
        floats("short", &[3], &[1.0]),
        floats("huge", &[1 << 40, 1 << 40], &[1.0]),
        ints("typed", &[4], &[1, 2]),
        negative,
        odd,
    ];
    let (codes, text) = problems(parse(&model(graph)));
    assert_eq!(codes, [Code::Malformed; 5], "{text}");
    assert!(text.contains("tensor short: f32[3] takes 12 bytes, but there are 4"), "{text}");
}

#[test]
fn external_data_is_found_or_missed() {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let outside = |name: &str, location: &str, offset: &str| TensorProto {
        name: name.to_owned(),
        dims: vec![2],
        data_type: 1,
        data_location: 1,
        external_data: vec![entry("location", location), entry("offset", offset)],
        ..TensorProto::default()
    };
    let mut graph = graph(Vec::new(), vec![node("Identity", &["w"], &["y"])], &["y"]);
    graph.initializer = vec![outside("w", "weights.bin", "4")];
    let file =
        Bytes::from([9f32, 1.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let read = |name: &str| {
        if name == "weights.bin" { Ok(file.clone()) } else { Err("not there".to_owned()) }
    };
    let source = Source::parse(model(graph.clone()).encode_to_vec().into(), &read);
    let bound = source.and_then(|source| source.bind(&Bindings::default())).expect("data is there");
    assert_eq!(evaluate(&bound, &[])[0], Tensor::from_slice(&[2], &[1f32, 2.0]));

    graph.initializer.push(outside("late", "weights.bin", "8"));
    graph.initializer.push(outside("gone", "other.bin", "0"));
    graph.initializer.push(outside("up", "../weights.bin", "0"));
    let result = Source::parse(model(graph).encode_to_vec().into(), &read);
    let (codes, text) = problems(result);
    assert_eq!(codes, [Code::MissingData; 3], "{text}");
    assert!(text.contains("leaves the model's folder"), "{text}");
}

#[test]
fn versions_are_checked() {
    let mut newer = model(graph(Vec::new(), Vec::new(), &[]));
    newer.ir_version = 99;
    newer.opset_import[0].version = 999;
    assert_eq!(problems(parse(&newer)).0, [Code::Unsupported; 2]);
    let empty = Source::parse(Bytes::new(), &|_| Err(String::new()));
    assert_eq!(problems(empty).0, [Code::Malformed]);
    let text =
        Source::parse(Bytes::from_static(b"hello, this is no model"), &|_| Err(String::new()));
    assert_eq!(problems(text).0[0], Code::Malformed);
}

/// A model with a little of everything.
fn mixed() -> ModelProto {
    let side = GraphProto {
        node: vec![node("Neg", &["r"], &["q"])],
        output: vec![value("q", 1, &[])],
        ..GraphProto::default()
    };
    let choice = with(
        with(node("If", &["c"], &["y"]), graph_attribute("then_branch", side.clone())),
        graph_attribute("else_branch", side),
    );
    let nodes = vec![
        node("Shape", &["x"], &["shape"]),
        node("Expand", &["w", "shape"], &["wide"]),
        node("MatMul", &["x", "m"], &["p"]),
        with(node("Concat", &["p", "wide"], &["j"]), int("axis", 1)),
        node("Tile", &["j", "times"], &["r"]),
        choice,
    ];
    let mut graph = graph(vec![value("x", 1, &["n", "2"]), value("c", 9, &[])], nodes, &["y"]);
    graph.initializer = vec![
        floats("w", &[1], &[1.5]),
        floats("m", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        ints("times", &[2], &[2, 1]),
    ];
    model(graph)
}

fn parse_and_bind(bytes: &[u8]) {
    let source = Source::parse(Bytes::copy_from_slice(bytes), &|_| Err(String::new()));
    let mut bindings = Bindings::default();
    bindings.dims.insert("n".to_owned(), 3);
    if let Ok(source) = source {
        let _ = source.bind(&bindings);
    }
}

#[test]
fn truncated_files_are_rejected_without_panic() {
    let bytes = mixed().encode_to_vec();
    parse_and_bind(&bytes);
    for end in 0..bytes.len() {
        parse_and_bind(&bytes[..end]);
    }
    let half =
        Source::parse(Bytes::copy_from_slice(&bytes[..bytes.len() / 2]), &|_| Err(String::new()));
    assert_eq!(problems(half).0[0], Code::Malformed);
}

#[test]
fn changed_files_do_not_panic() {
    let bytes = mixed().encode_to_vec();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..4000 {
        let mut changed = bytes.clone();
        for _ in 0..1 + next() % 3 {
            let place = usize::try_from(next()).unwrap_or(0) % changed.len();
            changed[place] = next().to_le_bytes()[0];
        }
        parse_and_bind(&changed);
    }
}
