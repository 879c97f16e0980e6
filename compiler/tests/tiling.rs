//! A schedule never changes what a kernel computes: kernels of random extents under random schedules, evaluated before and
//! after; and schedules of random clauses print and parse back to the same.

use systole_compiler::evaluate::Budget;
use systole_compiler::kernel::{self, Kernel, Role, Schedule, tiling};
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::Class;

/// Numbers that look random, the same ones for a seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 24) as usize % end
    }

    fn choose<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Kernels in which `{name}` is the extent of an axis, and `{a+b-1}` a sum of such.
const KERNELS: &[&str] = &[
    // Products.
    "kernel @dense(%x: f32[k: {k}, m: {m}], %w: f32[k: {k}, n: {n}], %b: f32[n: {n}]) -> (%y: f32[m, n]) {
      %a: f32[k: {k}, m: {m}] = load %x[0, 0]
      %c: f32[k: {k}, n: {n}] = load %w[0, 0]
      %bias: f32[n: {n}] = load %b[0]
      %acc: f32[m: {m}, n: {n}] = contract (fill 0.0), %a, %c over k
      store %y[0, 0] = map %acc, %bias { relu(%0 + %1) }
    }",
    "kernel @two(%x: f32[m: {m}, k: {k}], %w: f32[k: {k}, n: {n}], %v: f32[n: {n}, o: {o}]) -> (%y: f32[m, o]) {
      %a: f32[m: {m}, k: {k}] = load %x[0, 0]
      %c: f32[k: {k}, n: {n}] = load %w[0, 0]
      %h = map (contract (fill 1.0), %a, %c over k) { relu(%0) + 1.0 }
      %d: f32[n: {n}, o: {o}] = load %v[0, 0]
      %r: f32[m: {m}, o: {o}] = contract (fill 0.0), %h, %d over n
      store %y[0, 0] = %r
    }",
    "kernel @int8(%x: i8[m: {m}, k: {k}], %w: i8[k: {k}, n: {n}], %s: f32[n: {n}]) -> (%y: f32[m, n]) {
      %a: i8[m: {m}, k: {k}] = load %x[0, 0]
      %b: i8[k: {k}, n: {n}] = load %w[0, 0]
      %t: f32[n: {n}] = load %s[0]
      %acc: i32[m: {m}, n: {n}] = contract (fill 0), %a, %b over k
      store %y[0, 0] = map %acc, %t { f32(%0) * %1 }
    }",
    "kernel @scaled(%x: i8[m: {m}, k: {g*u}], %s: f32[m: {m}, g: {g}], %w: f32[k: {g*u}, n: {n}]) -> (%y: f32[m, n]) {
      %a: i8[m: {m}, g: {g}, u: {u}] = load %x[m, g*{u} + u]
      %b: f32[g: {g}, u: {u}, n: {n}] = load %w[g*{u} + u, n]
      %t: f32[m: {m}, g: {g}] = load %s[m, g]
      %c = map %a, %t { f32(%0) * %1 }
      %acc: f32[m: {m}, n: {n}] = contract (fill 0.0), %c, %b over g, u
      store %y[0, 0] = %acc
    }",
    // An operand of a product without the axis that is summed, and infinite elements.
    "kernel @lonely(%x: f32[m: {m}, k: {k}], %v: f32[n: {n}]) -> (%y: f32[m, n]) {
      %a: f32[m: {m}, k: {k}] = load %x[0, 0]
      %b: f32[n: {n}] = load %v[0]
      %c = map %b { 1.0 / %0 }
      %acc: f32[m: {m}, n: {n}] = contract (fill 0.0), %a, %c over k
      store %y[0, 0] = %acc
    }",
    // Convolutions and pools.
    "kernel @conv(%x: f32[y: {y}, x: {x}, c: {c}], %w: f32[r: {r}, s: {s}, c: {c}, o: {o}]) -> (%z: f32[h: {h}, v: {v}, o]) {
      %win: f32[h: {h}, v: {v}, r: {r}, s: {s}, c: {c}] = load %x[h*2 + r - 1, v + s - 1, c] pad 0.0
      %f: f32[r: {r}, s: {s}, c: {c}, o: {o}] = load %w[0, 0, 0, 0]
      %acc: f32[h: {h}, v: {v}, o: {o}] = contract (fill 0.0), %win, %f over r, s, c
      store %z[0, 0, 0] = %acc
    }",
    "kernel @pool(%x: f32[y: {y}, x: {x}]) -> (%z: f32[h: {h}, v: {v}]) {
      %win: f32[h: {h}, v: {v}, r: {r}, s: {s}] = load %x[h*2 + r, v + s] pad -inf
      %top = reduce max %win over r, s
      store %z[0, 0] = %top
    }",
    "kernel @halo(%x: f32[y: {h+r}, c: {c}], %w: f32[r: {r}, c: {c}]) -> (%z: f32[h: {h}, c]) {
      %in: f32[y: {h+r}, c: {c}] = load %x[0, 0]
      %win = view %in [h: {h}, r: {r}, c: {c}] at [y = h + r, c]
      %f: f32[r: {r}, c: {c}] = load %w[0, 0]
      %acc: f32[h: {h}, c: {c}] = contract (fill 0.0), %win, %f over r
      store %z[0, 0] = %acc
    }",
    // Rows.
    "kernel @softmax(%x: f32[r: {r}, c: {c}]) -> (%y: f32[r, c], %s: f32[r]) {
      %t: f32[r: {r}, c: {c}] = load %x[0, 0]
      %top = reduce max %t over c
      %e = map %t, %top { exp(%0 - %1) }
      %sum = reduce sum %e over c
      store %y[0, 0] = map %e, %sum { %0 / %1 }
      store %s[0] = %sum
    }",
    "kernel @norm(%x: f32[r: {r}, c: {c}], %g: f32[c: {c}]) -> (%y: f32[r, c], %e: f32[r, c]) {
      %t: f32[r: {r}, c: {c}] = load %x[0, 0]
      %gain: f32[c: {c}] = load %g[0]
      %sum = reduce sum %t over c
      %d: f32[r: {r}, c: {c}] = map %t, %sum { %0 - %1 / {c}.0 }
      %v = reduce sum (map %d { %0 * %0 }) over c
      store %y[0, 0] = map %d, %v, %gain { %0 / sqrt(%1 / {c}.0 + 1.0) * %2 }
      store %e[0, 0] = %d
    }",
    "kernel @extremes(%x: i8[r: {r}, c: {c}]) -> (%a: i8[r], %b: i8[r], %p: i32[c]) {
      %t: i8[r: {r}, c: {c}] = load %x[0, 0]
      %low = reduce min %t over c
      %high = reduce max (map %t { %0 - 100 }) over c
      %all: i32[c: {c}] = reduce sum %t over r
      store %a[0] = %low
      store %b[0] = %high
      store %p[0] = %all
    }",
    "kernel @all(%x: f32[i: {m}, j: {n}]) -> (%y: f32[z: 1]) {
      %t: f32[i: {m}, j: {n}] = load %x[0, 0]
      %start: f32[] = fill 3.0
      %s = reduce sum %start, (map %t { select(index(i) < index(j), %0, %0 + 1.0) }) over i, j
      store %y[0] = %s
    }",
    // Positions that are no plain axes.
    "kernel @concat(%x: f32[i: {m}, j: {n}], %z: f32[k: {k}, j: {n}]) -> (%y: f32[r: {m+k}, j]) {
      %a: f32[i: {m}, j: {n}] = load %x[0, 0]
      %b: f32[k: {k}, j: {n}] = load %z[0, 0]
      store %y[i, j] = %a
      store %y[k + {m}, j] = %b
    }",
    "kernel @alike(%x: f32[i: {m}], %z: f32[i: {k}]) -> (%y: f32[r: {m+k}]) {
      %a: f32[i: {m}] = load %x[0]
      %b: f32[i: {k}] = load %z[0]
      store %y[i] = %a
      store %y[i + {m}] = %b
    }",
    "kernel @heads(%x: f32[s: {m}, d: {g*u}]) -> (%y: f32[d: {g*u}, s: {m}]) {
      %t: f32[s: {m}, g: {g}, u: {u}] = load %x[s, g*{u} + u]
      store %y[g*{u} + u, s] = map %t { %0 * 2.0 }
    }",
    "kernel @reverse(%x: f32[s: {m}, d: {n}]) -> (%y: f32[s, d]) {
      %t: f32[s: {m}, d: {n}] = load %x[{m-1} - s, d]
      store %y[s, {n-1} - d] = %t
    }",
    "kernel @part(%x: f32[i: {m+k}, j: {n}]) -> (%y: f32[j: {n}]) {
      %t: f32[i: {m}, j: {n}] = load %x[i + 1, j] pad 0.0
      store %y[0] = reduce max %t over i
    }",
    // Values as positions, and state.
    "kernel @rows(%table: f32[v: 5, d: {n}], %ids: i64[t: {m}]) -> (%e: f32[d: {n}]) {
      %at: i64[t: {m}] = load %ids[0]
      %rows: f32[t: {m}, d: {n}] = gather %table[%at, 0]
      store %e[0] = reduce sum %rows over t
    }",
    "kernel @scatter(%u: f32[t: {m}, d: {n}], %ids: i64[t: {m}], %y: update f32[v: 5, d: {n}], %x: f32[d: {n}, k: {k}]) {
      %at: i64[t: {m}] = load %ids[0]
      %rows: f32[t: {m}, d: {n}] = load %u[0, 0]
      scatter sum %y[%at, 0] = %rows
    }",
    "kernel @append(%new: f32[t: {m}, d: {n}], %cache: update f32[s: {m+k}, d: {n}], %pos: index[0, {k}]) {
      %t: f32[t: {m}, d: {n}] = load %new[0, 0]
      store %cache[%pos + t, d] = %t
    }",
    "kernel @shift(%c: update f32[s: {m+k}, d: {n}]) {
      %t: f32[s: {m}, d: {n}] = load %c[s, d]
      store %c[s + {k}, d] = %t
    }",
    "kernel @order(%x: f32[r: {r}, c: {c}]) -> (%v: f32[r, c], %p: i64[r]) {
      %t: f32[r: {r}, c: {c}] = load %x[0, 0]
      (%keys, %places) = sort %t over c descending
      %at = arg-reduce max %t over c
      store %v[0, 0] = %keys
      store %p[0] = %at
    }",
];

/// A kernel with extents of 1 to 9 for its axes.
fn kernel(random: &mut Random) -> Kernel {
    let template = random.choose(KERNELS);
    let mut extents = std::collections::BTreeMap::new();
    let mut source = String::new();
    let mut rest = *template;
    while let Some(open) = rest.find('{') {
        source.push_str(&rest[..open]);
        let close = rest[open..].find('}').map(|close| open + close);
        let inside = close.map(|close| &rest[open + 1..close]).unwrap_or_default();
        let is_extent = inside.len() == 1 || inside.len() == 3 && !inside.contains(' ');
        let Some(close) = close.filter(|_| is_extent) else {
            source.push('{');
            rest = &rest[open + 1..];
            continue;
        };
        let mut extent = |name: &str| match name.parse::<usize>() {
            Ok(number) => number,
            Err(_) => *extents.entry(name.to_owned()).or_insert_with(|| 1 + random.below(9)),
        };
        let first = extent(&inside[..1]);
        let value = match inside.get(1..2) {
            Some("+") => first + extent(&inside[2..]),
            Some("-") => first - extent(&inside[2..]),
            Some("*") => first * extent(&inside[2..]),
            _ => first,
        };
        source.push_str(&value.to_string());
        rest = &rest[close + 1..];
    }
    source.push_str(rest);
    let shown = |found| systole_compiler::text::render(&found, "kernel.tir", Some(&source));
    let kernel = kernel::parse(&source).unwrap_or_else(|found| panic!("{}", shown(found)));
    kernel::verify(&kernel).unwrap_or_else(|found| panic!("{}", shown(found)));
    kernel
}

fn schedule(kernel: &Kernel, random: &mut Random) -> Schedule {
    let mut schedule = Schedule::default();
    let is_tiled = |name: &&String| {
        let has = |axis: kernel::Axis| kernel.axis_name(axis) == *name;
        kernel.tiles.iter().any(|(_, tile)| tile.dims.iter().any(|&(axis, _)| has(axis)))
    };
    for name in kernel.axes.iter().filter(is_tiled) {
        if random.below(2) == 0 {
            schedule.tiles.push((name.clone(), 1 + random.below(6)));
        }
        if random.below(3) == 0 {
            let place = random.below(schedule.order.len() + 1);
            schedule.order.insert(place, name.clone());
        }
        if random.below(4) == 0 {
            schedule.parallel.push(name.clone());
        }
        if random.below(6) == 0 {
            schedule.pipeline.push((name.clone(), 1 + random.below(3)));
        }
    }
    if random.below(4) == 0 && !schedule.tiles.is_empty() {
        let operands: Vec<&String> =
            kernel.operands.iter().map(|(_, operand)| &operand.name).collect();
        let operand = (*random.choose(&operands)).clone();
        let to = if random.below(2) == 0 {
            String::new()
        } else {
            random.choose(&schedule.tiles).0.clone()
        };
        schedule.hoist.push((operand, to));
    }
    schedule
}

/// Small whole numbers, so that sums are exact.
fn input(operand: &kernel::Operand, random: &mut Random) -> Tensor {
    let ty = operand.ty();
    let mut numbers: Vec<i64> = (0..ty.count()).map(|_| random.below(9) as i64 - 4).collect();
    let values = match ty.dtype.class() {
        Class::Float => Values::F64(numbers.iter().map(|&number| number as f64).collect()),
        Class::Signed => Values::Int(std::mem::take(&mut numbers)),
        Class::Bool | Class::Unsigned => panic!("no kernel here has {}", ty.dtype),
    };
    Tensor::from_values(ty.dtype, &ty.shape, &values)
}

fn evaluated(kernel: &Kernel, operands: &[Tensor], scalars: &[i64]) -> Vec<Vec<f64>> {
    let mut operands = operands.to_vec();
    kernel::evaluate(kernel, &mut operands, scalars, &Budget::UNLIMITED).expect("it runs");
    let written = kernel.operands_that(Role::writes).into_iter();
    written.map(|id| operands[id.index()].values().to_f64()).collect()
}

/// Whether a schedule fits, and if so, gives the same values.
fn check(seed: u64) -> bool {
    let mut random = Random::new(seed);
    let whole = kernel(&mut random);
    let schedule = schedule(&whole, &mut random);
    let Ok(tiled) = tiling::apply(&whole, &schedule) else { return false };
    let shown = format!("seed {seed}: {schedule}\n{whole}\n{tiled}");
    kernel::verify(&tiled).unwrap_or_else(|found| panic!("{found}\n{shown}"));
    let text = tiled.to_string();
    let again = kernel::parse(&text).unwrap_or_else(|found| panic!("{found}\n{shown}"));
    assert_eq!(again.to_string(), text, "{shown}");
    let operands: Vec<Tensor> =
        whole.operands.iter().map(|(_, operand)| input(operand, &mut random)).collect();
    let scalars: Vec<i64> = whole
        .scalars()
        .iter()
        .map(|&(_, low, high)| low + random.below((high - low + 1) as usize) as i64)
        .collect();
    let wanted = evaluated(&whole, &operands, &scalars);
    for (found, wanted) in evaluated(&tiled, &operands, &scalars).iter().zip(&wanted) {
        for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            let is_close = (found - wanted).abs() <= 1e-5 * (1.0 + wanted.abs());
            let is_same = found == wanted || found.is_nan() && wanted.is_nan();
            assert!(is_same || is_close, "element {at} is {found}, not {wanted}\n{shown}");
        }
    }
    true
}

#[test]
fn schedules_keep_values() {
    let applied = (0..4000).filter(|&seed| check(seed)).count();
    // Others ask for what cannot be: to cut an axis that is sorted, to move a load that is in no loop.
    assert!(applied > 2800, "only {applied} schedules fit");
}

#[test]
fn axes_that_cannot_be_cut_say_why() {
    let source = "kernel @k(%x: f32[i: 6], %c: update f32[s: 8]) -> (%y: f32[i], %p: i64[z: 1]) {
      %t: f32[i: 6] = load %x[0]
      %u: f32[s: 7] = load %c[0]
      store %c[s + 1] = %u
      %at: i64[] = arg-reduce max %t over i
      store %p[0] = %at
      store %y[0] = %t
    }";
    let kernel = kernel::parse(source).expect("it parses");
    kernel::verify(&kernel).expect("it verifies");
    for (text, why) in [
        ("tile i=2", "axis i is searched or sorted as a whole"),
        ("tile j=2", "@k has no axis j"),
        ("tile z=2", "no tile has axis z"),
        ("tile s=2", "%c is read tile by tile, and written"),
        ("tile s=7; hoist %x", "no load of %x is in a loop"),
    ] {
        let schedule = kernel::parse_schedule(text).expect("it parses");
        assert_eq!(tiling::apply(&kernel, &schedule).expect_err(text), why, "{text}");
    }
}

#[test]
fn schedules_print_and_parse_back() {
    const NAMES: &[&str] = &["m", "k2", "tile", "to", "hoist", "order", "a b", "\"", "0", "", "é"];
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let names = |random: &mut Random| -> Vec<String> {
            (0..random.below(4)).map(|_| (*random.choose(NAMES)).to_owned()).collect()
        };
        let sized = |names: Vec<String>, random: &mut Random| {
            names.into_iter().map(|name| (name, 1 + random.below(1 << 20))).collect()
        };
        let (tiles, pipeline) = (names(&mut random), names(&mut random));
        let (order, parallel) = (names(&mut random), names(&mut random));
        let hoisted = names(&mut random);
        let schedule = Schedule {
            tiles: sized(tiles, &mut random),
            order,
            parallel,
            pipeline: sized(pipeline, &mut random),
            hoist: hoisted
                .into_iter()
                .map(|name| (name, (*random.choose(NAMES)).to_owned()))
                .collect(),
        };
        let text = schedule.to_string();
        let again = kernel::parse_schedule(&text).unwrap_or_else(|found| panic!("{text}\n{found}"));
        assert_eq!(again, schedule, "{text}");
    }
}
