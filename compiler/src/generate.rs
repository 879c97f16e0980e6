//! Random graphs from the ops' samplers, for tests and fuzzers. They are well typed and small, and they end: a `while`
//! counts. Operands are values that are there, bent to the wanted type where they are of another, or new parameters.

use crate::graph::{Block, Builder, Function, Graph, ValueId};
use crate::op::{
    self, Broadcast, Call, Convert, For, If, Op, Reshape, Sampler, Slice, TypeError, While,
};
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use arbitrary::{Result, Unstructured};
use std::fmt;

/// What graphs are wanted.
pub struct Options<'a> {
    /// How many sampled ops a block has at most.
    pub nodes: usize,
    /// How deeply blocks nest; 0 is for straight-line graphs, which call no functions either.
    pub depth: usize,
    /// Which ops are wanted, with the types of their operands.
    pub accept: &'a dyn Fn(&Op, &[TensorType]) -> bool,
}

impl Options<'_> {
    /// Up to ten ops in a block, two levels of blocks, every op.
    pub const ALL: Options<'static> = Options { nodes: 10, depth: 2, accept: &|_, _| true };
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("nodes", &self.nodes)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// A random graph with an entry `main`.
pub fn graph(u: &mut Unstructured<'_>, options: &Options<'_>) -> Result<Graph> {
    let mut graph = Graph::default();
    let helper =
        if options.depth > 0 && u.ratio(1, 4)? { Some(function(u, options, None)?) } else { None };
    let main = function(u, options, helper.as_ref())?;
    graph.functions.insert("main".to_owned(), main);
    graph.functions.extend(helper.map(|helper| (HELPER.to_owned(), helper)));
    decorate(u, &mut graph)?;
    Ok(graph)
}

const HELPER: &str = "helper";

fn function(
    u: &mut Unstructured<'_>,
    options: &Options<'_>,
    helper: Option<&Function>,
) -> Result<Function> {
    let mut function = Function::default();
    let mut builder = Builder::new(&mut function);
    let mut scope = Vec::new();
    let mut generator = Generator { u, options, helper };
    generator.nodes(&mut builder, &mut scope, 0)?;
    let nodes = builder.nodes;
    function.body.nodes = nodes;
    // What nobody uses is a result, so that little is dead.
    let counts = function.use_counts();
    let unused: Vec<ValueId> =
        scope.iter().copied().filter(|value| counts[value.index()] == 0).collect();
    for (position, &value) in unused.iter().rev().take(4).enumerate() {
        function.result(value, &format!("y{position}"));
    }
    let params = function.body.params.clone();
    for (position, &value) in function.body.results.iter().enumerate() {
        let same = params.iter().position(|&param| function.ty(param) == function.ty(value));
        if let Some(param) = same
            && function.state.iter().all(|&(other, _)| other != param)
            && u.ratio(1, 8)?
        {
            function.state.push((param, position));
        }
    }
    Ok(function)
}

/// Gives some values names and some nodes origins.
fn decorate(u: &mut Unstructured<'_>, graph: &mut Graph) -> Result<()> {
    const NAMES: &[&str] = &["a", "b.1", "layer/0:w", "two words", "\"", "7", ""];
    for function in graph.functions.values_mut() {
        for (_, value) in function.values.iter_mut() {
            if value.name.is_none() && u.ratio(1, 3)? {
                value.name = Some((*u.choose(NAMES)?).to_owned());
            }
        }
        for (_, node) in function.nodes.iter_mut() {
            if u.ratio(1, 4)? {
                let (origin, _) = graph.origins.insert_full((*u.choose(NAMES)?).to_owned());
                node.origins.push(u32::try_from(origin).expect("there are few names"));
            }
        }
    }
    Ok(())
}

struct Generator<'a, 'u, 'o> {
    u: &'a mut Unstructured<'u>,
    options: &'a Options<'o>,
    helper: Option<&'a Function>,
}

impl Generator<'_, '_, '_> {
    /// Adds nodes; `scope` holds the values that they may use, and gets theirs.
    fn nodes(
        &mut self,
        builder: &mut Builder<'_>,
        scope: &mut Vec<ValueId>,
        depth: usize,
    ) -> Result<()> {
        for _ in 0..self.u.int_in_range(1..=self.options.nodes.max(1))? {
            if depth < self.options.depth && self.u.ratio(1, 6)? {
                self.control(builder, scope, depth)?;
            } else {
                self.sampled(builder, scope)?;
            }
        }
        Ok(())
    }

    fn sampled(&mut self, builder: &mut Builder<'_>, scope: &mut Vec<ValueId>) -> Result<()> {
        let sampler: Sampler = self.u.choose(op::CATALOG)?.3;
        // Ops with blocks or functions have no sampler.
        let Ok((op, types)) = sampler(self.u) else { return Ok(()) };
        if !(self.options.accept)(&op, &types) {
            return Ok(());
        }
        let operands: Vec<ValueId> =
            types.iter().map(|ty| self.operand(builder, scope, ty)).collect::<Result<_>>()?;
        // Whether indices are in range does not matter for any op, so types are all that must fit.
        scope.extend(fits(builder.add_many(op, &operands, Vec::new())));
        Ok(())
    }

    /// A value of that type.
    fn operand(
        &mut self,
        builder: &mut Builder<'_>,
        scope: &mut Vec<ValueId>,
        ty: &TensorType,
    ) -> Result<ValueId> {
        let fitting: Vec<ValueId> =
            scope.iter().copied().filter(|&value| builder.ty(value) == ty).collect();
        if !fitting.is_empty() && self.u.ratio(3, 4)? {
            return Ok(*self.u.choose(&fitting)?);
        }
        if !scope.is_empty() && self.u.ratio(2, 3)? {
            let value = *self.u.choose(scope)?;
            if let Some(bent) = self.bent(builder, value, ty) {
                scope.push(bent);
                return Ok(bent);
            }
        }
        let name = format!("x{}", builder.function.body.params.len());
        let param = builder.function.parameter(ty.clone(), &name);
        scope.push(param);
        Ok(param)
    }

    /// A value made to have a type: converted, repeated, cut and reshaped, as far as these are accepted.
    fn bent(
        &self,
        builder: &mut Builder<'_>,
        value: ValueId,
        wanted: &TensorType,
    ) -> Option<ValueId> {
        let mut current = value;
        let mut apply = |builder: &mut Builder<'_>, op: Op| {
            let ty = builder.ty(current).clone();
            if !(self.options.accept)(&op, std::slice::from_ref(&ty)) {
                return None;
            }
            current = builder.add(op, &[current]).ok()?;
            Some(builder.ty(current).clone())
        };
        let mut ty = builder.ty(value).clone();
        if ty.dtype != wanted.dtype {
            ty = apply(builder, Convert { dtype: wanted.dtype }.into())?;
        }
        let (have, want) = (ty.count(), wanted.count());
        if have == 0 || want == 0 {
            return None;
        }
        if have != want && ty.rank() != 1 {
            ty = apply(builder, Reshape { shape: vec![have] }.into())?;
        }
        if have < want {
            let times = want.div_ceil(have);
            apply(builder, Broadcast { shape: vec![times, have], dims: vec![1] }.into())?;
            ty = apply(builder, Reshape { shape: vec![times * have] }.into())?;
        }
        if ty.count() > want {
            let cut = Slice { start: vec![0], limit: vec![want], stride: vec![1] };
            ty = apply(builder, cut.into())?;
        }
        if ty.shape != wanted.shape {
            apply(builder, Reshape { shape: wanted.shape.to_vec() }.into())?;
        }
        Some(current)
    }

    /// Adds an op with blocks, or a call.
    fn control(
        &mut self,
        builder: &mut Builder<'_>,
        scope: &mut Vec<ValueId>,
        depth: usize,
    ) -> Result<()> {
        let carried: Vec<ValueId> = match scope.is_empty() {
            true => Vec::new(),
            false => (0..self.u.int_in_range(1..=2)?)
                .map(|_| self.u.choose(scope).copied())
                .collect::<Result<_>>()?,
        };
        let types: Vec<TensorType> =
            carried.iter().map(|&value| builder.ty(value).clone()).collect();
        let counter = TensorType::new(DType::I64, &[]);
        let results = match (self.u.int_in_range(0..=3)?, self.helper) {
            (0, Some(helper)) => {
                let params: Vec<TensorType> =
                    helper.body.params.iter().map(|&param| helper.ty(param).clone()).collect();
                let operands: Vec<ValueId> = params
                    .iter()
                    .map(|ty| self.operand(builder, scope, ty))
                    .collect::<Result<_>>()?;
                let results =
                    helper.body.results.iter().map(|&result| helper.ty(result).clone()).collect();
                fits(builder.add_many(
                    Call { function: HELPER.to_owned(), results },
                    &operands,
                    Vec::new(),
                ))
            }
            (1, _) => {
                let condition = self.operand(builder, scope, &TensorType::new(DType::Bool, &[]))?;
                let yes = self.block(builder, scope, &[], &types, depth)?;
                let no = self.block(builder, scope, &[], &types, depth)?;
                fits(builder.add_many(If {}, &[condition], vec![yes, no]))
            }
            (2, _) => {
                let count = self.u.int_in_range(0..=3)?;
                let params: Vec<TensorType> =
                    std::iter::once(counter).chain(types.iter().cloned()).collect();
                let body = self.block(builder, scope, &params, &types, depth)?;
                fits(builder.add_many(For { count }, &carried, vec![body]))
            }
            _ => {
                let limit = self.u.int_in_range(0..=3)?;
                let zero = builder.constant(Tensor::scalar(0i64));
                let params: Vec<TensorType> =
                    std::iter::once(counter).chain(types.iter().cloned()).collect();
                let condition = fits(builder.block(&params, |inner, params| {
                    let limit = inner.constant(Tensor::scalar::<i64>(limit));
                    Ok(vec![inner.map(ScalarFn::Lt, &[params[0], limit])?])
                }));
                let mut body = self.block(builder, scope, &params, &types, depth)?;
                let mut end = Builder::new(builder.function);
                let one = end.constant(Tensor::scalar(1i64));
                let next = fits(end.map(ScalarFn::Add, &[body.params[0], one]));
                body.nodes.extend(end.nodes);
                body.results.insert(0, next);
                let operands: Vec<ValueId> = std::iter::once(zero).chain(carried).collect();
                fits(builder.add_many(While {}, &operands, vec![condition, body]))
            }
        };
        scope.extend(results);
        Ok(())
    }

    /// A block with such parameters and results.
    fn block(
        &mut self,
        builder: &mut Builder<'_>,
        scope: &[ValueId],
        params: &[TensorType],
        results: &[TensorType],
        depth: usize,
    ) -> Result<Block> {
        let params: Vec<ValueId> =
            params.iter().map(|ty| builder.function.value(ty.clone(), None)).collect();
        let mut inner = Builder::new(builder.function);
        let mut inner_scope = scope.to_vec();
        inner_scope.extend(&params);
        self.nodes(&mut inner, &mut inner_scope, depth + 1)?;
        let results = results
            .iter()
            .map(|ty| self.operand(&mut inner, &mut inner_scope, ty))
            .collect::<Result<_>>()?;
        Ok(Block { params, nodes: inner.nodes, results })
    }
}

/// What a type rule says of operands that a sampler asked for.
fn fits<T>(built: std::result::Result<T, TypeError>) -> T {
    built.unwrap_or_else(|error| panic!("a sampled op does not take its own operands: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{self, Budget, EvaluateError};
    use crate::text;

    #[test]
    fn random_graphs_are_read_as_they_are_printed() {
        arbtest::arbtest(|u| {
            let graph = graph(u, &Options::ALL)?;
            let printed = text::print_full(&graph);
            let read = text::parse_graph(&printed).unwrap_or_else(|problems| {
                panic!("{}", text::render(&problems, "random", Some(&printed)))
            });
            assert!(text::same(&graph, &read), "{printed}");
            assert_eq!(text::print_full(&read), printed);
            Ok(())
        })
        .budget_ms(1000);
    }

    #[test]
    fn random_graphs_have_values() {
        arbtest::arbtest(|u| {
            let graph = graph(u, &Options::ALL)?;
            let entry = graph.entry();
            let inputs: Vec<Tensor> = entry
                .body
                .params
                .iter()
                .map(|&param| Tensor::zeros(entry.ty(param).clone()))
                .collect();
            match evaluate::graph(&graph, &inputs, &Budget::UNLIMITED) {
                Ok(outputs) => {
                    let types: Vec<_> = outputs.iter().map(Tensor::ty).collect();
                    let wanted: Vec<_> =
                        entry.body.results.iter().map(|&value| entry.ty(value)).collect();
                    assert_eq!(types, wanted);
                }
                Err(EvaluateError::Unsupported(_)) => {}
                Err(error) => panic!("{error}\n{graph}"),
            }
            Ok(())
        })
        .budget_ms(1000);
    }
    #[test]
    fn every_op_occurs() {
        let mut seen = std::collections::BTreeSet::new();
        let mut state: u64 = 1;
        for _ in 0..1000 {
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            };
            let data: Vec<u8> = (0..2000).map(|_| next()).collect();
            let graph = graph(&mut Unstructured::new(&data), &Options::ALL).expect("enough data");
            for function in graph.functions.values() {
                seen.extend(function.nodes.iter().map(|(_, node)| node.op.name()));
            }
        }
        let missing: Vec<&str> = op::CATALOG
            .iter()
            .map(|row| row.0)
            .filter(|&name| name != "map" && !seen.contains(name))
            .collect();
        assert_eq!(missing, ["parameter", "fusion"]);
    }
}
