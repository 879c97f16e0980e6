//! One graph for each rule that breaks it and no other.

use super::*;
use crate::graph::Builder;
use crate::kernel::Combine;
use crate::op::{Fusion, If, Map, Reduce};
use crate::scalar::ScalarFn;
use crate::types::DType;

fn float(shape: &[usize]) -> TensorType {
    TensorType::new(DType::F32, shape)
}

/// A graph that negates its input, changed by `spoil`.
fn check(spoil: impl FnOnce(&mut Graph), expected: &str) {
    let mut graph = Graph::new("main");
    let function = graph.entry_mut();
    let x = function.parameter(float(&[2]), "x");
    let mut builder = Builder::new(function);
    let y = builder.map(ScalarFn::Neg, &[x]).expect("a float has a sign");
    function.body.nodes = builder.nodes;
    function.result(y, "y");
    spoil(&mut graph);
    let found = super::graph(&graph).err().unwrap_or_default();
    let messages: Vec<&str> = found.0.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(messages.join("; "), expected);
}

#[test]
fn a_good_graph_has_no_violation() {
    check(|_| {}, "");
}

#[test]
fn a_graph_has_a_function() {
    check(|graph| graph.functions.clear(), "rule 1: the graph has no function");
}

#[test]
fn ids_are_of_the_function() {
    let spoil = |graph: &mut Graph| graph.entry_mut().body.results[0] = ValueId::from_index(9);
    check(spoil, "rule 1: value #9 is not of this function");
}

#[test]
fn a_node_is_listed_once() {
    let spoil = |graph: &mut Graph| {
        let body = &mut graph.entry_mut().body;
        body.nodes.push(body.nodes[0]);
    };
    check(spoil, "rule 2: node #0 is listed twice");
}

#[test]
fn a_value_is_defined_once() {
    let spoil = |graph: &mut Graph| {
        let function = graph.entry_mut();
        let x = function.body.params[0];
        function.nodes[NodeId::from_index(0)].results[0] = x;
        function.body.results[0] = x;
    };
    check(spoil, "rule 2: %x is defined twice");
}

#[test]
fn operands_are_defined_before() {
    let spoil = |graph: &mut Graph| {
        let function = graph.entry_mut();
        let y = function.body.results[0];
        function.nodes[NodeId::from_index(0)].operands[0] = y;
    };
    check(spoil, "rule 3: neg uses value #1 before it is defined");
}

#[test]
fn values_of_a_block_stay_in_it() {
    let spoil = |graph: &mut Graph| {
        let function = graph.entry_mut();
        let condition = function.parameter(TensorType::new(DType::Bool, &[]), "c");
        let x = function.body.params[0];
        let mut builder = Builder::new(function);
        let mut inner = Vec::new();
        let [yes, no] = [(); 2].map(|()| {
            let block = builder.block(&[], |builder, _| {
                inner.push(builder.map(ScalarFn::Neg, &[x])?);
                Ok(vec![inner[0]])
            });
            block.expect("a float has a sign")
        });
        builder.add_many(If {}, &[condition], vec![yes, no]).expect("both blocks give a float");
        let nodes = builder.nodes;
        function.body.nodes.extend(nodes);
    };
    check(spoil, "rule 3: a block's result uses value #3 outside the block that defines it");
}

#[test]
fn types_fit_into_memory() {
    let spoil = |graph: &mut Graph| {
        graph.entry_mut().value(float(&[1 << 40, 1 << 40]), Some("huge"));
    };
    check(
        spoil,
        "rule 4: %huge of type f32[1099511627776, 1099511627776] is larger than any memory",
    );
}

#[test]
fn results_have_the_inferred_types() {
    let spoil = |graph: &mut Graph| {
        let y = graph.entry().body.results[0];
        graph.entry_mut().values[y].ty = float(&[3]);
    };
    check(spoil, "rule 5: neg gives (f32[2]), not (f32[3])");
}

#[test]
fn ops_take_their_operands() {
    let spoil = |graph: &mut Graph| {
        let accumulate = DType::F32;
        let reduce = Reduce { combine: Combine::Sum, axes: vec![4], accumulate };
        graph.entry_mut().nodes[NodeId::from_index(0)].op = reduce.into();
    };
    check(spoil, "rule 5: reduce: axis 4 is out of range for rank 1");
}

#[test]
fn blocks_nest_sixty_four_deep() {
    let spoil = |graph: &mut Graph| {
        let function = graph.entry_mut();
        let mut block = Block::default();
        for _ in 0..=MAX_BLOCK_DEPTH {
            let node = Node {
                op: Fusion {}.into(),
                operands: Vec::new(),
                results: Default::default(),
                blocks: vec![block],
                origins: Default::default(),
                span: None,
            };
            block = Block { nodes: vec![function.nodes.push(node)], ..Block::default() };
        }
        function.body.nodes.extend(block.nodes);
    };
    check(spoil, "rule 6: blocks nest more than 64 deep");
}

#[test]
fn results_have_names() {
    check(|graph| graph.entry_mut().result_names.clear(), "rule 7: 1 results have 0 names");
}

#[test]
fn inputs_have_different_names() {
    let spoil = |graph: &mut Graph| {
        graph.entry_mut().parameter(float(&[1]), "x");
    };
    check(spoil, "rule 7: two inputs are called x");
}

#[test]
fn a_state_keeps_its_type() {
    let spoil = |graph: &mut Graph| {
        let function = graph.entry_mut();
        function.parameter(float(&[3]), "s");
        function.state.push((1, 0));
    };
    check(spoil, "rule 8: the state %s is f32[3] before and f32[2] after");
}

#[test]
fn a_state_has_an_input_and_a_result() {
    let spoil = |graph: &mut Graph| graph.entry_mut().state.push((0, 5));
    check(spoil, "rule 8: there is no input 0 or no result 5");
}

fn call(graph: &mut Graph, name: &str) {
    let function = graph.entry_mut();
    let x = function.body.params[0];
    let op = Call { function: name.to_owned(), results: vec![float(&[2])] };
    let mut builder = Builder::new(function);
    builder.add(op, &[x]).expect("calls infer what they claim");
    let nodes = builder.nodes;
    function.body.nodes.extend(nodes);
}

#[test]
fn calls_name_a_function() {
    check(|graph| call(graph, "f"), "rule 9: there is no function @f");
}

#[test]
fn calls_have_the_functions_types() {
    let spoil = |graph: &mut Graph| {
        graph.functions.insert("f".to_owned(), Function::default());
        call(graph, "f");
    };
    check(
        spoil,
        "rule 9: @f takes (), not (f32[2]) (in @main); rule 9: @f gives (), not (f32[2]) (in @main)",
    );
}

#[test]
fn functions_do_not_call_themselves() {
    check(|graph| call(graph, "main"), "rule 10: @main calls itself, perhaps by way of others");
}

#[test]
fn fusions_use_only_their_parameters() {
    let spoil = |graph: &mut Graph| {
        let function = graph.entry_mut();
        let x = function.body.params[0];
        let mut builder = Builder::new(function);
        let block = builder
            .block(&[], |builder, _| Ok(vec![builder.add(Map { function: ScalarFn::Abs }, &[x])?]));
        let block = block.expect("a float has a magnitude");
        builder.add_many(Fusion {}, &[], vec![block]).expect("the block has no parameters");
        let nodes = builder.nodes;
        function.body.nodes.extend(nodes);
    };
    check(spoil, "rule 11: the fusion's block uses %x of outside");
}

#[test]
fn origins_are_in_the_table() {
    let spoil = |graph: &mut Graph| {
        graph.entry_mut().nodes[NodeId::from_index(0)].origins.push(7);
    };
    check(spoil, "rule 12: an origin is not in the graph's table");
}

#[test]
fn meshes_have_ranks() {
    let spoil = |graph: &mut Graph| {
        graph.mesh = Some(crate::mesh::Mesh::new(&[("dp", 0)]));
    };
    check(spoil, "rule 13: axis dp has 0 ranks, but at least 1 is needed");
}

#[test]
fn shardings_fit_their_values() {
    let spoil = |graph: &mut Graph| {
        graph.mesh = Some(crate::mesh::Mesh::new(&[("dp", 2)]));
        let x = graph.entry().body.params[0];
        graph.entry_mut().shard(x, crate::mesh::Sharding::whole(2));
    };
    check(spoil, "rule 14: %x: 2 dimensions are sharded, but f32[2] has 1");
}
