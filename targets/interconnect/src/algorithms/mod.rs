//! The algorithms, each in a file of its own: what it puts on the fabric, and its transfers one by one. A new algorithm is a
//! file and a row of [`ALGORITHMS`].

mod direct;
mod halving_doubling;
mod in_switch;
mod one_step;
mod ring;
mod ring_bidirectional;
mod torus;
mod tree;

use crate::cost::Load;
use crate::kind::Kind;
use crate::lane::Lane;
use crate::system::Protocol;

/// A way to do collectives.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    /// Its name.
    pub name: &'static str,
    /// One line on it.
    pub summary: &'static str,
    /// What it puts on the fabric for each rank, or why it cannot.
    pub load: fn(&Task<'_>) -> Result<Load, &'static str>,
    /// Its transfers, or why it cannot.
    pub strands: fn(&Task<'_>) -> Result<Vec<Strand>, &'static str>,
}

/// A collective to be done.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Which.
    pub kind: Kind,
    /// The whole buffer.
    pub bytes: f64,
    /// Where the group lies: the tiers that it uses, innermost first.
    pub lanes: &'a [Lane<'a>],
    /// How many ranks there are.
    pub ranks: usize,
    /// The protocol.
    pub protocol: &'a Protocol,
}

impl<'a> Task<'a> {
    /// The only tier that the group uses.
    pub(crate) fn lane(&self) -> Result<&'a Lane<'a>, &'static str> {
        match self.lanes {
            [lane] if lane.count() == self.ranks => Ok(lane),
            [_] => Err("it needs a full sub-mesh"),
            _ => Err("it works within one tier; `hierarchical` joins tiers"),
        }
    }
}

/// A part of the data that goes its own way: its rounds follow one another, rank by rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Strand {
    /// What happens, in order.
    pub rounds: Vec<Round>,
}

/// Transfers that may go at once. A rank begins a round when all that it sends and receives in the round before is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// How often it is done, one after another.
    pub repeat: u32,
    /// Who sends what to whom, by place in the group (in the order of the chips).
    pub transfers: Vec<Transfer>,
    /// Whether receivers add what they get.
    pub adds: bool,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Who sends.
    pub from: u32,
    /// Who receives.
    pub to: u32,
    /// How much.
    pub bytes: f64,
}

/// Every algorithm that works within one tier, or over several as if they were one; `hierarchical` composes them.
pub const ALGORITHMS: &[Algorithm] = &[
    ring::ALGORITHM,
    ring_bidirectional::ALGORITHM,
    torus::ALGORITHM,
    halving_doubling::ALGORITHM,
    tree::ALGORITHM,
    direct::ALGORITHM,
    one_step::ALGORITHM,
    in_switch::ALGORITHM,
];

/// The name of the composition of algorithms of several tiers.
pub const HIERARCHICAL: &str = "hierarchical";
/// One line on it.
pub const HIERARCHICAL_SUMMARY: &str =
    "Tier by tier, each with its own best algorithm: within, then across, then within again.";

/// The algorithm of that name.
pub fn named(name: &str) -> Option<&'static Algorithm> {
    ALGORITHMS.iter().find(|algorithm| algorithm.name == name)
}

/// All names, for messages.
pub fn names() -> String {
    let names: Vec<&str> = ALGORITHMS.iter().map(|algorithm| algorithm.name).collect();
    format!("{}, {HIERARCHICAL}", names.join(", "))
}

/// Every rank to the rank that many places further.
pub(crate) fn shift(ranks: usize, by: usize, bytes: f64) -> Vec<Transfer> {
    let to = |from: usize| ((from + by) % ranks) as u32;
    (0..ranks).map(|from| Transfer { from: from as u32, to: to(from), bytes }).collect()
}
