//! Small graphs on the host give what the reference gives, tiled and whole, on one thread and on several.

mod common;

use common::check_graph;
use systole_compiler::text;

/// Runs a graph in text on the host in several ways and compares each with the reference.
fn check(source: &str) {
    let graph = text::parse_graph(source)
        .unwrap_or_else(|error| panic!("{}", text::render(&error, "test", Some(source))));
    check_graph(&graph, &[None]);
}

#[test]
fn elementwise_chains() {
    for size in [1, 3, 4, 5, 15, 16, 17, 33, 100] {
        check(&format!(
            "func @main(%x: f32[{size}], %z: f32[{size}]) -> (y: f32[{size}], w: f32[{size}]) {{
              %a = add %x, %z
              %b = mul %a, %x
              %c = tanh %b
              %y = max %c, %z
              %w = exp %a
              return %y, %w }}"
        ));
    }
}

#[test]
fn broadcasts_and_transposes() {
    check(
        "func @main(%x: f32[5, 7], %b: f32[7], %c: f32[5]) -> (y: f32[7, 5], z: f32[5, 7]) {
      %d = broadcast %b {shape = [5, 7], dims = [1]}
      %e = broadcast %c {shape = [5, 7], dims = [0]}
      %f = add %x, %d
      %z = mul %f, %e
      %y = transpose %z {perm = [1, 0]}
      return %y, %z }",
    );
}

#[test]
fn every_type_of_element() {
    for dtype in [
        "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f16", "bf16", "f32", "f64", "i4",
        "u4", "f8e4m3", "f8e5m2", "f4e2m1",
    ] {
        check(&format!(
            "func @main(%x: {dtype}[3, 21], %z: {dtype}[3, 21]) -> (y: {dtype}[3, 21], a: {dtype}[3, 21], b: bool[3, 21], c: {dtype}[3, 21], d: f32[3, 21], e: {dtype}[3, 21]) {{
              %y = add %x, %z
              %m = mul %x, %z
              %a = max %m, %x
              %b = lt %x, %z
              %c = select %b, %x, %z
              %d = convert %x {{dtype = f32}}
              %s = sub %x, %z
              %e = neg %s
              return %y, %a, %b, %c, %d, %e }}"
        ));
    }
}

#[test]
fn integer_functions_never_trap() {
    for dtype in ["i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64"] {
        check(&format!(
            "func @main(%x: {dtype}[40], %z: {dtype}[40]) -> (a: {dtype}[40], b: {dtype}[40], c: {dtype}[40], d: {dtype}[40], e: {dtype}[40], f: {dtype}[40], g: {dtype}[40]) {{
              %a = div %x, %z
              %b = rem %x, %z
              %c = mod %x, %z
              %d = shl %x, %z
              %e = shr %x, %z
              %f = pow %x, %z
              %g = sign %x
              return %a, %b, %c, %d, %e, %f, %g }}"
        ));
    }
}

#[test]
fn reductions_along_every_axis() {
    for (axes, shape) in [
        ("[0]", "[9, 37]"),
        ("[1]", "[5, 37]"),
        ("[2]", "[5, 9]"),
        ("[0, 2]", "[9]"),
        ("[0, 1, 2]", "[]"),
    ] {
        for combine in ["sum", "max", "min", "product"] {
            check(&format!(
                "func @main(%x: f32[5, 9, 37]) -> (y: f32{shape}) {{
                  %y: f32{shape} = reduce %x {{combine = {combine}, axes = {axes}, accumulate = f32}}
                  return %y }}"
            ));
        }
    }
}

#[test]
fn softmax_and_norms() {
    check(
        "func @main(%x: f32[4, 6, 33]) -> (y: f32[4, 6, 33]) { %y = softmax %x {axis = 2} return %y }",
    );
    check(
        "func @main(%x: f32[4, 6, 33]) -> (y: f32[4, 6, 33]) { %y = softmax %x {axis = 1} return %y }",
    );
    check(
        "func @main(%x: f32[64, 100]) -> (y: f32[64, 100]) { %y = softmax %x {axis = 1} return %y }",
    );
}

#[test]
fn dense_layers() {
    for (m, k, n) in [(1, 32, 48), (16, 32, 48), (37, 70, 65), (5, 3, 2), (128, 64, 96)] {
        check(&format!(
            "func @main(%x: f32[{m}, {k}], %w: f32[{k}, {n}], %b: f32[{n}]) -> (y: f32[{m}, {n}]) {{
              %a = contract %x, %w {{batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}}
              %c = broadcast %b {{shape = [{m}, {n}], dims = [1]}}
              %d = add %a, %c
              %y = tanh %d
              return %y }}"
        ));
    }
}

#[test]
fn attention_heads() {
    check("func @main(%x: f32[2, 8, 12], %k: f32[2, 8, 12]) -> (y: f32[2, 8, 24]) {
      %a = reshape %x {shape = [2, 8, 3, 4]}
      %b = transpose %a {perm = [0, 2, 1, 3]}
      %c = reshape %k {shape = [2, 8, 3, 4]}
      %d = transpose %c {perm = [0, 2, 3, 1]}
      %e = contract %b, %d {batch = [[0, 0], [1, 1]], over = [[3, 2]], accumulate = f32, dtype = f32}
      %f = transpose %e {perm = [0, 2, 1, 3]}
      %y = reshape %f {shape = [2, 8, 24]}
      return %y }");
}

#[test]
fn convolutions() {
    for (groups, o, c) in [(1, 6, 4), (2, 6, 4), (4, 4, 4), (4, 8, 4), (1, 32, 16), (32, 32, 32)] {
        check(&format!(
            "func @main(%x: f32[2, {c}, 9, 8], %w: f32[{o}, {}, 3, 3], %b: f32[{o}]) -> (y: f32[2, {o}, 5, 8]) {{
              %a = convolve %x, %w {{strides = [2, 1], dilations = [1, 1], low = [1, 1], high = [1, 1], groups = {groups}, accumulate = f32, dtype = f32}}
              %c = broadcast %b {{shape = [2, {o}, 5, 8], dims = [1]}}
              %y = add %a, %c
              return %y }}",
            c / groups
        ));
    }
}

#[test]
fn pools_slices_pads_concats_gathers() {
    check("func @main(%x: f32[1, 3, 8, 8], %i: i64[5]) -> (y: f32[1, 3, 4, 4], z: f32[1, 6, 8, 8], g: f32[1, 3, 5, 8], p: f32[1, 3, 12, 9]) {
      %y = window-reduce %x {combine = max, window = [1, 1, 3, 3], strides = [1, 1, 2, 2], dilations = [1, 1, 1, 1], low = [0, 0, 1, 1], high = [0, 0, 0, 0], accumulate = f32}
      %a = exp %x
      %z = concat %x, %a {axis = 1}
      %g = gather %x, %i {axis = 2}
      %w: f32[] = constant {value = 1.5}
      %p = pad %x, %w {low = [0, 0, 1, 1], high = [0, 0, 3, 0], interior = [0, 0, 0, 0]}
      return %y, %z, %g, %p }");
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
