//! Kernels in text: what they compute, against plain formulas; and for each rule of the verifier a kernel that breaks it.

use systole_compiler::evaluate::Budget;
use systole_compiler::kernel::{self, Kernel};
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::Class;

fn parsed(source: &str) -> Kernel {
    let shown = |found| systole_compiler::text::render(&found, "kernel.tir", Some(source));
    let kernel = kernel::parse(source).map_err(shown).unwrap_or_else(|shown| panic!("{shown}"));
    let text = kernel.to_string();
    let again = kernel::parse(&text).unwrap_or_else(|found| panic!("{text}\n{found}"));
    assert_eq!(again, kernel, "{text}");
    kernel
}

/// Small whole numbers, so that sums are exact; the same ones for a seed.
fn input(operand: &kernel::Operand, seed: usize) -> Tensor {
    let ty = operand.ty();
    let number = |index: usize| ((index * 7 + seed * 5) % 9) as i64;
    let values = match ty.dtype.class() {
        Class::Float => {
            Values::F64((0..ty.count()).map(|index| (number(index) - 4) as f64).collect())
        }
        Class::Bool => Values::Bool((0..ty.count()).map(|index| number(index) > 4).collect()),
        Class::Signed => Values::Int((0..ty.count()).map(number).collect()),
        Class::Unsigned => {
            Values::Uint((0..ty.count()).map(|index| number(index).unsigned_abs()).collect())
        }
    };
    Tensor::from_values(ty.dtype, &ty.shape, &values)
}

/// Runs a kernel on [`input`]s, and gives all operands before and after.
fn run(source: &str, scalars: &[i64]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let kernel = parsed(source);
    kernel::verify(&kernel).unwrap_or_else(|found| panic!("{kernel}\n{found}"));
    let operands = kernel.operands.iter().enumerate();
    let mut tensors: Vec<Tensor> =
        operands.map(|(seed, (_, operand))| input(operand, seed)).collect();
    let numbers = |tensors: &[Tensor]| tensors.iter().map(|it| it.values().to_f64()).collect();
    let before = numbers(&tensors);
    kernel::evaluate(&kernel, &mut tensors, scalars, &Budget::UNLIMITED).expect("it runs");
    (before, numbers(&tensors))
}

fn assert_close(found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() <= 1e-5 * (1.0 + wanted.abs()), "{found} is not {wanted}");
    }
}

#[test]
fn a_tiled_product_carries_its_sum() {
    let (before, after) = run(
        "kernel @dense(%x: f32[k: 6, m: 4], %w: f32[k: 6, n: 4], %b: f32[n: 4]) -> (%y: f32[m, n]) {
          for %n in 0..4 step 2 parallel {
            for %m in 0..4 step 2 parallel {
              %acc: near f32[m: 2, n: 2] = for %k in 0..6 step 3 {reduce, pipelined(2)} carry %sum (fill 0.0) {
                %a: near f32[k: 3, m: 2] = load %x[%k, %m]
                %c: near f32[k: 3, n: 2] = load %w[%k, %n]
                yield contract %sum, %a, %c over k
              }
              %bias: near f32[n: 2] = load %b[%n]
              store %y[%m, %n] = map %acc, %bias { relu(%0 + %1) }
            }
          }
        }",
        &[],
    );
    let (x, w, b) = (&before[0], &before[1], &before[2]);
    let product = |m: usize, n: usize| (0..6).map(|k| x[k * 4 + m] * w[k * 4 + n]).sum::<f64>();
    let wanted: Vec<f64> =
        (0..16).map(|at| (product(at / 4, at % 4) + b[at % 4]).max(0.0)).collect();
    assert_close(&after[3], &wanted);
}

#[test]
fn a_convolution_is_a_contraction_over_views() {
    let (before, after) = run(
        "kernel @conv(%x: f32[y: 6, x: 6, c: 2], %w: f32[r: 3, s: 3, c: 2, o: 3]) -> (%z: f32[h: 3, v: 3, o]) {
          %f: near f32[r: 3, s: 3, c: 2, o: 3] = load %w[0, 0, 0, 0]
          for %h in 0..3 step 2 parallel {
            %in: near f32[y: 5, x: 7, c: 2] = load %x[%h*2 - 1, -1, 0] pad 0.0
            %win = view %in [h: 2, v: 3, r: 3, s: 3, c: 2] at [y = h*2 + r, x = v*2 + s, c]
            %acc: near f32[h: 2, v: 3, o: 3] = contract (fill 0.0), %win, %f over r, s, c
            store %z[%h, 0, 0] = %acc
          }
        }",
        &[],
    );
    let mut wanted = vec![0.0; 27];
    for (at, wanted) in wanted.iter_mut().enumerate() {
        let (h, v, o) = (at / 9, at / 3 % 3, at % 3);
        for tap in 0..18 {
            let (r, s, c) = (tap / 6, tap / 2 % 3, tap % 2);
            let (y, x) = (h * 2 + r, v * 2 + s);
            if (1..7).contains(&y) && (1..7).contains(&x) {
                *wanted += before[0][((y - 1) * 6 + x - 1) * 2 + c] * before[1][tap * 3 + o];
            }
        }
    }
    assert_close(&after[2], &wanted);
}

#[test]
fn attention_sees_only_the_keys_there_are() {
    for len in [1, 3, 4, 7] {
        let (before, after) = run(
            "kernel @attention(%q: f32[i: 4, d: 2], %k: f32[j: 7, d: 2], %v: f32[j: 7, e: 3], %len: index[1, 7]) -> (%y: f32[i, e]) {
              for %i in 0..4 step 2 parallel {
                %qt: near f32[i: 2, d: 2] = load %q[%i, 0]
                (%top, %sum, %o) = for %j in 0..%len step 3 reduce carry %t (fill LOWEST [i]), %s (fill 0.0 [i]), %a (fill 0.0 [i, e]) {
                  %kt = load %k[%j, 0] pad 0.0
                  %vt = load %v[%j, 0] pad 0.0
                  %p = map (contract (fill 0.0), %qt, %kt over d) { select(index(j) + %j < %len, %0 * 0.125, LOWEST) }
                  %t2 = reduce max %t, %p over j
                  %w = map %p, %t2 { exp(%0 - %1) }
                  %fix = map %t, %t2 { exp(%0 - %1) }
                  %s2 = reduce sum (map %s, %fix { %0 * %1 }), %w over j
                  yield %t2, %s2, contract (map %a, %fix { %0 * %1 }), %w, %vt over j
                }
                store %y[%i, 0] = map %o, %sum { %0 / %1 }
              }
            }",
            &[len],
        );
        let (q, k, v) = (&before[0], &before[1], &before[2]);
        let mut wanted = Vec::new();
        for i in 0..4 {
            let score =
                |j: usize| ((0..2).map(|d| q[i * 2 + d] * k[j * 2 + d]).sum::<f64>() / 8.0).exp();
            let total: f64 = (0..len as usize).map(score).sum();
            for e in 0..3 {
                let sum: f64 = (0..len as usize).map(|j| score(j) * v[j * 3 + e]).sum();
                wanted.push(sum / total);
            }
        }
        assert_close(&after[3], &wanted);
    }
}

#[test]
fn a_sum_of_everything_is_combined_in_a_tree() {
    let (before, after) = run(
        "kernel @sum(%x: f32[i: 20]) -> (%y: f32[z: 1]) {
          %all: near f32[] = for %i in 0..20 step 3 {reduce, parallel} carry %s (fill 10.0) {
            %t: near f32[i: 3] = load %x[%i] pad 0.0
            yield reduce sum %s, %t over i
          }
          store %y[0] = %all
        }",
        &[],
    );
    assert_close(&after[1], &[10.0 + before[0].iter().sum::<f64>()]);
}

#[test]
fn rows_are_gathered_and_added_at_positions_that_values_give() {
    let (before, after) = run(
        "kernel @rows(%table: f32[v: 5, d: 2], %ids: i64[t: 6], %y: update f32[v: 5, d: 2]) -> (%e: f32[t: 6, d: 2]) {
          %at: i64[t: 6] = load %ids[0]
          %rows: f32[t: 6, d: 2] = gather %table[%at, 0]
          store %e[0, 0] = %rows
          scatter sum %y[%at, 0] = %rows
        }",
        &[],
    );
    let mut sums = before[2].clone();
    let mut rows = Vec::new();
    for &id in &before[1] {
        for d in 0..2 {
            // A gather clamps; a scatter ignores what lies outside.
            let value = before[0][(id as usize).min(4) * 2 + d];
            rows.push(value);
            if id < 5.0 {
                sums[id as usize * 2 + d] += value;
            }
        }
    }
    assert_close(&after[3], &rows);
    assert_close(&after[2], &sums);
}

#[test]
fn a_cache_is_appended_to_where_a_scalar_says() {
    let (before, after) = run(
        "kernel @append(%new: f32[t: 2, d: 3], %cache: update f32[s: 8, d: 3], %pos: index[0, 6]) {
          %t: f32[t: 2, d: 3] = load %new[0, 0]
          store %cache[%pos + t, 0] = %t
        }",
        &[5],
    );
    let mut wanted = before[1].clone();
    wanted[15..21].copy_from_slice(&before[0]);
    assert_close(&after[1], &wanted);
}

#[test]
fn a_product_of_integers_is_scaled_by_channel() {
    let (before, after) = run(
        "kernel @int8(%x: i8[m: 3, k: 4], %w: i8[k: 4, n: 2], %scale: f32[n: 2]) -> (%y: f32[m, n]) {
          %a: i8[m: 3, k: 4] = load %x[0, 0]
          %b: i8[k: 4, n: 2] = load %w[0, 0]
          %s: f32[n: 2] = load %scale[0]
          %acc: i32[m: 3, n: 2] = contract (fill 0), %a, %b over k
          store %y[0, 0] = map %acc, %s { f32(%0) * %1 }
        }",
        &[],
    );
    let product = |m: usize, n: usize| {
        (0..4).map(|k| before[0][m * 4 + k] * before[1][k * 2 + n]).sum::<f64>()
    };
    let wanted: Vec<f64> = (0..6).map(|at| product(at / 2, at % 2) * before[2][at % 2]).collect();
    assert_close(&after[3], &wanted);
}

#[test]
fn a_recurrence_is_one_sequential_loop_with_its_weights_outside() {
    let (before, after) = run(
        "kernel @rnn(%x: f32[t: 5, i: 2], %w: f32[i: 2, h: 3], %u: f32[g: 3, h: 3]) -> (%y: f32[t: 5, h: 3]) {
          %wt: near f32[i: 2, h: 3] = load %w[0, 0]
          %ut: near f32[g: 3, h: 3] = load %u[0, 0]
          %last: near f32[h: 3] = for %t in 0..5 carry %state (fill 0.0) {
            %now: near f32[i: 2] = load %x[%t, 0]
            %back: near f32[g: 3] = view %state [g: 3] at [h = g]
            %next = map (contract (contract (fill 0.0), %now, %wt over i), %back, %ut over g) { tanh(%0 * 0.0625) }
            store %y[%t, 0] = %next
            yield %next
          }
        }",
        &[],
    );
    let mut state = [0.0; 3];
    let mut wanted = Vec::new();
    for t in 0..5 {
        let next = |h: usize| {
            let from_input: f64 = (0..2).map(|i| before[0][t * 2 + i] * before[1][i * 3 + h]).sum();
            let from_state: f64 = (0..3).map(|g| state[g] * before[2][g * 3 + h]).sum();
            ((from_input + from_state) / 16.0).tanh()
        };
        state = [next(0), next(1), next(2)];
        wanted.extend(state);
    }
    assert_close(&after[3], &wanted);
}

/// A kernel with this body breaks that rule, and no other.
fn check_rule(rule: usize, body: &str) {
    let kernel = parsed(&format!(
        "kernel @wrong(%x: f32[i: 8, j: 4], %p: i64[i: 8], %n: index[0, 7]) -> (%y: f32[i, j]) {{ {body} }}"
    ));
    let found = kernel::verify(&kernel).expect_err(body);
    for diagnostic in &found.0 {
        assert!(diagnostic.message.starts_with(&format!("rule {rule}: ")), "{body}\n{found}");
    }
}

#[test]
fn every_rule_that_text_can_break_is_held() {
    for (rule, body) in [
        (3, "%t: f32[i: 8] = load %x[i + 2199023255552, 0] pad 0.0"),
        (3, "for %i in 0..8 step 0 { }"),
        (
            4,
            "%a: f32[i: 8] = load %x[0, 0] %b: f32[i: 4] = load %x[0, 0] %c: f32[i: 8] = map %a, %b { %0 + %1 }",
        ),
        (5, "%a: f32[i: 8] = load %x[0, 0] %b: f32[i: 8] = reduce sum %a over i"),
        (5, "%a: f32[i: 8] = load %x[0, 0] %b: f32[] = map %a { exp(%0) }"),
        (6, "%a: f16[i: 8] = load %x[0, 0]"),
        (6, "%a: f32[i: 8] = load %x[0, 0] %b: f32[i: 8] = gather %x[%a, 0]"),
        (7, "%a: f32[i: 8] = load %x[0, 0] %b: f32[i: 8] = map %a { %0 + f32(index(k)) }"),
        (9, "%t: f32[i: 9] = load %x[0, 0]"),
        (9, "%t: f32[i: 2] = load %x[%n, 0]"),
        (10, "%t: f32[i: 8] = load %y[0, 0]"),
        (10, "%t: f32[i: 8] = load %x[0, 0] store %x[0, 0] = %t"),
        (10, "%q: i64[i: 8] = load %p[0] %t: f32[i: 8] = load %x[0, 0] scatter sum %y[%q, 0] = %t"),
        (11, "%t: f32[i: 8, j: 4] = load %x[0, 0] store %y[i + j, 0*j] = %t"),
        (12, "%t: f32[] = fill 0.0 %r: f32[] = for %i in 0..8 parallel carry %s = %t { yield %s }"),
        (
            12,
            "%t: f32[] = fill 0.0 %r: f32[] = for %i in 0..8 carry %s = %t { %w: f64[] = fill 0.0 yield %w }",
        ),
        (
            12,
            "%t: f32[] = fill 1.0 %r: f32[] = for %i in 0..8 {reduce, parallel} carry %s = %t { yield map %s { exp(%0) } }",
        ),
        (
            13,
            "for %i in 0..8 step 2 parallel { %t: f32[i: 3] = load %x[%i, 0] pad 0.0 store %y[%i, 0] = %t }",
        ),
    ] {
        check_rule(rule, body);
    }
    let range = parsed("kernel @wrong(%n: index[3, 2]) { }");
    let found = kernel::verify(&range).expect_err("the range is empty");
    assert!(found.0[0].message.starts_with("rule 14: "), "{found}");
}
