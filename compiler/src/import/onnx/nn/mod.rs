//! Convolutions, pools, normalizations, resizing, Einsum and quantization.

mod convolution;
mod einsum;
mod normalization;
mod pool;
mod quantization;
mod resize;

use super::context::{ImportError, NodeContext, invalid, unsupported};
use crate::graph::ValueId;

pub(super) use convolution::ROWS as CONVOLUTION;
pub(super) use einsum::ROWS as EINSUM;
pub(super) use normalization::ROWS as NORMALIZATION;
pub(super) use pool::ROWS as POOL;
pub(super) use quantization::ROWS as QUANTIZATION;
pub(super) use resize::ROWS as RESIZE;

pub(super) type Value = Result<ValueId, ImportError>;

/// How a window moves over the spatial dimensions.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) size: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) low: Vec<usize>,
    pub(super) high: Vec<usize>,
}

impl Window {
    /// The window that the attributes describe, for those spatial sizes.
    pub(super) fn read(
        context: &NodeContext<'_, '_, '_>,
        size: Vec<usize>,
        spatial: &[usize],
    ) -> Result<Window, ImportError> {
        let rank = spatial.len();
        if size.len() != rank {
            return invalid(format!("a window of {} dimensions moves over {rank}", size.len()));
        }
        let strides = sizes(context, "strides", rank)?.unwrap_or_else(|| vec![1; rank]);
        let dilations = sizes(context, "dilations", rank)?.unwrap_or_else(|| vec![1; rank]);
        if strides.contains(&0) || dilations.contains(&0) || size.contains(&0) {
            return invalid("strides, dilations and window sizes are at least 1");
        }
        let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
        let auto = context.string("auto_pad", "NOTSET");
        let mut window = Window { size, strides, dilations, low: low.clone(), high: high.clone() };
        match auto.as_str() {
            "VALID" => {}
            "SAME_UPPER" | "SAME_LOWER" => {
                for dim in 0..rank {
                    let outputs = spatial[dim].div_ceil(window.strides[dim]);
                    let covered =
                        outputs.saturating_sub(1) * window.strides[dim] + window.reach(dim);
                    let total = covered.saturating_sub(spatial[dim]);
                    let less = total / 2;
                    (low[dim], high[dim]) = if auto == "SAME_UPPER" {
                        (less, total - less)
                    } else {
                        (total - less, less)
                    };
                }
                (window.low, window.high) = (low, high);
            }
            "NOTSET" => {
                if let Some(pads) = sizes(context, "pads", 2 * rank)? {
                    window.low = pads[..rank].to_vec();
                    window.high = pads[rank..].to_vec();
                }
            }
            other => return invalid(format!("auto_pad {other} is not known")),
        }
        Ok(window)
    }

    /// How many positions the dilated window covers.
    pub(super) fn reach(&self, dim: usize) -> usize {
        (self.size[dim] - 1).saturating_mul(self.dilations[dim]).saturating_add(1)
    }

    /// How many windows there are along a dimension; with `ceil` also the last, partial one, unless it starts in the
    /// padding behind.
    pub(super) fn outputs(
        &self,
        dim: usize,
        extent: usize,
        ceil: bool,
    ) -> Result<usize, ImportError> {
        let padded = extent + self.low[dim] + self.high[dim];
        let Some(free) = padded.checked_sub(self.reach(dim)) else {
            return invalid(format!("a window of {} is larger than {padded}", self.reach(dim)));
        };
        let stride = self.strides[dim];
        let mut count = if ceil { free.div_ceil(stride) } else { free / stride } + 1;
        if ceil && (count - 1) * stride >= extent + self.low[dim] {
            count -= 1;
        }
        Ok(count)
    }
}

/// A list attribute of sizes, of that length.
pub(super) fn sizes(
    context: &NodeContext<'_, '_, '_>,
    name: &str,
    length: usize,
) -> Result<Option<Vec<usize>>, ImportError> {
    const MOST: i64 = 1 << 32;
    let Some(list) = context.ints(name) else { return Ok(None) };
    if list.is_empty() {
        return Ok(None);
    }
    if list.len() != length {
        return invalid(format!("attribute {name} has {} elements, not {length}", list.len()));
    }
    if name == "pads" && list.iter().any(|&size| size < 0) {
        return unsupported("negative pads");
    }
    match list.iter().find(|&&size| !(0..MOST).contains(&size)) {
        Some(size) => invalid(format!("attribute {name} has the size {size}")),
        None => Ok(Some(list.into_iter().map(|size| size as usize).collect())),
    }
}
