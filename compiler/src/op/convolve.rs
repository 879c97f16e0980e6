//! `convolve`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::{TensorType, DType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolve {
    /// Step of the window in each spatial dimension.
    pub strides: Vec<usize>,
    /// Distance between the kernel's elements.
    pub dilations: Vec<usize>,
    /// Zeros before each spatial dimension.
    pub low: Vec<usize>,
    /// Zeros after each spatial dimension.
    pub high: Vec<usize>,
    /// Independent groups of channels.
    pub groups: usize,
    /// The type of products and partial sums.
    pub accumulate: DType,
    /// The result's element type.
    pub dtype: DType,
}

impl OpDef for Convolve {
    const KIND: Kind = Kind::Contract;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let strides = attributes.required("strides");
        let dilations = attributes.required("dilations");
        let low = attributes.required("low");
        let high = attributes.required("high");
        let groups = attributes.optional("groups").unwrap_or(1);
        let accumulate = attributes.required("accumulate");
        let dtype = attributes.required("dtype");
        Some(Convolve { strides: strides?, dilations: dilations?, low: low?, high: high?, groups, accumulate: accumulate?, dtype: dtype? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("strides", self.strides.clone());
        attributes.put("dilations", self.dilations.clone());
        attributes.put("low", self.low.clone());
        attributes.put("high", self.high.clone());
        attributes.put_unless("groups", self.groups, &1);
        attributes.put("accumulate", self.accumulate);
        attributes.put("dtype", self.dtype);
    }

    fn infer(&self, _context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        Err(TypeError::new("not written yet"))
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
