//! How a pass of one's own is tested: what it prints is a snapshot, and the values before and after are compared.

use std::cell::RefCell;
use systole_compiler::evaluate::{self, Budget};
use systole_compiler::graph::Graph;
use systole_compiler::machine::{ContractTile, Machine};
use systole_compiler::pass::{Changed, Context, Pass};
use systole_compiler::tensor::Tensor;
use systole_compiler::{passes, text, verify};
use systole_examples::double_negation;

const SOURCE: &str = "
func @main(%x: f32[4]) -> (y: f32[4], z: f32[4]) {
  %a = neg %x
  %b = neg %a
  %c = neg %b
  %y = exp %b
  %z = exp %c
  return %y, %z
}";

fn apply(pass: &Pass<Graph>, graph: &mut Graph) -> Changed {
    // This pass asks nothing of the machine; others would be given one of `systole_host::machine`.
    let machine = Machine {
        name: "any".into(),
        near_rows: 1,
        near_bytes: 1 << 20,
        vector_elements: 4,
        contract: ContractTile { m: (1, 64), n: (1, 64), k: (1, 64) },
        attention: None,
        map_elements: 4096,
        reduce_elements: 4096,
        schedules: false,
        widens: Vec::new(),
        bytes_together: 0,
        weights: None,
        native: Vec::new(),
    };
    let context = Context { machine: &machine, options: Vec::new(), declined: RefCell::default() };
    let changed = (pass.run)(graph, &context).expect("the pass has nothing to complain about");
    verify::graph(graph).expect("a pass keeps the rules");
    changed
}

#[test]
fn double_negations_vanish_and_values_stay() {
    let before = text::parse_graph(SOURCE).expect("the source is right");
    let mut after = before.clone();
    assert_eq!(apply(&double_negation::PASS, &mut after), Changed::Yes);
    let drop_dead = passes::GRAPH_PASSES.iter().find(|pass| pass.name == "drop-dead");
    let _ = apply(drop_dead.expect("it is one of the compiler's"), &mut after);
    insta::assert_snapshot!(after);

    let x = [Tensor::from_slice(&[4], &[-1.0f32, 0.0, 0.5, 2.0])];
    let values = |graph| evaluate::graph(graph, &x, &Budget::UNLIMITED).expect("it evaluates");
    assert_eq!(values(&before), values(&after));
    assert_eq!(apply(&double_negation::PASS, &mut after), Changed::No);
}
