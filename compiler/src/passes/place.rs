//! Says where tiles lie. What is computed is near; a load that stays inside its operand is read where it is; a load that
//! leaves it becomes a near block with its halo, filled once, and a view of that.

use crate::kernel::{Affine, Axis, Dims, Kernel, Loop, Place, Stmt, Term, Tile, TileId, TileOp};
use crate::pass::{Changed, Context, Pass};
use smallvec::SmallVec;

/// See the module.
pub const PASS: Pass<Kernel> = Pass {
    name: "place",
    summary: "Puts tiles into near memory, and padded windows into blocks with a halo.",
    run,
};

fn run(
    kernel: &mut Kernel,
    context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    if context.machine.schedules {
        return Ok(Changed::No);
    }
    let body = std::mem::take(&mut kernel.body);
    kernel.body = place_body(kernel, body);
    Ok(Changed::Yes)
}

fn place_body(kernel: &mut Kernel, body: Vec<Stmt>) -> Vec<Stmt> {
    let mut placed = Vec::with_capacity(body.len());
    for stmt in body {
        match stmt {
            Stmt::Define { results, op: TileOp::Load { operand, at, pad: Some(pad) } } => {
                let tile = results[0];
                kernel.tiles[tile].place = Place::Near;
                match block_of(kernel, tile, &at) {
                    None => placed.push(Stmt::Define {
                        results,
                        op: TileOp::Load { operand, at, pad: Some(pad) },
                    }),
                    Some(block) => {
                        let near = kernel.tiles.push(block.tile);
                        let load = TileOp::Load { operand, at: block.load, pad: Some(pad) };
                        placed.push(Stmt::Define { results: smallvec::smallvec![near], op: load });
                        let view = TileOp::View { tile: near, at: block.view };
                        placed.push(Stmt::Define { results, op: view });
                    }
                }
            }
            Stmt::Define { results, op } => {
                let far = matches!(op, TileOp::Load { .. });
                for &result in &results {
                    kernel.tiles[result].place = if far { Place::Far } else { Place::Near };
                }
                placed.push(Stmt::Define { results, op });
            }
            Stmt::For(inner) => {
                for &(carried, _) in &inner.carried {
                    kernel.tiles[carried].place = Place::Near;
                }
                for &result in &inner.results {
                    kernel.tiles[result].place = Place::Near;
                }
                let body = place_body(kernel, inner.body);
                placed.push(Stmt::For(Loop { body, ..inner }));
            }
            Stmt::Store { .. } | Stmt::Scatter { .. } => placed.push(stmt),
        }
    }
    placed
}

struct Block {
    tile: Tile,
    load: Vec<Affine>,
    view: Vec<Affine>,
}

/// The block of the operand that a window covers; nothing where the load is that block itself: each dimension is read
/// along an axis of its own, or none.
fn block_of(kernel: &mut Kernel, tile: TileId, at: &[Affine]) -> Option<Block> {
    let dims = kernel.tiles[tile].dims.clone();
    let own = |at: &Affine| -> Affine {
        let axes = at.terms().iter().filter(|(term, _)| matches!(term, Term::Axis(_)));
        axes.fold(Affine::default(), |sum, &(term, coefficient)| {
            sum.plus(&Affine::term(term), coefficient)
        })
    };
    let mut seen: SmallVec<[Axis; 6]> = SmallVec::new();
    let simple = at.iter().all(|at| match own(at).terms() {
        [] => true,
        [(Term::Axis(axis), 1)] if !seen.contains(axis) => {
            seen.push(*axis);
            true
        }
        _ => false,
    });
    if simple && seen.len() == dims.len() {
        return None;
    }
    let extent =
        |axis: Axis| dims.iter().find(|(other, _)| *other == axis).map_or(1, |&(_, extent)| extent);
    let mut block = Dims::new();
    let (mut load, mut view) = (Vec::new(), Vec::new());
    for at in at {
        let window = own(at);
        if window.terms().is_empty() {
            load.push(at.clone());
            continue;
        }
        let (low, high) = window.range(|term| match term {
            Term::Axis(axis) => (0, extent(axis) as i64 - 1),
            Term::Var(_) => (0, 0),
        });
        let axis = match window.terms() {
            [(Term::Axis(axis), 1)] if !block.iter().any(|(other, _)| other == axis) => *axis,
            _ => kernel.fresh_axis("w"),
        };
        let extent = usize::try_from(high - low + 1).expect("a window is not empty");
        block.push((axis, extent));
        let start = at.plus(&window, -1).plus(&Affine::constant(low), 1);
        load.push(start.plus(&Affine::axis(axis), 1));
        view.push(window.plus(&Affine::constant(-low), 1));
    }
    let name = format!("{}b", kernel.tiles[tile].name);
    let dtype = kernel.tiles[tile].dtype;
    Some(Block {
        tile: Tile { name, place: Place::Near, dtype, dims: block, rows: SmallVec::new() },
        load,
        view,
    })
}
