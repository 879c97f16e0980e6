//! `window-reduce`.

use crate::op::reduce::{joined, start};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values};
use crate::types::{DType, Shape, TensorType, strides};
use crate::kernel::Combine;
use crate::scalar::{Arithmetic, by_arithmetic};
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

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        let values = x.values().convert(x.dtype(), self.accumulate);
        let shape = self.shape(x.shape());
        let start = start(self.combine, x.dtype(), self.accumulate);
        let function = self.combine.function();
        let values = by_arithmetic!(&values, &start, |values, start| {
            let mut sums = vec![start[0]; shape.iter().product()];
            self.join(values, x.shape(), &mut sums, &shape, Arithmetic::pair(function).expect("the type rule was checked"));
            sums
        });
        vec![Tensor::from_values(x.dtype(), &shape, &values.rounded(self.accumulate))]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let (combine, dtype, accumulate) = joined(u)?;
        let shape = sample::shape(u, 1, 4)?;
        let rank = shape.len();
        let window =
            shape.iter().map(|&size| u.int_in_range(1..=size)).collect::<arbitrary::Result<_>>()?;
        let op = WindowReduce {
            combine,
            window,
            strides: sample::numbers(u, rank, 1..=3)?,
            dilations: vec![1; rank],
            low: sample::numbers(u, rank, 0..=1)?,
            high: sample::numbers(u, rank, 0..=1)?,
            accumulate,
        };
        Ok((op, vec![TensorType { dtype, shape }]))
    }
}

impl WindowReduce {
    /// The result's shape, where the type rule holds.
    fn shape(&self, x: &[usize]) -> Vec<usize> {
        let size = |dim: usize| {
            let extent = (self.window[dim] - 1) * self.dilations[dim] + 1;
            (self.low[dim] + x[dim] + self.high[dim] - extent) / self.strides[dim] + 1
        };
        (0..x.len()).map(size).collect()
    }

    /// Joins, for each element of the window in row-major order, what it sees at all positions of the result.
    fn join<T: Copy>(
        &self,
        x: &[T],
        x_shape: &[usize],
        sums: &mut [T],
        shape: &[usize],
        function: fn(T, T) -> T,
    ) {
        if sums.is_empty() || x.is_empty() {
            return;
        }
        let (x_steps, steps, window_steps) =
            (strides(x_shape), strides(shape), strides(&self.window));
        let rank = shape.len();
        'elements: for element in 0..self.window.iter().product() {
            // The positions at which this element of the window sees one of the operand, along each dimension.
            let mut seen = Vec::with_capacity(rank);
            for dim in 0..rank {
                let offset = element / window_steps[dim] % self.window[dim] * self.dilations[dim];
                let stride = self.strides[dim];
                let first = self.low[dim].saturating_sub(offset).div_ceil(stride);
                let end = (self.low[dim] + x_shape[dim]).saturating_sub(offset).div_ceil(stride);
                let end = end.min(shape[dim]);
                if first >= end {
                    continue 'elements;
                }
                seen.push((first, end, first * stride + offset - self.low[dim]));
            }
            let mut index: Vec<usize> = seen.iter().map(|&(first, _, _)| first).collect();
            let mut at: usize = (0..rank).map(|dim| index[dim] * steps[dim]).sum();
            let mut from: usize = (0..rank).map(|dim| seen[dim].2 * x_steps[dim]).sum();
            loop {
                sums[at] = function(sums[at], x[from]);
                let mut dim = rank;
                loop {
                    if dim == 0 {
                        continue 'elements;
                    }
                    dim -= 1;
                    let (first, end, _) = seen[dim];
                    let step = self.strides[dim] * x_steps[dim];
                    if index[dim] + 1 < end {
                        index[dim] += 1;
                        at += steps[dim];
                        from += step;
                        break;
                    }
                    at -= (index[dim] - first) * steps[dim];
                    from -= (index[dim] - first) * step;
                    index[dim] = first;
                }
            }
        }
    }
}
