//! Elementwise work: the steps of an expression as instructions, engine by engine.

use super::masks;
use super::place::{Domain, Piece, Place, Rows, accesses, allocate, count, dims, pieces, split};
use super::plan::{Does, Linear, Source, Step, With, linear};
use super::tree::{Builder, Ref};
use super::vars::Vars;
use crate::isa::{Alu, Function, Op};
use crate::limits::PARTITIONS;
use crate::program::{Engine, Index, Operand1};
use smallvec::SmallVec;
use systole_compiler::expr::{Expr, ExprNode, Scalar};
use systole_compiler::kernel::Axis;
use systole_compiler::types::DType;

/// The most elements of each partition that one instruction takes.
const LONGEST: usize = 8192;

/// Cycles of an instruction beyond its elements.
const EXTRA: f64 = 64.0;

/// Sets a whole buffer.
pub(crate) fn memset(
    builder: &mut Builder<'_>,
    buffer: usize,
    dtype: DType,
    rows: &[(Axis, usize)],
    chunk: i64,
    value: Scalar,
) {
    let chunks = count(rows).div_ceil(PARTITIONS).max(1) as i64;
    let partitions = if rows.is_empty() { PARTITIONS } else { count(rows).min(PARTITIONS) };
    let dims = SmallVec::from_slice(&[(1, (chunk * chunks) as u32)]);
    let out = builder.access(buffer, dtype, 0, (0, partitions as u16), dims);
    let engine = if builder.busy[0] < builder.busy[2] { Engine::Vector } else { Engine::GpSimd };
    charge(builder, engine, out.access.free() as f64);
    let op = Op::Memset { out: out.access.clone(), value: Scalar { dtype, ..value } };
    builder.emit(engine, op, &[], &[&out]);
}

/// Notes that an engine has so many more elements to do.
pub(crate) fn charge(builder: &mut Builder<'_>, engine: Engine, elements: f64) {
    let repeats = builder.repeats();
    let (place, ghz) = match engine {
        Engine::Vector => (0, builder.limits.vector_ghz),
        Engine::Scalar => (1, builder.limits.scalar_ghz),
        Engine::GpSimd => (2, builder.limits.scalar_ghz),
        Engine::Tensor | Engine::Sync => return,
    };
    builder.busy[place] += (elements + EXTRA) / ghz * repeats;
}

/// The engine of VectorE and ScalarE that will be done first with so many elements.
pub(crate) fn idler(builder: &Builder<'_>, elements: f64) -> Engine {
    let vector = builder.busy[0] + elements / builder.limits.vector_ghz;
    let scalar = builder.busy[1] + elements / builder.limits.scalar_ghz;
    if vector <= scalar { Engine::Vector } else { Engine::Scalar }
}

/// Copies a piece.
pub(crate) fn copy_piece(
    builder: &mut Builder<'_>,
    piece: &Piece,
    domain: &Domain,
    from: &Place,
    to: &Place,
) {
    for part in split(piece, domain, &[from, to], LONGEST) {
        let found = accesses(builder, &part, domain, &[from, to]);
        let elements = found[1].access.free() as f64;
        let engine = idler(builder, elements);
        charge(builder, engine, elements);
        let op = Op::Copy { input: found[0].access.clone(), out: found[1].access.clone() };
        builder.emit(engine, op, &[&found[0]], &[&found[1]]);
    }
}

/// What an operand of a map is, on one piece.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// The same number everywhere.
    Constant(Scalar),
    /// A tile.
    At(Place),
}

/// Whether a tile has one value for each row of a domain, whose free part is longer than that.
pub(crate) fn is_small(place: &Place, domain: &Domain) -> bool {
    domain.free_count() > 1
        && domain.free.iter().all(|&(axis, extent)| extent == 1 || place.stride(axis) == 0)
}

/// Carries out steps on pieces of a domain. `operands` gives, for each piece, where the operands are.
pub(crate) fn run(
    builder: &mut Builder<'_>,
    vars: &Vars,
    domain: &Domain,
    work: &[(Piece, Vec<Held>)],
    steps: &[Step],
    out: &Place,
) -> Result<(), String> {
    let rows_only = Domain { rows: domain.rows.clone(), free: SmallVec::new() };
    let by_row = uses_rows(steps, work, domain);
    let mut temps: Vec<Option<Place>> = vec![None; steps.len()];
    for (index, step) in steps[..steps.len() - 1].iter().enumerate() {
        let over = if step.small { &rows_only } else { domain };
        temps[index] = Some(allocate(builder, over, step.dtype, 2, "a step")?);
    }
    temps[steps.len() - 1] = Some(out.clone());
    let mut constants: Vec<(u64, Place)> = Vec::new();
    for (piece, operands) in work {
        let mut parts = vec![piece.clone()];
        if by_row && piece.chunks.1 > 1 {
            parts = (0..piece.chunks.1)
                .map(|index| Piece { chunks: (piece.chunks.0 + index, 1), ..piece.clone() })
                .collect();
        }
        for (index, step) in steps.iter().enumerate() {
            let over = if step.small { &rows_only } else { domain };
            for part in &parts {
                let mut part = part.clone();
                if step.small {
                    part.ranges = SmallVec::new();
                }
                let context = Context {
                    domain: over,
                    operands,
                    vars,
                    temps: &temps,
                    constants: &mut constants,
                };
                one(builder, context, &part, step, index)?;
            }
        }
    }
    Ok(())
}

/// Whether a step reads one value for each row as the scalar of an instruction.
fn uses_rows(steps: &[Step], work: &[(Piece, Vec<Held>)], domain: &Domain) -> bool {
    let small = |source: &Source| match source {
        Source::Constant(_) => false,
        Source::Step(index) => steps[*index].small,
        Source::Operand(index) => work
            .iter()
            .any(|(_, held)| matches!(&held[*index], Held::At(place) if is_small(place, domain))),
    };
    steps.iter().filter(|step| !step.small).any(|step| match &step.does {
        Does::Activate(_, _, scale, bias) => small(scale) || small(bias),
        Does::Scalar(_, first, second) => {
            small(&first.1) || second.as_ref().is_some_and(|second| small(&second.1))
        }
        Does::Both(_, first, _, _) => small(&first.1),
        Does::Tensor(..) | Does::Select(..) | Does::Masked(..) | Does::Copy(_) => false,
    })
}

struct Context<'a> {
    domain: &'a Domain,
    operands: &'a [Held],
    vars: &'a Vars,
    temps: &'a [Option<Place>],
    /// Numbers that lie in memory, by their bits.
    constants: &'a mut Vec<(u64, Place)>,
}

/// One step on one piece.
fn one(
    builder: &mut Builder<'_>,
    mut context: Context<'_>,
    piece: &Piece,
    step: &Step,
    index: usize,
) -> Result<(), String> {
    let out = context.temps[index].clone().expect("every step has a place");
    let place = |builder: &mut Builder<'_>, context: &mut Context<'_>, source: &Source| {
        place_of(builder, context, source)
    };
    let mut tensors: Vec<Place> = vec![out];
    let wanted: Vec<&Source> = match &step.does {
        Does::Activate(_, x, ..) | Does::Scalar(x, ..) | Does::Masked(x, ..) | Does::Copy(x) => {
            vec![x]
        }
        Does::Tensor(_, a, b) | Does::Both(a, _, _, b) => vec![a, b],
        Does::Select(c, a, b) => vec![c, a, b],
    };
    for source in wanted {
        tensors.push(place(builder, &mut context, source)?);
    }
    let domain = context.domain;
    let walked = match &step.does {
        Does::Masked(_, at, _) => Some(masks::walk(at, domain, context.vars, &tensors[0])?),
        Does::Activate(..)
        | Does::Scalar(..)
        | Does::Tensor(..)
        | Does::Both(..)
        | Does::Select(..)
        | Does::Copy(_) => None,
    };
    let mut all: Vec<&Place> = tensors.iter().collect();
    all.extend(walked.iter().map(|walked| &walked.numbers));
    for part in split(piece, domain, &all, LONGEST) {
        let steps = dims(&part, domain, &all).pop().unwrap_or_default();
        let found = accesses(builder, &part, domain, &all);
        let elements = found[0].access.free() as f64;
        let mut reads: Vec<Ref> = found[1..tensors.len()].to_vec();
        let out = &found[0];
        let access = |index: usize| found[index].access.clone();
        let mut with = |builder: &mut Builder<'_>, source: &Source| -> Operand1 {
            match number(&context, source) {
                Some(value) => Operand1::Immediate(value as f32),
                None => {
                    let place = small_place(&context, source);
                    let rows = Domain { rows: domain.rows.clone(), free: SmallVec::new() };
                    let row = Piece { ranges: SmallVec::new(), ..part.clone() };
                    let found = accesses(builder, &row, &rows, &[&place]).swap_remove(0);
                    reads.push(found.clone());
                    Operand1::Partition(found.access)
                }
            }
        };
        let (engine, cost, op) = match &step.does {
            Does::Activate(function, _, scale, bias) => {
                let (scale, bias) = (with(builder, scale), with(builder, bias));
                let function = *function;
                let op = Op::Activation {
                    function,
                    input: access(1),
                    scale,
                    bias,
                    out: access(0),
                    reduce: None,
                };
                (Engine::Scalar, elements, op)
            }
            Does::Scalar(_, first, second) => {
                let activation = as_activation(first, second.as_ref());
                let engine = match activation {
                    Some(_) if !step.small => idler(builder, elements),
                    Some(_) | None => Engine::Vector,
                };
                match activation.filter(|_| engine == Engine::Scalar) {
                    Some((function, scale, bias)) => {
                        let (scale, bias) = (with(builder, &scale), with(builder, &bias));
                        let (input, out) = (access(1), access(0));
                        let op = Op::Activation { function, input, scale, bias, out, reduce: None };
                        (Engine::Scalar, elements, op)
                    }
                    None => {
                        let first = (first.0, with(builder, &first.1), first.2);
                        let second =
                            second.map(|second| (second.0, with(builder, &second.1), second.2));
                        let (input, out) = (access(1), access(0));
                        let op = Op::TensorScalar { input, first, second, out, reduce: None };
                        (Engine::Vector, elements, op)
                    }
                }
            }
            Does::Tensor(alu, ..) => {
                let op = Op::TensorTensor { alu: *alu, a: access(1), b: access(2), out: access(0) };
                (Engine::Vector, 2.0 * elements, op)
            }
            Does::Both(_, first, second, _) => {
                let first = (first.0, with(builder, &first.1), first.2);
                let op = Op::ScalarTensorTensor {
                    a: access(1),
                    first,
                    second: *second,
                    b: access(2),
                    out: access(0),
                };
                (Engine::Vector, 2.0 * elements, op)
            }
            Does::Select(..) => {
                let op = Op::Select {
                    predicate: access(1),
                    on_true: access(2),
                    on_false: access(3),
                    out: access(0),
                };
                (Engine::Vector, 2.0 * elements, op)
            }
            Does::Masked(_, _, other) => {
                let walked = walked.as_ref().expect("a mask has a walk");
                let mut base = walked.base.clone();
                base.constant += walked.numbers.set() * part.chunks.0 as i64;
                for (&(axis, _), range) in domain.free.iter().zip(&part.ranges) {
                    base.constant += walked.numbers.stride(axis) * range.0 as i64;
                }
                let op = Op::AffineSelect {
                    input: access(1),
                    base,
                    channel: walked.channel,
                    steps: steps.iter().map(|&(step, _)| i64::from(step)).collect(),
                    fill: *other as f32,
                    out: access(0),
                };
                (Engine::GpSimd, elements, op)
            }
            Does::Copy(_) => {
                let op = Op::Copy { input: access(1), out: access(0) };
                (idler(builder, elements), elements, op)
            }
        };
        charge(builder, engine, cost);
        let reads: Vec<&Ref> = reads.iter().collect();
        builder.emit(engine, op, &reads, &[out]);
    }
    Ok(())
}

/// The functions of a step as one of ScalarE.
fn as_activation(first: &With, second: Option<&With>) -> Option<(Function, Source, Source)> {
    let (one, zero) = (Source::Constant(1.0), Source::Constant(0.0));
    let relu = |with: &With| (with.0 == Alu::Max && with.1 == zero).then_some(());
    match (linear(*first), second) {
        (Some(Linear::Scale(scale)), None) => Some((Function::Copy, scale, zero)),
        (Some(Linear::Shift(bias)), None) => Some((Function::Copy, one, bias)),
        (Some(Linear::Scale(scale)), Some(second)) => match linear(*second) {
            Some(Linear::Shift(bias)) => Some((Function::Copy, scale, bias)),
            Some(Linear::Scale(_)) => None,
            None => relu(second).map(|()| (Function::Relu, scale, zero)),
        },
        (Some(Linear::Shift(bias)), Some(second)) => {
            relu(second).map(|()| (Function::Relu, one, bias))
        }
        (None, None) => relu(first).map(|()| (Function::Relu, one, zero)),
        (None, Some(_)) => None,
    }
}

fn number(context: &Context<'_>, source: &Source) -> Option<f64> {
    match source {
        Source::Constant(value) => Some(*value),
        Source::Operand(index) => match &context.operands[*index] {
            Held::Constant(value) => Some(value.to_f64()),
            Held::At(_) => None,
        },
        Source::Step(_) => None,
    }
}

fn small_place(context: &Context<'_>, source: &Source) -> Place {
    match source {
        Source::Operand(index) => match &context.operands[*index] {
            Held::At(place) => place.clone(),
            Held::Constant(_) => unreachable!("constants are numbers"),
        },
        Source::Step(index) => context.temps[*index].clone().expect("every step has a place"),
        Source::Constant(_) => unreachable!("constants are numbers"),
    }
}

fn place_of(
    builder: &mut Builder<'_>,
    context: &mut Context<'_>,
    source: &Source,
) -> Result<Place, String> {
    let value = match (number(context, source), source) {
        (Some(value), _) => value,
        (None, _) => return Ok(small_place(context, source)),
    };
    let bits = value.to_bits();
    if let Some((_, place)) = context.constants.iter().find(|(other, _)| *other == bits) {
        return Ok(place.clone());
    }
    let domain = Domain { rows: Rows::new(), free: SmallVec::new() };
    let place = allocate(builder, &domain, DType::F32, 1, "a number")?;
    memset(builder, place.buffer, DType::F32, &[], 1, Scalar::new(DType::F32, value));
    context.constants.push((bits, place.clone()));
    Ok(place)
}

/// Carries out an expression as exact code on GpSimdE, piece by piece.
pub(crate) fn custom(
    builder: &mut Builder<'_>,
    vars: &Vars,
    domain: &Domain,
    operands: &[Held],
    expr: &Expr,
    out: &Place,
) -> Result<(), String> {
    let mut rewritten = Expr::new();
    let mut map: Vec<usize> = Vec::new();
    let mut inputs: Vec<Place> = Vec::new();
    let mut slots: Vec<Option<usize>> = vec![None; operands.len()];
    let mut positions: Vec<(ExprNode, usize)> = Vec::new();
    for (node, dtype) in &expr.nodes {
        let id = match node {
            ExprNode::Operand(index) => match &operands[*index] {
                Held::Constant(value) => rewritten.constant(*value),
                Held::At(place) => {
                    let slot = *slots[*index].get_or_insert_with(|| {
                        inputs.push(place.clone());
                        inputs.len() - 1
                    });
                    // A tile may be kept in a narrower type than it is meant to have.
                    let read = rewritten.operand(slot, place.dtype);
                    rewritten.convert(read, *dtype)
                }
            },
            ExprNode::Constant(value) => rewritten.constant(*value),
            ExprNode::Index(_) | ExprNode::Var(_) => {
                let known = positions.iter().find(|(other, _)| other == node);
                let slot = match known {
                    Some(&(_, slot)) => slot,
                    None => {
                        inputs.push(position(builder, vars, domain, node)?);
                        positions.push((node.clone(), inputs.len() - 1));
                        inputs.len() - 1
                    }
                };
                rewritten.operand(slot, DType::I64)
            }
            ExprNode::Call(function, nodes) => {
                let nodes: Vec<usize> = nodes.iter().map(|&node| map[node]).collect();
                rewritten.call(*function, &nodes)
            }
            ExprNode::Convert(node) => rewritten.push(ExprNode::Convert(map[*node]), *dtype),
        };
        map.push(id);
    }
    rewritten.root = map[expr.root];
    if rewritten.dtype() != out.dtype {
        let root = rewritten.root;
        rewritten.root = rewritten.convert(root, out.dtype);
    }
    let mut all: Vec<&Place> = vec![out];
    all.extend(&inputs);
    for piece in pieces(domain) {
        for part in split(&piece, domain, &all, LONGEST) {
            let found = accesses(builder, &part, domain, &all);
            let op = Op::Custom {
                expr: Box::new(rewritten.clone()),
                inputs: found[1..].iter().map(|found| found.access.clone()).collect(),
                out: found[0].access.clone(),
            };
            let work = found[0].access.free() as f64 * rewritten.nodes.len() as f64;
            charge(builder, Engine::GpSimd, work);
            let reads: Vec<&Ref> = found[1..].iter().collect();
            builder.emit(Engine::GpSimd, op, &reads, &[&found[0]]);
        }
    }
    Ok(())
}

/// A tile with the position along an axis, or the value of a variable.
fn position(
    builder: &mut Builder<'_>,
    vars: &Vars,
    domain: &Domain,
    node: &ExprNode,
) -> Result<Place, String> {
    let emit = |builder: &mut Builder<'_>, found: &Ref, base: Index, channel, steps: &[i64]| {
        let mut steps: SmallVec<[i64; 4]> = SmallVec::from_slice(steps);
        steps.resize(found.access.dims.len(), 0);
        let op = Op::Iota { base, channel, steps, out: found.access.clone() };
        builder.emit(Engine::GpSimd, op, &[], &[found]);
    };
    if let ExprNode::Var(var) = node {
        let over = Domain { rows: Rows::new(), free: SmallVec::new() };
        let place = allocate(builder, &over, DType::I64, 2, "a variable")?;
        let dims = SmallVec::from_slice(&[(1, 1)]);
        let found = builder.access(place.buffer, DType::I64, 0, (0, PARTITIONS as u16), dims);
        let at = systole_compiler::kernel::Affine::var(*var);
        if vars.register(*var).is_none() {
            return Err("a variable without a loop".to_owned());
        }
        emit(builder, &found, vars.index(&at), 0, &[0]);
        return Ok(place);
    }
    let ExprNode::Index(axis) = node else { return Err("no position".to_owned()) };
    if let Some(&(_, extent)) = domain.free.iter().find(|(other, _)| other == axis) {
        let over = Domain { rows: Rows::new(), free: smallvec::smallvec![(*axis, extent)] };
        let place = allocate(builder, &over, DType::I64, 2, "positions")?;
        let dims = SmallVec::from_slice(&[(1, extent as u32)]);
        let found = builder.access(place.buffer, DType::I64, 0, (0, PARTITIONS as u16), dims);
        emit(builder, &found, Index::constant(0), 0, &[1]);
        return Ok(place);
    }
    let [(row, extent)] = domain.rows[..] else {
        return Err("positions along one of several row axes".to_owned());
    };
    if row != *axis {
        return Err("a position along no axis of the tile".to_owned());
    }
    let over = Domain { rows: domain.rows.clone(), free: SmallVec::new() };
    let place = allocate(builder, &over, DType::I64, 2, "positions")?;
    for chunk in 0..over.chunks() {
        let partitions = (extent - chunk * PARTITIONS).min(PARTITIONS);
        let dims = SmallVec::from_slice(&[(1, 1)]);
        let byte = chunk as i64 * DType::I64.bytes() as i64;
        let rows = (0, partitions as u16);
        let found = builder.access(place.buffer, DType::I64, byte, rows, dims);
        emit(builder, &found, Index::constant((chunk * PARTITIONS) as i64), 1, &[0]);
    }
    Ok(place)
}
