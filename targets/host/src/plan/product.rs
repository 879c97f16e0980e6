//! Products that the micro-kernels compute: which ones, how their axes become rows, columns and the summed extent, and
//! where their operands lie.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::{Action, Address, Home, Planner, UseKind};
use crate::micro::{ContractPlan, Narrow, Scale, Side, Sign, TOGETHER, panel_widths};
use crate::nest::{Access, Nest, Sink, loop_term};
use systole_compiler::expr::{Expr, ExprNode, Scalar};
use systole_compiler::kernel::{Affine, Axis, OperandId, Term, TileId, TileOp};
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::DType;

/// The smallest number of multiplications that is worth a call.
const WORTH_PACKING: usize = 4096;

/// Fewer columns than these become rows.
const FEW: usize = 4;

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
    /// In panels of a narrow type, with the tile that scales them.
    Narrow {
        operand: OperandId,
        offset: Affine,
        panel_stride: usize,
        narrow: Narrow,
        scale: Option<TileId>,
    },
}

/// A tile that is another one, of a narrow type, in f32 and scaled.
#[derive(Clone, Copy, Debug)]
struct Widening {
    load: TileId,
    narrow: Narrow,
    scale: Option<TileId>,
}

fn count(axes: &Axes) -> usize {
    axes.iter().map(|&(_, extent)| extent).product()
}

impl<'k> Planner<'k> {
    /// The shape of a product, where the micro-kernels are to compute it.
    pub(super) fn product_shape(&mut self, tile: TileId, op: &TileOp) -> Option<Shape> {
        if let TileOp::Contract { accumulate: DType::I32, .. } = op {
            return self.shape_of_bytes(tile, op);
        }
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
        // A few columns would leave lanes of vectors without work, so they become rows.
        let order = first.is_some_and(|(axis, _)| has(b, *axis));
        let few = |axes: &Axes| count(axes) < FEW;
        let swapped = match (few(&only_a), few(&only_b)) {
            (true, false) => false,
            (false, true) => true,
            (true, true) | (false, false) => order,
        };
        let widths = panel_widths(cpu);
        // Panels were packed for the operands in their own order.
        let in_panels = self.panels(a, &only_a, &mut k.clone(), widths.0).is_some()
            || self.panels(b, &only_b, &mut k.clone(), widths.1).is_some()
            || self.narrow_panels(b, &only_b, &mut k.clone(), widths.1).is_some();
        let swapped = swapped && !in_panels;
        let (rows, columns, m, n) =
            if swapped { (b, a, only_b, only_a) } else { (a, b, only_a, only_b) };
        let left = self.panels(rows, &m, &mut k, widths.0);
        let right = self
            .panels(columns, &n, &mut k, widths.1)
            .or_else(|| self.narrow_panels(columns, &n, &mut k, widths.1));
        if left.is_some() && right.is_some() {
            return None;
        }
        let packed = left.is_some() || right.is_some();
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
        let scale = match right {
            Some(Operand::Narrow { scale: Some(scale), .. }) => {
                Some(self.scale(scale, &n, &places, &extents)?)
            }
            _ => None,
        };
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
        let b = match &shape.b {
            Operand::Narrow { panel_stride, narrow, .. } => Side::Narrow {
                panel_stride: *panel_stride,
                narrow: *narrow,
                scale: scale.unwrap_or(Scale::None),
            },
            b => self.side(b, &shape.n, &shape.k, &places, &extents),
        };
        let plan = ContractPlan::new(
            count(&shape.m),
            count(&shape.n),
            count(&shape.k),
            self.side(&shape.a, &shape.m, &shape.k, &places, &extents),
            b,
            cpu,
        );
        // A plain loop reads what is used once as it lies, and needs no more than packing it would.
        let (rows, depth) = (count(&shape.m), count(&shape.k));
        if !packed && plan.packs() && (rows == 1 || (rows < FEW && depth < FEW * FEW)) {
            return None;
        }
        shape.scratch = self.working_slot(plan.scratch_bytes() + 64);
        shape.plan = self.products.len();
        self.products.push(plan);
        Some(shape)
    }

    /// The shape of a product of bytes, of which the right factor was packed for it.
    fn shape_of_bytes(&mut self, tile: TileId, op: &TileOp) -> Option<Shape> {
        let TileOp::Contract { a, b, over, .. } = op else { return None };
        let cpu = self.cpu?;
        let tiles = &self.kernel.tiles;
        let sign = |tile: TileId| match tiles[tile].dtype {
            DType::I8 => Some(Sign::Signed),
            DType::U8 => Some(Sign::Unsigned),
            _ => None,
        };
        let signs = [sign(*a)?, sign(*b)?];
        let ([summed], DType::I32) = (over.as_slice(), tiles[tile].dtype) else { return None };
        let extent = tiles[*a].extent(*summed).filter(|_| tiles[*b].extent(*summed).is_some())?;
        let result: Axes = tiles[tile].dims.to_vec();
        let has = |tile: TileId, axis: Axis| tiles[tile].extent(axis).is_some();
        let of = |in_a: bool, in_b: bool| -> Axes {
            let is = |axis| has(*a, axis) == in_a && has(*b, axis) == in_b;
            result.iter().copied().filter(|&(axis, _)| is(axis)).collect()
        };
        let (batch, m, n, k) =
            (of(true, true), of(true, false), of(false, true), vec![(*summed, extent)]);
        if count(&m) * count(&n) * extent == 0 || !batch.is_empty() {
            return None;
        }
        let b = self.panels_of_bytes(*b, &n, *summed, panel_widths(cpu).1)?;
        let Operand::Panels { panel_stride, .. } = b else { return None };
        let places = self.places(&batch, &m, &n, &k);
        let extents: Vec<usize> =
            [&m, &n, &k].into_iter().flatten().map(|&(_, extent)| extent).collect();
        let access = self.access(*a, &places, &extents)?;
        let is_bytes = access.dims.is_empty() && access.dtype.bytes() == 1;
        if !is_bytes
            || offsets(&access.offset, &k, &places, 1) != (0..extent as isize).collect::<Vec<_>>()
        {
            return None;
        }
        let rows = offsets(&access.offset, &m, &places, 1);
        let stride = match rows.as_slice() {
            [_, second, ..] => usize::try_from(*second).ok()?,
            _ => extent,
        };
        if rows.iter().enumerate().any(|(row, &offset)| offset != (row * stride) as isize) {
            return None;
        }
        let plan = ContractPlan::of_bytes(
            [count(&m), count(&n), extent],
            signs,
            stride,
            panel_stride,
            cpu,
        );
        let scratch = self.working_slot(plan.scratch_bytes() + 64);
        self.products.push(plan);
        Some(Shape {
            strides: strides(&result, &[&batch, &m, &n]),
            a: Operand::Strided(*a),
            b,
            batch,
            m,
            n,
            k,
            scratch,
            plan: self.products.len() - 1,
        })
    }

    /// The panels of bytes that an operand lies in: `[outer/width, summed/together, outer%width, summed%together]`.
    fn panels_of_bytes(
        &self,
        tile: TileId,
        n: &Axes,
        summed: Axis,
        width: usize,
    ) -> Option<Operand> {
        let Some(Home::Folded) = self.homes.get(&tile) else { return None };
        let TileOp::Load { operand, at, .. } = self.definitions[&tile].op else { return None };
        let pieces = &self.layouts[operand.index()].pieces;
        let single = pieces.len().checked_sub(4)?;
        let (ones, [panels, groups, columns, together]) = pieces.split_at(single) else {
            return None;
        };
        let [(column, _)] = n.as_slice() else { return None };
        let fits = ones.iter().all(|piece| piece.size == 1)
            && panels.dim == columns.dim
            && groups.dim == together.dim
            && panels.dim != groups.dim
            && (columns.size, together.size) == (width, TOGETHER)
            && at[groups.dim] == Affine::axis(summed)
            && at[columns.dim].coefficient(Term::Axis(*column)) == 1;
        let start = at[columns.dim].substitute(Term::Axis(*column), &Affine::default());
        if !fits || !self.is_multiple(&start, width) {
            return None;
        }
        let depth = groups.size * TOGETHER;
        Some(Operand::Panels {
            operand: *operand,
            offset: start.times(depth as i64),
            panel_stride: depth * width,
        })
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
        if self.kernel.tiles[tile].dtype != DType::F32 {
            return None;
        }
        let (operand, offset, panel_stride) = self.panel_places(tile, outer, k, width)?;
        Some(Operand::Panels { operand, offset, panel_stride })
    }

    /// The same for an operand that a product widens as it reads it.
    fn narrow_panels(
        &self,
        tile: TileId,
        outer: &Axes,
        k: &mut Axes,
        width: usize,
    ) -> Option<Operand> {
        let Some(Home::Folded) = self.homes.get(&tile) else { return None };
        let Widening { load, narrow, scale } = self.widening(tile, self.definitions[&tile].op)?;
        let (operand, offset, panel_stride) = self.panel_places(load, outer, k, width)?;
        Some(Operand::Narrow { operand, offset, panel_stride, narrow, scale })
    }

    /// How a map widens a tile, if that is all it does.
    fn widening(&self, tile: TileId, op: &TileOp) -> Option<Widening> {
        let TileOp::Map { operands, expr } = op else { return None };
        let narrow = |id: usize| {
            let load = *operands.get(converted(expr, id)?)?;
            let narrow = match self.kernel.tiles[load].dtype {
                DType::I8 => Narrow::I8,
                DType::U8 => Narrow::U8,
                DType::BF16 => Narrow::BF16,
                _ => return None,
            };
            let whole = self.kernel.tiles[load].dims == self.kernel.tiles[tile].dims;
            whole.then_some((load, narrow))
        };
        let scale = |id: usize| match (&expr.nodes[id].0, expr.nodes[id].1) {
            (ExprNode::Operand(position), DType::F32) => operands.get(*position).copied(),
            _ => None,
        };
        let (root, dtype) = &expr.nodes[expr.root];
        if *dtype != DType::F32 || self.kernel.tiles[tile].dtype != DType::F32 {
            return None;
        }
        if let ExprNode::Call(ScalarFn::Mul, factors) = root {
            let (x, y) = (factors[0], factors[1]);
            let found = narrow(x).zip(scale(y)).or_else(|| narrow(y).zip(scale(x)));
            let ((load, narrow), scale) = found?;
            return Some(Widening { load, narrow, scale: Some(scale) });
        }
        let (load, narrow) = narrow(expr.root)?;
        Some(Widening { load, narrow, scale: None })
    }

    /// Whether a map widens panels for products alone, which read them so.
    pub(super) fn widens_panels(&self, tile: TileId, op: &TileOp) -> bool {
        let only_products = self.uses_of(tile).iter().all(|read| read.kind == UseKind::Product);
        let Some(Widening { load, .. }) = self.widening(tile, op) else { return false };
        let Some(TileOp::Load { operand, .. }) = self.definitions.get(&load).map(|made| made.op)
        else {
            return false;
        };
        let pieces = &self.layouts[operand.index()].pieces;
        let outer = pieces.last().map(|last| last.dim);
        let split = pieces.iter().filter(|piece| Some(piece.dim) == outer).count() > 1;
        self.cpu.is_some() && only_products && split
    }

    /// How a scale lies: one number, or one for each column.
    fn scale(
        &self,
        tile: TileId,
        n: &Axes,
        places: &[(Axis, Affine)],
        extents: &[usize],
    ) -> Option<Scale> {
        let access = self.access(tile, places, extents)?;
        if !access.dims.is_empty() || access.dtype != DType::F32 {
            return None;
        }
        let [(column, _)] = n.as_slice() else { return None };
        let place = places.iter().find(|(axis, _)| axis == column)?.1.terms()[0].0;
        let others = (0..extents.len()).map(loop_term).filter(|&term| term != place);
        if others.into_iter().any(|term| access.offset.coefficient(term) != 0) {
            return None;
        }
        match access.offset.coefficient(place) {
            0 => Some(Scale::One),
            4 => Some(Scale::Columns),
            _ => None,
        }
    }

    /// Where the panels of a loaded tile are: the operand, the offset of the first in bytes, and the elements between
    /// them.
    fn panel_places(
        &self,
        tile: TileId,
        outer: &Axes,
        k: &mut Axes,
        width: usize,
    ) -> Option<(OperandId, Affine, usize)> {
        let Some(Home::Folded) = self.homes.get(&tile) else { return None };
        let TileOp::Load { operand, at, .. } = self.definitions[&tile].op else { return None };
        let bytes = self.kernel.tiles[tile].dtype.bytes();
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
        let mut offset = start.times((depth * bytes) as i64);
        let mut order = Axes::new();
        let mut inner = width * bytes;
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
        Some((*operand, offset, panel_stride))
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
            Operand::Panels { panel_stride, .. } | Operand::Narrow { panel_stride, .. } => {
                Side::Panels { panel_stride: *panel_stride }
            }
            Operand::Strided(tile) => {
                let access = self.plain(*tile, places, extents);
                Side::Gather {
                    outer_offsets: offsets(&access.offset, outer, places, 4),
                    k_offsets: offsets(&access.offset, k, places, 4),
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
            Operand::Panels { operand, offset, .. } | Operand::Narrow { operand, offset, .. } => {
                Address {
                    base: crate::nest::Base::Operand(operand.index()),
                    offset: offset.clone(),
                }
            }
            Operand::Strided(tile) => self.first(*tile, shape, places, extents),
        }
    }

    /// The address of a plain tile's first element.
    fn first(
        &self,
        tile: TileId,
        shape: &Shape,
        places: &[(Axis, Affine)],
        extents: &[usize],
    ) -> Address {
        let access = self.plain(tile, places, extents);
        let mut offset = access.offset;
        for index in shape.batch.len()..extents.len() {
            offset = offset.substitute(loop_term(index), &Affine::default());
        }
        Address { base: access.base, offset }
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
        let home = &self.homes[&tile];
        let to = self.home_access(home, tile, &places, &extents);
        let row_stride = row_stride(&to, &shape).expect("the home of a product has rows");
        let mut offset = to.offset;
        for index in shape.batch.len()..extents.len() {
            offset = offset.substitute(loop_term(index), &Affine::default());
        }
        Some(Action::Product {
            plan: shape.plan,
            extents: shape.batch.iter().map(|&(_, extent)| extent).collect(),
            a: self.start(&shape.a, &shape, &places, &extents),
            b: self.start(&shape.b, &shape, &places, &extents),
            b_scale: match shape.b {
                Operand::Narrow { scale: Some(scale), .. } => {
                    Some(self.first(scale, &shape, &places, &extents))
                }
                _ => None,
            },
            to: Address { base: to.base, offset },
            row_stride,
            add,
            scratch: self.slots[shape.scratch].offset,
        })
    }

    /// Whether a product, which starts from zero, can write its result where its store puts it.
    pub(super) fn has_rows(&self, tile: TileId, op: &TileOp, home: &Home) -> bool {
        let (Some(shape), TileOp::Contract { init, .. }) = (self.shapes.get(&tile), op) else {
            return false;
        };
        let places = self.places(&shape.batch, &shape.m, &shape.n, &shape.k);
        let groups = [&shape.batch, &shape.m, &shape.n, &shape.k];
        let extents: Vec<usize> = groups.into_iter().flatten().map(|&(_, extent)| extent).collect();
        let to = self.home_access(home, tile, &places, &extents);
        self.is_zero(*init) && row_stride(&to, shape).is_some()
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
        let root = nest.convert(root, declared.dtype);
        nest.sink = Sink::Store { root };
        Action::Nest(nest)
    }
}

/// The elements between rows of a product's result, where columns lie side by side and rows at equal distances.
fn row_stride(to: &Access, shape: &Shape) -> Option<usize> {
    if !to.dims.is_empty() || !matches!(to.dtype, DType::F32 | DType::I32) {
        return None;
    }
    let steps = |axes: &Axes, before: usize| -> Vec<(i64, usize)> {
        let step = |index| to.offset.coefficient(loop_term(before + index));
        let steps = axes.iter().enumerate().map(|(index, &(_, extent))| (step(index), extent));
        steps.filter(|&(_, extent)| extent > 1).collect()
    };
    // Whether each axis steps over the whole of the next, the last over that many bytes.
    let is_dense = |steps: &[(i64, usize)], last: i64| {
        let mut expected = last;
        steps.iter().rev().all(|&(step, extent)| {
            let fits = step == expected;
            expected *= extent as i64;
            fits
        })
    };
    let rows = steps(&shape.m, shape.batch.len());
    let columns = steps(&shape.n, shape.batch.len() + shape.m.len());
    let bytes = size_of::<f32>() as i64;
    let row = rows.last().map_or(count(&shape.n) as i64 * bytes, |&(step, _)| step);
    let is_long = row >= count(&shape.n) as i64 * bytes && row % bytes == 0;
    (is_dense(&columns, bytes) && is_dense(&rows, row) && is_long)
        .then(|| usize::try_from(row / bytes).ok())
        .flatten()
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

/// The operand that a node of an expression converts to f32, by way of i32 or directly.
fn converted(expr: &Expr, id: usize) -> Option<usize> {
    let ExprNode::Convert(inner) = expr.nodes[id].0 else { return None };
    if expr.nodes[id].1 != DType::F32 {
        return None;
    }
    match &expr.nodes[inner] {
        (ExprNode::Operand(position), _) => Some(*position),
        (ExprNode::Convert(inner), DType::I32) => match expr.nodes[*inner].0 {
            ExprNode::Operand(position) => Some(position),
            _ => None,
        },
        _ => None,
    }
}

/// The offsets in elements of so many bytes for every position of some axes, row-major.
fn offsets(
    offset: &Affine,
    axes: &Axes,
    places: &[(Axis, Affine)],
    element_bytes: i64,
) -> Vec<isize> {
    let mut result = vec![0isize];
    for &(axis, extent) in axes {
        let place =
            places.iter().find(|(other, _)| *other == axis).expect("every axis has a place");
        let (term, _) = place.1.terms()[0];
        let stride = (offset.coefficient(term) / element_bytes) as isize;
        result = result
            .iter()
            .flat_map(|&before| (0..extent as isize).map(move |step| before + step * stride))
            .collect();
    }
    result
}
