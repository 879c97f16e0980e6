//! Values at a point of a nest. As loops are entered, every address and every node becomes known at the outermost loop at
//! which it can be; nodes that vary along the vectorised loop are vectors, one for each copy, the others scalars.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::{Emitter, Frame, Schedule, Val, add_scaled, affine, base};
use crate::code::{Code, LANES};
use crate::functions;
use crate::nest::{Access, AccessDim, Digit, Guard, Node, NodeId, Sink, loop_term, term_loop};
use crate::shape::Shape;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use systole_compiler::expr::Scalar;
use systole_compiler::kernel::{Affine, Term};
use systole_compiler::scalar::{Rule, ScalarFn};
use systole_compiler::types::DType;

/// How guards that vary along the vectorised loop are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    /// They are tested for each element.
    Tested,
    /// They hold.
    Yes,
    /// They fail: the load gives its pad.
    No,
}

/// What is known after some loops are entered.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The position of each loop; of the vectorised loop, the first of the vectors.
    pub(super) counters: Vec<Option<Value>>,
    /// Whether the vectorised loop runs in vectors, and how many.
    pub(super) copies: Option<usize>,
    /// How guards are met.
    pub(super) inside: Inside,
    /// For each copy, the value of each node.
    values: Vec<Vec<Option<Val>>>,
    /// For each node that is the same for all lanes, that as a vector.
    splats: Vec<Option<Value>>,
    /// For each access (the sink's last), the address as far as it is known.
    addresses: Vec<Option<Value>>,
    /// For each access, whether its guards hold, as far as that is known.
    masks: Vec<Option<Value>>,
}

impl State {
    /// The same before the vectorised loop is entered, for as many vectors.
    pub(super) fn with_copies(&self, copies: Option<usize>) -> State {
        let mut state = self.clone();
        state.copies = copies;
        state.values.truncate(copies.unwrap_or(1));
        state
    }
}

impl<'e, 'f> Emitter<'e, 'f> {
    pub(super) fn new(code: &'e mut Code<'f>, frame: &'e Frame, schedule: &'e Schedule) -> Self {
        let nest = &schedule.nest;
        let count = nest.nodes.len();
        let mut emitter = Emitter {
            code,
            frame,
            schedule,
            depths: vec![0; count],
            varies: vec![false; count],
            live: vec![false; count],
            splat: vec![false; count],
        };
        for node in 0..count {
            let mut depth = 0;
            let mut varies = false;
            for operand in nest.uses(node) {
                depth = depth.max(emitter.depths[operand]);
                varies |= emitter.varies[operand];
            }
            match &nest.nodes[node].0 {
                Node::Index(position) => {
                    depth = emitter.depth(position);
                    varies = emitter.follows_vector(position);
                }
                Node::Load(access) => {
                    depth = depth.max(emitter.access_depth(access));
                    varies |= emitter.follows_vector(&access.offset)
                        || access.dims.iter().any(|dim| emitter.follows_vector(&dim.position));
                }
                Node::Constant(_) | Node::Call(..) | Node::Convert(_) => {}
            }
            emitter.depths[node] = depth;
            emitter.varies[node] = varies;
        }
        let mut open: Vec<NodeId> = nest.roots().to_vec();
        for &root in &open {
            // Sinks take vectors.
            emitter.splat[root] = true;
        }
        while let Some(node) = open.pop() {
            if std::mem::replace(&mut emitter.live[node], true) {
                continue;
            }
            for operand in nest.uses(node) {
                emitter.splat[operand] |= emitter.varies[node];
                open.push(operand);
            }
        }
        emitter
    }

    pub(super) fn frame(&self) -> &'e Frame {
        self.frame
    }

    /// After how many loops an expression is known.
    pub(super) fn depth(&self, expression: &Affine) -> usize {
        let order = &self.schedule.order;
        expression
            .terms()
            .iter()
            .filter_map(|&(term, _)| term_loop(term))
            .map(|index| {
                1 + order.iter().position(|&other| other == index).expect("every loop runs")
            })
            .max()
            .unwrap_or(0)
    }

    fn access_depth(&self, access: &Access) -> usize {
        access
            .dims
            .iter()
            .map(|dim| self.depth(&dim.position))
            .fold(self.depth(&access.offset), usize::max)
    }

    fn dim_depth(&self, dim: &AccessDim) -> usize {
        dim.index.map_or(0, |node| self.depths[node]).max(self.depth(&dim.position))
    }

    fn follows_vector(&self, expression: &Affine) -> bool {
        self.schedule.vector.is_some_and(|index| expression.coefficient(loop_term(index)) != 0)
    }

    fn dim_follows_vector(&self, dim: &AccessDim) -> bool {
        self.follows_vector(&dim.position) || dim.index.is_some_and(|node| self.varies[node])
    }

    /// What is known before any loop. `copies` says whether the vectorised loop runs in vectors.
    pub(super) fn start(&mut self, copies: Option<usize>, inside: Inside) -> State {
        let nest = &self.schedule.nest;
        let count = nest.nodes.len();
        let mut state = State {
            counters: vec![None; nest.extents.len()],
            copies,
            inside,
            values: vec![vec![None; count]; copies.unwrap_or(1)],
            splats: vec![None; count],
            addresses: vec![None; count + 1],
            masks: vec![None; count + 1],
        };
        for (key, access) in self.keyed_accesses() {
            let mut address = base(self.code, self.frame, access.base);
            for &(term, coefficient) in access.offset.terms() {
                if let Term::Var(var) = term {
                    let value = self.frame.vars[var.index()].expect("a variable is in scope");
                    address = add_scaled(self.code, address, value, coefficient);
                }
            }
            state.addresses[key] = Some(address);
        }
        self.enter(&mut state, 0);
        state
    }

    fn keyed_accesses(&self) -> Vec<(usize, &'e Access)> {
        let nest = &self.schedule.nest;
        let loads = nest.nodes.iter().enumerate().filter_map(|(key, (node, _))| match node {
            Node::Load(access) if self.live[key] => Some((key, access)),
            Node::Load(_)
            | Node::Constant(_)
            | Node::Index(_)
            | Node::Call(..)
            | Node::Convert(_) => None,
        });
        loads.chain(std::iter::once((nest.nodes.len(), &nest.to))).collect()
    }

    /// Learns what is known once the first `depth` loops have their positions.
    pub(super) fn enter(&mut self, state: &mut State, depth: usize) {
        let nest = &self.schedule.nest;
        if depth > 0 {
            let index = self.schedule.order[depth - 1];
            let counter = state.counters[index].expect("the loop has been entered");
            for (key, access) in self.keyed_accesses() {
                let coefficient = access.offset.coefficient(loop_term(index));
                if coefficient != 0 {
                    let address = state.addresses[key].expect("addresses start known");
                    state.addresses[key] =
                        Some(add_scaled(self.code, address, counter, coefficient));
                }
            }
        }
        for node in 0..nest.nodes.len() {
            if !self.live[node] {
                continue;
            }
            if let Node::Load(access) = &nest.nodes[node].0 {
                self.enter_dims(state, node, access, depth);
            }
            if self.depths[node] == depth {
                self.evaluate(state, node);
            }
        }
        self.enter_dims(state, nest.nodes.len(), &nest.to, depth);
    }

    /// Adds what the dimensions that are known now give: an offset and a mask. Those that differ from lane to lane wait.
    fn enter_dims(&mut self, state: &mut State, key: usize, access: &Access, depth: usize) {
        for dim in &access.dims {
            if self.dim_depth(dim) != depth {
                continue;
            }
            let position = if self.dim_waits(state, dim) {
                continue;
            } else if self.is_linear(state, dim) {
                let stride = dim.digits[0].stride;
                let position = affine(self.code, self.frame, &state.counters, &dim.position);
                let address = state.addresses[key].expect("addresses start known");
                state.addresses[key] = Some(add_scaled(self.code, address, position, stride));
                continue;
            } else {
                self.position(state, dim, 0, 0)
            };
            let (position, mask) = self.guarded(dim, position);
            let offset = self.digits(&dim.digits, position);
            let address = state.addresses[key].expect("addresses start known");
            state.addresses[key] = Some(self.code.b.ins().iadd(address, offset));
            state.masks[key] = self.both(state.masks[key], mask);
        }
    }

    /// Whether each lane must look at the dimension for itself.
    fn dim_waits(&self, state: &State, dim: &AccessDim) -> bool {
        state.copies.is_some() && self.dim_follows_vector(dim) && !self.is_linear(state, dim)
    }

    /// Whether a dimension is plain where the guards along the vectorised loop hold.
    fn is_linear(&self, state: &State, dim: &AccessDim) -> bool {
        let plain = matches!(dim.digits.as_slice(), [digit] if digit.divisor == 1 && digit.modulus.is_none());
        plain
            && dim.index.is_none()
            && (dim.guard == Guard::None
                || (state.inside != Inside::Tested && self.follows_vector(&dim.position)))
    }

    fn both(&mut self, x: Option<Value>, y: Option<Value>) -> Option<Value> {
        match (x, y) {
            (Some(x), Some(y)) => Some(self.code.b.ins().band(x, y)),
            (mask, None) | (None, mask) => mask,
        }
    }

    /// The position along a dimension for one lane of one copy.
    fn position(&mut self, state: &State, dim: &AccessDim, copy: usize, lane: usize) -> Value {
        let mut position = affine(self.code, self.frame, &state.counters, &dim.position);
        let ahead = (copy * LANES + lane) as i64;
        if ahead > 0
            && let Some(index) = self.schedule.vector
        {
            let coefficient = dim.position.coefficient(loop_term(index));
            position = self.code.b.ins().iadd_imm_s(position, coefficient * ahead);
        }
        if let Some(node) = dim.index {
            let index = self.lane(state, copy, node, lane);
            let dtype = self.schedule.nest.nodes[node].1;
            let index = self
                .code
                .convert(Shape::Scalar, dtype, DType::I64, index)
                .expect("scalars convert");
            position = self.code.b.ins().iadd(position, index);
        }
        position
    }

    /// The position moved inside, and whether it was inside where that matters.
    fn guarded(&mut self, dim: &AccessDim, position: Value) -> (Value, Option<Value>) {
        let b = &mut self.code.b;
        match dim.guard {
            Guard::None => (position, None),
            Guard::Clamp => {
                let zero = b.ins().iconst(types::I64, 0);
                let last = b.ins().iconst(types::I64, dim.extent as i64 - 1);
                let below = b.ins().smin(position, last);
                (b.ins().smax(below, zero), None)
            }
            Guard::Pad => {
                let extent = b.ins().iconst(types::I64, dim.extent as i64);
                let inside = b.ins().icmp(IntCC::UnsignedLessThan, position, extent);
                let zero = b.ins().iconst(types::I64, 0);
                (b.ins().select(inside, position, zero), Some(inside))
            }
        }
    }

    /// The offset in bytes of a position.
    fn digits(&mut self, digits: &[Digit], position: Value) -> Value {
        let mut sum: Option<Value> = None;
        for digit in digits {
            let b = &mut self.code.b;
            let mut value = position;
            if digit.divisor > 1 {
                let divisor = b.ins().iconst(types::I64, digit.divisor as i64);
                value = b.ins().udiv(value, divisor);
            }
            if let Some(modulus) = digit.modulus {
                let modulus = b.ins().iconst(types::I64, modulus as i64);
                value = b.ins().urem(value, modulus);
            }
            let zero = self.code.int(0);
            let value = add_scaled(self.code, zero, value, digit.stride);
            sum = Some(match sum {
                None => value,
                Some(sum) => self.code.b.ins().iadd(sum, value),
            });
        }
        sum.unwrap_or_else(|| self.code.int(0))
    }

    /// The address of an access for one lane of one copy, a constant to add to it, and whether its guards hold.
    pub(super) fn address(
        &mut self,
        state: &State,
        key: usize,
        access: &Access,
        copy: usize,
        lane: usize,
    ) -> (Value, i32, Option<Value>) {
        let mut address = state.addresses[key].expect("addresses start known");
        let mut mask = state.masks[key];
        let mut ahead = access.offset.constant;
        if let (Some(_), Some(index)) = (state.copies, self.schedule.vector) {
            let steps = (copy * LANES + lane) as i64;
            let mut stride = access.offset.coefficient(loop_term(index));
            for dim in &access.dims {
                if self.dim_waits(state, dim) {
                    let position = self.position(state, dim, copy, lane);
                    let (position, inside) = self.guarded(dim, position);
                    let offset = self.digits(&dim.digits, position);
                    address = self.code.b.ins().iadd(address, offset);
                    mask = self.both(mask, inside);
                } else if self.is_linear(state, dim) {
                    stride += dim.position.coefficient(loop_term(index)) * dim.digits[0].stride;
                }
            }
            ahead += stride * steps;
        }
        match i32::try_from(ahead) {
            Ok(ahead) => (address, ahead, mask),
            Err(_) => (self.code.b.ins().iadd_imm_s(address, ahead), 0, mask),
        }
    }

    /// Whether neighbours of an access along the vectorised loop are neighbours in memory.
    pub(super) fn is_contiguous(&self, state: &State, access: &Access) -> bool {
        let waits = access.dims.iter().any(|dim| self.dim_waits(state, dim));
        self.schedule.vector.is_some_and(|index| {
            !waits && super::stride(access, index) == access.dtype.bytes() as i64
        })
    }

    /// Whether neighbours along the vectorised loop are every second 32-bit element in memory, and not guarded.
    fn is_every_second(&self, state: &State, access: &Access) -> bool {
        let plain = access.dims.iter().all(|dim| self.is_linear(state, dim));
        let words = matches!(access.dtype, DType::F32 | DType::I32 | DType::U32);
        plain
            && words
            && self.schedule.vector.is_some_and(|index| super::stride(access, index) == 8)
    }

    fn evaluate(&mut self, state: &mut State, node: NodeId) {
        let varies = self.varies[node] && state.copies.is_some();
        if !varies {
            let value = self.scalar(state, node, 0, 0);
            for values in &mut state.values {
                values[node] = Some(Val::One(value));
            }
            let dtype = self.schedule.nest.nodes[node].1;
            let is_constant = matches!(self.schedule.nest.nodes[node].0, Node::Constant(_));
            if self.splat[node] && state.copies.is_some() && dtype.bits() < 64 && !is_constant {
                state.splats[node] = Some(self.code.splat(dtype, value));
            }
            return;
        }
        for copy in 0..state.values.len() {
            let value = match self.vector_value(state, node, copy) {
                Some(value) => Val::Vector(value),
                None => {
                    Val::Lanes(std::array::from_fn(|lane| self.scalar(state, node, copy, lane)))
                }
            };
            state.values[copy][node] = Some(value);
        }
    }

    /// The value of a node for one lane, from the values of the nodes that it uses.
    fn scalar(&mut self, state: &State, node: NodeId, copy: usize, lane: usize) -> Value {
        let nest = &self.schedule.nest;
        let (kind, dtype) = &nest.nodes[node];
        match kind {
            Node::Constant(value) => self.code.constant(*value),
            Node::Index(expression) => {
                let mut value = affine(self.code, self.frame, &state.counters, expression);
                if state.copies.is_some()
                    && let Some(index) = self.schedule.vector
                {
                    let ahead =
                        expression.coefficient(loop_term(index)) * (copy * LANES + lane) as i64;
                    if ahead != 0 {
                        value = self.code.b.ins().iadd_imm_s(value, ahead);
                    }
                }
                self.code
                    .convert(Shape::Scalar, DType::I64, *dtype, value)
                    .expect("scalars convert")
            }
            Node::Load(access) => {
                if state.inside == Inside::No && self.is_guarded_along_vector(access) {
                    let pad = access.pad.expect("only guarded loads have pads");
                    return self.code.constant(pad);
                }
                let (address, offset, mask) = self.address(state, node, access, copy, lane);
                let value = self.code.load(access.dtype, address, offset);
                match mask {
                    None => value,
                    Some(mask) => {
                        let pad = self.pad(access);
                        let pad = self.code.constant(pad);
                        self.code.b.ins().select(mask, value, pad)
                    }
                }
            }
            Node::Call(function, operands) => {
                let dtype = operand_type(nest, *function, operands);
                let values: Vec<Value> =
                    operands.iter().map(|&operand| self.lane(state, copy, operand, lane)).collect();
                self.call(Shape::Scalar, *function, dtype, operands, &values)
                    .expect("every function has scalar code")
            }
            Node::Convert(operand) => {
                let value = self.lane(state, copy, *operand, lane);
                let from = nest.nodes[*operand].1;
                self.code.convert(Shape::Scalar, from, *dtype, value).expect("scalars convert")
            }
        }
    }

    fn pad(&self, access: &Access) -> Scalar {
        access.pad.unwrap_or_else(|| Scalar::from_i64(access.dtype, 0))
    }

    /// Whether a load has a guard that varies along the vectorised loop.
    pub(super) fn is_guarded_along_vector(&self, access: &Access) -> bool {
        access.dims.iter().any(|dim| dim.guard == Guard::Pad && self.dim_follows_vector(dim))
    }

    /// A function of values in registers, by shorter code where an operand is a constant.
    fn call(
        &mut self,
        shape: Shape,
        function: ScalarFn,
        dtype: DType,
        operands: &[NodeId],
        values: &[Value],
    ) -> Option<Value> {
        let nodes = &self.schedule.nest.nodes;
        let number = |node: NodeId| match &nodes[node].0 {
            Node::Constant(value) if value.dtype.is_float() => {
                let value = value.to_f64();
                (!value.is_nan() && value != 0.0).then_some(value)
            }
            _ => None,
        };
        let is_zero =
            |node: NodeId| matches!(&nodes[node].0, Node::Constant(value) if value.to_f64() == 0.0);
        let exact = matches!(dtype, DType::F32 | DType::F64);
        if exact && matches!(function, ScalarFn::Min | ScalarFn::Max) {
            let largest = function == ScalarFn::Max;
            if number(operands[1]).is_some() || is_zero(operands[1]) {
                return Some(functions::extreme_of_constant(
                    self.code, shape, largest, values[0], values[1],
                ));
            }
            if number(operands[0]).is_some() {
                return Some(functions::extreme_of_constant(
                    self.code, shape, largest, values[1], values[0],
                ));
            }
        }
        if exact && function == ScalarFn::Pow {
            if number(operands[1]) == Some(2.0) {
                return Some(self.code.b.ins().fmul(values[0], values[0]));
            }
            if number(operands[1]) == Some(3.0) {
                let square = self.code.b.ins().fmul(values[0], values[0]);
                return Some(self.code.b.ins().fmul(square, values[0]));
            }
        }
        functions::call(self.code, shape, function, dtype, values)
    }

    /// The vector of a node for one copy, where there is vector code for it.
    fn vector_value(&mut self, state: &mut State, node: NodeId, copy: usize) -> Option<Value> {
        let nest = &self.schedule.nest;
        let (kind, dtype) = &nest.nodes[node];
        match kind {
            Node::Constant(_) => None,
            Node::Index(_) if dtype.bits() == 64 => None,
            Node::Index(_) => {
                let lanes = std::array::from_fn(|lane| self.scalar(state, node, copy, lane));
                Some(self.code.gather_lanes(*dtype, lanes))
            }
            Node::Load(access) => {
                if dtype.bits() == 64 {
                    return None;
                }
                if state.inside == Inside::No && self.is_guarded_along_vector(access) {
                    let pad = access.pad.expect("only guarded loads have pads");
                    return Some(self.vector_constant(pad));
                }
                if self.is_every_second(state, access) {
                    let (address, offset, _) = self.address(state, node, access, copy, 0);
                    return Some(self.code.load_every_second(*dtype, address, offset));
                }
                if !self.is_contiguous(state, access) {
                    let lanes = std::array::from_fn(|lane| self.scalar(state, node, copy, lane));
                    return Some(self.code.gather_lanes(*dtype, lanes));
                }
                let (address, offset, mask) = self.address(state, node, access, copy, 0);
                let value = self.code.load_vector(access.dtype, address, offset)?;
                match mask {
                    None => Some(value),
                    Some(mask) => {
                        let pad = self.pad(access);
                        let pad = self.vector_constant(pad);
                        let mask = self.code.splat(DType::Bool, mask);
                        Some(self.code.choose(Shape::Vector, mask, value, pad))
                    }
                }
            }
            Node::Call(function, operands) => {
                let dtype = operand_type(nest, *function, operands);
                if dtype.bits() == 64 {
                    return None;
                }
                let values: Vec<Value> =
                    operands.iter().map(|&operand| self.vector(state, copy, operand)).collect();
                self.call(Shape::Vector, *function, dtype, operands, &values)
            }
            Node::Convert(operand) => {
                let from = nest.nodes[*operand].1;
                if from.bits() == 64 || dtype.bits() == 64 {
                    return None;
                }
                let value = self.vector(state, copy, *operand);
                self.code.convert(Shape::Vector, from, *dtype, value)
            }
        }
    }

    fn vector_constant(&mut self, value: Scalar) -> Value {
        use systole_compiler::types::Class;
        match value.dtype.class() {
            Class::Bool => self.code.i32(Shape::Vector, -i32::from(value.bits != 0)),
            Class::Signed | Class::Unsigned => {
                self.code.i32(Shape::Vector, value.bits as u32 as i32)
            }
            Class::Float => self.code.f32(Shape::Vector, f64::from_bits(value.bits) as f32),
        }
    }

    /// A node's value for one copy as a vector; its type has vectors.
    pub(super) fn vector(&mut self, state: &State, copy: usize, node: NodeId) -> Value {
        let (kind, dtype) = &self.schedule.nest.nodes[node];
        match state.values[copy][node].expect("a node is known before it is used") {
            Val::Vector(value) => value,
            Val::Lanes(lanes) => self.code.gather_lanes(*dtype, lanes),
            Val::One(value) => match (kind, state.splats[node]) {
                (Node::Constant(constant), _) => self.vector_constant(*constant),
                (_, Some(splat)) => splat,
                (_, None) => self.code.splat(*dtype, value),
            },
        }
    }

    /// A node's value for one lane of one copy.
    pub(super) fn lane(&mut self, state: &State, copy: usize, node: NodeId, lane: usize) -> Value {
        let dtype = self.schedule.nest.nodes[node].1;
        match state.values[copy][node].expect("a node is known before it is used") {
            Val::One(value) => value,
            Val::Vector(value) => self.code.lane(dtype, value, lane),
            Val::Lanes(lanes) => lanes[lane],
        }
    }

    /// A node's value where there are no vectors.
    pub(super) fn single(&mut self, state: &State, node: NodeId) -> Value {
        self.lane(state, 0, node, 0)
    }

    /// Whether the nest's sink needs the sum of products of its nodes in one type.
    pub(super) fn element_type(&self) -> DType {
        let nodes = &self.schedule.nest.nodes;
        match &self.schedule.nest.sink {
            Sink::Store { root } | Sink::Scatter { root, .. } => nodes[*root].1,
            Sink::Reduce { accumulate, .. } | Sink::Scan { accumulate, .. } => *accumulate,
            Sink::ArgReduce { element, .. } => nodes[*element].1,
        }
    }
}

/// The type that decides what a function means: that of its operands, of `select` what it selects.
fn operand_type(nest: &crate::nest::Nest, function: ScalarFn, operands: &[NodeId]) -> DType {
    let position = if function.rule() == Rule::Select { 1 } else { 0 };
    nest.nodes[operands[position]].1
}
