//! Why a question about a collective has no answer.

/// Why a question about a collective has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// The group has more ranks than the system has chips.
    #[error("{ranks} ranks are more than the {chips} chips of `{system}`")]
    TooManyRanks {
        /// Ranks asked for.
        ranks: usize,
        /// Chips that there are.
        chips: usize,
        /// The system.
        system: String,
    },
    /// The group names a chip that the system does not have, or one twice.
    #[error(
        "rank {rank} of the group is chip {chip}: `{system}` has {chips} chips, and each is in a group once"
    )]
    BadChip {
        /// Which rank.
        rank: usize,
        /// Which chip.
        chip: usize,
        /// Chips that there are.
        chips: usize,
        /// The system.
        system: String,
    },
    /// A group of fewer than two ranks.
    #[error("a collective needs at least 2 ranks, not {0}")]
    TooFewRanks(usize),
    /// Nothing to move, or more than any memory.
    #[error("{0} bytes are not from 1 to 2^60")]
    BadBytes(u64),
    /// More chunks than bytes make sense.
    #[error("{0} chunks are not from 1 to 65536")]
    BadChunks(u32),
    /// There is no such algorithm.
    #[error("there is no algorithm `{name}`; they are {known}")]
    UnknownAlgorithm {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// There is no such protocol on the tiers that the group uses.
    #[error("`{system}` has no protocol `{name}`; it has {known}")]
    UnknownProtocol {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
        /// The system.
        system: String,
    },
    /// The algorithm cannot do this.
    #[error("`{algorithm}` cannot do {kind} over these {ranks} ranks of `{system}`: {why}")]
    DoesNotApply {
        /// The algorithm.
        algorithm: &'static str,
        /// The collective.
        kind: &'static str,
        /// Ranks of the group.
        ranks: usize,
        /// The system.
        system: String,
        /// What it would need.
        why: String,
    },
    /// The simulation would be too large.
    #[error(
        "{transfers} transfers are more than a simulation takes ({limit}); the closed form takes them"
    )]
    TooLarge {
        /// How many there are.
        transfers: u64,
        /// How many may be.
        limit: u64,
    },
}
