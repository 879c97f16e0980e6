//! Groups: which chips take part in a collective, in which order.

/// The chips of a collective, in the order of its ranks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    chips: Vec<u32>,
}

impl Group {
    /// The first `ranks` chips.
    pub fn first(ranks: usize) -> Group {
        Group::strided(0, ranks, 1)
    }

    /// `ranks` chips from `start` on, each `stride` further than the last: one line of a mesh.
    pub fn strided(start: usize, ranks: usize, stride: usize) -> Group {
        Group::mesh(start, &[(ranks, stride)])
    }

    /// A sub-mesh: for each axis, how many and how far apart; the first axis runs fastest.
    pub fn mesh(start: usize, axes: &[(usize, usize)]) -> Group {
        let mut chips = vec![u32::try_from(start).unwrap_or(u32::MAX)];
        for &(count, stride) in axes {
            let ranks = chips.len().saturating_mul(count);
            // More chips than any system has: cut short, and refused for it.
            if ranks > 1 << 21 {
                return Group { chips: vec![u32::MAX; 2] };
            }
            let line = chips.clone();
            chips = (0..count)
                .flat_map(|at| {
                    let far = u32::try_from(at.saturating_mul(stride)).unwrap_or(u32::MAX);
                    line.iter().map(move |chip| chip.saturating_add(far))
                })
                .collect();
        }
        Group { chips }
    }

    /// Any chips.
    pub fn of(chips: Vec<u32>) -> Group {
        Group { chips }
    }

    /// The chips, in the order of the ranks.
    pub fn chips(&self) -> &[u32] {
        &self.chips
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.chips.len()
    }
}
