//! The Kernel IR: a fused computation over named axes. Before `tile` it has no loops and its tiles are whole tensors;
//! after it, loops over SSA tiles that lie far (HBM, DRAM) or near (SBUF, cache).
//!
//! Meaning, which verifier, evaluator and targets share:
//! - An **axis** is a name. A tile's shape says which axes it has and the extent of each; two tiles that share an axis
//!   have the same extent along it. An operand's dimensions are also called by axis names, for reading.
//! - A **load** reads, for every position of the tile's axes, the operand's element at one affine expression per
//!   dimension, over the tile's axes, loop variables and ranged scalars. Outside the operand it gives `pad`; without
//!   `pad` it must stay inside. A tile axis that no expression uses is a broadcast.
//! - A **store** writes each element of its tile at such a position, and nothing outside the operand. The positions of
//!   two elements of a tile differ.
//! - `contract` is `init + Σ a·b` over the named axes, in the accumulation type, for each position of the other axes of
//!   `a` and `b`; `reduce` likewise over one tile. The sum then converts to the type of the result's tile. Order: the reference sums in increasing order of the axes as listed.
//! - A **map** evaluates one expression for each position of the union of its operands' axes; operands without an axis
//!   broadcast along it. `Index(axis)` may add an axis that the result's shape lists.
//! - Loops carry tiles; only `store` and `scatter` have effects. Iterations of a `parallel` loop store to disjoint
//!   regions.

mod affine;
mod evaluate;
mod print;
mod reads;
mod schedule;
mod text;
pub mod tiling;
mod verify;

pub use affine::{Affine, Term};
pub use evaluate::evaluate;
pub use schedule::Schedule;
pub(crate) use text::parse_module;
pub use text::{parse, parse_all, parse_schedule};
pub use verify::{near_bytes, verify, verify_placed};

use crate::arena::{Arena, Id};
use crate::expr::{Expr, Scalar};
use crate::types::{DType, TensorType};
use smallvec::SmallVec;

/// A named axis: an index into [`Kernel::axes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axis(pub u32);

/// A tile, by id.
pub type TileId = Id<Tile>;
/// An operand or result, by id.
pub type OperandId = Id<Operand>;
/// A loop variable or ranged scalar parameter, by id.
pub type VarId = Id<Var>;

/// Axes with their extents, outermost first.
pub type Dims = SmallVec<[(Axis, usize); 6]>;

/// A fused computation over named axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kernel {
    /// The name, without `@`.
    pub name: String,
    /// The names of the axes; [`Axis`] is an index into it.
    pub axes: Vec<String>,
    /// Parameters first, then results: tensors in far memory.
    pub operands: Arena<Operand>,
    /// Loop variables and ranged scalar parameters.
    pub vars: Arena<Var>,
    /// Every tile that a statement or a loop defines.
    pub tiles: Arena<Tile>,
    /// What is done, in order.
    pub body: Vec<Stmt>,
    /// The source nodes that the kernel came from, sorted.
    pub origins: Vec<String>,
}

/// A tensor in far memory that the kernel reads or writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The name, without `%`.
    pub name: String,
    /// Whether the kernel reads or writes it.
    pub role: Role,
    /// The element type.
    pub dtype: DType,
    /// The dimensions, outermost first, each with the axis it is called by.
    pub dims: Dims,
}

/// What a kernel does with an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Only reads it.
    Input,
    /// Writes it; elements that no statement writes are undefined.
    Output,
    /// Updates it: reads what was there, writes some of it (state, scatter).
    Update,
}

/// An integer that views and loop ends may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Var {
    /// The name, without `%`.
    pub name: String,
    /// What it is.
    pub kind: VarKind,
}

/// What a [`Var`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VarKind {
    /// The variable of a loop.
    Loop,
    /// A parameter of the kernel: every value from the first to the last is legal.
    Scalar(i64, i64),
}

/// Where a tile lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// HBM or DRAM. Before `place`, every tile is far.
    Far,
    /// SBUF, or cache.
    Near,
}

/// An SSA value: elements over named axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// The name, without `%`.
    pub name: String,
    /// Where it lies.
    pub place: Place,
    /// The element type.
    pub dtype: DType,
    /// The axes with their extents, outermost first.
    pub dims: Dims,
    /// The axes that lie on the machine's rows, after `place`.
    pub rows: SmallVec<[Axis; 2]>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// Defines tiles: one, but for operations with several results.
    Define {
        /// The tiles defined.
        results: SmallVec<[TileId; 1]>,
        /// What they are.
        op: TileOp,
    },
    /// Writes a tile into an operand.
    Store {
        /// The operand.
        operand: OperandId,
        /// The position along each of its dimensions.
        at: Vec<Affine>,
        /// What is written.
        tile: TileId,
    },
    /// Writes or combines a tile's elements at positions that index tiles give, one after another in row-major order
    /// of the tile. Positions outside the operand are ignored.
    Scatter {
        /// The operand.
        operand: OperandId,
        /// The position along each dimension, to which the index is added.
        at: Vec<Affine>,
        /// For some dimensions, the tile with the position; its axes are among the tile's.
        index: Vec<(usize, TileId)>,
        /// What is written.
        tile: TileId,
        /// How it joins what is there; `None` overwrites.
        combine: Option<Combine>,
    },
    /// Repeats statements.
    For(Loop),
}

/// How two values become one, in reductions, scans and scatters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Combine {
    Sum,
    Product,
    Min,
    Max,
    And,
    Or,
}

/// What defines a tile.
#[derive(Clone, Debug, PartialEq)]
pub enum TileOp {
    /// Reads an operand.
    Load {
        /// The operand.
        operand: OperandId,
        /// The position along each of its dimensions.
        at: Vec<Affine>,
        /// What is read outside the operand; `None` where the load stays inside.
        pad: Option<Scalar>,
    },
    /// Reads an operand at positions that index tiles give, clamped into the operand.
    Gather {
        /// The operand.
        operand: OperandId,
        /// The position along each dimension, to which the index is added.
        at: Vec<Affine>,
        /// For some dimensions, the integer tile with the position; its axes are among the result's.
        index: Vec<(usize, TileId)>,
    },
    /// The same value everywhere.
    Fill {
        /// The value.
        value: Scalar,
    },
    /// A tile read at affine positions: part, stride, window, transpose, broadcast. Always inside.
    View {
        /// The tile.
        tile: TileId,
        /// The position along each of its axes.
        at: Vec<Affine>,
    },
    /// `init + Σ a·b` over axes; the operands convert to the accumulation type first.
    Contract {
        /// What is added to: a tile over the result's axes (or fewer, which broadcast).
        init: TileId,
        /// The left operand.
        a: TileId,
        /// The right operand.
        b: TileId,
        /// The axes that are summed.
        over: Vec<Axis>,
        /// The type in which products and sums are kept.
        accumulate: DType,
    },
    /// One expression for each position.
    Map {
        /// The tiles that the expression reads.
        operands: Vec<TileId>,
        /// What is computed.
        expr: Expr,
    },
    /// Combines a tile's elements over axes, starting from `init`.
    Reduce {
        /// How elements join.
        combine: Combine,
        /// What the result starts from; `None` is the identity.
        init: Option<TileId>,
        /// What is reduced.
        tile: TileId,
        /// The axes that vanish.
        over: Vec<Axis>,
        /// The type in which partial results are kept.
        accumulate: DType,
    },
    /// The position along an axis of the extreme element; the first of equals, or the last.
    ArgReduce {
        /// `Min` or `Max`.
        combine: Combine,
        /// What is searched.
        tile: TileId,
        /// The axis that vanishes.
        over: Axis,
        /// Whether the last of equal elements is taken.
        last: bool,
    },
    /// Each element combined with all before it along an axis.
    Scan {
        /// How elements join.
        combine: Combine,
        /// What is scanned.
        tile: TileId,
        /// The axis along which.
        over: Axis,
        /// Whether an element is left out of its own result.
        exclusive: bool,
        /// Whether the scan runs from the end.
        reverse: bool,
        /// The type in which partial results are kept.
        accumulate: DType,
    },
    /// Sorts along an axis, stably: results are the keys, then for each the position it came from.
    Sort {
        /// The keys.
        tile: TileId,
        /// The axis along which.
        over: Axis,
        /// Whether the largest comes first.
        descending: bool,
    },
    /// The same elements with their axes in another order in memory.
    Rearrange {
        /// The tile.
        tile: TileId,
    },
}

/// How the iterations of a loop relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopKind {
    /// They are independent and may run at once.
    Parallel,
    /// They run in order.
    Sequential,
    /// They run in order and only add to the carried tiles.
    Reduce,
    /// Each makes a partial result; these are combined in a fixed tree.
    ReduceParallel,
}

/// A loop over a variable, with carried tiles.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// The variable.
    pub var: VarId,
    /// Its first value.
    pub start: Affine,
    /// The first value it does not take.
    pub end: Affine,
    /// What is added to it each time; positive.
    pub step: usize,
    /// How the iterations relate.
    pub kind: LoopKind,
    /// How many iterations may be in flight.
    pub pipelined: usize,
    /// For each carried tile: the tile inside the loop, and the one it starts from.
    pub carried: Vec<(TileId, TileId)>,
    /// The statements.
    pub body: Vec<Stmt>,
    /// For each carried tile, its value after an iteration.
    pub yields: Vec<TileId>,
    /// For each carried tile, its value after the loop.
    pub results: Vec<TileId>,
}

impl Kernel {
    /// The axis of that name, made where it is new.
    pub fn axis(&mut self, name: &str) -> Axis {
        let index = self.axes.iter().position(|other| other == name).unwrap_or_else(|| {
            self.axes.push(name.to_owned());
            self.axes.len() - 1
        });
        Axis(u32::try_from(index).expect("a kernel has few axes"))
    }

    /// A new axis whose name starts with `name`.
    pub fn fresh_axis(&mut self, name: &str) -> Axis {
        let taken = |name: &String| self.axes.contains(name);
        let mut unique = name.to_owned();
        let mut number = 1;
        while taken(&unique) {
            number += 1;
            unique = format!("{name}{number}");
        }
        self.axis(&unique)
    }

    /// The name of an axis.
    pub fn axis_name(&self, axis: Axis) -> &str {
        &self.axes[axis.0 as usize]
    }

    /// Adds a far tile.
    pub fn tile(&mut self, name: &str, dtype: DType, dims: &[(Axis, usize)]) -> TileId {
        self.tiles.push(Tile {
            name: name.to_owned(),
            place: Place::Far,
            dtype,
            dims: Dims::from_slice(dims),
            rows: SmallVec::new(),
        })
    }

    /// The ranged scalar parameters with their first and last values, in order.
    pub fn scalars(&self) -> Vec<(VarId, i64, i64)> {
        let ranged = |(id, var): (VarId, &Var)| match var.kind {
            VarKind::Scalar(low, high) => Some((id, low, high)),
            VarKind::Loop => None,
        };
        self.vars.iter().filter_map(ranged).collect()
    }

    /// The parameters and results with a role that reads (`Input`, `Update`) or writes (`Output`, `Update`).
    pub fn operands_that(&self, wanted: fn(Role) -> bool) -> Vec<OperandId> {
        self.operands.iter().filter(|(_, operand)| wanted(operand.role)).map(|(id, _)| id).collect()
    }
}

impl Operand {
    /// The tensor type.
    pub fn ty(&self) -> TensorType {
        TensorType { dtype: self.dtype, shape: self.dims.iter().map(|&(_, size)| size).collect() }
    }
}

impl Role {
    /// Whether the kernel reads such an operand.
    pub fn reads(self) -> bool {
        matches!(self, Role::Input | Role::Update)
    }

    /// Whether the kernel writes such an operand.
    pub fn writes(self) -> bool {
        matches!(self, Role::Output | Role::Update)
    }
}

impl Loop {
    /// How each carried tile joins the work of an iteration, where every one does nothing else: it is the initial value of
    /// one `contract` or `reduce`, or an operand of one `map` that combines its two operands, and the result of that is
    /// yielded for it. This is what lets iterations of a `reduce, parallel` loop start from the identity.
    pub fn partial_combines(&self) -> Option<Vec<Combine>> {
        let uses = |tile: TileId| {
            let mut count = 0;
            self.body
                .iter()
                .for_each(|stmt| stmt.visit_reads(&mut |read| count += usize::from(read == tile)));
            count + self.yields.iter().filter(|&&yielded| yielded == tile).count()
        };
        let pairs = self.carried.iter().zip(&self.yields);
        pairs
            .map(|(&(inside, _), &yielded)| {
                let defines = |stmt: &&Stmt| stmt.results() == [yielded];
                let Some(Stmt::Define { op, .. }) = self.body.iter().find(defines) else {
                    return None;
                };
                let combine = op.combine_with(inside)?;
                (uses(inside) == 1 && uses(yielded) == 1).then_some(combine)
            })
            .collect()
    }
}

impl Tile {
    /// The extent along an axis, where the tile has it.
    pub fn extent(&self, axis: Axis) -> Option<usize> {
        self.dims.iter().find(|(other, _)| *other == axis).map(|&(_, extent)| extent)
    }

    /// The type of a tensor with such elements and extents.
    pub fn ty(&self) -> TensorType {
        TensorType { dtype: self.dtype, shape: self.dims.iter().map(|&(_, size)| size).collect() }
    }

    /// How many elements there are.
    pub fn count(&self) -> usize {
        self.dims.iter().map(|&(_, extent)| extent).product()
    }
}

impl Combine {
    /// Every way, with its name.
    pub const ALL: [(Combine, &str); 6] = [
        (Combine::Sum, "sum"),
        (Combine::Product, "product"),
        (Combine::Min, "min"),
        (Combine::Max, "max"),
        (Combine::And, "and"),
        (Combine::Or, "or"),
    ];

    /// How it is written.
    pub fn name(self) -> &'static str {
        Combine::ALL.iter().find(|(other, _)| *other == self).expect("every way is listed").1
    }

    /// The way of that name.
    pub fn from_name(name: &str) -> Option<Combine> {
        Combine::ALL.iter().find(|(_, other)| *other == name).map(|&(combine, _)| combine)
    }

    /// The scalar function that joins two elements.
    pub fn function(self) -> crate::scalar::ScalarFn {
        use crate::scalar::ScalarFn;
        match self {
            Combine::Sum => ScalarFn::Add,
            Combine::Product => ScalarFn::Mul,
            Combine::Min => ScalarFn::Min,
            Combine::Max => ScalarFn::Max,
            Combine::And => ScalarFn::And,
            Combine::Or => ScalarFn::Or,
        }
    }

    /// The element that changes nothing. For `min` and `max` of floats it is the infinity that loses.
    pub fn identity(self, dtype: DType) -> Scalar {
        use crate::types::Class;
        let extreme = |largest: bool| match dtype.class() {
            // This type has no infinity: its largest number loses against all others as well.
            Class::Float if dtype == DType::F8E4M3 => {
                Scalar::new(dtype, if largest { 448.0 } else { -448.0 })
            }
            // f4e2m1 has none either, but saturates.
            Class::Float => {
                Scalar::new(dtype, if largest { f64::INFINITY } else { f64::NEG_INFINITY })
            }
            Class::Bool => Scalar::from_i64(dtype, i64::from(largest)),
            Class::Unsigned if largest => Scalar { dtype, bits: u64::MAX >> (64 - dtype.bits()) },
            Class::Unsigned => Scalar { dtype, bits: 0 },
            Class::Signed => {
                let lowest = i64::MIN >> (64 - dtype.bits());
                Scalar { dtype, bits: if largest { !lowest } else { lowest } as u64 }
            }
        };
        match self {
            Combine::Sum | Combine::Or => Scalar::from_i64(dtype, 0),
            Combine::Product => Scalar::from_i64(dtype, 1),
            Combine::Min => extreme(true),
            Combine::Max => extreme(false),
            Combine::And => Scalar::from_i64(dtype, if dtype == DType::Bool { 1 } else { -1 }),
        }
    }
}
