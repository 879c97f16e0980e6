//! An expression as steps that an engine carries out in one instruction each.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a function or form that is not named is none that engines have"
)]

use super::masks;
use crate::isa::{Alu, Function};
use std::collections::BTreeMap;
use systole_compiler::expr::{Expr, ExprId, ExprNode};
use systole_compiler::kernel::Affine;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::tensor::Values;
use systole_compiler::types::{Class, DType};

/// What a step reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    /// An operand of the map.
    Operand(usize),
    /// The result of an earlier step.
    Step(usize),
    /// A number.
    Constant(f64),
}

/// A function with one operand that is a number or one for each row, and whether it is reversed.
pub(crate) type With = (Alu, Source, bool);

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Does {
    /// `function(x · scale + bias)`.
    Activate(Function, Source, Source, Source),
    /// `(x ∘ first) ∘ second`.
    Scalar(Source, With, Option<With>),
    /// `a ∘ b`.
    Tensor(Alu, Source, Source),
    /// `(a ∘ first) ∘ b`.
    Both(Source, With, Alu, Source),
    /// `predicate ? a : b`.
    Select(Source, Source, Source),
    /// `x` where a number of positions is zero or more, a constant elsewhere.
    Masked(Source, Affine, f64),
    /// `x` in another type.
    Copy(Source),
}

/// A step with what it makes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) does: Does,
    pub(crate) dtype: DType,
    /// It has one value for each row.
    pub(crate) small: bool,
}

/// The steps of an expression, the last of which makes its value, or why engines do not compute it. `small` says which
/// operands have one value for each row, `constants` which are numbers.
pub(crate) fn plan(
    expr: &Expr,
    small: &[bool],
    constants: &[Option<f64>],
) -> Result<Vec<Step>, String> {
    let mut uses = vec![0; expr.nodes.len()];
    let (masks, wanted) = conditions(expr);
    for (id, (node, _)) in expr.nodes[..=expr.root].iter().enumerate() {
        match node {
            _ if !wanted[id] || masks.contains_key(&id) => {}
            ExprNode::Call(_, inputs) => inputs.iter().for_each(|&input| uses[input] += 1),
            ExprNode::Convert(input) => uses[*input] += 1,
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_) => {}
        }
    }
    for (_, (node, dtype)) in expr.nodes.iter().enumerate().filter(|(id, _)| wanted[*id]) {
        let numeric = matches!(dtype.class(), Class::Float | Class::Bool) && *dtype != DType::F64;
        if !numeric {
            return Err(format!("{dtype} is computed exactly"));
        }
        if let ExprNode::Constant(value) = node
            && !value.to_f64().is_finite()
            && value.to_f64().is_nan()
        {
            return Err("a constant is no number".to_owned());
        }
    }
    let mut planner =
        Planner { expr, small, constants, masks, uses, steps: Vec::new(), done: BTreeMap::new() };
    let root = planner.value(expr.root)?;
    let dtype = expr.dtype();
    let last = planner.steps.len().wrapping_sub(1);
    if root != Source::Step(last) || planner.steps[last].small {
        planner.push(Does::Copy(root), dtype, false);
    }
    Ok(planner.steps)
}

/// The conditions on positions, and which nodes are computed: those that only conditions read are not.
fn conditions(expr: &Expr) -> (BTreeMap<ExprId, Vec<Affine>>, Vec<bool>) {
    let mut masks = BTreeMap::new();
    let mut wanted = vec![false; expr.nodes.len()];
    let mut waiting = vec![expr.root];
    while let Some(id) = waiting.pop() {
        if std::mem::replace(&mut wanted[id], true) {
            continue;
        }
        if let Some(found) = masks::condition(expr, id) {
            masks.insert(id, found);
            continue;
        }
        match &expr.nodes[id].0 {
            ExprNode::Call(_, inputs) => waiting.extend(inputs.iter().copied()),
            ExprNode::Convert(input) => waiting.push(*input),
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_) => {}
        }
    }
    (masks, wanted)
}

struct Planner<'a> {
    expr: &'a Expr,
    small: &'a [bool],
    constants: &'a [Option<f64>],
    /// Conditions on positions.
    masks: BTreeMap<ExprId, Vec<Affine>>,
    uses: Vec<usize>,
    steps: Vec<Step>,
    done: BTreeMap<ExprId, Source>,
}

impl Planner<'_> {
    fn push(&mut self, does: Does, dtype: DType, small: bool) -> Source {
        self.steps.push(Step { does, dtype, small });
        Source::Step(self.steps.len() - 1)
    }

    fn is_small(&self, source: Source) -> bool {
        match source {
            Source::Operand(index) => self.small[index],
            Source::Step(index) => self.steps[index].small,
            Source::Constant(_) => true,
        }
    }

    fn value(&mut self, node: ExprId) -> Result<Source, String> {
        if let Some(&found) = self.done.get(&node) {
            return Ok(found);
        }
        let found = self.make(node)?;
        self.done.insert(node, found);
        Ok(found)
    }

    /// The value where all conditions hold, a number elsewhere.
    fn masked(&mut self, value: Source, conditions: &[Affine], other: f64, dtype: DType) -> Source {
        let keep = |(at, condition): (usize, &Affine)| (at, condition.clone());
        let mut value = value;
        for (at, condition) in conditions.iter().enumerate().map(keep) {
            // Rounded once, at the end.
            let dtype = if at + 1 == conditions.len() { dtype } else { DType::F32 };
            value = self.push(Does::Masked(value, condition, other), dtype, false);
        }
        value
    }

    fn make(&mut self, node: ExprId) -> Result<Source, String> {
        if let Some(conditions) = self.masks.get(&node).cloned() {
            return Ok(self.masked(Source::Constant(1.0), &conditions, 0.0, DType::Bool));
        }
        let (what, dtype) = &self.expr.nodes[node];
        match what {
            ExprNode::Operand(index) => match self.constants[*index] {
                Some(value) => Ok(Source::Constant(value)),
                None => Ok(Source::Operand(*index)),
            },
            ExprNode::Constant(value) => Ok(Source::Constant(value.to_f64())),
            ExprNode::Index(_) | ExprNode::Var(_) => Err("positions are exact".to_owned()),
            ExprNode::Convert(input) => {
                let from = self.expr.nodes[*input].1;
                let source = self.value(*input)?;
                if let Source::Constant(value) = source {
                    let value = systole_compiler::expr::Scalar::new(*dtype, value).to_f64();
                    return Ok(Source::Constant(value));
                }
                let small = self.is_small(source);
                if *dtype == DType::Bool {
                    let test = (Alu::NotEqual, Source::Constant(0.0), false);
                    return Ok(self.push(Does::Scalar(source, test, None), *dtype, small));
                }
                if from == DType::Bool || (*dtype == DType::F32 && from != DType::F32) {
                    return Ok(source);
                }
                // Rounding is part of the result's type, where the value is used once.
                if let Source::Step(index) = source
                    && index + 1 == self.steps.len()
                    && self.uses[*input] == 1
                    && self.steps[index].dtype == DType::F32
                {
                    self.steps[index].dtype = *dtype;
                    return Ok(source);
                }
                Ok(self.push(Does::Copy(source), *dtype, small))
            }
            ExprNode::Call(function, inputs) => self.call(node, *function, inputs, *dtype),
        }
    }

    fn call(
        &mut self,
        node: ExprId,
        function: ScalarFn,
        inputs: &[ExprId],
        dtype: DType,
    ) -> Result<Source, String> {
        if let Some((known, input)) = self.composite(node) {
            let x = self.value(input)?;
            if !matches!(x, Source::Constant(_)) {
                let small = self.is_small(x);
                let (one, zero) = (Source::Constant(1.0), Source::Constant(0.0));
                return Ok(self.push(Does::Activate(known, x, one, zero), dtype, small));
            }
        }
        if function == ScalarFn::Select
            && let Some(conditions) = self.masks.get(&inputs[0]).cloned()
            && let Source::Constant(other) = self.value(inputs[2])?
        {
            let value = self.value(inputs[1])?;
            return Ok(self.masked(value, &conditions, other, dtype));
        }
        if function == ScalarFn::Select {
            let sources = [self.value(inputs[0])?, self.value(inputs[1])?, self.value(inputs[2])?];
            let small = sources.iter().all(|&source| self.is_small(source));
            let [c, a, b] = sources;
            return match c {
                Source::Constant(value) if value != 0.0 => Ok(a),
                Source::Constant(_) => Ok(b),
                Source::Operand(_) | Source::Step(_) => {
                    Ok(self.push(Does::Select(c, a, b), dtype, small))
                }
            };
        }
        if let [input] = *inputs {
            return self.unary(function, input, dtype);
        }
        let (a, b) = (self.value(inputs[0])?, self.value(inputs[1])?);
        let operand_bool = self.expr.nodes[inputs[0]].1 == DType::Bool;
        let alu = binary(function, operand_bool).ok_or_else(|| unknown(function))?;
        if let (Source::Constant(x), Source::Constant(y)) = (a, b) {
            if operand_bool {
                return Err("a test of constants".to_owned());
            }
            let wide = |value: f64| Values::F32(vec![value as f32]);
            let found = function.evaluate(&[&wide(x), &wide(y)]).to_f64()[0];
            let found = systole_compiler::expr::Scalar::new(dtype, found).to_f64();
            return Ok(Source::Constant(found));
        }
        let small = self.is_small(a) && self.is_small(b);
        // A function of one tensor and a number, or one number for each row.
        let scalar = if self.is_small(b) && (!self.is_small(a) || !matches!(a, Source::Constant(_)))
        {
            Some((a, (alu, b, false), inputs[0]))
        } else if self.is_small(a) {
            Some((b, (alu, a, true), inputs[1]))
        } else {
            None
        };
        if let Some((x, with, input)) = scalar {
            if let Some((inner, first)) = self.last_scalar(x, input, small) {
                self.steps.pop();
                return Ok(self.push(Does::Scalar(inner, first, Some(with)), dtype, small));
            }
            return Ok(self.push(Does::Scalar(x, with, None), dtype, small));
        }
        if let Some((inner, first)) = self.last_scalar(a, inputs[0], small)
            && b != a
        {
            self.steps.pop();
            return Ok(self.push(Does::Both(inner, first, alu, b), dtype, small));
        }
        let commutes = matches!(alu, Alu::Add | Alu::Multiply | Alu::Max | Alu::Min);
        if commutes
            && b != a
            && let Some((inner, first)) = self.last_scalar(b, inputs[1], small)
        {
            self.steps.pop();
            return Ok(self.push(Does::Both(inner, first, alu, a), dtype, small));
        }
        Ok(self.push(Does::Tensor(alu, a, b), dtype, small))
    }

    /// The operand and the only function of the last step, where that made `source` for one use.
    fn last_scalar(&self, source: Source, node: ExprId, small: bool) -> Option<(Source, With)> {
        let Source::Step(index) = source else { return None };
        let step = &self.steps[index];
        let alone = index + 1 == self.steps.len() && self.uses[node] == 1;
        match step.does {
            Does::Scalar(x, first, None)
                if alone && step.dtype == DType::F32 && step.small == small =>
            {
                Some((x, first))
            }
            Does::Scalar(..)
            | Does::Activate(..)
            | Does::Tensor(..)
            | Does::Both(..)
            | Does::Select(..)
            | Does::Masked(..)
            | Does::Copy(_) => None,
        }
    }

    fn unary(&mut self, function: ScalarFn, input: ExprId, dtype: DType) -> Result<Source, String> {
        let x = self.value(input)?;
        if let Source::Constant(value) = x {
            if self.expr.nodes[input].1 == DType::Bool {
                return Err("a test of constants".to_owned());
            }
            let found = function.evaluate(&[&Values::F32(vec![value as f32])]);
            if dtype == DType::Bool {
                return Err("a test of constants".to_owned());
            }
            let found = systole_compiler::expr::Scalar::new(dtype, found.to_f64()[0]).to_f64();
            return Ok(Source::Constant(found));
        }
        let small = self.is_small(x);
        let number = Source::Constant;
        let scalar = |alu, value: f64, reversed| (alu, number(value), reversed);
        let simple = match function {
            ScalarFn::Neg => Some(scalar(Alu::Multiply, -1.0, false)),
            ScalarFn::Not => Some(scalar(Alu::Equal, 0.0, false)),
            ScalarFn::Abs => Some(scalar(Alu::AbsMax, 0.0, false)),
            ScalarFn::Rsqrt if small => Some(scalar(Alu::Power, -0.5, false)),
            ScalarFn::Reciprocal if small => Some(scalar(Alu::Divide, 1.0, true)),
            _ => None,
        };
        if let Some(with) = simple {
            if let Some((inner, first)) = self.last_scalar(x, input, small) {
                self.steps.pop();
                return Ok(self.push(Does::Scalar(inner, first, Some(with)), dtype, small));
            }
            return Ok(self.push(Does::Scalar(x, with, None), dtype, small));
        }
        if function == ScalarFn::IsNan {
            return Ok(self.push(Does::Tensor(Alu::NotEqual, x, x), dtype, small));
        }
        let Some(known) = table(function) else { return Err(unknown(function)) };
        let (mut x, mut scale, mut bias) = (x, number(1.0), number(0.0));
        // What a function is applied to may be scaled and shifted on the way.
        if let Source::Step(index) = x
            && index + 1 == self.steps.len()
            && self.uses[input] == 1
            && self.steps[index].dtype == DType::F32
            && self.steps[index].small == small
            && let Does::Scalar(inner, first, second) = self.steps[index].does.clone()
        {
            let linear = match (linear(first), second.map(linear)) {
                (Some(Linear::Scale(scale)), None) => Some((scale, number(0.0))),
                (Some(Linear::Shift(bias)), None) => Some((number(1.0), bias)),
                (Some(Linear::Scale(scale)), Some(Some(Linear::Shift(bias)))) => {
                    Some((scale, bias))
                }
                _ => None,
            };
            if let Some((s, b)) = linear {
                self.steps.pop();
                (x, scale, bias) = (inner, s, b);
            } else if second.is_none()
                && let (Alu::Subtract, subtracted, false) = first
            {
                // One small step makes the number of each row negative.
                self.steps.pop();
                let minus = (Alu::Multiply, number(-1.0), false);
                bias = self.push(Does::Scalar(subtracted, minus, None), DType::F32, true);
                x = inner;
            }
        }
        Ok(self.push(Does::Activate(known, x, scale, bias), dtype, small))
    }

    /// The function that a formula spells out, and what it is applied to.
    fn composite(&self, node: ExprId) -> Option<(Function, ExprId)> {
        let (a, b) = self.pair(node, ScalarFn::Mul)?;
        // x · sigmoid(x)
        for (x, other) in [(a, b), (b, a)] {
            if self.one(other, ScalarFn::Sigmoid) == Some(x) {
                return Some((Function::Silu, x));
            }
        }
        // x · (erf(x / √2) + 1) · 0.5, in any order of the factors.
        let mut factors = Vec::new();
        self.factors(node, &mut factors, 0);
        let half = factors.iter().position(|&factor| self.number(factor) == Some(0.5))?;
        factors.remove(half);
        let [first, second] = factors[..] else { return None };
        for (x, other) in [(first, second), (second, first)] {
            let Some((p, q)) = self.pair(other, ScalarFn::Add) else { continue };
            for (error, one) in [(p, q), (q, p)] {
                let Some(inner) = self.one(error, ScalarFn::Erf) else { continue };
                let near = |value: f64, wanted: f64| (value - wanted).abs() < 1e-6;
                let divided = self.pair(inner, ScalarFn::Div).is_some_and(|(left, right)| {
                    left == x && self.number(right).is_some_and(|value| near(value, 2f64.sqrt()))
                });
                let scaled = self.pair(inner, ScalarFn::Mul).is_some_and(|(left, right)| {
                    left == x && self.number(right).is_some_and(|value| near(value, 0.5f64.sqrt()))
                });
                if self.number(one) == Some(1.0) && (divided || scaled) {
                    return Some((Function::Gelu, x));
                }
            }
        }
        None
    }

    fn factors(&self, node: ExprId, found: &mut Vec<ExprId>, depth: usize) {
        match self.pair(node, ScalarFn::Mul) {
            Some((a, b)) if depth < 3 => {
                self.factors(a, found, depth + 1);
                self.factors(b, found, depth + 1);
            }
            Some(_) | None => found.push(node),
        }
    }

    fn pair(&self, node: ExprId, wanted: ScalarFn) -> Option<(ExprId, ExprId)> {
        match &self.expr.nodes[node] {
            (ExprNode::Call(function, inputs), DType::F32) if *function == wanted => {
                Some((inputs[0], inputs[1]))
            }
            _ => None,
        }
    }

    fn one(&self, node: ExprId, wanted: ScalarFn) -> Option<ExprId> {
        match &self.expr.nodes[node] {
            (ExprNode::Call(function, inputs), DType::F32) if *function == wanted => {
                Some(inputs[0])
            }
            _ => None,
        }
    }

    fn number(&self, node: ExprId) -> Option<f64> {
        match &self.expr.nodes[node].0 {
            ExprNode::Constant(value) => Some(value.to_f64()),
            _ => None,
        }
    }
}

fn unknown(function: ScalarFn) -> String {
    format!("no engine has {}", function.name())
}

/// A function of one operand as part of `x · scale + bias`.
pub(crate) enum Linear {
    /// `x · scale`.
    Scale(Source),
    /// `x + bias`.
    Shift(Source),
}

/// The function as a scale or a shift, where it is one.
pub(crate) fn linear((alu, with, reversed): With) -> Option<Linear> {
    match (alu, with, reversed) {
        (Alu::Multiply, source, _) => Some(Linear::Scale(source)),
        (Alu::Divide, Source::Constant(value), false) => {
            Some(Linear::Scale(Source::Constant(1.0 / value)))
        }
        (Alu::Add, source, _) => Some(Linear::Shift(source)),
        (Alu::Subtract, Source::Constant(value), false) => {
            Some(Linear::Shift(Source::Constant(-value)))
        }
        _ => None,
    }
}

fn binary(function: ScalarFn, of_bool: bool) -> Option<Alu> {
    Some(match function {
        ScalarFn::Add => Alu::Add,
        ScalarFn::Sub => Alu::Subtract,
        ScalarFn::Mul => Alu::Multiply,
        ScalarFn::Div => Alu::Divide,
        ScalarFn::Max => Alu::Max,
        ScalarFn::Min => Alu::Min,
        ScalarFn::Pow => Alu::Power,
        ScalarFn::Eq => Alu::Equal,
        ScalarFn::Ne => Alu::NotEqual,
        ScalarFn::Lt => Alu::Less,
        ScalarFn::Le => Alu::LessEqual,
        ScalarFn::Gt => Alu::Greater,
        ScalarFn::Ge => Alu::GreaterEqual,
        ScalarFn::And if of_bool => Alu::Min,
        ScalarFn::Or if of_bool => Alu::Max,
        ScalarFn::Xor if of_bool => Alu::NotEqual,
        _ => return None,
    })
}

fn table(function: ScalarFn) -> Option<Function> {
    Some(match function {
        ScalarFn::Exp => Function::Exp,
        ScalarFn::Log => Function::Log,
        ScalarFn::Sqrt => Function::Sqrt,
        ScalarFn::Rsqrt => Function::Rsqrt,
        ScalarFn::Reciprocal => Function::Reciprocal,
        ScalarFn::Sign => Function::Sign,
        ScalarFn::Sigmoid => Function::Sigmoid,
        ScalarFn::Tanh => Function::Tanh,
        ScalarFn::Erf => Function::Erf,
        ScalarFn::Atan => Function::Arctan,
        _ => return None,
    })
}
