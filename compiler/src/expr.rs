//! Scalar expressions: what a kernel's `map` computes for each element. A list of nodes in order of use, one of
//! them the result. Every node has a type, and rounds to it: fusion never changes a value.

use crate::kernel::{Axis, VarId};
use crate::scalar::ScalarFn;
use crate::types::DType;
use smallvec::SmallVec;

/// The position of a node in its [`Expr`].
pub type ExprId = usize;

/// A constant of any element type. The bits are those of the value in f64, or of the integer in i64 (u64 for
/// unsigned types, 0 or 1 for bool), so that equality is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scalar {
    /// The element type.
    pub dtype: DType,
    /// The value's bits.
    pub bits: u64,
}

impl Scalar {
    /// The constant nearest to `value`.
    pub fn new(dtype: DType, value: f64) -> Scalar {
        let values = crate::tensor::Values::F64(vec![value]);
        Scalar::from_tensor_element(dtype, &crate::narrow::encode(dtype, &values))
    }

    /// The integer constant, wrapped to the type, or the nearest number of a floating-point type.
    pub fn from_i64(dtype: DType, value: i64) -> Scalar {
        let values = crate::tensor::Values::Int(vec![value]);
        Scalar::from_tensor_element(dtype, &crate::narrow::encode(dtype, &values))
    }

    /// The constant with one encoded element's bytes.
    pub fn from_tensor_element(dtype: DType, bytes: &[u8]) -> Scalar {
        use crate::tensor::Values;
        let bits = match crate::narrow::decode(dtype, bytes) {
            Values::Bool(v) => u64::from(v[0]),
            Values::Int(v) => v[0] as u64,
            Values::Uint(v) => v[0],
            Values::F32(v) => f64::from(v[0]).to_bits(),
            Values::F64(v) => v[0].to_bits(),
        };
        Scalar { dtype, bits }
    }

    /// The value in the wide arithmetic of its type, repeated.
    pub fn values(self, count: usize) -> crate::tensor::Values {
        use crate::tensor::Values;
        use crate::types::Class;
        match self.dtype.class() {
            Class::Bool => Values::Bool(vec![self.bits != 0; count]),
            Class::Signed => Values::Int(vec![self.bits as i64; count]),
            Class::Unsigned => Values::Uint(vec![self.bits; count]),
            Class::Float if self.dtype == DType::F64 => {
                Values::F64(vec![f64::from_bits(self.bits); count])
            }
            Class::Float => Values::F32(vec![f64::from_bits(self.bits) as f32; count]),
        }
    }

    /// The value as f64.
    pub fn to_f64(self) -> f64 {
        self.values(1).to_f64()[0]
    }
}

/// One node of an expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExprNode {
    /// The element of the map's operand of that position.
    Operand(usize),
    /// A constant.
    Constant(Scalar),
    /// The position along an axis: the tile's own, without the offset of loops.
    Index(Axis),
    /// The value of a loop variable or ranged scalar parameter.
    Var(VarId),
    /// A function of earlier nodes.
    Call(ScalarFn, SmallVec<[ExprId; 3]>),
    /// An earlier node in another type: floats round to nearest even, float to integer truncates and saturates at
    /// the 64-bit limits, integers wrap, to bool is "not zero".
    Convert(ExprId),
}

/// An expression over the operands of a `map`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Expr {
    /// Each node with its type; a node uses only earlier ones.
    pub nodes: Vec<(ExprNode, DType)>,
    /// The node that is the result: the one pushed last.
    pub root: ExprId,
}

impl Expr {
    /// An expression without nodes yet.
    pub fn new() -> Expr {
        Expr::default()
    }

    /// The result's type.
    pub fn dtype(&self) -> DType {
        self.nodes[self.root].1
    }

    /// Adds a node, or finds the equal one that is there, and makes it the result.
    pub fn push(&mut self, node: ExprNode, dtype: DType) -> ExprId {
        let entry = (node, dtype);
        self.root = match self.nodes.iter().position(|other| *other == entry) {
            Some(found) => found,
            None => {
                self.nodes.push(entry);
                self.nodes.len() - 1
            }
        };
        self.root
    }

    /// The element of an operand.
    pub fn operand(&mut self, position: usize, dtype: DType) -> ExprId {
        self.push(ExprNode::Operand(position), dtype)
    }

    /// The constant nearest to `value`.
    pub fn constant_of(&mut self, dtype: DType, value: f64) -> ExprId {
        self.push(ExprNode::Constant(Scalar::new(dtype, value)), dtype)
    }

    /// A constant.
    pub fn constant(&mut self, value: Scalar) -> ExprId {
        self.push(ExprNode::Constant(value), value.dtype)
    }

    /// A function of nodes whose types fit it.
    pub fn call(&mut self, function: ScalarFn, operands: &[ExprId]) -> ExprId {
        let types: SmallVec<[DType; 3]> =
            operands.iter().map(|&operand| self.nodes[operand].1).collect();
        let dtype = function.result(&types).expect("the caller gives operands that fit");
        self.push(ExprNode::Call(function, SmallVec::from_slice(operands)), dtype)
    }

    /// A node in another type; the node itself where that is its type.
    pub fn convert(&mut self, operand: ExprId, dtype: DType) -> ExprId {
        if self.nodes[operand].1 == dtype {
            return operand;
        }
        self.push(ExprNode::Convert(operand), dtype)
    }
}
