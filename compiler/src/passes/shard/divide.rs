//! Writes the program of one rank: every node on parts of its operands, with exchanges where the parts that are there
//! are not those that are needed. Ranks differ only by what they exchange, and by where they cut.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each match names the few ops that are special here"
)]

use super::propagate::Plan;
use super::reshard::{Cost, Move, moves, price};
use super::rules::{Passes, Rule, rule};
use crate::graph::{Block, Builder, Function, Node, NodeId, Origins, ValueId};
use crate::mesh::{Mesh, Partial, Sharding};
use crate::op::{
    AllGather, AllReduce, AllToAll, Broadcast, Constant, DynamicSlice, Iota, Kind, Op, Parameter,
    Permute, Rank, ReduceScatter, Reshape, Slice, TypeError,
};
use crate::tensor::Tensor;
use crate::types::TensorType;
use indexmap::IndexMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A value of the whole program, as a rank has it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) value: ValueId,
    pub(super) sharding: Sharding,
}

/// The program of the ranks of one stage, as it grows.
pub(super) struct Divider<'a> {
    pub(super) old: &'a Function,
    pub(super) mesh: &'a Mesh,
    plan: &'a Plan,
    cost: &'a dyn Cost,
    /// The stage's axis and coordinate, where there are stages.
    stage: Option<(usize, usize)>,
    pub(super) new: Function,
    /// The nodes of the block under construction.
    pub(super) nodes: Vec<NodeId>,
    /// What the whole program starts with: numbers that depend on the rank.
    prologue: Vec<NodeId>,
    held: Vec<Option<Held>>,
    moved: BTreeMap<(ValueId, Sharding), ValueId>,
    rank: Option<ValueId>,
    offsets: BTreeMap<(usize, usize), ValueId>,
    zero: Option<ValueId>,
    definitions: IndexMap<ValueId, NodeId>,
    origins: Origins,
    span: Option<crate::diagnostic::Span>,
}

type Result<T> = std::result::Result<T, TypeError>;

/// The axes that cut each factor, and what comes of that.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    operands: Vec<Sharding>,
    results: Vec<Sharding>,
    /// In how many parts the work is cut.
    parts: usize,
}

impl<'a> Divider<'a> {
    pub(super) fn new(
        old: &'a Function,
        mesh: &'a Mesh,
        plan: &'a Plan,
        cost: &'a dyn Cost,
        stage: Option<(usize, usize)>,
    ) -> Divider<'a> {
        Divider {
            old,
            mesh,
            plan,
            cost,
            stage,
            new: Function::default(),
            nodes: Vec::new(),
            prologue: Vec::new(),
            held: vec![None; old.values.len()],
            moved: BTreeMap::new(),
            rank: None,
            offsets: BTreeMap::new(),
            zero: None,
            definitions: old.definitions(),
            origins: Origins::new(),
            span: None,
        }
    }

    fn planned(&self, value: ValueId) -> &'a Sharding {
        &self.plan.shardings[value.index()]
    }

    /// Adds a parameter for one of the whole program.
    pub(super) fn parameter(&mut self, param: ValueId) {
        let sharding = self.planned(param).clone();
        let ty = sharding.part(self.old.ty(param), self.mesh);
        let value = self.new.parameter(ty, self.old.values[param].name.as_deref().unwrap_or("x"));
        self.new.shard(value, sharding.clone());
        self.held[param.index()] = Some(Held { value, sharding });
    }

    /// The value that the rank has for one of the whole program.
    pub(super) fn held(&self, value: ValueId) -> Held {
        self.held[value.index()].clone().expect("a value is divided before its uses")
    }

    /// Sets what the rank has for a value: another program computed it.
    pub(super) fn set(&mut self, value: ValueId, held: Held) {
        self.held[value.index()] = Some(held);
    }

    /// Ends the program with those results of the whole one.
    pub(super) fn finish(
        mut self,
        results: &[usize],
        state: Vec<(usize, usize)>,
    ) -> Result<Function> {
        for &position in results {
            let value = self.old.body.results[position];
            let param = self.old.state.iter().find(|(_, output)| *output == position);
            let mut wanted = self.held(value).sharding;
            wanted.partial = None;
            if self.plan.fixed[value.index()] && self.planned(value).partial.is_none() {
                wanted = self.planned(value).clone();
            }
            if let Some(&(input, _)) = param {
                wanted = self.planned(self.old.body.params[input]).clone();
            }
            let found = self.moved_to(value, &wanted)?;
            self.new.shardings.entry(found).or_insert(wanted);
            self.new.result(found, &self.old.result_names[position]);
        }
        self.new.state = state;
        self.new.body.nodes = self.prologue;
        self.new.body.nodes.append(&mut self.nodes);
        Ok(self.new)
    }

    fn emit(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        blocks: Vec<Block>,
    ) -> Result<SmallVec<[ValueId; 1]>> {
        let mut builder = Builder {
            function: &mut self.new,
            nodes: std::mem::take(&mut self.nodes),
            origins: self.origins.clone(),
            span: self.span,
        };
        let results = builder.add_many(op, operands, blocks);
        self.nodes = builder.nodes;
        results
    }

    fn emit_one(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Result<ValueId> {
        Ok(self.emit(op, operands, Vec::new())?[0])
    }

    /// Adds nodes at the start of the program.
    fn at_start<T>(&mut self, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        std::mem::swap(&mut self.nodes, &mut self.prologue);
        let built = build(self);
        std::mem::swap(&mut self.nodes, &mut self.prologue);
        built
    }

    /// An i64 scalar: the rank's coordinate along `axis`, times `unit`.
    fn offset(&mut self, axis: usize, unit: usize) -> Result<ValueId> {
        if let Some(&known) = self.offsets.get(&(axis, unit)) {
            return Ok(known);
        }
        let ranks = self.mesh.ranks();
        let table: Vec<i64> =
            (0..ranks).map(|rank| (self.mesh.coordinate(rank, axis) * unit) as i64).collect();
        let found = self.at_start(|this| {
            let rank = match this.rank {
                Some(rank) => rank,
                None => this.emit_one(Rank {}, &[])?,
            };
            this.rank = Some(rank);
            let value = Tensor::from_slice(&[ranks], &table);
            let table = this.emit_one(Constant { value }, &[])?;
            let entry = this.emit_one(DynamicSlice { sizes: vec![1] }, &[table, rank])?;
            this.emit_one(Reshape { shape: Vec::new() }, &[entry])
        })?;
        self.offsets.insert((axis, unit), found);
        Ok(found)
    }

    /// The rank's part along `axis` of a dimension.
    fn cut(&mut self, value: ValueId, dim: usize, axis: usize) -> Result<ValueId> {
        let mut sizes = self.new.ty(value).shape.to_vec();
        sizes[dim] /= self.mesh.size(axis);
        let offset = self.offset(axis, sizes[dim])?;
        let zero = match self.zero {
            Some(zero) => zero,
            None => {
                self.at_start(|this| this.emit_one(Constant { value: Tensor::scalar(0i64) }, &[]))?
            }
        };
        self.zero = Some(zero);
        let mut operands = vec![value];
        operands.extend((0..sizes.len()).map(|other| if other == dim { offset } else { zero }));
        self.emit_one(DynamicSlice { sizes }, &operands)
    }

    fn groups(&self, axes: &[usize]) -> Vec<Vec<usize>> {
        let stage = self.stage;
        self.mesh.groups(axes, |rank| {
            stage.is_none_or(|(axis, at)| self.mesh.coordinate(rank, axis) == at)
        })
    }

    /// The value of the whole program with another sharding.
    pub(super) fn moved_to(&mut self, value: ValueId, wanted: &Sharding) -> Result<ValueId> {
        let held = self.held(value);
        if held.sharding == *wanted {
            return Ok(held.value);
        }
        if let Some(&known) = self.moved.get(&(value, wanted.clone())) {
            return Ok(known);
        }
        let Some(steps) = moves(&held.sharding, wanted) else {
            return Err(TypeError::new(format!(
                "a value that is {} cannot become {}",
                held.sharding.text(self.mesh),
                wanted.text(self.mesh)
            )));
        };
        if let Some((op, operand, needed)) = self.remade(value, wanted)
            && self.remade_price(operand, &needed) < self.moved_price(value, wanted)
        {
            let operand = self.moved_to(operand, &needed)?;
            let now = self.emit_one(op, &[operand])?;
            self.moved.insert((value, wanted.clone()), now);
            return Ok(now);
        }
        let mut now = held.value;
        for step in steps {
            now = match step {
                Move::Cut { dim, axis } => self.cut(now, dim, axis)?,
                Move::AllReduce { combine, axes } => {
                    let groups = self.groups(&axes);
                    self.emit_one(AllReduce { combine, groups }, &[now])?
                }
                Move::ReduceScatter { combine, dim, axis } => {
                    let groups = self.groups(&[axis]);
                    self.emit_one(ReduceScatter { combine, axis: dim, groups }, &[now])?
                }
                Move::Gather { dim, axis } => {
                    let groups = self.groups(&[axis]);
                    self.emit_one(AllGather { axis: dim, groups }, &[now])?
                }
                Move::AllToAll { from, to, axis } => {
                    let groups = self.groups(&[axis]);
                    self.emit_one(AllToAll { split: to, concat: from, groups }, &[now])?
                }
            };
        }
        self.moved.insert((value, wanted.clone()), now);
        Ok(now)
    }

    /// How a value that repeats another can be made anew with another sharding: the op, and its operand's sharding.
    fn remade(&self, value: ValueId, wanted: &Sharding) -> Option<(Op, ValueId, Sharding)> {
        let node = &self.old.nodes[*self.definitions.get(&value)?];
        let Op::Broadcast(op) = &node.op else { return None };
        if wanted.partial.is_some() {
            return None;
        }
        let rule = rule(self.old, node);
        let axes_of = |factor: &Option<usize>| {
            let dim =
                factor.and_then(|factor| rule.results[0].iter().position(|of| *of == Some(factor)));
            dim.map_or(Vec::new(), |dim| wanted.dims[dim].clone())
        };
        let dims = rule.operands[0].iter().map(axes_of).collect();
        let shape = wanted.part(self.old.ty(value), self.mesh).shape.to_vec();
        let needed = Sharding { dims, partial: None, stage: None };
        Some((Broadcast { shape, dims: op.dims.clone() }.into(), node.operands[0], needed))
    }

    fn remade_price(&self, operand: ValueId, needed: &Sharding) -> f64 {
        // Another stage may have made the value: then this one does not have what it was made of.
        match self.held[operand.index()] {
            Some(_) => self.moved_price(operand, needed),
            None => f64::INFINITY,
        }
    }

    fn moved_price(&self, value: ValueId, wanted: &Sharding) -> f64 {
        let from = self.held(value).sharding;
        price(&from, wanted, self.old.ty(value), self.mesh, self.cost).unwrap_or(f64::INFINITY)
    }

    /// Adds what a rank does for a node.
    pub(super) fn node(&mut self, node: &Node) -> Result<()> {
        self.origins = node.origins.clone();
        self.span = node.span;
        match node.op.kind() {
            Kind::Control => return self.control(node),
            Kind::Collective => {
                return Err(TypeError::new(format!(
                    "{} in a program that is yet to be divided",
                    node.op.name()
                )));
            }
            Kind::Source
            | Kind::Map
            | Kind::View
            | Kind::Reduce
            | Kind::Contract
            | Kind::Index
            | Kind::Order
            | Kind::Composite => {}
        }
        if node.op.kind() == Kind::Source || matches!(node.op, Op::Random(_)) {
            return self.source(node);
        }
        let rule = rule(self.old, node);
        let choice = self.choose(node, &rule)?;
        let mut operands = Vec::new();
        for (&operand, wanted) in node.operands.iter().zip(&choice.operands) {
            operands.push(self.moved_to(operand, wanted)?);
        }
        let op = self.local(node, &choice);
        let results = self.emit(op, &operands, Vec::new())?;
        for ((&old, &value), sharding) in node.results.iter().zip(&results).zip(choice.results) {
            self.keep_name(old, value);
            self.held[old.index()] = Some(Held { value, sharding });
            self.settle(old)?;
        }
        Ok(())
    }

    fn keep_name(&mut self, old: ValueId, new: ValueId) {
        self.new.values[new].name = self.old.values[old].name.clone();
    }

    /// Brings a value that was just computed to the sharding that it shall have: what the program says, and where it
    /// says nothing, anything that is not partial.
    fn settle(&mut self, value: ValueId) -> Result<()> {
        let planned = self.planned(value);
        let held = self.held(value);
        if held.sharding == *planned
            || !self.plan.fixed[value.index()] && held.sharding.partial.is_none()
        {
            return Ok(());
        }
        let moved = self.moved_to(value, planned)?;
        self.held[value.index()] = Some(Held { value: moved, sharding: planned.clone() });
        Ok(())
    }

    /// Constants are cut where they are used; weights are parts from the start.
    fn source(&mut self, node: &Node) -> Result<()> {
        let old = node.results[0];
        let sharding = Sharding { partial: None, ..self.planned(old).clone() };
        let part = sharding.part(self.old.ty(old), self.mesh);
        let is_whole = sharding.is_whole();
        let op: Option<Op> = match &node.op {
            Op::Parameter(op) => Some(Parameter { name: op.name.clone(), ty: part.clone() }.into()),
            Op::Constant(op) if !is_whole => {
                splat(&op.value, &part).map(|value| Constant { value }.into())
            }
            Op::Iota(op) if sharding.dims[op.axis].is_empty() => {
                Some(Iota { ty: part.clone(), axis: op.axis }.into())
            }
            _ => None,
        };
        let held = match op {
            Some(op) => {
                let value = self.emit_one(op, &[])?;
                Held { value, sharding }
            }
            None => {
                let value = self.emit_one(node.op.clone(), &[])?;
                Held { value, sharding: Sharding::whole(part.rank()) }
            }
        };
        self.keep_name(old, held.value);
        let is_parameter = matches!(node.op, Op::Parameter(_));
        if is_parameter {
            self.new.shard(held.value, held.sharding.clone());
        }
        self.held[old.index()] = Some(held);
        self.settle(old)
    }

    /// The cheapest way to cut a node's work.
    fn choose(&self, node: &Node, rule: &Rule) -> Result<Choice> {
        let current: Vec<Sharding> =
            node.operands.iter().map(|&operand| self.held(operand).sharding).collect();
        let planned: Vec<Sharding> = node
            .results
            .iter()
            .map(|&result| Sharding { partial: None, ..self.planned(result).clone() })
            .collect();
        let results: Vec<_> = rule.results.iter().zip(&planned).collect();
        let operands: Vec<_> = rule.operands.iter().zip(&current).collect();
        let mut orders: Vec<Vec<_>> = vec![[results.clone(), operands.clone()].concat()];
        for first in 0..operands.len().min(4) {
            let mut order = vec![operands[first]];
            order.extend(&results);
            order.extend(
                operands
                    .iter()
                    .enumerate()
                    .filter(|(place, _)| *place != first)
                    .map(|(_, entry)| *entry),
            );
            orders.push(order);
            orders.push(vec![operands[first]]);
        }
        orders.push(results);
        orders.push(Vec::new());
        let mut best: Option<(f64, Choice)> = None;
        for order in orders {
            let axes = self.assign(rule, &order);
            let choice = self.choice(node, rule, &axes, &current);
            let Some(price) = self.price(node, &choice, &current) else { continue };
            let better = best.as_ref().is_none_or(|(known, other)| {
                price < *known || price == *known && choice.parts > other.parts
            });
            if better {
                best = Some((price, choice));
            }
        }
        best.map(|(_, choice)| choice).ok_or_else(|| {
            let name = node.op.name();
            TypeError::new(format!(
                "no exchange brings what {name} reads and gives to the ranks that want it"
            ))
        })
    }

    /// Gives factors the axes that those values have, the first ones before the others.
    fn assign(&self, rule: &Rule, order: &[(&Vec<Option<usize>>, &Sharding)]) -> Vec<Vec<usize>> {
        let mut axes: Vec<Vec<usize>> = vec![Vec::new(); rule.factors.len()];
        for (dims, sharding) in order {
            for (factor, wanted) in dims.iter().zip(&sharding.dims) {
                let Some(factor) = *factor else { continue };
                if wanted.is_empty() || !axes[factor].is_empty() {
                    continue;
                }
                let taken = axes.iter().flatten().any(|axis| wanted.contains(axis));
                if !taken && rule.factors[factor].size.is_multiple_of(self.mesh.sizes(wanted)) {
                    axes[factor] = wanted.clone();
                }
            }
        }
        axes
    }

    fn choice(
        &self,
        node: &Node,
        rule: &Rule,
        axes: &[Vec<usize>],
        current: &[Sharding],
    ) -> Choice {
        let dims = |dims: &Vec<Option<usize>>| Sharding {
            dims: dims.iter().map(|of| of.map_or(Vec::new(), |of| axes[of].clone())).collect(),
            partial: None,
            stage: None,
        };
        let mut operands: Vec<Sharding> = rule.operands.iter().map(dims).collect();
        let mut results: Vec<Sharding> = rule.results.iter().map(dims).collect();
        let mut partial: Option<Partial> = None;
        for (factor, axes) in rule.factors.iter().zip(axes) {
            if let Some(combine) = factor.summed
                && !axes.is_empty()
            {
                let partial = partial.get_or_insert(Partial { combine, axes: Vec::new() });
                partial.axes.extend(axes);
            }
        }
        let passed = current.first().and_then(|first| first.partial.clone());
        if let (None, Some(passed)) = (&partial, passed) {
            let alike = current.iter().all(|other| other.partial.as_ref() == Some(&passed));
            let passes = match rule.passes {
                Passes::Never => false,
                Passes::Sums => passed.combine == crate::kernel::Combine::Sum,
                Passes::Any => true,
            };
            let free = !axes.iter().flatten().any(|axis| passed.axes.contains(axis));
            // Only where the program wants it so: else it would be joined a second time for nothing.
            let wanted = node.results.iter().all(|&result| {
                self.planned(result)
                    .partial
                    .as_ref()
                    .is_some_and(|wanted| wanted.axes.iter().all(|axis| passed.axes.contains(axis)))
            });
            if alike && passes && free && wanted {
                operands.iter_mut().for_each(|operand| operand.partial = Some(passed.clone()));
                partial = Some(passed);
            }
        }
        results.iter_mut().for_each(|result| result.partial = partial.clone());
        let used: usize = axes.iter().map(|axes| self.mesh.sizes(axes)).product();
        Choice { operands, results, parts: used }
    }

    /// What the exchanges before and after cost; `None` where they cannot be.
    fn price(&self, node: &Node, choice: &Choice, current: &[Sharding]) -> Option<f64> {
        let mut sum = 0.0;
        for ((&operand, from), to) in node.operands.iter().zip(current).zip(&choice.operands) {
            let moved = price(from, to, self.old.ty(operand), self.mesh, self.cost)?;
            let remade = self.remade(operand, to);
            let remade = remade.map_or(moved, |(_, of, needed)| self.remade_price(of, &needed));
            sum += moved.min(remade);
        }
        for (&result, from) in node.results.iter().zip(&choice.results) {
            let to = self.planned(result);
            let to =
                if from.partial.is_some() || self.plan.fixed[result.index()] { to } else { from };
            sum += price(from, to, self.old.ty(result), self.mesh, self.cost)?;
        }
        Some(sum)
    }

    /// The op on parts.
    fn local(&self, node: &Node, choice: &Choice) -> Op {
        let part: Option<TensorType> = node
            .results
            .first()
            .map(|&result| choice.results[0].part(self.old.ty(result), self.mesh));
        let shape = part.map(|part| part.shape.to_vec()).unwrap_or_default();
        match &node.op {
            Op::Reshape(_) => Reshape { shape }.into(),
            Op::Broadcast(op) => Broadcast { shape, dims: op.dims.clone() }.into(),
            Op::DynamicSlice(_) => DynamicSlice { sizes: shape }.into(),
            Op::Slice(op) => {
                let mut limit = op.limit.clone();
                for (dim, axes) in choice.results[0].dims.iter().enumerate() {
                    limit[dim] /= self.mesh.sizes(axes);
                }
                Slice { limit, ..op.clone() }.into()
            }
            op => op.clone(),
        }
    }

    fn block_of(
        &mut self,
        block: &Block,
        params: &[Sharding],
        results: &[Sharding],
    ) -> Result<Block> {
        let outer = std::mem::take(&mut self.nodes);
        let moved = self.moved.clone();
        let mut new_params = Vec::new();
        for (&param, sharding) in block.params.iter().zip(params) {
            let ty = sharding.part(self.old.ty(param), self.mesh);
            let value = self.new.value(ty, self.old.values[param].name.as_deref());
            self.held[param.index()] = Some(Held { value, sharding: sharding.clone() });
            new_params.push(value);
        }
        let (origins, span) = (self.origins.clone(), self.span);
        for &id in &block.nodes {
            let old = self.old;
            self.node(&old.nodes[id])?;
        }
        (self.origins, self.span) = (origins, span);
        let mut found = Vec::new();
        for (&result, sharding) in block.results.iter().zip(results) {
            found.push(self.moved_to(result, sharding)?);
        }
        let nodes = std::mem::replace(&mut self.nodes, outer);
        // What was moved inside is not there outside.
        self.moved = moved;
        Ok(Block { params: new_params, nodes, results: found })
    }

    /// Loops and branches keep what they hand on as the plan says. Conditions are whole, so that ranks go one way.
    fn control(&mut self, node: &Node) -> Result<()> {
        let whole = |value: ValueId| Sharding { partial: None, ..self.planned(value).clone() };
        let results: Vec<Sharding> = match &node.op {
            Op::For(_) | Op::While(_) => {
                let body = node.blocks.last().map_or(&[][..], |body| &body.params);
                let skipped = usize::from(matches!(node.op, Op::For(_)));
                body.iter().skip(skipped).map(|&param| whole(param)).collect()
            }
            _ => node.results.iter().map(|&result| whole(result)).collect(),
        };
        let scalar = Sharding::whole(0);
        let (operands, blocks) = match &node.op {
            Op::If(_) => {
                let condition = self.moved_to(node.operands[0], &scalar)?;
                let mut blocks = Vec::new();
                for block in &node.blocks {
                    blocks.push(self.block_of(block, &[], &results)?);
                }
                (vec![condition], blocks)
            }
            Op::For(_) => {
                let operands = self.all_moved(&node.operands, &results)?;
                let params = [&[scalar], &results[..]].concat();
                (operands, vec![self.block_of(&node.blocks[0], &params, &results)?])
            }
            Op::While(_) => {
                let operands = self.all_moved(&node.operands, &results)?;
                let test = self.block_of(&node.blocks[0], &results, &[scalar])?;
                (operands, vec![test, self.block_of(&node.blocks[1], &results, &results)?])
            }
            op => {
                let what = format!("{} must be inlined before a program is divided", op.name());
                return Err(TypeError::new(what));
            }
        };
        let values = self.emit(node.op.clone(), &operands, blocks)?;
        for ((&old, &value), sharding) in node.results.iter().zip(&values).zip(results) {
            self.keep_name(old, value);
            self.held[old.index()] = Some(Held { value, sharding });
            self.settle(old)?;
        }
        Ok(())
    }

    fn all_moved(&mut self, values: &[ValueId], wanted: &[Sharding]) -> Result<Vec<ValueId>> {
        values.iter().zip(wanted).map(|(&value, wanted)| self.moved_to(value, wanted)).collect()
    }

    /// Sends a value to ranks of another stage.
    pub(super) fn send(&mut self, value: ValueId, pairs: &[Vec<usize>]) -> Result<()> {
        let held = self.held(value);
        self.emit_one(Permute { pairs: pairs.to_vec() }, &[held.value]).map(|_| ())
    }

    /// Gets a value from ranks of another stage, where it is divided like that.
    pub(super) fn receive(
        &mut self,
        value: ValueId,
        sharding: Sharding,
        pairs: &[Vec<usize>],
    ) -> Result<()> {
        let ty = sharding.part(self.old.ty(value), self.mesh);
        let nothing = self.emit_one(Constant { value: Tensor::zeros(ty) }, &[])?;
        let received = self.emit_one(Permute { pairs: pairs.to_vec() }, &[nothing])?;
        self.keep_name(value, received);
        self.set(value, Held { value: received, sharding });
        Ok(())
    }
}

/// A constant of another shape, where all elements are one.
fn splat(value: &Tensor, part: &TensorType) -> Option<Tensor> {
    let width = value.dtype().bytes();
    let first = value.bytes().get(..width)?;
    let alike = value.bytes().chunks_exact(width).all(|element| element == first);
    let data = bytes::Bytes::from(first.repeat(part.count()));
    if alike { Tensor::new(part.clone(), data) } else { None }
}
