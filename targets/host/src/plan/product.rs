//! Products that the micro-kernels compute: which ones, how their axes become rows, columns and the summed extent, and
//! where their operands lie.

use super::{Action, Address, Home, Planner};
use crate::micro::{ContractPlan, Side, panel_widths};
use crate::nest::{Access, Nest, Sink, loop_term};
use systole_compiler::expr::Scalar;
use systole_compiler::kernel::{Affine, Axis, OperandId, Term, TileId, TileOp};
use systole_compiler::types::DType;

/// The smallest number of multiplications that is worth a call.
const WORTH_PACKING: usize = 4096;

/// Axes with their extents.
type Axes = Vec<(Axis, usize)>;

/// How a product is one of matrices.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    batch: Axes,
    m: Axes,
    n: Axes,
    k: Axes,
    a: Operand,
    b: Operand,
    /// The elements between neighbours along each axis of the result.
    pub(super) strides: Vec<i64>,
    /// The slot for what the micro-kernels pack.
    pub(super) scratch: usize,
    plan: usize,
}

/// How an operand's elements are found.
#[derive(Clone, Debug)]
enum Operand {
    /// By its access.
    Strided(TileId),
    /// In panels: the operand, and the offset of the first in bytes.
    Panels { operand: OperandId, offset: Affine, panel_stride: usize },
}

fn count(axes: &Axes) -> usize {
    axes.iter().map(|&(_, extent)| extent).product()
}

impl<'k> Planner<'k> {
    /// The shape of a product, where the micro-kernels are to compute it.
    pub(super) fn product_shape(&mut self, tile: TileId, op: &TileOp) -> Option<Shape> {
        let TileOp::Contract { a, b, over, accumulate: DType::F32, .. } = op else { return None };
        let cpu = self.cpu?;
        let (a, b) = (*a, *b);
        let tiles = &self.kernel.tiles;
        if [tiles[tile].dtype, tiles[a].dtype, tiles[b].dtype] != [DType::F32; 3] {
            return None;
        }
        let mut k: Axes = over
            .iter()
            .filter_map(|&axis| Some((axis, tiles[a].extent(axis).or(tiles[b].extent(axis))?)))
            .collect();
        let has = |tile: TileId, axis: Axis| tiles[tile].extent(axis).is_some();
        let result: Axes = tiles[tile].dims.to_vec();
        let of = |in_a: bool, in_b: bool| -> Axes {
            result
                .iter()
                .copied()
                .filter(|&(axis, _)| has(a, axis) == in_a && has(b, axis) == in_b)
                .collect()
        };
        let (batch, only_a, only_b) = (of(true, true), of(true, false), of(false, true));
        let work = count(&only_a).checked_mul(count(&only_b))?.checked_mul(count(&k))?;
        if work == 0 {
            return None;
        }
        let first = result.iter().find(|(axis, _)| !has(a, *axis) || !has(b, *axis));
        let swapped = first.is_some_and(|(axis, _)| has(b, *axis));
        let (rows, columns, m, n) =
            if swapped { (b, a, only_b, only_a) } else { (a, b, only_a, only_b) };
        let widths = panel_widths(cpu);
        let left = self.panels(rows, &m, &mut k, widths.0);
        let right = self.panels(columns, &n, &mut k, widths.1);
        if left.is_some() && right.is_some() {
            return None;
        }
        let packed = left.is_some() || right.is_some();
        let narrow = count(&m) < 4 || count(&n) < 4;
        if !packed && (work < WORTH_PACKING || count(&k) < 4) {
            return None;
        }
        let places: Vec<(Axis, Affine)> = self.places(&batch, &m, &n, &k);
        let extents: Vec<usize> =
            [&batch, &m, &n, &k].into_iter().flatten().map(|&(_, extent)| extent).collect();
        let is_plain = |tile: TileId| {
            self.access(tile, &places, &extents)
                .is_some_and(|access| access.dims.is_empty() && access.dtype == DType::F32)
        };
        if (left.is_none() && !is_plain(rows)) || (right.is_none() && !is_plain(columns)) {
            return None;
        }
        let mut shape = Shape {
            strides: strides(&result, &[&batch, &m, &n]),
            a: left.unwrap_or(Operand::Strided(rows)),
            b: right.unwrap_or(Operand::Strided(columns)),
            batch,
            m,
            n,
            k,
            scratch: 0,
            plan: 0,
        };
        let plan = ContractPlan::new(
            count(&shape.m),
            count(&shape.n),
            count(&shape.k),
            self.side(&shape.a, &shape.m, &shape.k, &places, &extents),
            self.side(&shape.b, &shape.n, &shape.k, &places, &extents),
            cpu,
        );
        // Packing for a few rows or columns costs more than a plain loop over them.
        if narrow && !packed && plan.packs() {
            return None;
        }
        shape.scratch = self.working_slot(plan.scratch_bytes() + 64);
        shape.plan = self.products.len();
        self.products.push(plan);
        Some(shape)
    }

    fn places(&self, batch: &Axes, m: &Axes, n: &Axes, k: &Axes) -> Vec<(Axis, Affine)> {
        [batch, m, n, k]
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, &(axis, _))| (axis, Affine::term(loop_term(index))))
            .collect()
    }

    /// The panels that an operand lies in, where its layout is that of panels over `outer`. The summed axes take the
    /// panels' order.
    fn panels(&self, tile: TileId, outer: &Axes, k: &mut Axes, width: usize) -> Option<Operand> {
        let Some(Home::Folded) = self.homes.get(&tile) else { return None };
        let TileOp::Load { operand, at, .. } = self.definitions[&tile].op else { return None };
        let pieces = &self.layouts[operand.index()].pieces;
        // Dimensions of one element stand before the panels and add nothing.
        let single = pieces.iter().take_while(|piece| piece.size == 1).count();
        let outermost = pieces.last().map(|last| last.dim);
        let single =
            pieces[..single].iter().take_while(|piece| Some(piece.dim) != outermost).count();
        let (last, rest) = pieces[single..].split_last()?;
        let (first, middle) = rest.split_first()?;
        if first.dim != last.dim
            || last.size != width
            || middle.iter().any(|piece| piece.dim == last.dim)
        {
            return None;
        }
        let [(axis, _)] = outer.as_slice() else { return None };
        let step =
            |dim: usize, axis: Axis| at[dim].substitute(Term::Axis(axis), &Affine::default());
        if at[last.dim].coefficient(Term::Axis(*axis)) != 1 {
            return None;
        }
        let depth: usize = middle.iter().map(|piece| piece.size).product();
        let panel_stride = depth * width;
        let start = step(last.dim, *axis);
        if !self.is_multiple(&start, width) {
            return None;
        }
        let mut offset = start.times((depth * 4) as i64);
        let mut order = Axes::new();
        let mut inner = width * 4;
        for (position, piece) in middle.iter().enumerate().rev() {
            let (axis, extent) =
                *k.iter().find(|(axis, _)| at[piece.dim].coefficient(Term::Axis(*axis)) == 1)?;
            if position > 0 && extent != piece.size {
                return None;
            }
            let rest = step(piece.dim, axis);
            if rest.terms().iter().any(|(term, _)| matches!(term, Term::Axis(_))) {
                return None;
            }
            offset = offset.plus(&rest, inner as i64);
            inner *= piece.size;
            order.insert(0, (axis, extent));
        }
        if order.len() != k.len() {
            return None;
        }
        *k = order;
        Some(Operand::Panels { operand: *operand, offset, panel_stride })
    }

    /// Whether every value of an expression over variables is a multiple of a number.
    fn is_multiple(&self, expression: &Affine, of: usize) -> bool {
        let of = of as i64;
        expression.constant % of == 0
            && expression.terms().iter().all(|&(term, coefficient)| match term {
                Term::Axis(_) => false,
                Term::Var(var) => coefficient * self.var_multiples[var.index()] % of == 0,
            })
    }

    fn side(
        &self,
        operand: &Operand,
        outer: &Axes,
        k: &Axes,
        places: &[(Axis, Affine)],
        extents: &[usize],
    ) -> Side {
        match operand {
            Operand::Panels { panel_stride, .. } => Side::Panels { panel_stride: *panel_stride },
            Operand::Strided(tile) => {
                let access = self.plain(*tile, places, extents);
                Side::Gather {
                    outer_offsets: offsets(&access.offset, outer, places),
                    k_offsets: offsets(&access.offset, k, places),
                }
            }
        }
    }

    fn plain(&self, tile: TileId, places: &[(Axis, Affine)], extents: &[usize]) -> Access {
        self.access(tile, places, extents).expect("operands of products were checked")
    }

    fn start(
        &self,
        operand: &Operand,
        shape: &Shape,
        places: &[(Axis, Affine)],
        extents: &[usize],
    ) -> Address {
        match operand {
            Operand::Panels { operand, offset, .. } => Address {
                base: crate::nest::Base::Operand(operand.index()),
                offset: offset.clone(),
            },
            Operand::Strided(tile) => {
                let access = self.plain(*tile, places, extents);
                let mut offset = access.offset;
                for index in shape.batch.len()..extents.len() {
                    offset = offset.substitute(loop_term(index), &Affine::default());
                }
                Address { base: access.base, offset }
            }
        }
    }

    /// The call of the micro-kernels for a product that has a shape; first, where the product is added to something
    /// that is not there yet, the copy of it.
    pub(super) fn product_action(
        &mut self,
        tile: TileId,
        op: &'k TileOp,
        actions: &mut Vec<Action>,
    ) -> Option<Action> {
        let shape = self.shapes.get(&tile)?.clone();
        let TileOp::Contract { init, .. } = op else { return None };
        let places = self.places(&shape.batch, &shape.m, &shape.n, &shape.k);
        let extents: Vec<usize> = [&shape.batch, &shape.m, &shape.n, &shape.k]
            .into_iter()
            .flatten()
            .map(|&(_, extent)| extent)
            .collect();
        let add = !self.is_zero(*init);
        if add && !self.is_same_slot(*init, tile) {
            actions.push(self.initial(*init, tile));
        }
        let to = self.plain(tile, &places, &extents);
        let mut offset = to.offset;
        for index in shape.batch.len()..extents.len() {
            offset = offset.substitute(loop_term(index), &Affine::default());
        }
        let crate::nest::Base::Scratch(_) = to.base else { return None };
        Some(Action::Product {
            plan: shape.plan,
            extents: shape.batch.iter().map(|&(_, extent)| extent).collect(),
            a: self.start(&shape.a, &shape, &places, &extents),
            b: self.start(&shape.b, &shape, &places, &extents),
            to: Address { base: to.base, offset },
            row_stride: count(&shape.n),
            add,
            scratch: self.slots[shape.scratch].offset,
        })
    }

    fn is_zero(&self, tile: TileId) -> bool {
        let Some(Home::Folded) = self.homes.get(&tile) else { return false };
        let TileOp::Fill { value } = self.definitions[&tile].op else { return false };
        *value == Scalar::new(value.dtype, 0.0)
    }

    fn is_same_slot(&self, x: TileId, y: TileId) -> bool {
        match (self.homes.get(&x), self.homes.get(&y)) {
            (Some(Home::Slot { slot: x, .. }), Some(Home::Slot { slot: y, .. })) => x == y,
            _ => false,
        }
    }

    fn initial(&mut self, init: TileId, tile: TileId) -> Action {
        let declared = &self.kernel.tiles[tile];
        let places: Vec<(Axis, Affine)> = declared
            .dims
            .iter()
            .enumerate()
            .map(|(index, &(axis, _))| (axis, Affine::term(loop_term(index))))
            .collect();
        let extents: Vec<usize> = declared.dims.iter().map(|&(_, extent)| extent).collect();
        let to = self.plain(tile, &places, &extents);
        let mut nest = Nest { extents, nodes: Vec::new(), sink: Sink::Store { root: 0 }, to };
        let root = self.point(&mut nest, init, &places);
        let root = nest.convert(root, DType::F32);
        nest.sink = Sink::Store { root };
        Action::Nest(nest)
    }
}

/// The strides of the result's axes where memory has the groups of axes one after another.
fn strides(result: &Axes, groups: &[&Axes]) -> Vec<i64> {
    let order: Axes = groups.iter().flat_map(|axes| axes.iter().copied()).collect();
    result
        .iter()
        .map(|&(axis, _)| {
            let position = order
                .iter()
                .position(|&(other, _)| other == axis)
                .expect("every axis is in a group");
            order[position + 1..].iter().map(|&(_, extent)| extent as i64).product()
        })
        .collect()
}

/// The offsets in elements of f32 for every position of some axes, row-major.
fn offsets(offset: &Affine, axes: &Axes, places: &[(Axis, Affine)]) -> Vec<isize> {
    let mut result = vec![0isize];
    for &(axis, extent) in axes {
        let place =
            places.iter().find(|(other, _)| *other == axis).expect("every axis has a place");
        let (term, _) = place.1.terms()[0];
        let stride = (offset.coefficient(term) / 4) as isize;
        result = result
            .iter()
            .flat_map(|&before| (0..extent as isize).map(move |step| before + step * stride))
            .collect();
    }
    result
}
