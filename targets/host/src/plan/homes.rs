//! Decides which tiles exist in memory, where, and for how long.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::{Definition, Home, Planner, Slot, Span, Use, UseKind};
use crate::functions::is_heavy;
use systole_compiler::expr::ExprNode;
use systole_compiler::kernel::{Affine, Loop, Role, Stmt, Term, TileId, TileOp};
use systole_compiler::types::strides;

impl<'k> Planner<'k> {
    /// Numbers the statements and notes what defines and reads each tile. A loop takes a number of its own.
    pub(super) fn number(&mut self, body: &'k [Stmt], place: &mut usize, loops: &mut Vec<Span>) {
        for stmt in body {
            let here = *place;
            *place += 1;
            match stmt {
                Stmt::Define { results, op } => {
                    for &result in results {
                        let definition =
                            Definition { op, results, place: here, loops: loops.clone() };
                        self.definitions.insert(result, definition);
                    }
                    for (tile, kind) in reads(op, results[0]) {
                        self.note_use(tile, here, loops, kind);
                    }
                }
                Stmt::Store { operand, tile, .. } => {
                    self.writes.push((here, *operand));
                    self.note_use(*tile, here, loops, UseKind::Store);
                }
                Stmt::Scatter { operand, index, tile, .. } => {
                    self.writes.push((here, *operand));
                    for &(_, tile) in index {
                        self.note_use(tile, here, loops, UseKind::Store);
                    }
                    self.note_use(*tile, here, loops, UseKind::Store);
                }
                Stmt::For(inner) => {
                    self.set_range(inner);
                    for &(_, initial) in &inner.carried {
                        self.note_use(initial, here, loops, UseKind::Memory);
                    }
                    let last = here + 1 + count(&inner.body);
                    loops.push(Span { first: here, last });
                    self.number(&inner.body, place, loops);
                    for &tile in &inner.yields {
                        self.note_use(tile, last - 1, loops, UseKind::Memory);
                    }
                    loops.pop();
                }
            }
        }
    }

    fn set_range(&mut self, inner: &Loop) {
        let ranges = &self.var_ranges;
        let range = |term: Term| match term {
            Term::Var(var) => ranges[var.index()],
            Term::Axis(_) => (0, 0),
        };
        let (first, _) = inner.start.range(range);
        let (_, end) = inner.end.range(range);
        let mut last = end.saturating_sub(1).max(first);
        let step = i64::try_from(inner.step).unwrap_or(i64::MAX).max(1);
        if inner.start.terms().is_empty() {
            last = first + (last - first) / step * step;
            self.var_multiples[inner.var.index()] = gcd(first, step);
        }
        self.var_ranges[inner.var.index()] = (first, last);
    }

    fn note_use(&mut self, tile: TileId, place: usize, loops: &[Span], kind: UseKind) {
        self.uses.entry(tile).or_default().push(Use { place, loops: loops.to_vec(), kind });
    }

    /// Decides for every tile, in order.
    pub(super) fn decide(&mut self, body: &'k [Stmt]) {
        self.decide_block(body, None);
    }

    fn decide_block(&mut self, body: &'k [Stmt], around: Option<&'k Loop>) {
        for (index, stmt) in body.iter().enumerate() {
            match stmt {
                Stmt::Define { results, op } => {
                    for &result in results {
                        let home = self.home(result, op, &body[index + 1..], around);
                        self.homes.insert(result, home);
                    }
                }
                Stmt::Store { .. } | Stmt::Scatter { .. } => {}
                Stmt::For(inner) => {
                    for (position, &(tile, _)) in inner.carried.iter().enumerate() {
                        let home = self.new_slot(tile);
                        self.homes.insert(tile, home.clone());
                        self.homes.insert(inner.results[position], home);
                    }
                    self.decide_block(&inner.body, Some(inner));
                }
            }
        }
    }

    /// A slot with the tile's axes in their order.
    fn new_slot(&mut self, tile: TileId) -> Home {
        let tile = &self.kernel.tiles[tile];
        let extents: Vec<usize> = tile.dims.iter().map(|&(_, extent)| extent).collect();
        let strides = strides(&extents).iter().map(|&stride| stride as i64).collect();
        self.slot(tile.count() * tile.dtype.bytes(), strides)
    }

    fn slot(&mut self, bytes: usize, strides: Vec<i64>) -> Home {
        self.slots.push(Slot { bytes, first: usize::MAX, last: 0, offset: 0 });
        Home::Slot { slot: self.slots.len() - 1, strides }
    }

    fn home(
        &mut self,
        tile: TileId,
        op: &'k TileOp,
        after: &'k [Stmt],
        around: Option<&'k Loop>,
    ) -> Home {
        if self.may_fold(tile, op) && !self.is_overwritten(tile) {
            return Home::Folded;
        }
        let shape = self.product_shape(tile, op);
        if let Some(shape) = shape {
            let strides = shape.strides.clone();
            let in_place = self.in_place(tile, after, around, true);
            self.shapes.insert(tile, shape);
            if let Some(Home::Slot { slot, strides: carried }) = in_place
                && carried == strides
            {
                return Home::Slot { slot, strides };
            }
            let stored = self.stored(tile, op, after);
            if let Some(home) = stored.filter(|home| self.has_rows(tile, op, home)) {
                return home;
            }
            let kept = &self.kernel.tiles[tile];
            let bytes = kept.count() * kept.dtype.bytes();
            return self.slot(bytes, strides);
        }
        if let Some(home) = self.in_place(tile, after, around, false) {
            return home;
        }
        if let Some(home) = self.stored(tile, op, after) {
            return home;
        }
        self.new_slot(tile)
    }

    /// Whether reading the tile anew costs no more than keeping it.
    fn may_fold(&self, tile: TileId, op: &TileOp) -> bool {
        let sorted = self.uses_of(tile).iter().any(|read| read.kind == UseKind::Sorted);
        match op {
            // What is sorted lies in memory.
            TileOp::Load { pad: None, .. } => true,
            _ if sorted => false,
            TileOp::Fill { .. } | TileOp::View { .. } | TileOp::Rearrange { .. } => true,
            TileOp::Load { pad: Some(_), .. } => {
                self.load_stays_inside(tile, op) || self.is_read_once(tile)
            }
            TileOp::Gather { .. } => self.is_read_once(tile),
            TileOp::Map { .. } if self.widens_panels(tile, op) => true,
            TileOp::Map { expr, .. } => {
                let yielded = self.uses_of(tile).iter().any(|read| read.kind == UseKind::Memory);
                if yielded {
                    return false;
                }
                self.is_read_once(tile) || (self.is_cheap(expr) && self.is_read_by_elements(tile))
            }
            TileOp::Contract { .. }
            | TileOp::Reduce { .. }
            | TileOp::ArgReduce { .. }
            | TileOp::Scan { .. }
            | TileOp::Sort { .. } => false,
        }
    }

    pub(super) fn uses_of(&self, tile: TileId) -> &[Use] {
        self.uses.get(&tile).map_or(&[], Vec::as_slice)
    }

    fn is_cheap(&self, expr: &systole_compiler::expr::Expr) -> bool {
        let mut calls = 0;
        for (node, _) in &expr.nodes {
            match node {
                ExprNode::Call(function, _) if is_heavy(*function) => return false,
                ExprNode::Call(..) | ExprNode::Convert(_) => calls += 1,
                ExprNode::Operand(_)
                | ExprNode::Constant(_)
                | ExprNode::Index(_)
                | ExprNode::Var(_) => {}
            }
        }
        calls <= 1 && expr.nodes.len() <= 4
    }

    /// Whether each element is read at most once, by code of the same loop.
    fn is_read_once(&self, tile: TileId) -> bool {
        let [read] = self.uses_of(tile) else { return self.uses_of(tile).is_empty() };
        if self.definitions[&tile].loops.len() != read.loops.len() {
            return false;
        }
        let count = self.kernel.tiles[tile].count();
        match read.kind {
            UseKind::Store => true,
            UseKind::Elements(reader) => match self.definitions[&reader].op {
                TileOp::Map { .. } => self.kernel.tiles[reader].count() <= count,
                TileOp::Reduce { tile: source, init, .. } if *init == Some(tile) => {
                    *source != tile && self.kernel.tiles[reader].count() <= count
                }
                TileOp::Reduce { .. } => true,
                TileOp::Contract { init, a, b, .. } => {
                    let is_init = *init == tile && *a != tile && *b != tile;
                    is_init && self.kernel.tiles[reader].count() <= count
                }
                TileOp::Scan { .. } | TileOp::ArgReduce { .. } => true,
                TileOp::Gather { .. } => self.kernel.tiles[reader].count() <= count,
                _ => false,
            },
            UseKind::View(view) => {
                self.kernel.tiles[view].count() <= count && self.is_read_once(view)
            }
            UseKind::Product | UseKind::Sorted | UseKind::Memory => false,
        }
    }

    /// Whether only code that walks over elements in the same loop reads the tile.
    fn is_read_by_elements(&self, tile: TileId) -> bool {
        let depth = self.definitions[&tile].loops.len();
        self.uses_of(tile).iter().all(|read| {
            read.loops.len() == depth
                && match read.kind {
                    UseKind::Store | UseKind::Elements(_) => true,
                    UseKind::View(_) | UseKind::Product | UseKind::Sorted | UseKind::Memory => {
                        false
                    }
                }
        })
    }

    /// Whether an operand that the tile reads changes before the tile is read for the last time.
    fn is_overwritten(&self, tile: TileId) -> bool {
        let definition = &self.definitions[&tile];
        let (TileOp::Load { operand, .. } | TileOp::Gather { operand, .. }) = definition.op else {
            return false;
        };
        if self.kernel.operands[*operand].role == Role::Input {
            return false;
        }
        let last = self.last_reach(tile);
        self.writes.iter().any(|&(place, other)| {
            other == *operand
                && place > definition.place
                && place <= last
                && !self.is_same_place(tile, place)
        })
    }

    /// The last statement that may evaluate a folded tile.
    fn last_reach(&self, tile: TileId) -> usize {
        let mut last = 0;
        for read in self.uses_of(tile) {
            let end = read.loops.iter().map(|span| span.last).max().unwrap_or(0);
            let inside = self.definitions[&tile].loops.len() == read.loops.len();
            last = last.max(if inside { read.place } else { end.max(read.place) });
            match read.kind {
                UseKind::Elements(reader) | UseKind::View(reader) => {
                    last = last.max(self.last_reach(reader))
                }
                UseKind::Product | UseKind::Store | UseKind::Sorted | UseKind::Memory => {}
            }
        }
        last
    }

    /// Whether the statement at `place` stores, element by element, where the load `tile` reads, and nothing reads later.
    fn is_same_place(&self, tile: TileId, place: usize) -> bool {
        let TileOp::Load { operand, at, pad: None } = self.definitions[&tile].op else {
            return false;
        };
        let Some(Stmt::Store { operand: target, at: written, .. }) =
            statement(&self.kernel.body, place)
        else {
            return false;
        };
        target == operand && written == at && self.last_reach(tile) <= place
    }

    /// The carried tile's slot, where the tile may overwrite it: the loop yields the tile, and nothing else needs the old value.
    fn in_place(
        &self,
        tile: TileId,
        after: &'k [Stmt],
        around: Option<&'k Loop>,
        product: bool,
    ) -> Option<Home> {
        let around = around?;
        let position = around.yields.iter().position(|&other| other == tile)?;
        let (carried, _) = around.carried[position];
        let (kept, old) = (&self.kernel.tiles[tile], &self.kernel.tiles[carried]);
        if kept.dims != old.dims || kept.dtype != old.dtype {
            return None;
        }
        let op = self.definitions[&tile].op;
        let reads_elsewhere = match op {
            TileOp::Map { operands, .. } => {
                operands.iter().any(|&operand| self.reads(operand, carried, true))
            }
            TileOp::Reduce { tile: source, init, .. } => {
                self.reads(*source, carried, true)
                    || init.is_some_and(|init| self.reads(init, carried, true))
            }
            TileOp::Contract { init, a, b, .. } => {
                self.reads(*init, carried, true)
                    || self.reads(*a, carried, !product)
                    || self.reads(*b, carried, !product)
            }
            _ => true,
        };
        if reads_elsewhere {
            return None;
        }
        let later = after.iter().any(|stmt| self.statement_reads(stmt, carried));
        let others =
            around.yields.iter().any(|&other| other != tile && self.reads(other, carried, false));
        (!later && !others).then(|| self.homes[&carried].clone())
    }

    /// Whether computing a tile reads another; with `but_in_place`, at another position than its own.
    fn reads(&self, tile: TileId, target: TileId, but_in_place: bool) -> bool {
        if tile == target {
            return !but_in_place;
        }
        if !matches!(self.homes.get(&tile), Some(Home::Folded)) {
            return false;
        }
        match self.definitions[&tile].op {
            TileOp::View { tile, .. } => self.reads(*tile, target, false),
            TileOp::Rearrange { tile } => self.reads(*tile, target, but_in_place),
            TileOp::Map { operands, .. } => {
                operands.iter().any(|&operand| self.reads(operand, target, but_in_place))
            }
            TileOp::Gather { index, .. } => {
                index.iter().any(|&(_, tile)| self.reads(tile, target, but_in_place))
            }
            _ => false,
        }
    }

    fn statement_reads(&self, stmt: &Stmt, target: TileId) -> bool {
        match stmt {
            // A folded tile counts where it is evaluated; but whether a later tile is folded is not decided yet.
            Stmt::Define { results, op } => {
                reads(op, results[0]).iter().any(|&(tile, _)| self.reads(tile, target, false))
            }
            Stmt::Store { tile, .. } => self.reads(*tile, target, false),
            Stmt::Scatter { tile, index, .. } => {
                self.reads(*tile, target, false)
                    || index.iter().any(|&(_, tile)| self.reads(tile, target, false))
            }
            Stmt::For(inner) => {
                inner.carried.iter().any(|&(_, initial)| self.reads(initial, target, false))
                    || inner.body.iter().any(|stmt| self.statement_reads(stmt, target))
                    || inner.yields.iter().any(|&tile| self.reads(tile, target, false))
            }
        }
    }

    /// The store that alone reads the tile, in the same block, with nothing between that touches the operand.
    fn stored(&self, tile: TileId, op: &TileOp, after: &'k [Stmt]) -> Option<Home> {
        if !matches!(
            op,
            TileOp::Reduce { .. }
                | TileOp::Contract { .. }
                | TileOp::ArgReduce { .. }
                | TileOp::Scan { .. }
        ) {
            return None;
        }
        let [Use { kind: UseKind::Store, .. }] = self.uses_of(tile) else { return None };
        for stmt in after {
            match stmt {
                Stmt::Store { operand, at, tile: stored } if *stored == tile => {
                    let untouched = self.kernel.operands[*operand].role == Role::Output
                        && self.writes.iter().filter(|(_, other)| other == operand).count() == 1;
                    return untouched.then(|| Home::Stored { operand: *operand, at: at.clone() });
                }
                Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => {}
                Stmt::For(_) => return None,
            }
        }
        None
    }

    /// Finds for every slot the statements for which it must be kept.
    pub(super) fn live(&mut self, body: &'k [Stmt], place: &mut usize, loops: &mut Vec<Span>) {
        for stmt in body {
            let here = *place;
            *place += 1;
            match stmt {
                Stmt::Define { results, op } => {
                    for &result in results {
                        if !matches!(self.homes[&result], Home::Folded) {
                            self.touch(result, here, loops);
                        }
                    }
                    if results.iter().any(|result| !matches!(self.homes[result], Home::Folded)) {
                        for (tile, _) in reads(op, results[0]) {
                            self.touch(tile, here, loops);
                        }
                    }
                    if let Some(shape) = self.shapes.get(&results[0]) {
                        let slot = shape.scratch;
                        self.slots[slot].first = here;
                        self.slots[slot].last = here;
                    }
                }
                Stmt::Store { tile, .. } => self.touch(*tile, here, loops),
                Stmt::Scatter { index, tile, .. } => {
                    self.touch(*tile, here, loops);
                    for &(_, tile) in index {
                        self.touch(tile, here, loops);
                    }
                }
                Stmt::For(inner) => {
                    let last = here + 1 + count(&inner.body);
                    for &(tile, initial) in &inner.carried {
                        self.touch(initial, here, loops);
                        self.touch(tile, here, loops);
                    }
                    loops.push(Span { first: here, last });
                    self.live(&inner.body, place, loops);
                    for &tile in &inner.yields {
                        self.touch(tile, last - 1, loops);
                    }
                    loops.pop();
                    for &(tile, _) in &inner.carried {
                        self.touch(tile, last, loops);
                    }
                }
            }
        }
    }

    fn touch(&mut self, tile: TileId, place: usize, loops: &[Span]) {
        match &self.homes[&tile] {
            Home::Folded => {
                let definition = &self.definitions[&tile];
                for (tile, _) in reads(definition.op, definition.results[0]) {
                    self.touch(tile, place, loops);
                }
            }
            Home::Stored { .. } => {}
            Home::Slot { slot, .. } => {
                let slot = &mut self.slots[*slot];
                slot.first = slot.first.min(place);
                slot.last = slot.last.max(place);
                for span in loops {
                    // What is made before a loop and read in it is needed by every iteration.
                    if slot.first <= span.first {
                        slot.last = slot.last.max(span.last);
                    }
                }
            }
        }
    }

    /// Gives every slot an offset: the bytes of scratch.
    pub(super) fn allocate(&mut self) -> usize {
        let mut placed: Vec<usize> = Vec::new();
        let mut total = 0;
        for slot in 0..self.slots.len() {
            if self.slots[slot].first == usize::MAX {
                continue;
            }
            let bytes = self.slots[slot].bytes.next_multiple_of(64);
            let mut busy: Vec<(usize, usize)> = placed
                .iter()
                .map(|&other| &self.slots[other])
                .filter(|other| {
                    other.first <= self.slots[slot].last && self.slots[slot].first <= other.last
                })
                .map(|other| (other.offset, other.offset + other.bytes.next_multiple_of(64)))
                .collect();
            busy.sort_unstable();
            let mut offset = 0;
            for (first, end) in busy {
                if first >= offset + bytes {
                    break;
                }
                offset = offset.max(end);
            }
            self.slots[slot].offset = offset;
            total = total.max(offset + bytes);
            placed.push(slot);
        }
        total
    }

    /// A slot for the bytes that a product needs while it runs.
    pub(super) fn working_slot(&mut self, bytes: usize) -> usize {
        self.slots.push(Slot { bytes, first: usize::MAX, last: 0, offset: 0 });
        self.slots.len() - 1
    }

    fn load_stays_inside(&self, tile: TileId, op: &TileOp) -> bool {
        let TileOp::Load { operand, at, .. } = op else { return false };
        let tile = &self.kernel.tiles[tile];
        let dims = &self.kernel.operands[*operand].dims;
        at.iter().zip(dims).all(|(position, &(_, extent))| {
            let (low, high) = self.tile_range(position, tile);
            low >= 0 && high < extent as i64
        })
    }

    fn tile_range(&self, position: &Affine, tile: &systole_compiler::kernel::Tile) -> (i64, i64) {
        position.range(|term| match term {
            Term::Var(var) => self.var_ranges[var.index()],
            Term::Axis(axis) => (0, tile.extent(axis).map_or(0, |extent| extent as i64 - 1)),
        })
    }
}

/// The tiles that an operation reads, and how; `result` is what it defines.
pub(super) fn reads(op: &TileOp, result: TileId) -> Vec<(TileId, UseKind)> {
    let elements = |tile: &TileId| (*tile, UseKind::Elements(result));
    match op {
        TileOp::Load { .. } | TileOp::Fill { .. } => Vec::new(),
        TileOp::Gather { index, .. } => index.iter().map(|(_, tile)| elements(tile)).collect(),
        TileOp::View { tile, .. } | TileOp::Rearrange { tile } => {
            vec![(*tile, UseKind::View(result))]
        }
        TileOp::Contract { init, a, b, .. } => {
            vec![elements(init), (*a, UseKind::Product), (*b, UseKind::Product)]
        }
        TileOp::Map { operands, .. } => operands.iter().map(elements).collect(),
        TileOp::Reduce { init, tile, .. } => {
            init.iter().chain(std::iter::once(tile)).map(elements).collect()
        }
        TileOp::ArgReduce { tile, .. } | TileOp::Scan { tile, .. } => vec![elements(tile)],
        TileOp::Sort { tile, .. } => vec![(*tile, UseKind::Sorted)],
    }
}

/// How many numbers statements take.
pub(super) fn count(body: &[Stmt]) -> usize {
    body.iter()
        .map(|stmt| match stmt {
            Stmt::For(inner) => 1 + count(&inner.body),
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => 1,
        })
        .sum()
}

fn statement(body: &[Stmt], mut place: usize) -> Option<&Stmt> {
    for stmt in body {
        if place == 0 {
            return Some(stmt);
        }
        place -= 1;
        if let Stmt::For(inner) = stmt {
            let inside = count(&inner.body);
            if place < inside {
                return statement(&inner.body, place);
            }
            place -= inside;
        }
    }
    None
}

fn gcd(x: i64, y: i64) -> i64 {
    if y == 0 { x.abs() } else { gcd(y, x % y) }
}
