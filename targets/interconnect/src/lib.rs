//! Models of interconnects: how chips are joined, how collectives run over them, and what that takes.
//!
//! A [`System`] is a description file: chips, the tiers that join them (a torus of any number of dimensions, a switch, a full
//! mesh), links, latencies, and what power, money and failures cost. A [`Group`] is any set of its chips. A collective of a
//! [`Kind`] over a group is run by an [`Algorithm`]: explicit rounds of transfers. Two evaluators say how long it takes:
//! [`collective_time`], a closed form, and [`flow::simulate`], which moves every transfer over real routes and shares each
//! link fairly among what crosses it. They agree where nothing contends.
//!
//! Bytes count the whole buffer: an all-reduce's vector, an all-gather's output, a reduce-scatter's input, the buffer of one
//! rank of an all-to-all, of a broadcast, of a permutation, of a transfer. Times are in microseconds, rates in 10^9 bytes a
//! second and direction.

#![forbid(unsafe_code)]

pub mod algorithms;
mod cores;
mod cost;
mod element;
mod error;
mod fair;
pub mod flow;
mod group;
mod kind;
mod lane;
pub mod measured;
mod predict;
mod presets;
mod read;
mod route;
mod system;

pub use algorithms::Algorithm;
pub use cost::{Cost, Load};
pub use element::Element;
pub use error::CollectiveError;
pub use group::Group;
pub use kind::Kind;
pub use lane::{Lane, Lanes, Span};
pub use predict::{Options, Prediction, collective_time, link_bound_us};
pub use presets::{PRESETS, Preset};
pub use system::{
    Axis, ChunkOrder, Device, Economy, InSwitch, Peak, Protocol, System, Tier, TierKind, Work,
};
