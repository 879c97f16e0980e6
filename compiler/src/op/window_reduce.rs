//! `window-reduce`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{TensorType, DType, Shape};
use crate::kernel::Combine;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowReduce {
    /// How elements join.
    pub combine: Combine,
    /// Extent of the window in each dimension.
    pub window: Vec<usize>,
    /// Step of the window.
    pub strides: Vec<usize>,
    /// Distance between the window's elements.
    pub dilations: Vec<usize>,
    /// Identity elements before each dimension.
    pub low: Vec<usize>,
    /// Identity elements after each dimension.
    pub high: Vec<usize>,
    /// The type of partial results.
    pub accumulate: DType,
}

impl OpDef for WindowReduce {
    const KIND: Kind = Kind::Reduce;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let window = attributes.required("window");
        let strides = attributes.required("strides");
        let dilations = attributes.required("dilations");
        let low = attributes.required("low");
        let high = attributes.required("high");
        let accumulate = attributes.required("accumulate");
        Some(WindowReduce { combine: combine?, window: window?, strides: strides?, dilations: dilations?, low: low?, high: high?, accumulate: accumulate? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("window", self.window.clone());
        attributes.put("strides", self.strides.clone());
        attributes.put("dilations", self.dilations.clone());
        attributes.put("low", self.low.clone());
        attributes.put("high", self.high.clone());
        attributes.put("accumulate", self.accumulate);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        for (name, entries) in [
            ("window", &self.window),
            ("strides", &self.strides),
            ("dilations", &self.dilations),
            ("low", &self.low),
            ("high", &self.high),
        ] {
            rules::one_each(name, entries, x.rank())?;
        }
        rules::positive("window", &self.window)?;
        rules::positive("strides", &self.strides)?;
        rules::positive("dilations", &self.dilations)?;
        rules::combine(self.combine, x.dtype, self.accumulate)?;
        let mut shape = Shape::new();
        for dim in 0..x.rank() {
            let window = [self.window[dim], self.strides[dim], self.dilations[dim]];
            shape.push(rules::window(x.shape[dim], [self.low[dim], self.high[dim]], window)?);
        }
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
