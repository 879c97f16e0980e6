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

    /// At a position along `dim`: the first element of the operand that the window sees, and how many it sees.
    fn seen(&self, dim: usize, position: usize, size: usize) -> (usize, usize) {
        let (low, dilation) = (self.low[dim], self.dilations[dim]);
        let begin = position * self.strides[dim];
        let first = low.saturating_sub(begin).div_ceil(dilation);
        let end = (low + size).saturating_sub(begin).div_ceil(dilation).min(self.window[dim]);
        if first >= end { (0, 0) } else { (begin + first * dilation - low, end - first) }
    }

    /// The distance in the operand between neighbours of the window. Of a single one it may be beyond all memory.
    fn step(&self, dim: usize, x_steps: &[usize]) -> usize {
        self.dilations[dim].wrapping_mul(x_steps[dim])
    }

    /// Joins what the window sees at each position of the result, in row-major order of the window.
    fn join<T: Copy>(
        &self,
        x: &[T],
        x_shape: &[usize],
        sums: &mut [T],
        shape: &[usize],
        function: fn(T, T) -> T,
    ) {
        let (x_steps, steps) = (strides(x_shape), strides(shape));
        let rank = shape.len();
        let mut counts = vec![0; rank];
        let mut index = vec![0; rank];
        for (position, sum) in sums.iter_mut().enumerate() {
            let mut from = 0;
            for dim in 0..rank {
                let along = position / steps[dim] % shape[dim];
                let (first, count) = self.seen(dim, along, x_shape[dim]);
                from += first * x_steps[dim];
                counts[dim] = count;
            }
            if counts.contains(&0) {
                continue;
            }
            let row = if rank > 0 { counts[rank - 1] } else { 1 };
            let step = if rank > 0 { self.step(rank - 1, &x_steps) } else { 1 };
            'rows: loop {
                for element in 0..row {
                    *sum = function(*sum, x[from + element * step]);
                }
                for dim in (0..rank.saturating_sub(1)).rev() {
                    let step = self.step(dim, &x_steps);
                    index[dim] += 1;
                    from = from.wrapping_add(step);
                    if index[dim] < counts[dim] {
                        continue 'rows;
                    }
                    from = from.wrapping_sub(index[dim].wrapping_mul(step));
                    index[dim] = 0;
                }
                break;
            }
        }
    }
}
