//! The closed form: what an algorithm puts on a tier, and what that takes under a protocol.

use crate::element::Element;
use crate::kind::Kind;
use crate::lane::Lane;
use crate::system::{ChunkOrder, Protocol};

/// What one algorithm puts on one tier, for one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Dependent steps.
    pub steps: u64,
    /// Crossings of links and switches on the way, all steps together.
    pub crossing_us: f64,
    /// The time of the busiest link at its full rate.
    pub line_us: f64,
    /// Bytes that a rank sends.
    pub wire_bytes: f64,
    /// To how many ranks it sends at once.
    pub peers: u64,
    /// Bytes that a rank adds to what it has.
    pub reduced_bytes: f64,
    /// Bytes that a rank copies within itself.
    pub copied_bytes: f64,
    /// Whether every rank talks to every other at once.
    pub direct: bool,
    /// Whether the switch adds or copies.
    pub in_switch: bool,
}

impl Load {
    /// So many steps to a neighbour, each of so many bytes, over one link.
    pub(crate) fn steps(lane: &Lane<'_>, steps: u64, bytes: f64) -> Load {
        let wire_bytes = steps as f64 * bytes;
        let gbs = lane.spans.iter().map(|span| span.gbs).fold(f64::INFINITY, f64::min);
        Load {
            steps,
            crossing_us: steps as f64 * lane.neighbour_us(),
            line_us: wire_bytes / (gbs * 1e3),
            wire_bytes,
            peers: 1,
            reduced_bytes: 0.0,
            copied_bytes: 0.0,
            direct: false,
            in_switch: false,
        }
    }

    /// Adds the additions and copies that a collective needs, whatever the algorithm.
    pub(crate) fn locally(mut self, kind: Kind, bytes: f64, ranks: usize) -> Load {
        let part = bytes / ranks as f64;
        if kind.reduces() {
            self.reduced_bytes = bytes - part;
        }
        match kind {
            Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter | Kind::AllToAll => {
                self.copied_bytes = part;
            }
            Kind::Broadcast | Kind::Permute | Kind::PointToPoint => {}
        }
        self
    }
}

/// What a load takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Before anything moves.
    pub launch_us: f64,
    /// Steps and crossings.
    pub latency_us: f64,
    /// Bytes over links.
    pub links_us: f64,
    /// Copies and additions inside the chip.
    pub local_us: f64,
    /// Filling pipelines.
    pub fill_us: f64,
}

impl Cost {
    /// All together.
    pub fn total_us(&self) -> f64 {
        self.launch_us + self.after_launch_us()
    }

    /// All but the launch.
    pub fn after_launch_us(&self) -> f64 {
        self.latency_us + self.links_us + self.local_us + self.fill_us
    }
}

/// The closed form.
pub(crate) fn cost(lane: &Lane<'_>, load: &Load, protocol: &Protocol, element: Element) -> Cost {
    let switch = lane.tier.in_switch.as_ref().filter(|_| load.in_switch);
    let mut launch_us = if load.direct { protocol.direct_launch_us } else { protocol.launch_us };
    let mut efficiency = if load.direct { protocol.direct_efficiency } else { protocol.efficiency };
    let steps = load.steps as f64;
    let mut fill = protocol.fill_us + protocol.fill_step_us * steps;
    if let Some(switch) = switch {
        launch_us += switch.launch_us;
        efficiency = switch.efficiency;
        fill = switch.fill_us;
    }
    let mut links_us = load.line_us / efficiency;
    if let Some(switch) = switch {
        links_us = links_us.max(load.reduced_bytes / (switch.adder_gbs * 1e3));
    } else if let Some(flow) = protocol.flow_gbs {
        links_us = links_us.max(load.wire_bytes / (flow * 1e3 * load.peers.max(1) as f64));
    }
    let rate = match element.bits {
        0..=8 => protocol.reduce_narrow_gbs.or(protocol.reduce_gbs),
        _ => protocol.reduce_gbs,
    };
    let rate = rate.filter(|_| switch.is_none());
    let reduced_us = rate.map_or(0.0, |rate| load.reduced_bytes / (rate * 1e3));
    let copied_us = protocol.copy_gbs.map_or(0.0, |rate| load.copied_bytes / (rate * 1e3));
    let local_us = copied_us + reduced_us;
    let fill_us = 2.0 * (fill * (links_us + local_us)).sqrt();
    let peers_us = if load.direct { load.peers as f64 * protocol.peer_us } else { 0.0 };
    let step_us = steps * protocol.step_us + load.crossing_us;
    let chain_us = step_us + (steps + 1.0) * protocol.endpoint_us;
    let chunks = f64::from(protocol.chunks);
    let pipelined = protocol.order == ChunkOrder::Pipelined && protocol.chunks > 1;
    if !pipelined {
        let latency_us = peers_us + chunks * chain_us;
        return Cost { launch_us, latency_us, links_us, local_us, fill_us };
    }
    // Either links rest only for the first step and at both ends, and additions hide behind transfers; or one chunk's own
    // way through is what is waited for, and the others follow it, one transfer later each.
    let busy_us = step_us / steps.max(1.0) + 2.0 * protocol.endpoint_us;
    let follow_us = (chunks - 1.0) * links_us / (chunks * steps.max(1.0));
    let alone_us = chain_us + (links_us + local_us) / chunks + follow_us;
    let latency_us = peers_us + busy_us.max(alone_us - links_us);
    Cost { launch_us, latency_us, links_us, local_us: 0.0, fill_us }
}
