//! `convolve`: an image `[batch, channels, ..]` with a kernel `[outputs, channels / groups, ..]` gives
//! `[batch, outputs, ..]`; the other dimensions are spatial. Sums run over the kernel's channels, then its positions.

use crate::op::contract::product_types;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::{Tensor, shape_of};
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

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, w] = context.operands()?;
        if x.rank() < 3 || w.rank() != x.rank() {
            return rules::fail(format!(
                "takes an image [batch, channels, ..] and a kernel [outputs, channels / groups, ..] with as many \
                 spatial dimensions, at least 1, not {x} and {w}"
            ));
        }
        let spatial = x.rank() - 2;
        for (name, entries) in [
            ("strides", &self.strides),
            ("dilations", &self.dilations),
            ("low", &self.low),
            ("high", &self.high),
        ] {
            rules::one_each(name, entries, spatial)?;
        }
        rules::positive("strides", &self.strides)?;
        rules::positive("dilations", &self.dilations)?;
        let (channels, outputs, groups) = (x.shape[1], w.shape[0], self.groups);
        if groups == 0 || channels % groups != 0 || outputs % groups != 0 {
            return rules::fail(format!(
                "{channels} channels and {outputs} outputs do not divide into {groups} groups"
            ));
        }
        if w.shape[1] != channels / groups {
            return rules::fail(format!(
                "the kernel has {} channels, but {channels} in {groups} groups are {}",
                w.shape[1],
                channels / groups
            ));
        }
        product_types(x, w, self.accumulate, self.dtype)?;
        let mut shape = shape_of(&[x.shape[0], outputs]);
        for dim in 0..spatial {
            let window = [w.shape[dim + 2], self.strides[dim], self.dilations[dim]];
            shape.push(rules::window(x.shape[dim + 2], [self.low[dim], self.high[dim]], window)?);
        }
        Ok(vec![TensorType { dtype: self.dtype, shape }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}


