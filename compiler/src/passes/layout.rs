//! Chooses how constants lie in memory: a constant factor of a product is packed once, when the program is loaded, into
//! the panels that the machine's products read: `[outer/width, summed.., outer%width]`.

use crate::arena::Arena;
use crate::kernel::{Affine, Axis, Kernel, Loop, OperandId, Stmt, Term, TileId, TileOp, VarId};
use crate::machine::Machine;
use crate::module::{Buffer, BufferId, KernelId, Layout, Lifetime, Module, Piece, Step};
use crate::pass::{Changed, Context, Pass};
use crate::types::DType;
use std::collections::BTreeMap;

/// See the module.
pub const PASS: Pass<Module> = Pass {
    name: "layout",
    summary: "Packs constant factors of products into panels, once, at load.",
    run,
};

fn run(
    module: &mut Module,
    context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    let mut wanted: BTreeMap<KernelId, Vec<(usize, Layout)>> = BTreeMap::new();
    for (id, kernel) in module.kernels.iter() {
        let layouts = panels(kernel, context.machine);
        if !layouts.is_empty() {
            wanted.insert(id, layouts);
        }
    }
    // A kernel is compiled for one layout of each operand, so all of its calls must give it.
    for_each_call(&module.steps, &mut |kernel, operands| {
        if let Some(layouts) = wanted.get_mut(&kernel) {
            layouts.retain(|(operand, _)| is_constant(&module.buffers, operands[*operand]));
        }
    });
    let mut packed: BTreeMap<(BufferId, String), BufferId> = BTreeMap::new();
    let mut steps = std::mem::take(&mut module.steps);
    let mut changed = Changed::No;
    change_calls(&mut steps, &mut |kernel, operands| {
        for (operand, layout) in wanted.get(&kernel).into_iter().flatten() {
            let from = operands[*operand];
            operands[*operand] =
                *packed.entry((from, format!("{layout:?}"))).or_insert_with(|| {
                    let buffer = Buffer {
                        name: format!(
                            "{}.packed{}",
                            module.buffers[from].name,
                            module.buffers.len()
                        ),
                        layout: layout.clone(),
                        lifetime: Lifetime::Loaded,
                        alias: None,
                        ..module.buffers[from].clone()
                    };
                    let to = module.buffers.push(buffer);
                    module.load_steps.push(Step::Copy { from, to });
                    to
                });
            changed = Changed::Yes;
        }
    });
    module.steps = steps;
    Ok(changed)
}

fn is_constant(buffers: &Arena<Buffer>, buffer: BufferId) -> bool {
    matches!(
        buffers[buffer].lifetime,
        Lifetime::Constant(_) | Lifetime::Parameter(_) | Lifetime::Loaded
    )
}

fn for_each_call(steps: &[Step], visitor: &mut dyn FnMut(KernelId, &[BufferId])) {
    for step in steps {
        match step {
            Step::Kernel { kernel, operands, .. } => visitor(*kernel, operands),
            Step::If { then, otherwise, .. } => {
                for_each_call(then, visitor);
                for_each_call(otherwise, visitor);
            }
            Step::While { before, body, .. } => {
                for_each_call(before, visitor);
                for_each_call(body, visitor);
            }
            Step::For { body, .. } => for_each_call(body, visitor),
            Step::Copy { .. } | Step::Collective { .. } => {}
        }
    }
}

fn change_calls(steps: &mut [Step], visitor: &mut dyn FnMut(KernelId, &mut Vec<BufferId>)) {
    for step in steps {
        match step {
            Step::Kernel { kernel, operands, .. } => visitor(*kernel, operands),
            Step::If { then, otherwise, .. } => {
                change_calls(then, visitor);
                change_calls(otherwise, visitor);
            }
            Step::While { before, body, .. } => {
                change_calls(before, visitor);
                change_calls(body, visitor);
            }
            Step::For { body, .. } => change_calls(body, visitor),
            Step::Copy { .. } | Step::Collective { .. } => {}
        }
    }
}

/// The operands of the kernel that a product reads as panels, by position, with the layout.
fn panels(kernel: &Kernel, machine: &Machine) -> Vec<(usize, Layout)> {
    let mut definitions: BTreeMap<TileId, &TileOp> = BTreeMap::new();
    let mut steps: BTreeMap<VarId, usize> = BTreeMap::new();
    collect(&kernel.body, &mut definitions, &mut steps);
    let mut layouts: Vec<(usize, Layout)> = Vec::new();
    let mut reads: BTreeMap<OperandId, usize> = BTreeMap::new();
    for op in definitions.values() {
        if let TileOp::Load { operand, .. } | TileOp::Gather { operand, .. } = op {
            *reads.entry(*operand).or_default() += 1;
        }
    }
    for op in definitions.values() {
        if let TileOp::Contract { a, b, over, accumulate: DType::I32, .. } = op
            && let Some(TileOp::Load { operand, at, pad: None }) = definitions.get(b)
            && reads[operand] == 1
            && takes_bytes(kernel, *a, *b, machine)
        {
            let sizes: Vec<usize> =
                kernel.operands[*operand].dims.iter().map(|&(_, size)| size).collect();
            let layout = panel(kernel, *b, at, over, &sizes, machine.contract.n.0, &steps);
            let layout = layout.and_then(|layout| with_bytes_together(layout, machine));
            layouts.extend(layout.map(|layout| (operand.index(), layout)));
        }
        let TileOp::Contract { a, b, over, accumulate: DType::F32, .. } = op else { continue };
        if !machine.packs(kernel, *a, *b, over) {
            continue;
        }
        let narrow = widened(kernel, &definitions, *b, machine);
        let right = narrow.unwrap_or(*b);
        for (tile, width) in [(*a, machine.contract.m.0), (right, machine.contract.n.0)] {
            let Some(TileOp::Load { operand, at, pad: None }) = definitions.get(&tile) else {
                continue;
            };
            let is_wide = kernel.operands[*operand].dtype == DType::F32;
            if reads[operand] != 1 || (!is_wide && narrow != Some(tile)) {
                continue;
            }
            let sizes: Vec<usize> =
                kernel.operands[*operand].dims.iter().map(|&(_, size)| size).collect();
            if let Some(layout) = panel(kernel, tile, at, over, &sizes, width, &steps) {
                layouts.push((operand.index(), layout));
            }
        }
    }
    layouts
}

/// Whether the machine's products of bytes take these tiles, and it is worth packing one.
fn takes_bytes(kernel: &Kernel, a: TileId, b: TileId, machine: &Machine) -> bool {
    let (a, b) = (&kernel.tiles[a], &kernel.tiles[b]);
    let are_bytes = [a, b].iter().all(|tile| matches!(tile.dtype, DType::I8 | DType::U8));
    are_bytes && machine.bytes_together > 0 && b.count() >= 1 << 10
}

/// Panels of one summed dimension, with neighbours along it together.
fn with_bytes_together(layout: Layout, machine: &Machine) -> Option<Layout> {
    let (&last, rest) = layout.pieces.split_last()?;
    let (&summed, outer) = rest.split_last()?;
    if outer.last()?.dim != last.dim {
        return None;
    }
    let together = machine.bytes_together;
    let mut pieces = outer.to_vec();
    pieces.push(Piece { dim: summed.dim, size: summed.size.div_ceil(together) });
    pieces.push(last);
    pieces.push(Piece { dim: summed.dim, size: together });
    Some(Layout { pieces: pieces.into() })
}

/// The narrow tile that a map widens, where the machine's products read such a tile themselves.
fn widened(
    kernel: &Kernel,
    definitions: &BTreeMap<TileId, &TileOp>,
    tile: TileId,
    machine: &Machine,
) -> Option<TileId> {
    let TileOp::Map { operands, .. } = definitions.get(&tile)? else { return None };
    let whole = |operand: &TileId| kernel.tiles[*operand].dims == kernel.tiles[tile].dims;
    let narrow = |operand: &TileId| machine.widens.contains(&kernel.tiles[*operand].dtype);
    operands.iter().copied().find(|operand| whole(operand) && narrow(operand))
}

fn collect<'k>(
    body: &'k [Stmt],
    definitions: &mut BTreeMap<TileId, &'k TileOp>,
    steps: &mut BTreeMap<VarId, usize>,
) {
    for stmt in body {
        match stmt {
            Stmt::Define { results, op } => {
                definitions.extend(results.iter().map(|&result| (result, op)))
            }
            Stmt::For(Loop { var, step, body, .. }) => {
                steps.insert(*var, *step);
                collect(body, definitions, steps);
            }
            Stmt::Store { .. } | Stmt::Scatter { .. } => {}
        }
    }
}

/// The panel layout of an operand that a tile reads: every dimension along one axis of its own, one of them not summed
/// and read in whole panels, the others summed as a whole.
fn panel(
    kernel: &Kernel,
    tile: TileId,
    at: &[Affine],
    over: &[Axis],
    sizes: &[usize],
    width: usize,
    steps: &BTreeMap<VarId, usize>,
) -> Option<Layout> {
    let mut outer = None;
    let mut summed: Vec<Option<usize>> = vec![None; over.len()];
    let mut single = Vec::new();
    for (dim, at) in at.iter().enumerate() {
        let mut axis = None;
        for &(term, coefficient) in at.terms() {
            match term {
                Term::Axis(found) if axis.is_none() && coefficient == 1 => axis = Some(found),
                // A loop's variable is a multiple of its step, so that a tile starts with a panel.
                Term::Var(var) if coefficient == 1 && steps.get(&var)?.is_multiple_of(width) => {}
                Term::Axis(_) | Term::Var(_) => return None,
            }
        }
        let Some(axis) = axis else {
            if at.constant != 0 || sizes[dim] != 1 {
                return None;
            }
            single.push(dim);
            continue;
        };
        if at.constant != 0 {
            return None;
        }
        match over.iter().position(|&other| other == axis) {
            Some(position)
                if summed[position].is_none()
                    && kernel.tiles[tile].extent(axis) == Some(sizes[dim]) =>
            {
                summed[position] = Some(dim);
            }
            Some(_) => return None,
            None if outer.is_none() => outer = Some(dim),
            None => return None,
        }
    }
    let outer = outer?;
    let summed: Vec<usize> = summed.into_iter().collect::<Option<_>>()?;
    let piece = |dim: usize| Piece { dim, size: sizes[dim] };
    let mut pieces: Vec<Piece> = single.into_iter().map(piece).collect();
    pieces.push(Piece { dim: outer, size: sizes[outer].div_ceil(width) });
    pieces.extend(summed.into_iter().map(piece));
    pieces.push(Piece { dim: outer, size: width });
    Some(Layout { pieces: pieces.into() })
}
