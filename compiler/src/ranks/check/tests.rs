//! What the check of ranks finds, a breaking case for each.

use super::*;
use crate::text;

fn problems(sources: &[&str], program_of: &[usize]) -> Vec<String> {
    let graphs: Vec<Graph> = sources
        .iter()
        .map(|source| {
            let graph = text::parse_graph(source).expect("it parses");
            crate::verify::graph(&graph).expect("it verifies");
            graph
        })
        .collect();
    let graphs: Vec<&Graph> = graphs.iter().collect();
    match check(&graphs, program_of) {
        Ok(()) => Vec::new(),
        Err(found) => found.0.into_iter().map(|diagnostic| diagnostic.message).collect(),
    }
}

const REDUCE: &str = "ranks @m [tp = 2]
func @main(%x: f32[4] {_}) -> (y: f32[4]) {
  %y = all-reduce %x {combine = sum, groups = [[0, 1]]}
  return %y
}";

#[test]
fn ranks_that_run_one_program_meet() {
    assert_eq!(problems(&[REDUCE], &[0, 0]), [""; 0]);
}

#[test]
fn ranks_that_issue_other_collectives_are_named() {
    let other = REDUCE.replace("sum", "max");
    assert_eq!(
        problems(&[REDUCE, &other], &[0, 1]),
        [
            "rank 1 issues all-reduce f32[4] combine = max where rank 0 of the group [0, 1] issues all-reduce f32[4] \
          combine = sum"
        ]
    );
}

#[test]
fn other_orders_and_groups_leave_ranks_waiting() {
    let two = |first: &str, second: &str| {
        format!(
            "ranks @m [tp = 3]
func @main(%x: f32[4] {{_}}) -> (y: f32[4]) {{
  %a = all-reduce %x {{combine = sum, groups = [{first}]}}
  %y = all-reduce %a {{combine = sum, groups = [{second}]}}
  return %y
}}"
        )
    };
    let a = two("[0, 1]", "[0, 2]");
    let b = two("[0, 1]", "[1, 2]");
    let c = two("[1, 2]", "[0, 2]");
    assert_eq!(problems(&[&a, &b, &c], &[0, 1, 2]).len(), 0);
    let stuck = two("[0, 2]", "[0, 1]");
    let found = problems(&[&stuck, &b, &c], &[0, 1, 2]);
    assert!(found[0].starts_with("no rank can go on: rank 0 waits in all-reduce"), "{found:?}");
    let missing =
        REDUCE.replace("%y = all-reduce %x {combine = sum, groups = [[0, 1]]}", "%y = exp %x");
    let found = problems(&[REDUCE, &missing], &[0, 1]);
    assert_eq!(
        found,
        ["no rank can go on: rank 0 waits in all-reduce f32[4] combine = sum; rank 1 is done"]
    );
}

#[test]
fn a_rank_in_no_group_is_named() {
    let source = REDUCE.replace("tp = 2", "tp = 3");
    assert_eq!(
        problems(&[&source], &[0, 0, 0]),
        ["rank 2 issues this all-reduce, but is in none of its groups"]
    );
}

#[test]
fn messages_have_receivers() {
    let send = "ranks @m [pp = 2]
func @main(%x: f32[4] {_}) -> (y: f32[4]) {
  %y = permute %x {pairs = [[0, 1]]}
  return %y
}";
    let nothing = send.replace("permute %x {pairs = [[0, 1]]}", "exp %x");
    assert_eq!(problems(&[send], &[0, 0]), [""; 0]);
    assert_eq!(
        problems(&[send, &nothing], &[0, 1]),
        ["rank 0 sends permute f32[4] to rank 1, which does not wait for it"]
    );
    assert_eq!(
        problems(&[&nothing, send], &[0, 1]),
        ["no rank can go on: rank 0 is done; rank 1 waits in permute f32[4]"]
    );
    let larger = send.replace("f32[4]", "f32[8]");
    assert_eq!(
        problems(&[send, &larger], &[0, 1]),
        ["rank 1 waits for permute f32[8] of rank 0, which sends permute f32[4]"]
    );
}

#[test]
fn ranks_do_not_part_before_they_meet() {
    let source = |groups: &str, sharding: &str| {
        format!(
            "ranks @m [dp = 2, tp = 2]
func @main(%x: f32[4] {{_}}, %go: bool[2] {{{sharding}}}) -> (y: f32[4]) {{
  %all = reduce %go {{combine = and, axes = [0], accumulate = bool}}
  %y = if %all do () {{
    %s = all-reduce %x {{combine = sum, groups = {groups}}}
    yield %s
  }} do () {{
    yield %x
  }}
  return %y
}}"
        )
    };
    let (tp, dp) = ("[[0, 1], [2, 3]]", "[[0, 2], [1, 3]]");
    assert_eq!(problems(&[&source(tp, "_")], &[0; 4]), [""; 0]);
    assert_eq!(problems(&[&source(tp, "dp")], &[0; 4]), [""; 0]);
    assert_eq!(
        problems(&[&source(dp, "dp")], &[0; 4]),
        ["ranks [0, 2] may part at the `if` around this all-reduce: %all may differ along dp"]
    );
    let rank = "ranks @m [tp = 2]
func @main(%x: f32[4] {_}) -> (y: f32[4]) {
  %r = rank
  %y = while %x do (%a: f32[4]) {
    %one: i64[] = constant {value = 1}
    %c = lt %r, %one
    yield %c
  } do (%a: f32[4]) {
    %s = all-reduce %a {combine = sum, groups = [[0, 1]]}
    yield %s
  }
  return %y
}";
    assert_eq!(
        problems(&[rank], &[0, 0]).first().map(String::as_str),
        Some("ranks [0, 1] may part at the `while` around this all-reduce: %c may differ along tp")
    );
}

#[test]
fn exchanges_along_one_axis_leave_the_others_alike() {
    let source = |exchanged: &str, groups: &str| {
        format!(
            "ranks @m [dp = 2, tp = 2]
func @main(%x: f32[4] {{_}}, %flags: bool[4] {{dp}}) -> (y: f32[4]) {{
  %mine = all-to-all %flags {{split = 0, concat = 0, groups = {exchanged}}}
  %all = reduce %mine {{combine = and, axes = [0], accumulate = bool}}
  %y = if %all do () {{
    %s = all-reduce %x {{combine = sum, groups = {groups}}}
    yield %s
  }} do () {{
    yield %x
  }}
  return %y
}}"
        )
    };
    let (tp, dp, crossed) = ("[[0, 1], [2, 3]]", "[[0, 2], [1, 3]]", "[[0, 3], [1, 2]]");
    assert_eq!(problems(&[&source(dp, tp)], &[0; 4]), [""; 0]);
    assert_eq!(problems(&[&source(dp, dp)], &[0; 4]).len(), 1);
    assert_eq!(problems(&[&source(tp, tp)], &[0; 4]).len(), 1);
    assert_eq!(problems(&[&source(crossed, tp)], &[0; 4]).len(), 1);
}
