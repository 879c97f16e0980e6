//! Packing of operands into panels: `[panel][k][width]`, lanes beyond the extent zero.

/// Packs a whole operand: element `(outer, k)` is `source[outer_offsets[outer] + k_offsets[k]]`. For load time and tests.
///
/// # Panics
/// If an offset leads outside `source`.
pub fn pack(
    source: &[f32],
    outer_offsets: &[isize],
    k_offsets: &[isize],
    width: usize,
) -> Vec<f32> {
    let mut panels =
        Vec::with_capacity(outer_offsets.len().div_ceil(width) * width * k_offsets.len());
    for lanes in outer_offsets.chunks(width) {
        for k_offset in k_offsets {
            for lane in lanes {
                let index =
                    usize::try_from(lane + k_offset).expect("offsets lead inside the source");
                panels.push(source[index]);
            }
            panels.resize(panels.len() + width - lanes.len(), 0.0);
        }
    }
    panels
}
