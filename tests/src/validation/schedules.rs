//! The published schedules, written as programs: each instruction and each transfer that the published code has.

use super::build::{
    Builder, after, apply, index, load, near, pair, product, repeat, run, store, sums, turn, value,
    when,
};
use systole_compiler::types::DType;
use systole_systolic::isa::{Alu, Function, Op};
use systole_systolic::program::{Engine, Index, Item, Program, Semaphore, Test, Var};

const P: i64 = 128;
const TILE: i64 = 512;
/// Bytes of a PSUM bank in each partition.
const BANK: i64 = 2048;

/// The sizes of a product: `[k, m]` by `[k, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The element type of operands and result.
    pub dtype: DType,
    /// Columns of the stationary side.
    pub m: i64,
    /// The summed extent.
    pub k: i64,
    /// Columns of the moving side.
    pub n: i64,
}

impl Sizes {
    fn bytes(&self) -> i64 {
        self.dtype.bytes() as i64
    }
}

/// The parts of every product: tensors, variables, and the way of the sums from PSUM to HBM.
struct Parts {
    builder: Builder,
    sizes: Sizes,
    lhs: u16,
    rhs: u16,
    out: u16,
    m: Var,
    n: Var,
    k: Var,
    psum_full: Semaphore,
    psum_free: Semaphore,
    out_full: Semaphore,
    out_free: Semaphore,
    out_at: i64,
}

/// Banks and result buffers that take turns.
const TURNS: u8 = 4;

impl Parts {
    fn new(name: &str, sizes: Sizes) -> Parts {
        let mut builder = Builder::new(name);
        let lhs = builder.input("lhsT", sizes.dtype, sizes.k * sizes.m);
        let rhs = builder.input("rhs", sizes.dtype, sizes.k * sizes.n);
        let out = builder.output("result", sizes.dtype, sizes.m * sizes.n);
        let (m, n, k) = (builder.var("m"), builder.var("n"), builder.var("k"));
        let psum_full = builder.semaphore("psum_full", 0);
        let psum_free = builder.semaphore("psum_free", u16::from(TURNS));
        let out_full = builder.semaphore("out_full", 0);
        let out_free = builder.semaphore("out_free", u16::from(TURNS));
        let out_at = builder.sbuf(i64::from(TURNS) * TILE * sizes.bytes());
        builder.banks(TURNS);
        Parts {
            builder,
            sizes,
            lhs,
            rhs,
            out,
            m,
            n,
            k,
            psum_full,
            psum_free,
            out_full,
            out_free,
            out_at,
        }
    }

    /// Which bank has its turn, by the variable that counts result tiles.
    fn bank(&self, by: Var) -> Index {
        index(0, &[(turn(by, TURNS), BANK)])
    }

    fn out_buffer(&self, by: Var) -> Index {
        index(self.out_at, &[(turn(by, TURNS), TILE * self.sizes.bytes())])
    }

    /// VectorE takes a sum from PSUM to a result buffer.
    fn drain(&self, by: Var) -> Item {
        let input = sums(128, self.bank(by), 512);
        let out = near(self.sizes.dtype, 128, self.out_buffer(by), 512);
        let waits = [self.psum_full, self.out_free];
        run(Op::Copy { input, out }, &waits, &[self.psum_free, self.out_full])
    }

    /// A result tile goes to HBM.
    fn store(&self, at: Index, by: Var) -> Item {
        let op =
            store(self.sizes.dtype, (self.out, at, self.sizes.n), (128, 512), self.out_buffer(by));
        run(op, &[self.out_full], &[self.out_free])
    }

    fn lhs_tile(&self, k: &Index, m: &Index, to: Index) -> Op {
        let from = Index::constant(0).plus(k, P * self.sizes.m).plus(m, P);
        load(self.sizes.dtype, (self.lhs, from, self.sizes.m), (128, 128), to)
    }

    fn rhs_tile(&self, k: &Index, n: &Index, to: Index) -> Op {
        let from = Index::constant(0).plus(k, P * self.sizes.n).plus(n, TILE);
        load(self.sizes.dtype, (self.rhs, from, self.sizes.n), (128, 512), to)
    }

    /// One product of a sum over `k`: `stationary` and `moving` are places in SBUF.
    fn step(&self, stationary: Index, moving: Index, bank: Index, begins: bool) -> Op {
        let dtype = self.sizes.dtype;
        let (stationary, moving) =
            (near(dtype, 128, stationary, 128), near(dtype, 128, moving, 512));
        product(stationary, moving, sums(128, bank, 512), begins)
    }

    /// A sum over `k`: its first product begins it, its last one says that it is complete. `make` gives a product and what
    /// it waits for and signals, for the variable or for the last number.
    fn sum(
        &self,
        count: i64,
        free: &[Semaphore],
        full: &[Semaphore],
        make: impl Fn(&Index, bool) -> (Op, Vec<Semaphore>, Vec<Semaphore>),
    ) -> Vec<Item> {
        let k = index(0, &[(value(self.k), 1)]);
        let (first, mut waits, signals) = make(&k, true);
        waits.extend(free);
        let first = when(run(first, &waits, &signals), k.clone(), Test::Zero);
        let (next, waits, signals) = make(&k, false);
        let next = when(run(next, &waits, &signals), k, Test::NonZero);
        let (last, waits, mut signals) = make(&Index::constant(count - 1), false);
        signals.extend(full);
        vec![repeat(self.k, count - 1, vec![first, next]), run(last, &waits, &signals)]
    }
}

/// A loop over `k` whose last round stands by itself, as in [`Parts::sum`].
fn over(k: Var, count: i64, make: impl Fn(&Index) -> Vec<Item>) -> Vec<Item> {
    let mut items = vec![repeat(k, count - 1, make(&index(0, &[(value(k), 1)])))];
    items.extend(make(&Index::constant(count - 1)));
    items
}

/// Which of `turns` buffers round `at` of the loop over `var` has.
fn buffer(var: Var, at: &Index, turns: u8, start: i64, bytes: i64) -> Index {
    if at.terms.is_empty() {
        return Index::constant(start + at.constant.rem_euclid(i64::from(turns)) * bytes);
    }
    index(start, &[(turn(var, turns), bytes)])
}

/// Each product loads both its tiles.
pub fn tiled(sizes: Sizes) -> Program {
    let mut parts = Parts::new("matmul_tiled", sizes);
    let (m, n, k) = (parts.m, parts.n, parts.k);
    let depth = 4;
    let bytes = sizes.bytes();
    let lhs_at = parts.builder.sbuf(i64::from(depth) * P * bytes);
    let rhs_at = parts.builder.sbuf(i64::from(depth) * TILE * bytes);
    let lhs_full = parts.builder.semaphore("lhs_full", 0);
    let lhs_free = parts.builder.semaphore("lhs_free", u16::from(depth));
    let rhs_full = parts.builder.semaphore("rhs_full", 0);
    let rhs_free = parts.builder.semaphore("rhs_free", u16::from(depth));
    let (row, column) = (index(0, &[(value(m), 1)]), index(0, &[(value(n), 1)]));
    let lhs_buffer = |at: &Index| buffer(k, at, depth, lhs_at, P * bytes);
    let rhs_buffer = |at: &Index| buffer(k, at, depth, rhs_at, TILE * bytes);
    let loads = over(k, sizes.k / P, |at| {
        vec![
            run(parts.lhs_tile(at, &row, lhs_buffer(at)), &[lhs_free], &[lhs_full]),
            run(parts.rhs_tile(at, &column, rhs_buffer(at)), &[rhs_free], &[rhs_full]),
        ]
    });
    let products = parts.sum(sizes.k / P, &[parts.psum_free], &[parts.psum_full], |at, begins| {
        let op = parts.step(lhs_buffer(at), rhs_buffer(at), parts.bank(n), begins);
        (op, vec![lhs_full, rhs_full], vec![lhs_free, rhs_free])
    });
    let stores = vec![parts.store(index(0, &[(value(m), P * sizes.n), (value(n), TILE)]), n)];
    let drains = vec![parts.drain(n)];
    let tiles = |body| vec![repeat(m, sizes.m / P, vec![repeat(n, sizes.n / TILE, body)])];
    parts.builder.stream(Engine::Sync, tiles(loads));
    parts.builder.stream(Engine::Tensor, tiles(products));
    parts.builder.stream(Engine::Vector, tiles(drains));
    parts.builder.stream(Engine::Scalar, tiles(stores));
    parts.builder.program("")
}

/// The left tiles of a row of results are loaded once; those of the next row while this one is computed.
pub fn hoisted(sizes: Sizes) -> Program {
    let mut parts = Parts::new("matmul_hoisted", sizes);
    let (m, n, k) = (parts.m, parts.n, parts.k);
    let (rows, columns, depth) = (sizes.m / P, sizes.n / TILE, sizes.k / P);
    let bytes = sizes.bytes();
    let turns = 4;
    let row_bytes = depth * P * bytes;
    let lhs_at = parts.builder.sbuf(2 * row_bytes);
    let rhs_at = parts.builder.sbuf(i64::from(turns) * TILE * bytes);
    let lhs_full = parts.builder.semaphore("lhs_full", 0);
    let lhs_free = parts.builder.semaphore("lhs_free", 2);
    let rhs_full = parts.builder.semaphore("rhs_full", 0);
    let rhs_free = parts.builder.semaphore("rhs_free", u16::from(turns));
    let column = index(0, &[(value(n), 1)]);
    let each_k = index(0, &[(value(k), 1)]);
    let lhs_buffer = |at: &Index| index(lhs_at, &[(turn(m, 2), row_bytes)]).plus(at, P * bytes);
    let rhs_buffer = |at: &Index| buffer(k, at, turns, rhs_at, TILE * bytes);
    // The row after this one has the other buffer.
    let other = index(lhs_at + row_bytes, &[(turn(m, 2), -row_bytes)]).plus(&each_k, P * bytes);
    let first = index(lhs_at, &[(value(k), P * bytes)]);
    let row_loads = |row: Index, to: Index| {
        let begin = run(Op::Nop, &[lhs_free], &[]);
        let tile = run(parts.lhs_tile(&each_k, &row, to), &[], &[lhs_full]);
        vec![begin, repeat(k, depth, vec![tile])]
    };
    let store = |row: i64, terms: &[(_, i64)]| {
        let mut all = vec![(value(n), TILE)];
        all.extend_from_slice(terms);
        parts.store(index(row * P * sizes.n, &all), n)
    };
    let mut ahead = row_loads(Index::constant(0), first);
    let mut round = row_loads(index(1, &[(value(m), 1)]), other);
    round.push(repeat(n, columns, vec![store(0, &[(value(m), P * sizes.n)])]));
    ahead.push(repeat(m, rows - 1, round));
    ahead.push(repeat(n, columns, vec![store(rows - 1, &[])]));
    let loads = over(k, depth, |at| {
        vec![run(parts.rhs_tile(at, &column, rhs_buffer(at)), &[rhs_free], &[rhs_full])]
    });
    let products = parts.sum(depth, &[parts.psum_free], &[parts.psum_full], |at, begins| {
        let op = parts.step(lhs_buffer(at), rhs_buffer(at), parts.bank(n), begins);
        (op, vec![rhs_full], vec![rhs_free])
    });
    let mut row = vec![repeat(k, depth, vec![run(Op::Nop, &[lhs_full], &[])])];
    row.push(repeat(n, columns, products));
    row.push(after(run(Op::Nop, &[], &[lhs_free])));
    let drains = vec![parts.drain(n)];
    let tiles = |body| vec![repeat(m, rows, vec![repeat(n, columns, body)])];
    parts.builder.stream(Engine::Sync, tiles(loads));
    parts.builder.stream(Engine::Tensor, vec![repeat(m, rows, row)]);
    parts.builder.stream(Engine::Vector, tiles(drains));
    parts.builder.stream(Engine::Scalar, ahead);
    parts.builder.program("")
}

/// Blocks of `2 × 2` result tiles share their operands, which lie in SBUF over the whole sum.
pub fn blocked(sizes: Sizes) -> Program {
    let mut parts = Parts::new("matmul_blocked", sizes);
    let (m, n, k) = (parts.m, parts.n, parts.k);
    let b = parts.builder.var("b");
    let (rows, columns, depth) = (sizes.m / (2 * P), sizes.n / (2 * TILE), sizes.k / P);
    let bytes = sizes.bytes();
    let (lhs_bytes, rhs_bytes) = (depth * P * bytes, depth * TILE * bytes);
    let lhs_at = parts.builder.sbuf(2 * lhs_bytes);
    let rhs_at = parts.builder.sbuf(2 * rhs_bytes);
    let lhs_full = parts.builder.semaphore("lhs_full", 0);
    let lhs_free = parts.builder.semaphore("lhs_free", 1);
    let rhs_full = parts.builder.semaphore("rhs_full", 0);
    let rhs_free = parts.builder.semaphore("rhs_free", (2 * depth) as u16);
    let rhs_buffer = |at: &Index| index(rhs_at, &[(value(b), rhs_bytes)]).plus(at, TILE * bytes);
    let each_k = index(0, &[(value(k), 1)]);
    let row = index(0, &[(value(m), 2), (value(b), 1)]);
    let column = index(0, &[(value(n), 2), (value(b), 1)]);
    let lhs_to = index(lhs_at, &[(value(b), lhs_bytes), (value(k), P * bytes)]);
    let lhs_tile = run(parts.lhs_tile(&each_k, &row, lhs_to), &[], &[lhs_full]);
    // Both blocks wait for the engine of the products to be through with the ones before.
    let lhs_loads =
        vec![run(Op::Nop, &[lhs_free], &[]), repeat(b, 2, vec![repeat(k, depth, vec![lhs_tile])])];
    let rhs_loads = over(k, depth, |at| {
        vec![run(parts.rhs_tile(at, &column, rhs_buffer(at)), &[rhs_free], &[rhs_full])]
    });
    let half = |half: i64| {
        let (waits, signals) =
            if half == 0 { (vec![rhs_full], vec![]) } else { (vec![], vec![rhs_free]) };
        parts.sum(depth, &[parts.psum_free], &[parts.psum_full], |at, begins| {
            let stationary = Index::constant(lhs_at + half * lhs_bytes).plus(at, P * bytes);
            let op = parts.step(
                stationary,
                rhs_buffer(at),
                index(half * 2 * BANK, &[(value(b), BANK)]),
                begins,
            );
            (op, waits.clone(), signals.clone())
        })
    };
    let block = vec![repeat(b, 2, half(0)), repeat(b, 2, half(1))];
    let row_of_blocks = vec![
        repeat(b, 2, vec![repeat(k, depth, vec![run(Op::Nop, &[lhs_full], &[])])]),
        repeat(n, columns, block),
        after(run(Op::Nop, &[], &[lhs_free])),
    ];
    let drain = |half: i64| {
        let input = sums(128, index(half * 2 * BANK, &[(value(b), BANK)]), 512);
        let at = index(parts.out_at + half * 2 * TILE * bytes, &[(value(b), TILE * bytes)]);
        let waits = [parts.psum_full, parts.out_free];
        let op = Op::Copy { input, out: near(sizes.dtype, 128, at, 512) };
        repeat(b, 2, vec![run(op, &waits, &[parts.psum_free, parts.out_full])])
    };
    let store_half = |half: i64| {
        let at = index(
            half * P * sizes.n,
            &[(value(m), 2 * P * sizes.n), (value(n), 2 * TILE), (value(b), TILE)],
        );
        let from = index(parts.out_at + half * 2 * TILE * bytes, &[(value(b), TILE * bytes)]);
        let op = store(sizes.dtype, (parts.out, at, sizes.n), (128, 512), from);
        repeat(b, 2, vec![run(op, &[parts.out_full], &[parts.out_free])])
    };
    let (drains, stores) = (vec![drain(0), drain(1)], vec![store_half(0), store_half(1)]);
    let blocks = |body| vec![repeat(m, rows, vec![repeat(n, columns, body)])];
    parts.builder.stream(Engine::Sync, blocks(vec![repeat(b, 2, rhs_loads)]));
    parts.builder.stream(Engine::GpSimd, blocks(stores));
    parts.builder.stream(Engine::Tensor, vec![repeat(m, rows, row_of_blocks)]);
    parts.builder.stream(Engine::Vector, blocks(drains));
    parts.builder.stream(Engine::Scalar, vec![repeat(m, rows, lhs_loads)]);
    parts.builder.program("")
}

/// How many tiles a block has along each side.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Tiles of 128 rows of the result.
    pub m: i64,
    /// Tiles of 512 columns.
    pub n: i64,
    /// Tiles of 128 of the sum.
    pub k: i64,
}

/// Blocks along all three sides; partial results stay in SBUF, and VectorE adds to them.
pub fn fully_blocked(sizes: Sizes, block: Block) -> Program {
    let mut builder = Builder::new("matmul_fully_blocked");
    let dtype = sizes.dtype;
    let bytes = sizes.bytes();
    let lhs = builder.input("lhsT", dtype, sizes.k * sizes.m);
    let rhs = builder.input("rhs", dtype, sizes.k * sizes.n);
    let out = builder.output("result", dtype, sizes.m * sizes.n);
    let (n, k, m) = (builder.var("n"), builder.var("k"), builder.var("m"));
    let (bn, bm, bk) = (builder.var("bn"), builder.var("bm"), builder.var("bk"));
    let (ms, ns, ks) =
        (sizes.m / (block.m * P), sizes.n / (block.n * TILE), sizes.k / (block.k * P));
    let (lhs_row, rhs_row) = (block.m * P * bytes, block.n * TILE * bytes);
    let (lhs_bytes, rhs_bytes) = (block.k * lhs_row, block.k * rhs_row);
    let tile_bytes = TILE * bytes;
    let result_at = builder.sbuf(ms * block.m * block.n * tile_bytes);
    let lhs_at = builder.sbuf(2 * lhs_bytes);
    let rhs_at = builder.sbuf(2 * rhs_bytes);
    builder.banks(8);
    let lhs_full = builder.semaphore("lhs_full", 0);
    let lhs_free = builder.semaphore("lhs_free", 2);
    let rhs_full = builder.semaphore("rhs_full", 0);
    let rhs_free = builder.semaphore("rhs_free", 2);
    let psum_full = builder.semaphore("psum_full", 0);
    let psum_free = builder.semaphore("psum_free", 8);
    let out_full = builder.semaphore("out_full", 0);
    let out_free = builder.semaphore("out_free", (ms * block.m) as u16);
    let lhs_buffer = index(lhs_at, &[(turn(m, 2), lhs_bytes)]);
    let rhs_buffer = index(rhs_at, &[(turn(k, 2), rhs_bytes)]);
    assert!(
        ms % 2 == 0 && ks % 2 == 0 && (block.m * block.n) % 8 == 0,
        "turns go on from block to block"
    );
    // A row of the block at a time, as long as the block is wide.
    let rhs_from = index(
        0,
        &[(value(k), block.k * P * sizes.n), (value(bk), P * sizes.n), (value(n), block.n * TILE)],
    );
    let rhs_load = load(
        dtype,
        (rhs, rhs_from, sizes.n),
        (128, (block.n * TILE) as u32),
        rhs_buffer.plus(&index(0, &[(value(bk), rhs_row)]), 1),
    );
    let lhs_from = index(
        0,
        &[(value(k), block.k * P * sizes.m), (value(bk), P * sizes.m), (value(m), block.m * P)],
    );
    let lhs_load = load(
        dtype,
        (lhs, lhs_from, sizes.m),
        (128, (block.m * P) as u32),
        lhs_buffer.plus(&index(0, &[(value(bk), lhs_row)]), 1),
    );
    let rhs_loads = vec![
        run(Op::Nop, &[rhs_free], &[]),
        repeat(bk, block.k, vec![run(rhs_load, &[], &[rhs_full])]),
    ];
    let lhs_loads = vec![
        run(Op::Nop, &[lhs_free], &[]),
        repeat(bk, block.k, vec![run(lhs_load, &[], &[lhs_full])]),
    ];
    let wait = |semaphore| repeat(bk, block.k, vec![run(Op::Nop, &[semaphore], &[])]);
    // Eight banks in turn: the tiles of a block are a multiple of eight.
    let bank = if block.m >= 8 {
        index(0, &[(turn(bm, 8), BANK)])
    } else {
        index(0, &[(value(bm), BANK), (value(bn), block.m * BANK)])
    };
    let step = |at: &Index, begins: bool| {
        let stationary = lhs_buffer.plus(&index(0, &[(value(bm), P * bytes)]), 1).plus(at, lhs_row);
        let moving = rhs_buffer.plus(&index(0, &[(value(bn), tile_bytes)]), 1).plus(at, rhs_row);
        let (stationary, moving) =
            (near(dtype, 128, stationary, 128), near(dtype, 128, moving, 512));
        product(stationary, moving, sums(128, bank.clone(), 512), begins)
    };
    let at = index(0, &[(value(bk), 1)]);
    let sum = vec![
        repeat(
            bk,
            block.k - 1,
            vec![
                when(run(step(&at, true), &[psum_free], &[]), at.clone(), Test::Zero),
                when(run(step(&at, false), &[], &[]), at.clone(), Test::NonZero),
            ],
        ),
        run(step(&Index::constant(block.k - 1), false), &[], &[psum_full]),
    ];
    let products = vec![
        wait(rhs_full),
        repeat(
            m,
            ms,
            vec![
                wait(lhs_full),
                repeat(bn, block.n, vec![repeat(bm, block.m, sum)]),
                after(run(Op::Nop, &[], &[lhs_free])),
            ],
        ),
        run(Op::Nop, &[], &[rhs_free]),
    ];
    // The partial results of the first block are copied, later ones added.
    let result = index(
        result_at,
        &[
            (value(m), block.m * block.n * tile_bytes),
            (value(bm), block.n * tile_bytes),
            (value(bn), tile_bytes),
        ],
    );
    let sum = sums(128, bank.clone(), 512);
    let kept = near(dtype, 128, result, 512);
    let begin = run(Op::Copy { input: sum.clone(), out: kept.clone() }, &[psum_full], &[psum_free]);
    let add = after(run(pair(Alu::Add, sum, kept.clone(), kept), &[psum_full], &[psum_free]));
    // A row of result tiles is stored whole; before the first block overwrites it, it must have left.
    let room = run(Op::Nop, &[out_free], &[]);
    let collect = |first: Vec<Item>, body: Item| {
        let mut block_of = first;
        block_of.push(repeat(bn, block.n, vec![repeat(bm, block.m, vec![body])]));
        repeat(m, ms, block_of)
    };
    let done = after(run(Op::Nop, &[], &[out_full]));
    let vector = vec![
        collect(vec![repeat(bm, block.m, vec![room])], begin),
        repeat(k, ks - 1, vec![collect(Vec::new(), add)]),
        repeat(m, ms, vec![repeat(bm, block.m, vec![done])]),
    ];
    let row = (block.n * TILE) as u32;
    let to = index(
        0,
        &[(value(m), block.m * P * sizes.n), (value(bm), P * sizes.n), (value(n), block.n * TILE)],
    );
    let from = index(
        result_at,
        &[(value(m), block.m * block.n * tile_bytes), (value(bm), block.n * tile_bytes)],
    );
    let stores = repeat(
        m,
        ms,
        vec![repeat(
            bm,
            block.m,
            vec![run(store(dtype, (out, to, sizes.n), (128, row), from), &[out_full], &[out_free])],
        )],
    );
    builder.stream(
        Engine::Sync,
        vec![repeat(n, ns, vec![repeat(k, ks, vec![repeat(m, ms, lhs_loads)])])],
    );
    builder.stream(Engine::Scalar, vec![repeat(n, ns, vec![repeat(k, ks, rhs_loads)])]);
    builder.stream(Engine::Tensor, vec![repeat(n, ns, vec![repeat(k, ks, products)])]);
    builder.stream(Engine::Vector, vec![repeat(n, ns, vector)]);
    builder.stream(Engine::GpSimd, vec![repeat(n, ns, vec![stores])]);
    builder.program("")
}

/// The shape of one product: `k × s` by `k × m`.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows: the summed extent.
    pub k: u16,
    /// Columns of the stationary operand.
    pub s: u16,
    /// Columns of the moving operand.
    pub m: u32,
}

/// Products one after another, `count` of each shape, summed in one bank a shape.
pub fn back_to_back(shapes: &[Shape], count: i64) -> Program {
    let mut builder = Builder::new("back_to_back");
    let dtype = DType::BF16;
    let a = builder.input("a", dtype, P * P);
    let b = builder.input("b", dtype, P * TILE);
    let out = builder.output("out", DType::F32, P * TILE);
    let i = builder.var("i");
    let a_at = builder.sbuf(P * 2);
    let b_at = builder.sbuf(TILE * 2);
    let out_at = builder.sbuf(shapes.len() as i64 * TILE * 4);
    builder.banks(shapes.len() as u8);
    let (loaded_a, loaded_b) = (builder.semaphore("a_full", 0), builder.semaphore("b_full", 0));
    let (done, stored) = (builder.semaphore("done", 0), builder.semaphore("out_full", 0));
    builder.stream(
        Engine::Sync,
        vec![
            run(
                load(dtype, (a, Index::constant(0), P), (128, 128), Index::constant(a_at)),
                &[],
                &[loaded_a],
            ),
            run(
                load(dtype, (b, Index::constant(0), TILE), (128, 512), Index::constant(b_at)),
                &[],
                &[loaded_b],
            ),
        ],
    );
    let mut products = vec![run(Op::Nop, &[loaded_a, loaded_b], &[])];
    let mut drains = vec![run(Op::Nop, &[done], &[])];
    for (at, shape) in shapes.iter().enumerate() {
        let bank = Index::constant(at as i64 * BANK);
        let step = |begins| {
            product(
                near(dtype, shape.k, Index::constant(a_at), u32::from(shape.s)),
                near(dtype, shape.k, Index::constant(b_at), shape.m),
                sums(shape.s, bank.clone(), shape.m),
                begins,
            )
        };
        products.push(run(step(true), &[], &[]));
        products.push(repeat(i, count - 1, vec![run(step(false), &[], &[])]));
        // Every sum is taken to SBUF; the last one is stored.
        let to = Index::constant(out_at + at as i64 * TILE * 4);
        let input = sums(shape.s, bank, shape.m);
        let out = near(DType::F32, shape.s, to, shape.m);
        let signals: &[Semaphore] = if at + 1 == shapes.len() { &[stored] } else { &[] };
        drains.push(run(Op::Copy { input, out }, &[], signals));
    }
    let last = products.len();
    products.insert(last, after(run(Op::Nop, &[], &[done])));
    builder.stream(Engine::Tensor, products);
    builder.stream(Engine::Vector, drains);
    let op = store(
        DType::F32,
        (out, Index::constant(0), TILE),
        (128, 512),
        Index::constant(out_at + (shapes.len() as i64 - 1) * TILE * 4),
    );
    builder.stream(Engine::Sync, vec![run(op, &[stored], &[])]);
    builder.program("")
}

/// Tiles pass through SBUF: what is loaded is stored again, perhaps behind a function.
pub fn stream_through(
    dtype: DType,
    (tiles, columns): (i64, i64),
    by_rows: bool,
    function: Option<Function>,
) -> Program {
    let mut builder = Builder::new(if function.is_some() { "map" } else { "copy" });
    let elements = tiles * P * columns;
    let x = builder.input("x", dtype, elements);
    let y = builder.output("y", dtype, elements);
    let i = builder.var("i");
    let bytes = columns * dtype.bytes() as i64;
    let turns: u8 = if bytes > 16 << 10 { 2 } else { 4 };
    let x_at = builder.sbuf(i64::from(turns) * bytes);
    let (x_full, x_free) =
        (builder.semaphore("x_full", 0), builder.semaphore("x_free", u16::from(turns)));
    // Tiles below one another, or beside one another.
    let (next, row) = if by_rows { (P * columns, columns) } else { (columns, tiles * columns) };
    let from = index(0, &[(value(i), next)]);
    let x_buffer = index(x_at, &[(turn(i, turns), bytes)]);
    let loads = load(dtype, (x, from.clone(), row), (128, columns as u32), x_buffer.clone());
    builder.stream(Engine::Sync, vec![repeat(i, tiles, vec![run(loads, &[x_free], &[x_full])])]);
    match function {
        None => {
            let stores = store(dtype, (y, from, row), (128, columns as u32), x_buffer);
            builder.stream(
                Engine::Scalar,
                vec![repeat(i, tiles, vec![run(stores, &[x_full], &[x_free])])],
            );
        }
        Some(function) => {
            let y_at = builder.sbuf(i64::from(turns) * bytes);
            let (y_full, y_free) =
                (builder.semaphore("y_full", 0), builder.semaphore("y_free", u16::from(turns)));
            let y_buffer = index(y_at, &[(turn(i, turns), bytes)]);
            let op = apply(
                function,
                near(dtype, 128, x_buffer, columns as u32),
                near(dtype, 128, y_buffer.clone(), columns as u32),
            );
            let compute = run(op, &[x_full, y_free], &[x_free, y_full]);
            builder.stream(Engine::Scalar, vec![repeat(i, tiles, vec![compute])]);
            let stores = store(dtype, (y, from, row), (128, columns as u32), y_buffer);
            builder.stream(
                Engine::GpSimd,
                vec![repeat(i, tiles, vec![run(stores, &[y_full], &[y_free])])],
            );
        }
    }
    builder.program("")
}

/// Rotary position embedding: each tile is 128 positions of one head; its halves are rotated by cosine and sine.
pub fn rope(heads: i64, positions: i64, width: i64) -> Program {
    let mut builder = Builder::new("rope");
    let dtype = DType::F32;
    let half = width / 2;
    let tiles = heads * positions / P;
    let x = builder.input("x", dtype, heads * positions * width);
    let cos = builder.input("cos", dtype, heads * positions * half);
    let sin = builder.input("sin", dtype, heads * positions * half);
    let y = builder.output("y", dtype, heads * positions * width);
    let i = builder.var("i");
    let turns: u8 = 4;
    let (wide, narrow) = (width * 4, half * 4);
    let mut room = |bytes: i64| {
        let at = builder.sbuf(i64::from(turns) * bytes);
        index(at, &[(turn(i, turns), bytes)])
    };
    let (x_at, cos_at, sin_at, y_at, t_at) =
        (room(wide), room(narrow), room(narrow), room(wide), room(wide));
    let mut ends = |name: &str| {
        let full = builder.semaphore(&format!("{name}_full"), 0);
        (full, builder.semaphore(&format!("{name}_free"), u16::from(turns)))
    };
    let (xs, coss, sins, ys) = (ends("x"), ends("cos"), ends("sin"), ends("y"));
    let tile = |operand, columns: i64, to: &Index| {
        let from = index(0, &[(value(i), P * columns)]);
        load(dtype, (operand, from, columns), (128, columns as u32), to.clone())
    };
    builder.stream(
        Engine::Sync,
        vec![repeat(
            i,
            tiles,
            vec![
                run(tile(x, width, &x_at), &[xs.1], &[xs.0]),
                run(tile(cos, half, &cos_at), &[coss.1], &[coss.0]),
                run(tile(sin, half, &sin_at), &[sins.1], &[sins.0]),
            ],
        )],
    );
    let part = |at: &Index, high: bool| {
        let offset = at.plus(&Index::constant(if high { narrow } else { 0 }), 1);
        near(dtype, 128, offset, half as u32)
    };
    let (c, s) = (part(&cos_at, false), part(&sin_at, false));
    let (low, high) = (part(&x_at, false), part(&x_at, true));
    let (t_low, t_high) = (part(&t_at, false), part(&t_at, true));
    let (y_low, y_high) = (part(&y_at, false), part(&y_at, true));
    let multiply = |a: &_, b: &_, out: &systole_systolic::program::Access| {
        pair(Alu::Multiply, Clone::clone(a), Clone::clone(b), out.clone())
    };
    builder.stream(
        Engine::Vector,
        vec![repeat(
            i,
            tiles,
            vec![
                run(multiply(&low, &c, &y_low), &[xs.0, coss.0, ys.1], &[]),
                run(multiply(&high, &s, &t_low), &[sins.0], &[]),
                run(multiply(&high, &c, &y_high), &[], &[coss.1]),
                run(multiply(&low, &s, &t_high), &[], &[xs.1, sins.1]),
                after(run(pair(Alu::Subtract, y_low.clone(), t_low, y_low), &[], &[])),
                after(run(pair(Alu::Add, y_high.clone(), t_high, y_high), &[], &[ys.0])),
            ],
        )],
    );
    let to = index(0, &[(value(i), P * width)]);
    let op = store(dtype, (y, to, width), (128, width as u32), y_at);
    builder.stream(Engine::Scalar, vec![repeat(i, tiles, vec![run(op, &[ys.0], &[ys.1])])]);
    builder.program("")
}

/// Products of many matrices with few to sum: `[b, k, m]` by `[b, k, n]`, one row of 128 results at a time.
pub fn batched(batch: i64, sizes: Sizes) -> Program {
    let mut builder = Builder::new("batched_matmul");
    let dtype = sizes.dtype;
    let bytes = sizes.bytes();
    let lhs = builder.input("lhsT", dtype, batch * sizes.k * sizes.m);
    let rhs = builder.input("rhs", dtype, batch * sizes.k * sizes.n);
    let out = builder.output("result", dtype, batch * sizes.m * sizes.n);
    let (b, m, n) = (builder.var("b"), builder.var("m"), builder.var("n"));
    let (lhs_bytes, rhs_bytes) = (sizes.m * bytes, sizes.n * bytes);
    let lhs_at = builder.sbuf(2 * lhs_bytes);
    let rhs_at = builder.sbuf(2 * rhs_bytes);
    let out_at = builder.sbuf(4 * TILE * bytes);
    builder.banks(4);
    let lhs_full = builder.semaphore("lhs_full", 0);
    let rhs_full = builder.semaphore("rhs_full", 0);
    let free = builder.semaphore("operands_free", 2);
    let psum_full = builder.semaphore("psum_full", 0);
    let psum_free = builder.semaphore("psum_free", 4);
    let out_full = builder.semaphore("out_full", 0);
    let out_free = builder.semaphore("out_free", 4);
    let k = sizes.k as u16;
    let lhs_buffer = index(lhs_at, &[(turn(b, 2), lhs_bytes)]);
    let rhs_buffer = index(rhs_at, &[(turn(b, 2), rhs_bytes)]);
    let whole = |operand, columns: i64, to: &Index| {
        let from = index(0, &[(value(b), sizes.k * columns)]);
        load(dtype, (operand, from, columns), (sizes.k as u32, columns as u32), to.clone())
    };
    builder.stream(
        Engine::Sync,
        vec![repeat(
            b,
            batch,
            vec![
                run(whole(lhs, sizes.m, &lhs_buffer), &[free], &[lhs_full]),
                run(whole(rhs, sizes.n, &rhs_buffer), &[], &[rhs_full]),
            ],
        )],
    );
    let bank = index(0, &[(turn(n, 4), BANK)]);
    let step = product(
        near(dtype, k, lhs_buffer.plus(&index(0, &[(value(m), P * bytes)]), 1), 128),
        near(dtype, k, rhs_buffer.plus(&index(0, &[(value(n), TILE * bytes)]), 1), 512),
        sums(128, bank.clone(), 512),
        true,
    );
    let (rows, columns) = (sizes.m / P, sizes.n / TILE);
    builder.stream(
        Engine::Tensor,
        vec![repeat(
            b,
            batch,
            vec![
                run(Op::Nop, &[lhs_full, rhs_full], &[]),
                repeat(
                    m,
                    rows,
                    vec![repeat(n, columns, vec![run(step, &[psum_free], &[psum_full])])],
                ),
                after(run(Op::Nop, &[], &[free])),
            ],
        )],
    );
    let out_buffer = index(out_at, &[(turn(n, 4), TILE * bytes)]);
    let drain =
        Op::Copy { input: sums(128, bank, 512), out: near(dtype, 128, out_buffer.clone(), 512) };
    let drain = run(drain, &[psum_full, out_free], &[psum_free, out_full]);
    let to = index(0, &[(value(b), sizes.m * sizes.n), (value(m), P * sizes.n), (value(n), TILE)]);
    let stores =
        run(store(dtype, (out, to, sizes.n), (128, 512), out_buffer), &[out_full], &[out_free]);
    let tiles =
        |body| vec![repeat(b, batch, vec![repeat(m, rows, vec![repeat(n, columns, vec![body])])])];
    builder.stream(Engine::Vector, tiles(drain));
    builder.stream(Engine::Scalar, tiles(stores));
    builder.program("")
}

/// A product whose left side lies as `[m, k]`: for every block of 128 × 1024 results TensorE transposes it anew, and both
/// sides are loaded again.
pub fn row_major(sizes: Sizes) -> Program {
    let mut builder = Builder::new("matmul_row_major");
    let dtype = sizes.dtype;
    let bytes = sizes.bytes();
    let depth = sizes.k / P;
    let lhs = builder.input("lhs", dtype, sizes.m * sizes.k);
    let rhs = builder.input("rhs", dtype, sizes.k * sizes.n);
    let out = builder.output("result", dtype, sizes.m * sizes.n);
    let (m, n, k, h) = (builder.var("m"), builder.var("n"), builder.var("k"), builder.var("h"));
    let (row_bytes, tile_bytes) = (sizes.k * bytes, 2 * TILE * bytes);
    let lhs_at = builder.sbuf(2 * row_bytes);
    let turned_at = builder.sbuf(row_bytes);
    let rhs_at = builder.sbuf(4 * tile_bytes);
    let out_at = builder.sbuf(4 * TILE * bytes);
    builder.banks(8);
    let lhs_full = builder.semaphore("lhs_full", 0);
    let lhs_free = builder.semaphore("lhs_free", 2);
    let turned_full = builder.semaphore("turned_full", 0);
    let flip_full = builder.semaphore("flip_full", 0);
    let flip_free = builder.semaphore("flip_free", 4);
    let rhs_full = builder.semaphore("rhs_full", 0);
    let rhs_free = builder.semaphore("rhs_free", 4);
    let psum_full = builder.semaphore("psum_full", 0);
    let psum_free = builder.semaphore("psum_free", 4);
    let out_full = builder.semaphore("out_full", 0);
    let out_free = builder.semaphore("out_free", 4);
    let (rows, columns) = (sizes.m / P, sizes.n / (2 * TILE));
    let lhs_buffer = index(lhs_at, &[(turn(n, 2), row_bytes)]);
    let lhs_load = load(
        dtype,
        (lhs, index(0, &[(value(m), P * sizes.k)]), sizes.k),
        (128, sizes.k as u32),
        lhs_buffer.clone(),
    );
    let rhs_buffer = index(rhs_at, &[(turn(k, 4), tile_bytes)]);
    let rhs_load = |half: i64| {
        let from = index(half * TILE, &[(value(k), P * sizes.n), (value(n), 2 * TILE)]);
        let to = rhs_buffer.plus(&Index::constant(half * TILE * bytes), 1);
        load(dtype, (rhs, from, sizes.n), (128, 512), to)
    };
    let blocks = |body: Vec<Item>| vec![repeat(m, rows, vec![repeat(n, columns, body)])];
    builder.stream(
        Engine::Sync,
        blocks(vec![repeat(
            k,
            depth,
            vec![run(rhs_load(0), &[rhs_free], &[rhs_full]), run(rhs_load(1), &[], &[rhs_full])],
        )]),
    );
    builder.stream(Engine::GpSimd, blocks(vec![run(lhs_load, &[lhs_free], &[lhs_full])]));
    // Four banks for transposes, four for two pairs of sums.
    let flip_bank = index(0, &[(turn(k, 4), BANK)]);
    let flip = Op::Transpose {
        input: near(dtype, 128, lhs_buffer.plus(&index(0, &[(value(k), P * bytes)]), 1), 128),
        out: systole_systolic::program::Access { dtype, ..sums(128, flip_bank.clone(), 128) },
    };
    let sum_bank = |half: i64| index(4 * BANK + half * BANK, &[(turn(n, 2), 2 * BANK)]);
    let turned = |at: i64| index(turned_at + at * P * bytes, &[(value(k), P * bytes)]);
    let at = index(0, &[(value(k), 1)]);
    let step = |half: i64, begins: bool| {
        product(
            near(dtype, 128, turned(0), 128),
            near(dtype, 128, rhs_buffer.plus(&Index::constant(half * TILE * bytes), 1), 512),
            sums(128, sum_bank(half), 512),
            begins,
        )
    };
    let pair_of = |half: i64| {
        let (waits, begins): (Vec<Semaphore>, Vec<Semaphore>) =
            (vec![rhs_full], vec![rhs_full, psum_free]);
        let signals: &[Semaphore] = if half == 1 { &[rhs_free] } else { &[] };
        [
            when(run(step(half, true), &begins, signals), at.clone(), Test::Zero),
            when(run(step(half, false), &waits, signals), at.clone(), Test::NonZero),
        ]
    };
    let [first0, next0] = pair_of(0);
    let [first1, next1] = pair_of(1);
    builder.stream(
        Engine::Tensor,
        blocks(vec![
            run(Op::Nop, &[lhs_full], &[]),
            repeat(k, depth, vec![run(flip, &[flip_free], &[flip_full])]),
            after(run(Op::Nop, &[turned_full], &[lhs_free])),
            repeat(k, depth, vec![first0, next0, first1, next1]),
            after(run(Op::Nop, &[], &[psum_full])),
        ]),
    );
    let take = Op::Copy {
        input: systole_systolic::program::Access { dtype, ..sums(128, flip_bank, 128) },
        out: near(dtype, 128, turned(0), 128),
    };
    let out_buffer = index(out_at, &[(turn(n, 2), 2 * TILE * bytes), (value(h), TILE * bytes)]);
    let sum = sums(128, index(4 * BANK, &[(turn(n, 2), 2 * BANK), (value(h), BANK)]), 512);
    let drain = Op::Copy { input: sum, out: near(dtype, 128, out_buffer.clone(), 512) };
    builder.stream(
        Engine::Vector,
        blocks(vec![
            repeat(k, depth, vec![run(take, &[flip_full], &[flip_free])]),
            after(run(Op::Nop, &[], &[turned_full])),
            run(Op::Nop, &[psum_full], &[]),
            repeat(h, 2, vec![run(drain, &[out_free], &[psum_free, out_full])]),
        ]),
    );
    let to = index(0, &[(value(m), P * sizes.n), (value(n), 2 * TILE), (value(h), TILE)]);
    let op = store(dtype, (out, to, sizes.n), (128, 512), out_buffer);
    builder.stream(
        Engine::Scalar,
        blocks(vec![repeat(h, 2, vec![run(op, &[out_full], &[out_free])])]),
    );
    builder.program("")
}
