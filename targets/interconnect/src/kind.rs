//! The collectives that there are.

/// A collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Every rank ends with the sum of all ranks' vectors.
    AllReduce,
    /// Every rank ends with the parts of all ranks.
    AllGather,
    /// Every rank ends with its part of the sum.
    ReduceScatter,
    /// Every rank sends a part to every other.
    AllToAll,
    /// One rank's vector goes to all.
    Broadcast,
    /// Every rank sends its vector to the next of the group.
    Permute,
    /// The first rank of the group sends to the last.
    PointToPoint,
}

impl Kind {
    /// Every collective.
    pub const ALL: &'static [Kind] = &[
        Kind::AllReduce,
        Kind::AllGather,
        Kind::ReduceScatter,
        Kind::AllToAll,
        Kind::Broadcast,
        Kind::Permute,
        Kind::PointToPoint,
    ];

    /// As commands and files write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::AllReduce => "all-reduce",
            Kind::AllGather => "all-gather",
            Kind::ReduceScatter => "reduce-scatter",
            Kind::AllToAll => "all-to-all",
            Kind::Broadcast => "broadcast",
            Kind::Permute => "permute",
            Kind::PointToPoint => "point-to-point",
        }
    }

    /// The collective of that name; `_` is as good as `-`.
    pub fn named(name: &str) -> Option<Kind> {
        let name = name.replace('_', "-");
        Kind::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whether ranks add what they receive.
    pub fn reduces(self) -> bool {
        match self {
            Kind::AllReduce | Kind::ReduceScatter => true,
            Kind::AllGather
            | Kind::AllToAll
            | Kind::Broadcast
            | Kind::Permute
            | Kind::PointToPoint => false,
        }
    }

    /// Bus bandwidth as a multiple of bytes over time: what one port carries where the algorithm wastes nothing.
    pub fn bus_factor(self, ranks: usize) -> f64 {
        let ranks = ranks.max(1) as f64;
        match self {
            Kind::AllReduce => 2.0 * (ranks - 1.0) / ranks,
            Kind::AllGather | Kind::ReduceScatter | Kind::AllToAll => (ranks - 1.0) / ranks,
            Kind::Broadcast | Kind::Permute | Kind::PointToPoint => 1.0,
        }
    }
}
