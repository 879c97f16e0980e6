//! `convolve`: an image `[batch, channels, ..]` with a kernel `[outputs, channels / groups, ..]` gives
//! `[batch, outputs, ..]`; the other dimensions are spatial. Sums run over the kernel's channels, then its positions.

use crate::op::contract::product_types;
use crate::op::product::{Number, PANEL, Pair, multiply_panel, rounded};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values, shape_of};
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

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        self.evaluate_within(operands, &|| false).expect("nothing cancels it")
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let (dtype, accumulate) = sample::accumulated(u)?;
        let spatial = u.int_in_range(1..=2)?;
        let groups = u.int_in_range(1..=2)?;
        let channels = u.int_in_range(1..=3)?;
        let mut x = vec![u.int_in_range(1..=2)?, channels * groups];
        let mut w = vec![groups * u.int_in_range(1..=3)?, channels];
        let mut op = Convolve {
            strides: sample::numbers(u, spatial, 1..=3)?,
            dilations: sample::numbers(u, spatial, 1..=2)?,
            low: sample::numbers(u, spatial, 0..=2)?,
            high: sample::numbers(u, spatial, 0..=2)?,
            groups,
            accumulate,
            dtype,
        };
        for dim in 0..spatial {
            let size = u.int_in_range(1..=7)?;
            let window = u.int_in_range(1..=size.min(3))?;
            if (window - 1) * op.dilations[dim] >= size {
                op.dilations[dim] = 1;
            }
            x.push(size);
            w.push(window);
        }
        Ok((op, vec![TensorType::new(dtype, &x), TensorType::new(dtype, &w)]))
    }
}

impl Convolve {
    /// The value of the result; nothing where `cancelled` says so.
    pub(crate) fn evaluate_within(
        &self,
        operands: &[Tensor],
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Vec<Tensor>> {
        let [x, w] = operands else { unreachable!("the type rule counts operands") };
        let mut shape = shape_of(&[x.shape()[0], w.shape()[0]]);
        for dim in 0..self.strides.len() {
            let extent = (w.shape()[dim + 2] - 1) * self.dilations[dim] + 1;
            let padded = self.low[dim] + x.shape()[dim + 2] + self.high[dim];
            shape.push((padded - extent) / self.strides[dim] + 1);
        }
        let shapes = [x.shape(), w.shape(), &shape];
        let sums = match Pair::new(x, w, self.accumulate) {
            Pair::F32(x, w) => Values::F32(self.slide(&x, &w, shapes, cancelled)?),
            Pair::F64(x, w) => Values::F64(self.slide(&x, &w, shapes, cancelled)?),
            Pair::Int(x, w) => Values::Int(self.slide(&x, &w, shapes, cancelled)?),
        };
        Some(vec![rounded(sums, self.accumulate, self.dtype, &shape)])
    }

    /// For each image, panel of result positions, and group: gathers what the window sees there into the columns of a
    /// panel, and multiplies the group's kernels with it.
    fn slide<T: Number>(
        &self,
        x: &[T],
        w: &[T],
        shapes @ [x_shape, w_shape, shape]: [&[usize]; 3],
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Vec<T>> {
        let mut result = vec![T::ZERO; shape.iter().product()];
        let positions: usize = shape[2..].iter().product();
        let pixels: usize = x_shape[2..].iter().product();
        let taps: usize = w_shape[2..].iter().product();
        let (channels, outputs) = (w_shape[1], w_shape[0] / self.groups);
        let k = channels * taps;
        if result.is_empty() || k == 0 || pixels == 0 {
            return Some(result);
        }
        let mut panel = vec![T::ZERO; k * PANEL];
        let mut seen = vec![[None; PANEL]; taps];
        let images = x.chunks_exact(x_shape[1] * pixels);
        for (x, result) in images.zip(result.chunks_exact_mut(w_shape[0] * positions)) {
            for position in (0..positions).step_by(PANEL) {
                if cancelled() {
                    return None;
                }
                let columns = PANEL.min(positions - position);
                for (tap, seen) in seen.iter_mut().enumerate() {
                    for (column, seen) in seen[..columns].iter_mut().enumerate() {
                        *seen = self.pixel(position + column, tap, shapes);
                    }
                }
                let groups = x.chunks_exact(channels * pixels).zip(w.chunks_exact(outputs * k));
                let results = result.chunks_exact_mut(outputs * positions);
                for ((x, w), result) in groups.zip(results) {
                    let rows = panel.as_chunks_mut::<PANEL>().0.chunks_exact_mut(taps);
                    for (x, rows) in x.chunks_exact(pixels).zip(rows) {
                        for (row, seen) in rows.iter_mut().zip(&seen) {
                            *row = seen.map(|pixel| pixel.map_or(T::ZERO, |pixel| x[pixel]));
                        }
                    }
                    multiply_panel(w, k, &panel, &mut result[position..], positions, columns);
                }
            }
        }
        Some(result)
    }

    /// The pixel that an element of the window sees at a position of the result; nothing where it lies in the padding.
    fn pixel(
        &self,
        mut position: usize,
        mut tap: usize,
        [x_shape, w_shape, shape]: [&[usize]; 3],
    ) -> Option<usize> {
        let (mut pixel, mut step) = (0, 1);
        for dim in (0..self.strides.len()).rev() {
            let (at, offset) = (position % shape[dim + 2], tap % w_shape[dim + 2]);
            (position, tap) = (position / shape[dim + 2], tap / w_shape[dim + 2]);
            let padded = at * self.strides[dim] + offset * self.dilations[dim];
            let index = padded.checked_sub(self.low[dim])?;
            if index >= x_shape[dim + 2] {
                return None;
            }
            pixel += index * step;
            step *= x_shape[dim + 2];
        }
        Some(pixel)
    }
}
