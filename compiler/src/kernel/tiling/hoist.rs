//! Moves loads out of loops, as a schedule says. A load that varies with a loop that it leaves becomes as long as all
//! iterations together, and each iteration sees its part of it.

use crate::kernel::{
    Affine, Axis, Kernel, Loop, OperandId, Role, Stmt, Term, Tile, TileId, TileOp,
};

/// Moves the loads of each operand or tile just inside the loop over the axis; an empty axis is outside of all loops.
pub(super) fn all(kernel: &mut Kernel, hoist: &[(String, String)]) -> Result<(), String> {
    for (name, axis) in hoist {
        let mut body = std::mem::take(&mut kernel.body);
        let mut mover = Mover { kernel, name, axis, found: false };
        mover.body(&mut body, axis.is_empty())?;
        let found = mover.found;
        kernel.body = body;
        if !found {
            let place = if axis.is_empty() { String::new() } else { format!(" over {axis}") };
            return Err(format!("no load of %{name} is in a loop{place}"));
        }
    }
    Ok(())
}

struct Mover<'a> {
    kernel: &'a mut Kernel,
    name: &'a str,
    axis: &'a str,
    found: bool,
}

/// A load that is moved.
struct Moved {
    tile: TileId,
    operand: OperandId,
    at: Vec<Affine>,
    pad: Option<crate::expr::Scalar>,
}

impl Mover<'_> {
    /// Brings loads from the loops in a body before them, where the body is inside the place to which they go.
    fn body(&mut self, body: &mut Vec<Stmt>, inside: bool) -> Result<(), String> {
        let mut place = 0;
        while place < body.len() {
            if let Stmt::For(inner) = &mut body[place] {
                let is_target = self.kernel.vars[inner.var].name == self.axis;
                self.body(&mut inner.body, inside || is_target)?;
                if inside {
                    let before = self.out_of(inner)?;
                    let count = before.len();
                    body.splice(place..place, before);
                    place += count;
                } else if is_target {
                    self.found |= inner.body.iter().any(|stmt| self.wanted(stmt).is_some());
                }
            }
            place += 1;
        }
        Ok(())
    }

    fn wanted(&self, stmt: &Stmt) -> Option<Moved> {
        let Stmt::Define { op: TileOp::Load { operand, at, pad }, results } = stmt else {
            return None;
        };
        let is_named = self.kernel.operands[*operand].name == self.name
            || self.kernel.tiles[results[0]].name == self.name;
        is_named.then(|| Moved { tile: results[0], operand: *operand, at: at.clone(), pad: *pad })
    }

    /// The statements that stand before the loop instead.
    fn out_of(&mut self, inner: &mut Loop) -> Result<Vec<Stmt>, String> {
        let mut before = Vec::new();
        let mut place = 0;
        while place < inner.body.len() {
            let Some(mut moved) = self.wanted(&inner.body[place]) else {
                place += 1;
                continue;
            };
            self.found = true;
            if self.kernel.operands[moved.operand].role == Role::Update {
                return Err(format!("%{} is written too, so its loads stay", self.name));
            }
            let own = Term::Var(inner.var);
            if moved.at.iter().any(|at| at.coefficient(own) != 0) {
                let (whole, view) = self.lengthen(&mut moved, inner)?;
                let part = Stmt::Define { results: smallvec::smallvec![moved.tile], op: view };
                inner.body[place] = part;
                moved.tile = whole;
                place += 1;
            } else {
                inner.body.remove(place);
            }
            let Moved { tile, operand, at, pad } = moved;
            let op = TileOp::Load { operand, at, pad };
            before.push(Stmt::Define { results: smallvec::smallvec![tile], op });
        }
        Ok(before)
    }

    /// The tile of all iterations, and the part that one of them sees.
    fn lengthen(&mut self, moved: &mut Moved, inner: &Loop) -> Result<(TileId, TileOp), String> {
        let own = Term::Var(inner.var);
        let tile = self.kernel.tiles[moved.tile].clone();
        let stays =
            || format!("%{} varies with the loop over {}", self.name, self.loop_name(inner));
        // The loop moves one of the tile's axes along.
        let together = |axis: Axis| {
            moved.at.iter().all(|at| at.coefficient(own) == at.coefficient(Term::Axis(axis)))
        };
        let mut axes = tile.dims.iter();
        let axis = axes.find(|&&(axis, extent)| extent == inner.step && together(axis));
        let axis = axis.map(|&(axis, _)| axis).ok_or_else(stays)?;
        if !inner.start.terms().is_empty() || !inner.end.terms().is_empty() {
            return Err(stays());
        }
        let count = inner.end.constant.saturating_sub(inner.start.constant).max(0);
        let count = usize::try_from(count).map_err(|_| stays())?;
        let length = count.next_multiple_of(inner.step);
        let start = Affine::constant(inner.start.constant);
        for at in &mut moved.at {
            *at = at.substitute(own, &start);
        }
        let mut whole = Tile { name: format!("{}h", tile.name), ..tile.clone() };
        for (other, extent) in &mut whole.dims {
            if *other == axis {
                *extent = length;
            }
        }
        let offset = Affine::var(inner.var).plus(&start, -1);
        let view = tile.dims.iter().map(|&(other, _)| {
            let at = Affine::axis(other);
            if other == axis { at.plus(&offset, 1) } else { at }
        });
        let whole = self.kernel.tiles.push(whole);
        Ok((whole, TileOp::View { tile: whole, at: view.collect() }))
    }

    fn loop_name(&self, inner: &Loop) -> String {
        self.kernel.vars[inner.var].name.clone()
    }
}
