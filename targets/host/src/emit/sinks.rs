//! What a nest does with its values: stores, reductions along and across vectors, searches, scans, scatters.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::point::{Inside, State};
use super::{Bound, Emitter, Val, affine, begin, end, only_if};
use crate::code::LANES;
use crate::functions;
use crate::nest::{Node, NodeId, Sink, loop_term};
use crate::shape::Shape;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use systole_compiler::expr::Scalar;
use systole_compiler::kernel::{Affine, Combine};
use systole_compiler::types::DType;

/// The most positions of a reduction that become straight code: the taps of a window of seven by seven.
const UNROLLED: usize = 49;

/// A partial result of a reduction: for each copy one vector, or a scalar for each lane.
type Partial = Vec<Value>;

impl Emitter<'_, '_> {
    pub(super) fn run(&mut self) {
        let mut condition: Option<Value> = None;
        for (position, extent) in &self.schedule.clips {
            if self.depth(position) == 0 {
                let position = affine(self.code, self.frame(), &[], position);
                let extent = self.code.int(*extent as i64);
                let inside = self.code.b.ins().icmp(IntCC::UnsignedLessThan, position, extent);
                condition = Some(match condition {
                    None => inside,
                    Some(other) => self.code.b.ins().band(other, inside),
                });
            }
        }
        let Some(condition) = condition else { return self.run_sink() };
        let block = self.code.b.create_block();
        let exit = self.code.b.create_block();
        self.code.b.ins().brif(condition, block, &[], exit, &[]);
        self.code.b.switch_to_block(block);
        self.run_sink();
        self.code.b.ins().jump(exit, &[]);
        self.code.b.switch_to_block(exit);
    }

    fn run_sink(&mut self) {
        let copies = self.schedule.vector.map(|_| self.schedule.copies);
        let state = self.start(copies, Inside::Tested);
        match self.schedule.nest.sink.clone() {
            Sink::Store { root } => {
                self.kept_loops(&state, 0, self.schedule.order.len(), &mut |this, state| {
                    this.store_all(state, root);
                })
            }
            Sink::Reduce { over, .. } => {
                let kept = self.schedule.order.len() - over.len();
                self.kept_loops(&state, 0, kept, &mut |this, state| this.reduce(state, kept));
            }
            Sink::ArgReduce { largest, element, last, .. } => {
                let kept = self.schedule.order.len() - 1;
                self.kept_loops(&state, 0, kept, &mut |this, state| {
                    this.arg_reduce(state, largest, element, last);
                });
            }
            Sink::Scan { combine, element, exclusive, reverse, identity, .. } => {
                let kept = self.schedule.order.len() - 1;
                self.kept_loops(&state, 0, kept, &mut |this, state| {
                    this.scan(state, combine, element, identity, exclusive, reverse);
                });
            }
            Sink::Scatter { root, combine } => {
                let kept = self.schedule.order.len();
                self.kept_loops(&state, 0, kept, &mut |this, state| {
                    this.scatter(state, root, combine)
                });
            }
        }
    }

    /// The range of the loop at a depth, cut to what may be written.
    fn bounds(&mut self, state: &State, depth: usize) -> (Bound, Bound) {
        let index = self.schedule.order[depth];
        let extent = self.schedule.nest.extents[index] as i64;
        let (mut first, mut last) = (Bound::Static(0), Bound::Static(extent));
        for (position, size) in &self.schedule.clips {
            if self.depth(position) == depth + 1 {
                let (low, high) = self.inside(state, index, position, *size);
                first = Bound::Dynamic(self.larger(first, low));
                last = Bound::Dynamic(self.smaller(last, high));
            }
        }
        (first, last)
    }

    fn larger(&mut self, x: Bound, y: Value) -> Value {
        let x = x.value(self.code);
        self.code.b.ins().smax(x, y)
    }

    fn smaller(&mut self, x: Bound, y: Value) -> Value {
        let x = x.value(self.code);
        self.code.b.ins().smin(x, y)
    }

    /// The positions of a loop, not below zero, for which an expression is within `0..size`.
    fn inside(
        &mut self,
        state: &State,
        index: usize,
        position: &Affine,
        size: usize,
    ) -> (Value, Value) {
        let coefficient = position.coefficient(loop_term(index));
        let rest = position.substitute(loop_term(index), &Affine::default());
        let rest = affine(self.code, self.frame(), &state.counters, &rest);
        let step = coefficient.abs();
        let (low, high) = if coefficient > 0 {
            let high = self.code.subtract_from(size as i64 + step - 1, rest);
            let low = self.code.subtract_from(step - 1, rest);
            (low, high)
        } else {
            let low = self.code.b.ins().iadd_imm_s(rest, step - size as i64);
            let high = self.code.b.ins().iadd_imm_s(rest, step);
            (low, high)
        };
        let mut divide = |value: Value| {
            let zero = self.code.int(0);
            let value = self.code.b.ins().smax(value, zero);
            if step == 1 {
                return value;
            }
            let step = self.code.int(step);
            self.code.b.ins().udiv(value, step)
        };
        (divide(low), divide(high))
    }

    /// Runs `body` for every position of the first `kept` loops, in vectors along the vectorised one.
    fn kept_loops(
        &mut self,
        state: &State,
        depth: usize,
        kept: usize,
        body: &mut dyn FnMut(&mut Self, &State),
    ) {
        if depth == kept {
            return body(self, state);
        }
        let (first, last) = self.bounds(state, depth);
        if self.schedule.vector == Some(self.schedule.order[depth]) {
            return self.vector_loops(state, depth, kept, first, last, body);
        }
        let Some((open, counter, _)) = begin(self.code, first, last, 1, &[]) else { return };
        let inner = self.entered(state, depth, counter);
        self.kept_loops(&inner, depth + 1, kept, body);
        end(self.code, open, Vec::new());
    }

    fn entered(&mut self, state: &State, depth: usize, counter: Value) -> State {
        let mut inner = state.clone();
        inner.counters[self.schedule.order[depth]] = Some(counter);
        self.enter(&mut inner, depth + 1);
        inner
    }

    /// The vectorised loop: where loads are guarded along it, the part where all guards hold by itself.
    fn vector_loops(
        &mut self,
        state: &State,
        depth: usize,
        kept: usize,
        first: Bound,
        last: Bound,
        body: &mut dyn FnMut(&mut Self, &State),
    ) {
        let mut guards: Vec<(Affine, usize)> = Vec::new();
        for (node, (kind, _)) in self.schedule.nest.nodes.iter().enumerate() {
            if let Node::Load(access) = kind
                && self.live[node]
                && self.is_guarded_along_vector(access)
            {
                for dim in &access.dims {
                    let guard = (dim.position.clone(), dim.extent);
                    let varies =
                        dim.position.coefficient(loop_term(self.schedule.order[depth])) != 0;
                    if dim.guard == crate::nest::Guard::Pad && varies && !guards.contains(&guard) {
                        guards.push(guard);
                    }
                }
            }
        }
        let known = guards.iter().all(|(position, _)| self.depth(position) == depth + 1);
        if guards.is_empty() || !known {
            return self.vector_range(state, depth, kept, first, last, body);
        }
        let index = self.schedule.order[depth];
        let (mut low, mut high) = (first.value(self.code), last.value(self.code));
        for (position, size) in &guards {
            let (from, to) = self.inside(state, index, position, *size);
            low = self.code.b.ins().smax(low, from);
            high = self.code.b.ins().smin(high, to);
        }
        let end_value = last.value(self.code);
        let low = self.code.b.ins().smin(low, end_value);
        let high = self.code.b.ins().smax(low, high);
        let mut outside = state.clone();
        // With one guard, nothing of what it guards is inside beyond it.
        outside.inside = if guards.len() == 1 { Inside::No } else { Inside::Tested };
        let mut within = state.clone();
        within.inside = Inside::Yes;
        self.vector_range(&outside, depth, kept, first, Bound::Dynamic(low), body);
        self.vector_range(&within, depth, kept, Bound::Dynamic(low), Bound::Dynamic(high), body);
        self.vector_range(&outside, depth, kept, Bound::Dynamic(high), last, body);
    }

    /// A range of the vectorised loop: several vectors at once, then one, then single elements.
    fn vector_range(
        &mut self,
        state: &State,
        depth: usize,
        kept: usize,
        first: Bound,
        last: Bound,
        body: &mut dyn FnMut(&mut Self, &State),
    ) {
        let copies = state.copies.expect("vectors were chosen");
        let mut from = first;
        let mut sizes = vec![copies];
        if copies > 1 {
            sizes.push(1);
        }
        for size in sizes {
            let step = (size * LANES) as i64;
            let until = self.whole_blocks(from, last, step);
            if let Some((open, counter, _)) = begin(self.code, from, until, step, &[]) {
                let fewer = state.with_copies(Some(size));
                let inner = self.entered(&fewer, depth, counter);
                self.kept_loops(&inner, depth + 1, kept, body);
                end(self.code, open, Vec::new());
            }
            from = until;
        }
        if let (Bound::Static(low), Bound::Static(from_now), Bound::Static(high)) =
            (first, from, last)
            && from_now < high
            && high - low >= LANES as i64
            && self.may_repeat()
        {
            // The last vector overlaps the one before it.
            let fewer = state.with_copies(Some(1));
            let counter = self.code.int(high - LANES as i64);
            let inner = self.entered(&fewer, depth, counter);
            return self.kept_loops(&inner, depth + 1, kept, body);
        }
        if let Some((open, counter, _)) = begin(self.code, from, last, 1, &[]) {
            let single = state.with_copies(None);
            let inner = self.entered(&single, depth, counter);
            self.kept_loops(&inner, depth + 1, kept, body);
            end(self.code, open, Vec::new());
        }
    }

    /// Where the last whole block that starts at `from` ends.
    fn whole_blocks(&mut self, from: Bound, last: Bound, step: i64) -> Bound {
        match (from, last) {
            (Bound::Static(from), Bound::Static(last)) => {
                Bound::Static(from + (last - from).max(0) / step * step)
            }
            (Bound::Static(_) | Bound::Dynamic(_), Bound::Static(_) | Bound::Dynamic(_)) => {
                let from = from.value(self.code);
                let last = last.value(self.code);
                let count = self.code.b.ins().isub(last, from);
                let whole = self.code.b.ins().band_imm_s(count, -step);
                Bound::Dynamic(self.code.b.ins().iadd(from, whole))
            }
        }
    }

    /// Whether computing an element twice does no harm: nothing that is read is also written.
    fn may_repeat(&self) -> bool {
        self.schedule
            .nest
            .accesses()
            .skip(1)
            .all(|access| access.base != self.schedule.nest.to.base)
    }

    fn store_all(&mut self, state: &State, root: NodeId) {
        let dtype = self.element_type();
        for copy in 0..state.copies.unwrap_or(1) {
            let value = match state.copies {
                Some(_) if dtype.bits() < 64 => Val::Vector(self.vector(state, copy, root)),
                Some(_) => {
                    Val::Lanes(std::array::from_fn(|lane| self.lane(state, copy, root, lane)))
                }
                None => Val::One(self.single(state, root)),
            };
            self.write(state, copy, dtype, value);
        }
    }

    /// Writes the value of one copy, which is of the type `dtype`, converted to the sink's.
    fn write(&mut self, state: &State, copy: usize, dtype: DType, value: Val) {
        let to = &self.schedule.nest.to;
        let key = self.schedule.nest.nodes.len();
        if state.copies.is_none() {
            let Val::One(value) = value else { unreachable!("there are no vectors here") };
            let value =
                self.code.convert(Shape::Scalar, dtype, to.dtype, value).expect("scalars convert");
            let (address, offset, _) = self.address(state, key, to, copy, 0);
            return self.code.store(to.dtype, value, address, offset);
        }
        let follows = self.schedule.vector.is_some_and(|index| super::stride(to, index) != 0);
        if !follows {
            unreachable!("the sink of a vectorised nest follows its vectors");
        }
        let has_vectors = Shape::Vector.register(to.dtype).is_some()
            && !matches!(to.dtype, DType::F8E4M3 | DType::F8E5M2 | DType::F4E2M1);
        if let Val::Vector(vector) = value
            && has_vectors
            && self.is_contiguous(state, to)
            && let Some(vector) = self.code.convert(Shape::Vector, dtype, to.dtype, vector)
        {
            let (address, offset, _) = self.address(state, key, to, copy, 0);
            return self.code.store_vector(to.dtype, vector, address, offset);
        }
        for lane in 0..LANES {
            let value = match value {
                Val::One(value) => value,
                Val::Vector(vector) => self.code.lane(dtype, vector, lane),
                Val::Lanes(lanes) => lanes[lane],
            };
            let value =
                self.code.convert(Shape::Scalar, dtype, to.dtype, value).expect("scalars convert");
            let (address, offset, _) = self.address(state, key, to, copy, lane);
            self.code.store(to.dtype, value, address, offset);
        }
    }

    fn parts(&self) -> (Combine, NodeId, Option<NodeId>, Option<NodeId>, DType) {
        match &self.schedule.nest.sink {
            Sink::Reduce { combine, element, factor, init, accumulate, .. } => {
                (*combine, *element, *factor, *init, *accumulate)
            }
            other => unreachable!("only reductions have partial results, not {other:?}"),
        }
    }

    fn identity(&mut self, shape: Shape) -> Value {
        let identity = match &self.schedule.nest.sink {
            Sink::Reduce { identity, .. } => *identity,
            other => unreachable!("only reductions have partial results, not {other:?}"),
        };
        let value = self.code.constant(identity);
        match shape {
            Shape::Scalar => value,
            Shape::Vector => self.code.splat(identity.dtype, value),
        }
    }

    /// One result for each lane of each copy, or one alone, where the kept loops have their positions.
    fn reduce(&mut self, state: &State, kept: usize) {
        let (combine, _, _, init, accumulate) = self.parts();
        let along =
            self.schedule.order[kept..].iter().any(|&index| self.schedule.vector == Some(index));
        if along {
            let total = self.reduce_along(state, kept);
            let total = match init {
                None => total,
                Some(init) => {
                    let init = self.single(state, init);
                    functions::combine(self.code, Shape::Scalar, combine, accumulate, init, total)
                }
            };
            let single = state.with_copies(None);
            return self.write(&single, 0, accumulate, Val::One(total));
        }
        let wide = accumulate.bits() == 64;
        let mut partial = Partial::new();
        for copy in 0..state.copies.unwrap_or(1) {
            match (state.copies, init) {
                (None, None) => partial.push(self.identity(Shape::Scalar)),
                (None, Some(init)) => partial.push(self.single(state, init)),
                (Some(_), None) if wide => {
                    let identity = self.identity(Shape::Scalar);
                    partial.extend([identity; LANES]);
                }
                (Some(_), None) => partial.push(self.identity(Shape::Vector)),
                (Some(_), Some(init)) if wide => {
                    for lane in 0..LANES {
                        partial.push(self.lane(state, copy, init, lane));
                    }
                }
                (Some(_), Some(init)) => partial.push(self.vector(state, copy, init)),
            }
        }
        let total = self.reduce_levels(state, kept, partial);
        for copy in 0..state.copies.unwrap_or(1) {
            let value = match state.copies {
                None => Val::One(total[0]),
                Some(_) if wide => {
                    Val::Lanes(std::array::from_fn(|lane| total[copy * LANES + lane]))
                }
                Some(_) => Val::Vector(total[copy]),
            };
            self.write(state, copy, accumulate, value);
        }
    }

    /// Runs the loops from `depth` on, which do not include the vectorised one.
    fn reduce_levels(&mut self, state: &State, depth: usize, partial: Partial) -> Partial {
        let order = &self.schedule.order;
        if depth == order.len() {
            return self.join(state, partial);
        }
        let extents = &self.schedule.nest.extents;
        let rest: usize = order[depth..].iter().map(|&index| extents[index]).product();
        let extent = extents[order[depth]] as i64;
        if rest <= UNROLLED {
            let mut partial = partial;
            for position in 0..extent {
                let counter = self.code.int(position);
                let inner = self.entered(state, depth, counter);
                partial = self.reduce_levels(&inner, depth + 1, partial);
            }
            return partial;
        }
        let bounds = (Bound::Static(0), Bound::Static(extent));
        let Some((open, counter, inside)) = begin(self.code, bounds.0, bounds.1, 1, &partial)
        else {
            return partial;
        };
        let inner = self.entered(state, depth, counter);
        let inside = self.reduce_levels(&inner, depth + 1, inside);
        end(self.code, open, inside)
    }

    /// Joins the elements at a point to the partial results.
    fn join(&mut self, state: &State, partial: Partial) -> Partial {
        let (_, _, _, _, accumulate) = self.parts();
        let wide = accumulate.bits() == 64;
        let mut result = Partial::new();
        for copy in 0..state.copies.unwrap_or(1) {
            match state.copies {
                None => result.push(self.join_lane(state, 0, 0, partial[0])),
                Some(_) if wide => {
                    for lane in 0..LANES {
                        let before = partial[copy * LANES + lane];
                        result.push(self.join_lane(state, copy, lane, before));
                    }
                }
                Some(_) => result.push(self.join_vector(state, copy, partial[copy])),
            }
        }
        result
    }

    fn join_lane(&mut self, state: &State, copy: usize, lane: usize, before: Value) -> Value {
        let (_, element, factor, _, _) = self.parts();
        let element = self.lane(state, copy, element, lane);
        let factor = factor.map(|factor| self.lane(state, copy, factor, lane));
        self.join_values(Shape::Scalar, before, element, factor)
    }

    fn join_vector(&mut self, state: &State, copy: usize, before: Value) -> Value {
        let (_, element, factor, _, _) = self.parts();
        let element = self.vector(state, copy, element);
        let factor = factor.map(|factor| self.vector(state, copy, factor));
        self.join_values(Shape::Vector, before, element, factor)
    }

    fn join_values(
        &mut self,
        shape: Shape,
        before: Value,
        element: Value,
        factor: Option<Value>,
    ) -> Value {
        use systole_compiler::scalar::ScalarFn;
        let (combine, _, _, _, accumulate) = self.parts();
        let Some(factor) = factor else {
            return functions::combine(self.code, shape, combine, accumulate, before, element);
        };
        if matches!(accumulate, DType::F32 | DType::F64) {
            return self.code.multiply_add(element, factor, before);
        }
        let product =
            functions::call(self.code, shape, ScalarFn::Mul, accumulate, &[element, factor])
                .expect("products have vector code");
        functions::combine(self.code, shape, combine, accumulate, before, product)
    }

    /// Reduces along vectors, and then their lanes.
    fn reduce_along(&mut self, state: &State, kept: usize) -> Value {
        let (combine, _, _, _, accumulate) = self.parts();
        let wide = accumulate.bits() == 64;
        let copies = state.copies.expect("vectors were chosen");
        let mut partial = Partial::new();
        for _ in 0..copies {
            if wide {
                let identity = self.identity(Shape::Scalar);
                partial.extend([identity; LANES]);
            } else {
                partial.push(self.identity(Shape::Vector));
            }
        }
        partial.push(self.identity(Shape::Scalar));
        let mut total = self.along_levels(state, kept, partial);
        let mut rest = total.pop().expect("the single elements' part is last");
        let shape = if wide { Shape::Scalar } else { Shape::Vector };
        let width = if wide { LANES } else { 1 };
        let mut count = copies;
        while count > 1 {
            count /= 2;
            for part in 0..count * width {
                let other = total[part + count * width];
                total[part] =
                    functions::combine(self.code, shape, combine, accumulate, total[part], other);
            }
        }
        let lanes: Vec<Value> = if wide {
            total[..LANES].to_vec()
        } else {
            (0..LANES).map(|lane| self.code.lane(accumulate, total[0], lane)).collect()
        };
        let pairs = [(lanes[0], lanes[2]), (lanes[1], lanes[3])];
        let halves = pairs
            .map(|(x, y)| functions::combine(self.code, Shape::Scalar, combine, accumulate, x, y));
        let sum =
            functions::combine(self.code, Shape::Scalar, combine, accumulate, halves[0], halves[1]);
        rest = functions::combine(self.code, Shape::Scalar, combine, accumulate, sum, rest);
        rest
    }

    /// Runs the loops from `depth` on; the last is the vectorised one.
    fn along_levels(&mut self, state: &State, depth: usize, mut partial: Partial) -> Partial {
        let index = self.schedule.order[depth];
        let extent = self.schedule.nest.extents[index] as i64;
        if self.schedule.vector != Some(index) {
            let Some((open, counter, inside)) =
                begin(self.code, Bound::Static(0), Bound::Static(extent), 1, &partial)
            else {
                return partial;
            };
            let inner = self.entered(state, depth, counter);
            let inside = self.along_levels(&inner, depth + 1, inside);
            return end(self.code, open, inside);
        }
        let copies = state.copies.expect("vectors were chosen");
        let (_, _, _, _, accumulate) = self.parts();
        let width = if accumulate.bits() == 64 { LANES } else { 1 };
        let rest = partial.pop().expect("the single elements' part is last");
        let mut from = 0;
        let mut sizes = vec![copies];
        if copies > 1 {
            sizes.push(1);
        }
        for size in sizes {
            let step = (size * LANES) as i64;
            let until = from + (extent - from) / step * step;
            let carried = partial[..size * width].to_vec();
            if let Some((open, counter, inside)) =
                begin(self.code, Bound::Static(from), Bound::Static(until), step, &carried)
            {
                let fewer = state.with_copies(Some(size));
                let inner = self.entered(&fewer, depth, counter);
                let inside = self.join(&inner, inside);
                let after = end(self.code, open, inside);
                partial[..size * width].copy_from_slice(&after);
            }
            from = until;
        }
        let mut tail = rest;
        if let Some((open, counter, inside)) =
            begin(self.code, Bound::Static(from), Bound::Static(extent), 1, &[rest])
        {
            let single = state.with_copies(None);
            let inner = self.entered(&single, depth, counter);
            let inside = self.join(&inner, inside);
            tail = end(self.code, open, inside)[0];
        }
        partial.push(tail);
        partial
    }

    fn arg_reduce(&mut self, state: &State, largest: bool, element: NodeId, last: bool) {
        let depth = self.schedule.order.len() - 1;
        let extent = self.schedule.nest.extents[self.schedule.order[depth]] as i64;
        let dtype = self.element_type();
        let zero = self.code.int(0);
        let first = self.entered(state, depth, zero);
        let first = self.single(&first, element);
        let mut found = vec![first, zero];
        if let Some((open, counter, inside)) =
            begin(self.code, Bound::Static(1), Bound::Static(extent), 1, &found)
        {
            let inner = self.entered(state, depth, counter);
            let value = self.single(&inner, element);
            let better = self.is_better(dtype, largest, last, value, inside[0]);
            let value = self.code.b.ins().select(better, value, inside[0]);
            let place = self.code.b.ins().select(better, counter, inside[1]);
            found = end(self.code, open, vec![value, place]);
        }
        self.write(state, 0, DType::I64, Val::One(found[1]));
    }

    /// Whether a value is to be taken instead of the best so far; NaN is better than every number.
    fn is_better(
        &mut self,
        dtype: DType,
        largest: bool,
        last: bool,
        value: Value,
        best: Value,
    ) -> Value {
        use systole_compiler::types::Class;
        let b = &mut self.code.b;
        match dtype.class() {
            Class::Float => {
                let condition = match (largest, last) {
                    (true, false) => FloatCC::GreaterThan,
                    (true, true) => FloatCC::GreaterThanOrEqual,
                    (false, false) => FloatCC::LessThan,
                    (false, true) => FloatCC::LessThanOrEqual,
                };
                let better = b.ins().fcmp(condition, value, best);
                let missing = b.ins().fcmp(FloatCC::Unordered, value, value);
                if last {
                    return b.ins().bor(better, missing);
                }
                let present = b.ins().fcmp(FloatCC::Ordered, best, best);
                let first_missing = b.ins().band(missing, present);
                b.ins().bor(better, first_missing)
            }
            class @ (Class::Bool | Class::Signed | Class::Unsigned) => {
                let condition = match (largest, last) {
                    (true, false) => IntCC::SignedGreaterThan,
                    (true, true) => IntCC::SignedGreaterThanOrEqual,
                    (false, false) => IntCC::SignedLessThan,
                    (false, true) => IntCC::SignedLessThanOrEqual,
                };
                let condition =
                    if class == Class::Signed { condition } else { condition.unsigned() };
                b.ins().icmp(condition, value, best)
            }
        }
    }

    fn scan(
        &mut self,
        state: &State,
        combine: Combine,
        element: NodeId,
        identity: Scalar,
        exclusive: bool,
        reverse: bool,
    ) {
        let depth = self.schedule.order.len() - 1;
        let extent = self.schedule.nest.extents[self.schedule.order[depth]] as i64;
        let accumulate = self.element_type();
        let identity = self.code.constant(identity);
        let Some((open, counter, inside)) =
            begin(self.code, Bound::Static(0), Bound::Static(extent), 1, &[identity])
        else {
            return;
        };
        let position = if reverse { self.code.subtract_from(extent - 1, counter) } else { counter };
        let inner = self.entered(state, depth, position);
        let value = self.single(&inner, element);
        let sum =
            functions::combine(self.code, Shape::Scalar, combine, accumulate, inside[0], value);
        let written = if exclusive { inside[0] } else { sum };
        self.write(&inner, 0, accumulate, Val::One(written));
        end(self.code, open, vec![sum]);
    }

    fn scatter(&mut self, state: &State, root: NodeId, combine: Option<Combine>) {
        let to = &self.schedule.nest.to;
        let key = self.schedule.nest.nodes.len();
        let from = self.element_type();
        let value = self.single(state, root);
        let value =
            self.code.convert(Shape::Scalar, from, to.dtype, value).expect("scalars convert");
        let (address, offset, mask) = self.address(state, key, to, 0, 0);
        let mask = mask.unwrap_or_else(|| self.code.b.ins().iconst(types::I8, 1));
        only_if(self.code, mask, |code| {
            let value = match combine {
                None => value,
                Some(combine) => {
                    let before = code.load(to.dtype, address, offset);
                    functions::combine(code, Shape::Scalar, combine, to.dtype, before, value)
                }
            };
            code.store(to.dtype, value, address, offset);
        });
    }
}
