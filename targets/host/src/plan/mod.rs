//! Plans a kernel: which tiles exist in memory and where, and which nests, products and sorts compute them.
//!
//! A tile is **folded** where reading it anew costs no more than keeping it: loads that stay inside, views, fills, maps
//! that one consumer reads once. The others have a place in the scratch buffer, shared by tiles that are never live at
//! once, or are computed right where a store puts them.

mod build;
mod homes;
mod product;

use crate::micro::{ContractPlan, Cpu};
use crate::nest::{Base, Nest};
use std::collections::BTreeMap;
use systole_compiler::kernel::{
    Affine, Axis, Kernel, LoopKind, OperandId, Stmt, TileId, TileOp, VarId, VarKind,
};
use systole_compiler::module::Layout;

/// What a compiled kernel does.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The outer parallel loops, flattened to one range, outermost first.
    pub(crate) range: Vec<Flat>,
    /// What each call does first.
    pub(crate) before: Vec<Action>,
    /// What each position of the range does.
    pub(crate) body: Vec<Action>,
    /// The bytes of scratch that a call needs.
    pub(crate) scratch_bytes: usize,
    /// The products that the micro-kernels compute, by number.
    pub(crate) products: Vec<ContractPlan>,
}

/// A loop of the flattened range. Its ends are affine in the scalar parameters.
#[derive(Clone, Debug)]
pub(crate) struct Flat {
    /// The variable.
    pub(crate) var: VarId,
    /// Its first value.
    pub(crate) start: Affine,
    /// The first value it does not take.
    pub(crate) end: Affine,
    /// What is added each time.
    pub(crate) step: usize,
}

/// One thing that is done.
#[derive(Debug)]
pub(crate) enum Action {
    /// A pass over memory.
    Nest(Nest),
    /// A repetition.
    For(Flat, Vec<Action>),
    /// A product by the micro-kernels, for every position of some loops.
    Product {
        /// The number of its plan.
        plan: usize,
        /// The loops around it.
        extents: Vec<usize>,
        /// Where the left operand starts.
        a: Address,
        /// Where the right operand starts.
        b: Address,
        /// Where the scales of the right operand start, if it has some.
        b_scale: Option<Address>,
        /// Where the result starts.
        to: Address,
        /// The elements between rows of the result.
        row_stride: usize,
        /// Whether it is added to what is there.
        add: bool,
        /// Where its own scratch is.
        scratch: usize,
    },
    /// A sort along one axis, for every position of some loops.
    Sort {
        /// The keys' type, by its place in the list of types.
        dtype: usize,
        /// Whether the largest comes first.
        descending: bool,
        /// How many keys there are.
        count: usize,
        /// The loops around it.
        extents: Vec<usize>,
        /// Where the keys are, and the bytes between them.
        from: (Address, i64),
        /// Where they go, and the bytes between them.
        keys: Option<(Address, i64)>,
        /// Where the positions go, as i64, and the bytes between them.
        positions: Option<(Address, i64)>,
    },
}

/// An address, for each position of some loops.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// Where memory starts.
    pub(crate) base: Base,
    /// The offset in bytes.
    pub(crate) offset: Affine,
}

/// Where a tile is.
#[derive(Clone, Debug)]
enum Home {
    /// Nowhere: it is computed where it is read.
    Folded,
    /// In a slot of the scratch buffer, with the elements between neighbours along each of its axes.
    Slot { slot: usize, strides: Vec<i64> },
    /// Where its only consumer, a store, puts it.
    Stored { operand: OperandId, at: Vec<Affine> },
}

/// A piece of the scratch buffer.
#[derive(Clone, Debug)]
struct Slot {
    bytes: usize,
    /// The first and last statement for which it must be kept.
    first: usize,
    last: usize,
    offset: usize,
}

/// A loop around statements, by the numbers of the first and one past its last statement.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: usize,
    last: usize,
}

/// How a tile is defined.
#[derive(Clone, Debug)]
struct Definition<'k> {
    op: &'k TileOp,
    results: &'k [TileId],
    place: usize,
    loops: Vec<Span>,
}

/// How a tile is read.
#[derive(Clone, Debug)]
struct Use {
    place: usize,
    loops: Vec<Span>,
    kind: UseKind,
}

/// What reads a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UseKind {
    /// A map, scan, gather or reduction that defines the tile: once for each element, or more often.
    Elements(TileId),
    /// A view or rearrangement that defines the tile.
    View(TileId),
    /// A product.
    Product,
    /// A store.
    Store,
    /// A sort.
    Sorted,
    /// Anything that needs it in memory.
    Memory,
}

struct Planner<'k> {
    kernel: &'k Kernel,
    layouts: &'k [Layout],
    cpu: Option<Cpu>,
    var_ranges: Vec<(i64, i64)>,
    /// A number that divides every value of the variable.
    var_multiples: Vec<i64>,
    definitions: BTreeMap<TileId, Definition<'k>>,
    uses: BTreeMap<TileId, Vec<Use>>,
    homes: BTreeMap<TileId, Home>,
    slots: Vec<Slot>,
    /// Every store and scatter: its place and operand.
    writes: Vec<(usize, OperandId)>,
    /// The products that micro-kernels compute, by the tile they define.
    shapes: BTreeMap<TileId, product::Shape>,
    products: Vec<ContractPlan>,
}

/// Plans a kernel whose operands have those layouts. Without `cpu` there are no micro-kernels.
pub(crate) fn plan(kernel: &Kernel, layouts: &[Layout], cpu: Option<Cpu>) -> Plan {
    let mut planner = Planner {
        kernel,
        layouts,
        cpu,
        var_ranges: vec![(0, 0); kernel.vars.len()],
        var_multiples: vec![1; kernel.vars.len()],
        definitions: BTreeMap::new(),
        uses: BTreeMap::new(),
        homes: BTreeMap::new(),
        slots: Vec::new(),
        writes: Vec::new(),
        shapes: BTreeMap::new(),
        products: Vec::new(),
    };
    for (var, declared) in kernel.vars.iter() {
        if let VarKind::Scalar(first, last) = declared.kind {
            planner.var_ranges[var.index()] = (first, last);
        }
    }
    planner.number(&kernel.body, &mut 0, &mut Vec::new());
    planner.decide(&kernel.body);
    planner.live(&kernel.body, &mut 0, &mut Vec::new());
    let scratch_bytes = planner.allocate();
    let (range, before, body) = flatten(kernel);
    let mut place = 0;
    let before = planner.actions(before, &mut place);
    place += range.len();
    let body = planner.actions(body, &mut place);
    Plan { range, before, body, scratch_bytes, products: planner.products }
}

/// The outer parallel loops, the statements before them, and those inside.
fn flatten(kernel: &Kernel) -> (Vec<Flat>, &[Stmt], &[Stmt]) {
    let defines = kernel.body.iter().take_while(|stmt| matches!(stmt, Stmt::Define { .. })).count();
    let (before, mut body) = kernel.body.split_at(defines);
    let mut range: Vec<Flat> = Vec::new();
    while let [Stmt::For(inner)] = body {
        let is_free = |end: &Affine| {
            end.terms().iter().all(|&(term, _)| {
                !range.iter().any(|flat| term == systole_compiler::kernel::Term::Var(flat.var))
            })
        };
        let wanted = inner.kind == LoopKind::Parallel && inner.carried.is_empty();
        if !wanted || !is_free(&inner.start) || !is_free(&inner.end) {
            break;
        }
        range.push(Flat {
            var: inner.var,
            start: inner.start.clone(),
            end: inner.end.clone(),
            step: inner.step,
        });
        body = &inner.body;
    }
    if range.is_empty() {
        return (range, &[], &kernel.body);
    }
    (range, before, body)
}

/// An expression over the axes of a tile as one over the loops of a nest.
fn apply(expression: &Affine, places: &[(Axis, Affine)]) -> Affine {
    use systole_compiler::kernel::Term;
    let mut result = Affine::constant(expression.constant);
    for &(term, coefficient) in expression.terms() {
        result = match term {
            Term::Var(_) => result.plus(&Affine::term(term), coefficient),
            Term::Axis(axis) => {
                let place = places.iter().find(|(other, _)| *other == axis);
                result.plus(
                    &place.expect("a verified expression uses axes that are there").1,
                    coefficient,
                )
            }
        };
    }
    result
}
