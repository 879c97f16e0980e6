//! What a conversion of one node may use: its inputs, attributes and a builder, with numpy's habits on top.

use super::convert::{Importer, Item, Opsets};
use super::foreign::Foreign;
use super::proto::{AttributeProto, GraphProto, NodeProto};
use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::op::{self, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values, shape_text};
use crate::types::{DType, Shape, TensorType};
use std::fmt;

/// Why a node was not converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImportError {
    /// The model is right, but this is beyond us.
    Unsupported(String),
    /// The node contradicts the specification.
    Invalid(String),
    /// The value of this input decides a shape or a structure, and is not known before the run.
    NeedsValue(String),
    /// There is no row for the operator.
    NoOperator,
    /// The cause was reported where it arose.
    Reported,
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Unsupported(reason) | ImportError::Invalid(reason) => f.write_str(reason),
            ImportError::NeedsValue(name) => write!(
                f,
                "the value of {name} decides a shape or a structure, and is only known at run time"
            ),
            ImportError::NoOperator => f.write_str("there is no such operator"),
            ImportError::Reported => f.write_str("the cause is reported"),
        }
    }
}

impl From<TypeError> for ImportError {
    fn from(error: TypeError) -> ImportError {
        ImportError::Invalid(error.message)
    }
}

/// `Err(Unsupported)` with that reason.
pub(crate) fn unsupported<T>(reason: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError::Unsupported(reason.into()))
}

/// `Err(Invalid)` with that reason.
pub(crate) fn invalid<T>(reason: impl Into<String>) -> Result<T, ImportError> {
    Err(ImportError::Invalid(reason.into()))
}

/// The values of a node's outputs, in order. Fewer than the node names are allowed where the rest is not used.
pub(crate) type Converted = Result<Vec<ValueId>, ImportError>;
/// The same, where outputs may be something else than one tensor.
pub(crate) type Items = Result<Vec<Item>, ImportError>;

/// One node under conversion.
#[derive(Debug)]
pub(crate) struct NodeContext<'a, 'f, 'm> {
    /// The node as the file has it.
    pub(crate) node: &'a NodeProto,
    /// The version of the operator set that the node is of.
    pub(crate) opset: i64,
    /// The versions of all sets, for the nodes of its graphs.
    pub(crate) opsets: &'a Opsets,
    /// Where nodes are added.
    pub(crate) builder: &'a mut Builder<'f>,
    /// The names around, for nodes with graphs.
    pub(crate) importer: &'a mut Importer<'m>,
    /// The inputs; `None` where one is left out.
    pub(crate) inputs: Vec<Option<Item>>,
}

impl NodeContext<'_, '_, '_> {
    /// The input at that position, which must be a tensor.
    pub(crate) fn input(&mut self, index: usize) -> Result<ValueId, ImportError> {
        match self.optional(index)? {
            Some(value) => Ok(value),
            None => invalid(format!("input {index} is missing")),
        }
    }

    /// The input at that position, where there is one.
    pub(crate) fn optional(&mut self, index: usize) -> Result<Option<ValueId>, ImportError> {
        match self.inputs.get(index).cloned().flatten() {
            None => Ok(None),
            // A scaled 2-bit integer is what its byte says.
            Some(Item::Foreign(carrier, Foreign::U2 | Foreign::I2))
                if self.node.op_type == "DequantizeLinear" =>
            {
                self.value(&carrier).map(Some)
            }
            Some(item) => self.value(&item).map(Some),
        }
    }

    /// The graph's value for an item, which must be a tensor.
    pub(crate) fn value(&mut self, item: &Item) -> Result<ValueId, ImportError> {
        self.importer.value(self.builder, item)
    }

    /// Every input, all of which must be there.
    pub(crate) fn all_inputs(&mut self) -> Result<Vec<ValueId>, ImportError> {
        (0..self.inputs.len()).map(|index| self.input(index)).collect()
    }

    /// Whether the node has that input.
    pub(crate) fn has_input(&self, index: usize) -> bool {
        matches!(self.inputs.get(index), Some(Some(_)))
    }

    /// Whether the node names that output.
    pub(crate) fn has_output(&self, index: usize) -> bool {
        self.node.output.get(index).is_some_and(|name| !name.is_empty())
    }

    /// The value of an input that must be known now, because a shape or a structure depends on it.
    pub(crate) fn constant(&self, index: usize) -> Result<Tensor, ImportError> {
        match self.optional_constant(index)? {
            Some(tensor) => Ok(tensor),
            None => invalid(format!("input {index} is missing")),
        }
    }

    /// The value of an input that must be known now where it is given.
    pub(crate) fn optional_constant(&self, index: usize) -> Result<Option<Tensor>, ImportError> {
        match self.inputs.get(index).and_then(Option::as_ref) {
            None => Ok(None),
            Some(Item::Known { tensor, .. }) => Ok(Some(tensor.clone())),
            Some(_) => Err(ImportError::NeedsValue(self.node.input[index].clone())),
        }
    }

    /// The integers of an input that must be known now.
    pub(crate) fn constant_ints(&self, index: usize) -> Result<Vec<i64>, ImportError> {
        Ok(self.constant(index)?.to_i64())
    }

    /// The integers that newer versions have as an input and older ones as an attribute.
    pub(crate) fn ints_or_input(
        &self,
        name: &str,
        index: usize,
    ) -> Result<Option<Vec<i64>>, ImportError> {
        match self.attribute(name) {
            Some(attribute) => Ok(Some(attribute.ints.clone())),
            None => Ok(self.optional_constant(index)?.map(|tensor| tensor.to_i64())),
        }
    }

    /// The attribute of that name.
    pub(crate) fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// An integer attribute.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    /// A float attribute.
    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |attribute| attribute.f)
    }

    /// A string attribute.
    pub(crate) fn string(&self, name: &str, default: &str) -> String {
        self.attribute(name).map_or_else(
            || default.to_owned(),
            |attribute| String::from_utf8_lossy(&attribute.s).into_owned(),
        )
    }

    /// A list of integers.
    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|attribute| attribute.ints.clone())
    }

    /// A list of floats.
    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.attribute(name).map(|attribute| attribute.floats.clone())
    }

    /// A list of strings.
    pub(crate) fn strings(&self, name: &str) -> Option<Vec<String>> {
        self.attribute(name).map(|attribute| {
            attribute.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
        })
    }

    /// A tensor attribute.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Tensor>, ImportError> {
        match self.attribute(name).and_then(|attribute| attribute.t.as_ref()) {
            None => Ok(None),
            Some(proto) => self.importer.tensor(proto).map(Some),
        }
    }

    /// A graph attribute, which must be there.
    pub(crate) fn graph(&self, name: &str) -> Result<GraphProto, ImportError> {
        match self.attribute(name).and_then(|attribute| attribute.g.clone()) {
            Some(graph) => Ok(graph),
            None => invalid(format!("attribute {name} (a graph) is missing")),
        }
    }

    /// An attribute that names an element type.
    pub(crate) fn dtype_attribute(&self, name: &str) -> Result<Option<DType>, ImportError> {
        match self.attribute(name) {
            None => Ok(None),
            Some(attribute) => {
                let number = i32::try_from(attribute.i).unwrap_or(-1);
                Ok(Some(super::tensors::dtype_of(number)?))
            }
        }
    }

    /// The type of a value.
    pub(crate) fn ty(&self, value: ValueId) -> TensorType {
        self.builder.ty(value).clone()
    }

    /// The shape of a value.
    pub(crate) fn shape(&self, value: ValueId) -> Shape {
        self.builder.shape(value)
    }

    /// The number of dimensions of a value.
    pub(crate) fn rank(&self, value: ValueId) -> usize {
        self.builder.ty(value).rank()
    }

    /// The element type of a value.
    pub(crate) fn dtype(&self, value: ValueId) -> DType {
        self.builder.ty(value).dtype
    }

    /// A constant of the graph, which later nodes know.
    pub(crate) fn known(&mut self, tensor: Tensor) -> ValueId {
        self.importer.constant(self.builder, tensor, None)
    }

    /// A constant vector of i64.
    pub(crate) fn known_ints(&mut self, values: &[i64]) -> ValueId {
        self.known(Tensor::from_slice(&[values.len()], values))
    }

    /// A constant scalar of that type; integers wrap.
    pub(crate) fn scalar(&mut self, dtype: DType, number: f64) -> ValueId {
        self.known(Tensor::from_values(dtype, &[], &Values::F64(vec![number])))
    }

    /// That number in every element, of the type of `like`.
    pub(crate) fn scalar_like(
        &mut self,
        like: ValueId,
        number: f64,
    ) -> Result<ValueId, ImportError> {
        let TensorType { dtype, shape } = self.ty(like);
        let scalar = self.scalar(dtype, number);
        self.broadcast_to(scalar, &shape)
    }

    /// A scalar function of operands, which are broadcast together first.
    pub(crate) fn map(
        &mut self,
        function: ScalarFn,
        operands: &[ValueId],
    ) -> Result<ValueId, ImportError> {
        let operands = self.broadcast_together(operands)?;
        Ok(self.builder.map(function, &operands)?)
    }

    /// A scalar function of a value and a number.
    pub(crate) fn map_scalar(
        &mut self,
        function: ScalarFn,
        value: ValueId,
        number: f64,
    ) -> Result<ValueId, ImportError> {
        let number = self.scalar_like(value, number)?;
        Ok(self.builder.map(function, &[value, number])?)
    }

    /// The values repeated so that all have the shape that numpy's rules give.
    pub(crate) fn broadcast_together(
        &mut self,
        values: &[ValueId],
    ) -> Result<Vec<ValueId>, ImportError> {
        let shapes: Vec<Shape> = values.iter().map(|&value| self.shape(value)).collect();
        let shape = broadcast_shape(&shapes)?;
        values.iter().map(|&value| self.broadcast_to(value, &shape)).collect()
    }

    /// A value repeated to a shape: dimensions are aligned at the end.
    pub(crate) fn broadcast_to(
        &mut self,
        value: ValueId,
        shape: &[usize],
    ) -> Result<ValueId, ImportError> {
        let own = self.shape(value);
        if own.as_slice() == shape {
            return Ok(value);
        }
        let fits = own.len() <= shape.len()
            && own.iter().rev().zip(shape.iter().rev()).all(|(own, to)| own == to || *own == 1);
        if !fits {
            return invalid(format!(
                "{} does not broadcast to {}",
                shape_text(&own),
                shape_text(shape)
            ));
        }
        let offset = shape.len() - own.len();
        let dims = (offset..shape.len()).collect();
        Ok(self.builder.add(op::Broadcast { shape: shape.to_vec(), dims }, &[value])?)
    }

    /// The same elements in another shape.
    pub(crate) fn reshape(
        &mut self,
        value: ValueId,
        shape: &[usize],
    ) -> Result<ValueId, ImportError> {
        if self.shape(value).as_slice() == shape {
            return Ok(value);
        }
        Ok(self.builder.add(op::Reshape { shape: shape.to_vec() }, &[value])?)
    }

    /// Dimensions reordered: result dimension `i` is dimension `perm[i]`.
    pub(crate) fn transpose(
        &mut self,
        value: ValueId,
        perm: &[usize],
    ) -> Result<ValueId, ImportError> {
        if perm.iter().enumerate().all(|(index, &from)| index == from)
            && perm.len() == self.rank(value)
        {
            return Ok(value);
        }
        Ok(self.builder.add(op::Transpose { perm: perm.to_vec() }, &[value])?)
    }

    /// The value in another element type.
    pub(crate) fn convert(&mut self, value: ValueId, dtype: DType) -> Result<ValueId, ImportError> {
        if self.dtype(value) == dtype {
            return Ok(value);
        }
        Ok(self.builder.add(op::Convert { dtype }, &[value])?)
    }

    /// A new dimension of one element at each of these positions of the result, ascending.
    pub(crate) fn unsqueeze(
        &mut self,
        value: ValueId,
        axes: &[usize],
    ) -> Result<ValueId, ImportError> {
        let mut shape = self.shape(value).to_vec();
        for &axis in axes {
            if axis > shape.len() {
                return invalid(format!("axis {axis} is out of range for rank {}", shape.len()));
            }
            shape.insert(axis, 1);
        }
        self.reshape(value, &shape)
    }

    /// Elements joined over axes, which vanish.
    pub(crate) fn reduce(
        &mut self,
        combine: Combine,
        value: ValueId,
        axes: &[usize],
    ) -> Result<ValueId, ImportError> {
        if axes.is_empty() {
            return Ok(value);
        }
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        let dtype = self.dtype(value);
        let accumulate = if dtype == DType::Bool { DType::Bool } else { dtype.accumulator() };
        Ok(self.builder.add(op::Reduce { combine, axes, accumulate }, &[value])?)
    }

    /// Elements joined over axes, which stay with one element.
    pub(crate) fn reduce_keep(
        &mut self,
        combine: Combine,
        value: ValueId,
        axes: &[usize],
    ) -> Result<ValueId, ImportError> {
        let mut shape = self.shape(value).to_vec();
        for &axis in axes {
            shape[axis] = 1;
        }
        let reduced = self.reduce(combine, value, axes)?;
        self.reshape(reduced, &shape)
    }

    /// The mean over axes, which stay with one element.
    pub(crate) fn mean_keep(
        &mut self,
        value: ValueId,
        axes: &[usize],
    ) -> Result<ValueId, ImportError> {
        let shape = self.shape(value);
        let count: usize = axes.iter().map(|&axis| shape[axis]).product();
        let sum = self.reduce_keep(Combine::Sum, value, axes)?;
        self.map_scalar(ScalarFn::Div, sum, count as f64)
    }

    /// Elements from `start` to `limit` by `stride` along one axis.
    pub(crate) fn slice_axis(
        &mut self,
        value: ValueId,
        axis: usize,
        start: usize,
        limit: usize,
        stride: usize,
    ) -> Result<ValueId, ImportError> {
        let shape = self.shape(value).to_vec();
        if start == 0 && limit == shape[axis] && stride == 1 {
            return Ok(value);
        }
        let (mut starts, mut limits, mut strides) =
            (vec![0; shape.len()], shape.clone(), vec![1; shape.len()]);
        (starts[axis], limits[axis], strides[axis]) = (start, limit, stride);
        Ok(self
            .builder
            .add(op::Slice { start: starts, limit: limits, stride: strides }, &[value])?)
    }

    /// Values one after another along an axis.
    pub(crate) fn concat(
        &mut self,
        values: &[ValueId],
        axis: usize,
    ) -> Result<ValueId, ImportError> {
        if let [value] = *values {
            return Ok(value);
        }
        Ok(self.builder.add(op::Concat { axis }, values)?)
    }

    /// The value with that many elements of value `fill` (a scalar) before and after each dimension.
    pub(crate) fn pad(
        &mut self,
        value: ValueId,
        fill: ValueId,
        low: &[usize],
        high: &[usize],
    ) -> Result<ValueId, ImportError> {
        if low.iter().chain(high).all(|&count| count == 0) {
            return Ok(value);
        }
        let interior = vec![0; low.len()];
        let op = op::Pad { low: low.to_vec(), high: high.to_vec(), interior };
        Ok(self.builder.add(op, &[value, fill])?)
    }

    /// Slices along an axis, chosen by integer indices, which are clamped.
    pub(crate) fn gather(
        &mut self,
        value: ValueId,
        indices: ValueId,
        axis: usize,
    ) -> Result<ValueId, ImportError> {
        Ok(self.builder.add(op::Gather { axis }, &[value, indices])?)
    }

    /// Positions along an axis of a new value.
    pub(crate) fn iota(
        &mut self,
        dtype: DType,
        shape: &[usize],
        axis: usize,
    ) -> Result<ValueId, ImportError> {
        Ok(self.builder.add(op::Iota { ty: TensorType::new(dtype, shape), axis }, &[])?)
    }

    /// The general product, in the accumulation type of its operands, then in `dtype`.
    pub(crate) fn contract(
        &mut self,
        left: ValueId,
        right: ValueId,
        batch: &[(usize, usize)],
        over: &[(usize, usize)],
        dtype: DType,
    ) -> Result<ValueId, ImportError> {
        let pairs = |pairs: &[(usize, usize)]| pairs.iter().map(|&(a, b)| vec![a, b]).collect();
        let accumulate = if dtype == DType::I32 { DType::I32 } else { dtype.accumulator() };
        let op = op::Contract { batch: pairs(batch), over: pairs(over), accumulate, dtype };
        Ok(self.builder.add(op, &[left, right])?)
    }

    /// The product of matrices by numpy's rules: vectors, and any leading dimensions, which broadcast.
    pub(crate) fn matmul(
        &mut self,
        left: ValueId,
        right: ValueId,
        dtype: DType,
    ) -> Result<ValueId, ImportError> {
        let (a, b) = (self.shape(left), self.shape(right));
        let (Some(&inner), false) = (a.last(), b.is_empty()) else {
            return invalid("a product of scalars");
        };
        let other = if b.len() == 1 { b[0] } else { b[b.len() - 2] };
        if inner != other {
            return invalid(format!("inner sizes {inner} and {other} differ"));
        }
        if b.len() == 1 {
            return self.contract(left, right, &[], &[(a.len() - 1, 0)], dtype);
        }
        // A weight without leading dimensions takes all rows at once.
        if b.len() == 2 {
            return self.contract(left, right, &[], &[(a.len() - 1, 0)], dtype);
        }
        if a.len() == 1 {
            let product = self.contract(right, left, &[], &[(b.len() - 2, 0)], dtype)?;
            return Ok(product);
        }
        let lead = broadcast_shape(&[a[..a.len() - 2].into(), b[..b.len() - 2].into()])?;
        let spread = |context: &mut Self, value: ValueId, own: &Shape| {
            let mut shape = lead.to_vec();
            shape.extend_from_slice(&own[own.len() - 2..]);
            context.broadcast_to(value, &shape)
        };
        let left = spread(self, left, &a)?;
        let right = spread(self, right, &b)?;
        let batch: Vec<_> = (0..lead.len()).map(|axis| (axis, axis)).collect();
        self.contract(left, right, &batch, &[(lead.len() + 1, lead.len())], dtype)
    }

    /// An axis that may count from the end.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, ImportError> {
        resolve_axis(axis, rank)
    }

    /// Axes that may count from the end, ascending, each once.
    pub(crate) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, ImportError> {
        let mut axes =
            axes.iter().map(|&axis| resolve_axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        match axes.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => invalid(format!("axis {} appears twice", pair[0])),
            None => Ok(axes),
        }
    }

    /// Computes in f32 where `value` is of a narrower float type, and rounds once at the end.
    pub(crate) fn widened(
        &mut self,
        value: ValueId,
        compute: impl FnOnce(&mut Self, ValueId) -> Result<ValueId, ImportError>,
    ) -> Result<ValueId, ImportError> {
        let dtype = self.dtype(value);
        let wide = self.convert(value, widen(dtype))?;
        let result = compute(self, wide)?;
        self.convert(result, dtype)
    }
}

/// The type in which composites of a type compute: f32 for narrower floats.
pub(crate) fn widen(dtype: DType) -> DType {
    if dtype.is_float() && dtype != DType::F64 { DType::F32 } else { dtype }
}

/// The float type in which values of a type are weighted: f64 for f64, else f32.
pub(crate) fn widen_any(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// An axis that may count from the end.
pub(crate) fn resolve_axis(axis: i64, rank: usize) -> Result<usize, ImportError> {
    let positive = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(positive) {
        Ok(found) if found < rank => Ok(found),
        Ok(_) | Err(_) => invalid(format!("axis {axis} is out of range for rank {rank}")),
    }
}

/// The shape that numpy's rules give for operands of these shapes.
pub(crate) fn broadcast_shape(shapes: &[Shape]) -> Result<Shape, ImportError> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = Shape::from_elem(1, rank);
    for shape in shapes {
        let offset = rank - shape.len();
        for (axis, &size) in shape.iter().enumerate() {
            let slot = &mut result[offset + axis];
            if *slot == 1 {
                *slot = size;
            } else if size != 1 && size != *slot {
                let texts: Vec<String> = shapes.iter().map(|shape| shape_text(shape)).collect();
                return invalid(format!("shapes {} do not broadcast", texts.join(" and ")));
            }
        }
    }
    Ok(result)
}
