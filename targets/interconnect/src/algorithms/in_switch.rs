//! In the switch: it adds what its ports send, and copies what goes to many.

use super::{Algorithm, Round, Strand, Task, Transfer};
use crate::cost::Load;
use crate::kind::Kind;
use crate::lane::Lane;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "in-switch",
    summary: "The switch adds and copies, so that each vector crosses a port about once.",
    load,
    strands,
};

fn applies<'a>(task: &Task<'a>) -> Result<&'a Lane<'a>, &'static str> {
    let lane = task.lane()?;
    if lane.tier.in_switch.is_none() {
        return Err("its switches neither add nor copy");
    }
    match task.kind {
        Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter | Kind::Broadcast => Ok(lane),
        Kind::AllToAll | Kind::Permute | Kind::PointToPoint => {
            Err("nothing is added, and nothing goes to many")
        }
    }
}

/// What crosses a port in its busier direction.
fn port_bytes(task: &Task<'_>) -> f64 {
    let part = task.bytes / task.ranks as f64;
    match task.kind {
        // A rank's vector goes out for the sums; the part that it asked for comes in, and goes out again to all.
        Kind::AllReduce => task.bytes + part,
        Kind::ReduceScatter | Kind::Broadcast => task.bytes,
        Kind::AllGather | Kind::AllToAll | Kind::Permute | Kind::PointToPoint => task.bytes - part,
    }
}

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    let lane = applies(task)?;
    let steps = if task.kind == Kind::AllReduce { 2 } else { 1 };
    let mut load = Load::steps(lane, steps, 0.0);
    load.wire_bytes = port_bytes(task);
    load.line_us = load.wire_bytes / (lane.spans[0].gbs * 1e3);
    load.in_switch = true;
    let load = load.locally(task.kind, task.bytes, task.ranks);
    Ok(Load { copied_bytes: 0.0, ..load })
}

/// Between each rank and the switch; the simulator takes a transfer to oneself as one that turns round in the switch.
fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    applies(task)?;
    let bytes = port_bytes(task);
    let through = |rank: u32| Transfer { from: rank, to: rank, bytes };
    let transfers = (0..task.ranks as u32).map(through).collect();
    Ok(vec![Strand { rounds: vec![Round { repeat: 1, transfers, adds: task.kind.reduces() }] }])
}
