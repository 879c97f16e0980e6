//! Expressions of maps: names become nodes, and constants get the type that their neighbours or the result want.

use super::super::{Axis, TileId};
use super::ast::{At, Expr as Ast, Literal};
use super::resolve::{Bound, Resolver};
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::expr::{Expr, ExprId, ExprNode, Scalar};
use crate::scalar::{Rule, ScalarFn};
use crate::types::{Class, DType};

/// An expression under construction.
pub(super) struct Scope<'a> {
    pub(super) operands: &'a [TileId],
    pub(super) named: Vec<(String, ExprId)>,
    pub(super) expr: Expr,
    /// The axes that `index` added to those of the operands.
    pub(super) axes: Vec<Axis>,
}

/// Formulas that the text may use like functions.
const FORMULAS: [&str; 4] = ["gelu", "gelu_tanh", "silu", "relu"];

impl Resolver<'_> {
    /// Adds the nodes of an expression; constants are of the type `expected`, where nothing else tells theirs.
    pub(super) fn expr(
        &mut self,
        scope: &mut Scope<'_>,
        ast: &At<Ast<'_>>,
        expected: Option<DType>,
    ) -> Option<ExprId> {
        match &ast.item {
            Ast::Value(name) => self.expr_value(scope, name, ast.span),
            Ast::Literal(Literal::Word { negative: false, word }) => {
                match scope.named.iter().find(|(name, _)| name == word) {
                    Some(&(_, id)) => Some(id),
                    None => self.expr_literal(
                        scope,
                        &Literal::Word { negative: false, word },
                        expected,
                        ast.span,
                    ),
                }
            }
            Ast::Literal(literal) => self.expr_literal(scope, literal, expected, ast.span),
            Ast::Negative(inner) => {
                if let Ast::Literal(Literal::Word { negative: false, word }) = &inner.item
                    && !scope.named.iter().any(|(name, _)| name == word)
                {
                    let literal = Literal::Word { negative: true, word };
                    return self.expr_literal(scope, &literal, expected, ast.span);
                }
                let inner = self.expr(scope, inner, expected)?;
                self.expr_call(scope, ScalarFn::Neg, &[inner], ast.span)
            }
            Ast::Chain { first, rest } => {
                let all =
                    || std::iter::once(first.as_ref()).chain(rest.iter().map(|(_, part)| part));
                let compares = rest.iter().any(|(sign, _)| {
                    ScalarFn::from_name(sign).is_some_and(|sign| sign.rule() == Rule::Compare)
                });
                let expected = if compares { None } else { expected };
                let natural = all().find_map(|part| self.natural(scope, part)).or(expected);
                let dtype = natural.or_else(|| default_type(all()));
                let mut sum = self.expr(scope, first, dtype);
                for (sign, part) in rest {
                    let part = self.expr(scope, part, dtype);
                    let sign = ScalarFn::from_name(sign).expect("operators are functions");
                    sum = match (sum, part) {
                        (Some(sum), Some(part)) => {
                            self.expr_call(scope, sign, &[sum, part], ast.span)
                        }
                        (_, _) => None,
                    };
                }
                sum
            }
            Ast::Call { function, inputs } => {
                self.expr_function(scope, function, inputs, expected, ast.span)
            }
        }
    }

    fn expr_value(&mut self, scope: &mut Scope<'_>, name: &str, span: Span) -> Option<ExprId> {
        if let Ok(position) = name.parse::<usize>() {
            let Some(&tile) = scope.operands.get(position) else {
                let message =
                    format!("the map has {} operands, but no %{position}", scope.operands.len());
                self.error(Code::UnknownName, message, span);
                return None;
            };
            let dtype = self.kernel.tiles[tile].dtype;
            return Some(scope.expr.operand(position, dtype));
        }
        match self.lookup(name) {
            Some(Bound::Var(var)) => Some(scope.expr.push(ExprNode::Var(var), DType::I64)),
            Some(Bound::Tile(_) | Bound::Operand(_)) => {
                let message = format!("%{name} is not a number; tiles are operands of the map");
                let diagnostic = Diagnostic::error(Code::UnknownName, message).at(span);
                self.push(diagnostic.with_help("the first operand is %0 in the expression"));
                None
            }
            None => {
                self.error(Code::UnknownName, format!("nothing is called %{name}"), span);
                None
            }
        }
    }

    fn expr_literal(
        &mut self,
        scope: &mut Scope<'_>,
        literal: &Literal<'_>,
        expected: Option<DType>,
        span: Span,
    ) -> Option<ExprId> {
        let dtype = expected.unwrap_or(literal_type(literal));
        let value = self.literal(literal, dtype, span)?;
        Some(scope.expr.constant(value))
    }

    fn expr_call(
        &mut self,
        scope: &mut Scope<'_>,
        function: ScalarFn,
        inputs: &[ExprId],
        span: Span,
    ) -> Option<ExprId> {
        let types: Vec<DType> = inputs.iter().map(|&input| scope.expr.nodes[input].1).collect();
        match function.result(&types) {
            Ok(_) => Some(scope.expr.call(function, inputs)),
            Err(why) => {
                self.error(Code::OpType, why, span);
                None
            }
        }
    }

    fn expr_function(
        &mut self,
        scope: &mut Scope<'_>,
        name: &str,
        inputs: &[At<Ast<'_>>],
        expected: Option<DType>,
        span: Span,
    ) -> Option<ExprId> {
        if let Some(function) = ScalarFn::from_name(name) {
            let alike = match function.rule() {
                Rule::Select => inputs.get(1..).unwrap_or_default(),
                Rule::Number | Rule::Float | Rule::Bits | Rule::Predicate | Rule::Compare => inputs,
            };
            let expected = match function.rule() {
                Rule::Predicate | Rule::Compare => None,
                Rule::Number | Rule::Float | Rule::Bits | Rule::Select => expected,
            };
            let natural = alike.iter().find_map(|input| self.natural(scope, input)).or(expected);
            let dtype = natural.or_else(|| default_type(alike.iter()));
            let mut ids = Vec::new();
            for (position, input) in inputs.iter().enumerate() {
                let is_condition = function.rule() == Rule::Select && position == 0;
                let wanted = if is_condition { Some(DType::Bool) } else { dtype };
                ids.push(self.expr(scope, input, wanted));
            }
            let ids: Vec<ExprId> = ids.into_iter().collect::<Option<_>>()?;
            return self.expr_call(scope, function, &ids, span);
        }
        let [input] = inputs else {
            self.error(
                Code::UnknownOp,
                format!("there is no function {name} of {} operands", inputs.len()),
                span,
            );
            return None;
        };
        if name == "index" {
            return self.expr_index(scope, input);
        }
        let target = match (name, DType::from_name(name)) {
            (_, Some(dtype)) => Some(dtype),
            ("convert", None) => match expected {
                Some(dtype) => Some(dtype),
                None => {
                    let help = "write the type instead of `convert`: `bf16(%0)`";
                    let message = "nothing tells what this converts to";
                    self.push(Diagnostic::error(Code::OpType, message).at(span).with_help(help));
                    return None;
                }
            },
            (_, None) => None,
        };
        if let Some(target) = target {
            if let Ast::Literal(literal) = &input.item
                && !self.is_named(scope, literal)
            {
                return self.expr_literal(scope, literal, Some(target), input.span);
            }
            let natural = self.natural(scope, input);
            let input = self.expr(scope, input, natural)?;
            return Some(scope.expr.convert(input, target));
        }
        if FORMULAS.contains(&name) {
            let natural = self.natural(scope, input).or(expected).unwrap_or(DType::F32);
            let x = self.expr(scope, input, Some(natural))?;
            let dtype = scope.expr.nodes[x].1;
            if !dtype.is_float() {
                let message = format!("{name} takes a floating-point number, not {dtype}");
                self.error(Code::OpType, message, span);
                return None;
            }
            return Some(formula(&mut scope.expr, name, x, dtype));
        }
        self.error(Code::UnknownOp, format!("there is no function {name}"), span);
        None
    }

    fn expr_index(&mut self, scope: &mut Scope<'_>, input: &At<Ast<'_>>) -> Option<ExprId> {
        let Ast::Literal(Literal::Word { negative: false, word }) = &input.item else {
            self.error(Code::Syntax, "index is of an axis", input.span);
            return None;
        };
        let axis = self.kernel.axis(word);
        if !scope.axes.contains(&axis) {
            scope.axes.push(axis);
        }
        Some(scope.expr.push(ExprNode::Index(axis), DType::I64))
    }

    fn is_named(&self, scope: &Scope<'_>, literal: &Literal<'_>) -> bool {
        match literal {
            Literal::Word { word, .. } => scope.named.iter().any(|(name, _)| name == word),
            Literal::Int(_) | Literal::Float(_) => false,
        }
    }

    /// The type that an expression has by itself; nothing for constants.
    fn natural(&self, scope: &Scope<'_>, ast: &At<Ast<'_>>) -> Option<DType> {
        match &ast.item {
            Ast::Value(name) => match name.parse::<usize>() {
                Ok(position) => {
                    scope.operands.get(position).map(|&tile| self.kernel.tiles[tile].dtype)
                }
                Err(_) => Some(DType::I64),
            },
            Ast::Literal(Literal::Word { word, .. }) => {
                let named = scope.named.iter().find(|(name, _)| name == word);
                match (named, *word) {
                    (Some(&(_, id)), _) => Some(scope.expr.nodes[id].1),
                    (None, "true" | "false") => Some(DType::Bool),
                    (None, _) => None,
                }
            }
            Ast::Literal(Literal::Int(_) | Literal::Float(_)) => None,
            Ast::Negative(inner) => self.natural(scope, inner),
            Ast::Chain { first, rest } => {
                let sign = rest.first().and_then(|(sign, _)| ScalarFn::from_name(sign));
                if sign.is_some_and(|sign| sign.rule() == Rule::Compare) {
                    return Some(DType::Bool);
                }
                let all = std::iter::once(first.as_ref()).chain(rest.iter().map(|(_, part)| part));
                all.into_iter().find_map(|part| self.natural(scope, part))
            }
            Ast::Call { function: "index", .. } => Some(DType::I64),
            Ast::Call { function, inputs } => match ScalarFn::from_name(function) {
                Some(function) => match function.rule() {
                    Rule::Predicate | Rule::Compare => Some(DType::Bool),
                    Rule::Select => {
                        inputs.iter().skip(1).find_map(|input| self.natural(scope, input))
                    }
                    Rule::Number | Rule::Float | Rule::Bits => {
                        inputs.iter().find_map(|input| self.natural(scope, input))
                    }
                },
                None if FORMULAS.contains(function) => {
                    inputs.iter().find_map(|input| self.natural(scope, input))
                }
                None => DType::from_name(function),
            },
        }
    }
}

/// The type of constants where nothing tells it.
fn default_type<'b, 'a: 'b>(mut parts: impl Iterator<Item = &'b At<Ast<'a>>>) -> Option<DType> {
    let is_float = |part: &At<Ast<'_>>| match &part.item {
        Ast::Literal(literal) => literal_type(literal) == DType::F32,
        Ast::Value(_) | Ast::Negative(_) | Ast::Call { .. } | Ast::Chain { .. } => true,
    };
    Some(if parts.any(is_float) { DType::F32 } else { DType::I64 })
}

pub(super) fn literal_type(literal: &Literal<'_>) -> DType {
    match literal {
        Literal::Int(_) => DType::I64,
        Literal::Word { word: "true" | "false", .. } => DType::Bool,
        Literal::Float(_) | Literal::Word { .. } => DType::F32,
    }
}

fn formula(expr: &mut Expr, name: &str, x: ExprId, dtype: DType) -> ExprId {
    let zero = |expr: &mut Expr| expr.constant_of(dtype, 0.0);
    match name {
        "relu" => {
            let zero = zero(expr);
            expr.call(ScalarFn::Max, &[x, zero])
        }
        "silu" => {
            let gate = expr.call(ScalarFn::Sigmoid, &[x]);
            expr.call(ScalarFn::Mul, &[x, gate])
        }
        "gelu_tanh" => {
            let square = expr.call(ScalarFn::Mul, &[x, x]);
            let cube = expr.call(ScalarFn::Mul, &[square, x]);
            let factor = expr.constant_of(dtype, 0.044_715);
            let small = expr.call(ScalarFn::Mul, &[cube, factor]);
            let inner = expr.call(ScalarFn::Add, &[x, small]);
            let root = expr.constant_of(dtype, 0.797_884_560_802_865_4);
            let scaled = expr.call(ScalarFn::Mul, &[inner, root]);
            let bent = expr.call(ScalarFn::Tanh, &[scaled]);
            half_of(expr, x, bent, dtype)
        }
        _ => {
            let root = expr.constant_of(dtype, std::f64::consts::FRAC_1_SQRT_2);
            let scaled = expr.call(ScalarFn::Mul, &[x, root]);
            let bent = expr.call(ScalarFn::Erf, &[scaled]);
            half_of(expr, x, bent, dtype)
        }
    }
}

/// `x/2 * (1 + bent)`
fn half_of(expr: &mut Expr, x: ExprId, bent: ExprId, dtype: DType) -> ExprId {
    let (half, one) = (expr.constant_of(dtype, 0.5), expr.constant_of(dtype, 1.0));
    let half = expr.call(ScalarFn::Mul, &[x, half]);
    let gate = expr.call(ScalarFn::Add, &[bent, one]);
    expr.call(ScalarFn::Mul, &[half, gate])
}

/// A constant of that type, or why the text is not one.
pub(super) fn scalar(literal: &Literal<'_>, dtype: DType) -> Result<Scalar, String> {
    let in_range = |low: i128, high: i128, value: i128| {
        if (low..=high).contains(&value) {
            Ok(Scalar { dtype, bits: value as u64 })
        } else {
            Err(format!("{value} is not in {low} to {high}, the values of {dtype}"))
        }
    };
    let bits = dtype.bits() as u32;
    match (literal, dtype.class()) {
        (Literal::Int(value), Class::Signed) => {
            in_range(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, *value)
        }
        (Literal::Int(value), Class::Unsigned) => in_range(0, (1 << bits) - 1, *value),
        (Literal::Int(value), Class::Float) => Ok(Scalar::new(dtype, *value as f64)),
        (Literal::Float(value), Class::Float) => Ok(Scalar::new(dtype, *value)),
        (Literal::Word { negative: false, word: "true" }, Class::Bool) => {
            Ok(Scalar { dtype, bits: 1 })
        }
        (Literal::Word { negative: false, word: "false" }, Class::Bool) => {
            Ok(Scalar { dtype, bits: 0 })
        }
        (Literal::Word { negative: false, word: "LOWEST" }, Class::Float | Class::Signed) => {
            Ok(super::super::print::lowest(dtype))
        }
        (Literal::Word { negative, word: "inf" }, Class::Float) => {
            Ok(Scalar::new(dtype, if *negative { f64::NEG_INFINITY } else { f64::INFINITY }))
        }
        (Literal::Word { negative: false, word: "nan" }, Class::Float) => {
            Ok(Scalar::new(dtype, f64::NAN))
        }
        (Literal::Int(value), Class::Bool) => Err(format!("{value} is not {dtype}")),
        (Literal::Float(value), _) => Err(format!("{value:?} is not {dtype}")),
        (Literal::Word { word, .. }, _) => Err(format!("{word} is no {dtype}")),
    }
}
