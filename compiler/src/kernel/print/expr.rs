//! Expressions of maps. A node that is used twice, or lies deep, gets a name, so the text is no longer than the
//! expression and its parentheses do not nest without bound.

use super::Printer;
use crate::expr::{Expr, ExprId, ExprNode, Scalar};
use crate::scalar::{Rule, ScalarFn};
use crate::tensor::Values;
use crate::types::{Class, DType};

/// How deeply parentheses may nest before a part gets a name.
const MAX_HEIGHT: usize = 12;

/// How tightly operators bind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Compare,
    Sum,
    Product,
    Call,
}

fn operator(function: ScalarFn) -> Option<(&'static str, Level)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other functions are written as calls")]
    match function {
        ScalarFn::Add => Some(("+", Level::Sum)),
        ScalarFn::Sub => Some(("-", Level::Sum)),
        ScalarFn::Mul => Some(("*", Level::Product)),
        ScalarFn::Div => Some(("/", Level::Product)),
        ScalarFn::Lt => Some(("<", Level::Compare)),
        ScalarFn::Le => Some(("<=", Level::Compare)),
        ScalarFn::Gt => Some((">", Level::Compare)),
        ScalarFn::Ge => Some((">=", Level::Compare)),
        ScalarFn::Eq => Some(("==", Level::Compare)),
        ScalarFn::Ne => Some(("!=", Level::Compare)),
        _ => None,
    }
}

fn inputs(node: &ExprNode) -> &[ExprId] {
    match node {
        ExprNode::Call(_, inputs) => inputs,
        ExprNode::Convert(input) => std::slice::from_ref(input),
        ExprNode::Operand(_) | ExprNode::Constant(_) | ExprNode::Index(_) | ExprNode::Var(_) => &[],
    }
}

/// Which nodes the result depends on, and which of them get a name: those that are used twice, and those that lie deep.
fn needed_and_named(expr: &Expr) -> (Vec<bool>, Vec<bool>) {
    let count = expr.nodes.len();
    let mut uses = vec![0usize; count];
    uses[expr.root] = 1;
    for id in (0..=expr.root).rev() {
        if uses[id] > 0 {
            let inputs = inputs(&expr.nodes[id].0).iter().filter(|&&input| input < id);
            inputs.for_each(|&input| uses[input] += 1);
        }
    }
    let mut heights = vec![0usize; count];
    let mut named = vec![false; count];
    for (id, (node, _)) in expr.nodes.iter().enumerate().take(expr.root) {
        let below = inputs(node).iter().filter(|&&input| input < id);
        let height = below.map(|&input| heights[input] + 1).max().unwrap_or(0);
        let shared = uses[id] > 1 && !inputs(node).is_empty();
        named[id] = uses[id] > 0 && (shared || height > MAX_HEIGHT);
        heights[id] = if named[id] { 0 } else { height };
    }
    (uses.iter().map(|&uses| uses > 0).collect(), named)
}

/// The same expression with its nodes in the order in which they are printed, and no others.
pub(in super::super) fn in_print_order(expr: &Expr) -> Expr {
    fn place(from: &Expr, id: ExprId, to: &mut Expr, moved: &mut Vec<Option<ExprId>>) -> ExprId {
        if let Some(moved) = moved[id] {
            return moved;
        }
        let (node, dtype) = &from.nodes[id];
        let node = match node {
            ExprNode::Call(function, inputs) => {
                let inputs = inputs.iter().map(|&input| place(from, input, to, moved)).collect();
                ExprNode::Call(*function, inputs)
            }
            ExprNode::Convert(input) => ExprNode::Convert(place(from, *input, to, moved)),
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_) => node.clone(),
        };
        let found = to.push(node, *dtype);
        moved[id] = Some(found);
        found
    }
    let (_, named) = needed_and_named(expr);
    let mut ordered = Expr::new();
    let mut moved = vec![None; expr.nodes.len()];
    // Between two nodes with names the recursion is no deeper than the text's parentheses.
    for id in (0..expr.root).filter(|&id| named[id]).chain([expr.root]) {
        ordered.root = place(expr, id, &mut ordered, &mut moved);
    }
    ordered
}

impl Printer<'_> {
    /// What stands between the braces of a map.
    pub(super) fn expr(self, expr: &Expr) -> String {
        if expr.root >= expr.nodes.len() {
            return "?".to_owned();
        }
        let (needed, named) = needed_and_named(expr);
        // The text of each node and how tightly it binds; a node with a name has that.
        let mut texts: Vec<(String, Level)> = Vec::with_capacity(expr.nodes.len());
        let mut before = String::new();
        let mut count = 0;
        for (id, (node, dtype)) in expr.nodes.iter().enumerate().take(expr.root + 1) {
            if !needed[id] {
                texts.push((String::new(), Level::Call));
                continue;
            }
            let text = self.node(expr, node, *dtype, id == expr.root, &texts);
            if named[id] {
                before += &format!("v{count} = {}; ", text.0);
                texts.push((format!("v{count}"), Level::Call));
                count += 1;
            } else {
                texts.push(text);
            }
        }
        before + &texts[expr.root].0
    }

    fn node(
        self,
        expr: &Expr,
        node: &ExprNode,
        dtype: DType,
        is_root: bool,
        texts: &[(String, Level)],
    ) -> (String, Level) {
        let text_of = |id: ExprId| {
            texts
                .get(id)
                .map_or(("?".to_owned(), Level::Call), |(text, level)| (text.clone(), *level))
        };
        match node {
            ExprNode::Operand(operand) => (format!("%{operand}"), Level::Call),
            ExprNode::Index(axis) => (format!("index({})", self.names.axis(*axis)), Level::Call),
            ExprNode::Var(var) => (format!("%{}", self.names.var(*var)), Level::Call),
            ExprNode::Constant(value) if is_root => (scalar_text(*value), Level::Call),
            ExprNode::Constant(value) => {
                (format!("{}({})", value.dtype, scalar_text(*value)), Level::Call)
            }
            ExprNode::Convert(input) => (format!("{dtype}({})", text_of(*input).0), Level::Call),
            ExprNode::Call(function, inputs) => {
                let mut parts: Vec<(String, Level)> =
                    inputs.iter().map(|&input| text_of(input)).collect();
                bare_constants(expr, *function, inputs, &mut parts);
                match (operator(*function), parts.as_slice()) {
                    (Some((sign, level)), [left, right]) => {
                        let in_left =
                            left.1 < level || (level == Level::Compare && left.1 == level);
                        let left = parenthesized(left, in_left);
                        let right = parenthesized(right, right.1 <= level);
                        (format!("{left} {sign} {right}"), level)
                    }
                    (_, parts) => {
                        let parts: Vec<&str> =
                            parts.iter().map(|(text, _)| text.as_str()).collect();
                        (format!("{}({})", function.name(), parts.join(", ")), Level::Call)
                    }
                }
            }
        }
    }
}

fn parenthesized((text, _): &(String, Level), needed: bool) -> String {
    if needed { format!("({text})") } else { text.clone() }
}

/// Writes constants without their type where another operand of the same type tells it.
fn bare_constants(
    expr: &Expr,
    function: ScalarFn,
    inputs: &[ExprId],
    parts: &mut [(String, Level)],
) {
    let alike = match function.rule() {
        Rule::Select => 1..inputs.len(),
        Rule::Number | Rule::Float | Rule::Bits | Rule::Predicate | Rule::Compare => {
            0..inputs.len()
        }
    };
    let constant = |id: ExprId| match expr.nodes.get(id) {
        Some((ExprNode::Constant(value), _)) => Some(*value),
        Some(_) | None => None,
    };
    if !inputs[alike.clone()].iter().any(|&input| constant(input).is_none()) {
        return;
    }
    for position in alike {
        if let Some(value) = constant(inputs[position]) {
            parts[position].0 = scalar_text(value);
        }
    }
}

/// A constant without its type, which parses back to the same bits where the type is known.
pub(in super::super) fn scalar_text(value: Scalar) -> String {
    let number = match value.values(1) {
        Values::Bool(values) => return values[0].to_string(),
        Values::Int(values) => return values[0].to_string(),
        Values::Uint(values) => return values[0].to_string(),
        Values::F64(values) => values[0],
        Values::F32(values) => {
            if value.dtype.is_float() && value == lowest(value.dtype) {
                return "LOWEST".to_owned();
            }
            let short = format!("{:?}", values[0]);
            let back = short.parse::<f64>().map(|read| Scalar::new(value.dtype, read));
            if values[0].is_finite() && back == Ok(value) {
                return short;
            }
            f64::from(values[0])
        }
    };
    if value.dtype == DType::F64 && value == lowest(DType::F64) {
        return "LOWEST".to_owned();
    }
    crate::text::lexer::Float(number).to_string()
}

/// The lowest finite value of a type; of bool, false.
pub(in super::super) fn lowest(dtype: DType) -> Scalar {
    match dtype.class() {
        Class::Bool | Class::Signed | Class::Unsigned => super::super::Combine::Max.identity(dtype),
        Class::Float => Scalar::new(
            dtype,
            match dtype {
                DType::F64 => f64::MIN,
                DType::F16 => -65504.0,
                DType::BF16 => -3.389_531_389_251_535_5e38,
                DType::F8E4M3 => -448.0,
                DType::F8E5M2 => -57344.0,
                DType::F4E2M1 => -6.0,
                DType::F32
                | DType::Bool
                | DType::I4
                | DType::I8
                | DType::I16
                | DType::I32
                | DType::I64
                | DType::U4
                | DType::U8
                | DType::U16
                | DType::U32
                | DType::U64 => f64::from(f32::MIN),
            },
        ),
    }
}
