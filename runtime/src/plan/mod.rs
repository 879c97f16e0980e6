//! Plans: how to divide a language model among the chips of a system, how long a step takes, and what that costs in
//! memory, energy and money.
//!
//! Devices are rooflines with the efficiencies that their description files state: what they do not state is not known
//! here. Operations are those of the graph that the compiler makes of the configuration; exchanges are timed by the
//! fabric's closed form. No number of a device, a link or a price is written in this module.

mod claims;
mod cost;
mod mesh;
mod platform;
mod run;
mod search;
mod systems;
mod task;
mod time;

pub use claims::{Claim, Verdict, claims};
pub use cost::{Operations, Pairs, Weights, forward_operations, kernels, operations, weights};
pub use mesh::{Fixed, Mesh, Order, Recompute, Shard};
pub use platform::{Exchange, Fabric, Peak, Platform};
pub use run::{Checkpoints, TrainingRun, training_run};
pub use search::{Candidate, Found, Trouble, search};
pub use systems::{GIB, load, platform};
pub use task::{Precision, Scores, Task, Work};
pub use time::{Effort, Memory, Parts, Step, memory};

/// A plan: the best mesh and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The system's name.
    pub system: String,
    /// Its chips.
    pub chips: usize,
    /// What is done.
    pub work: Work,
    /// The best candidate, with its figures.
    pub best: Figures,
    /// The runners-up, the fastest first.
    pub alternatives: Vec<Figures>,
    /// How many meshes were looked at.
    pub candidates: usize,
    /// How many of them did not fit.
    pub too_large: usize,
    /// How many a bound ruled out.
    pub pruned: usize,
    /// Bytes of one chip.
    pub memory_limit: f64,
    /// The part of the time that does useful work, failures considered.
    pub goodput: f64,
}

/// What a candidate comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The mesh and its step.
    pub candidate: Candidate,
    /// Tokens a second, of the whole system.
    pub tokens_per_s: f64,
    /// Operations of the model, without those that are computed anew, over what all chips could do at their peak.
    pub mfu: f64,
    /// Energy of a token, the building included.
    pub energy_j_per_token: f64,
    /// Rent of a million tokens.
    pub usd_per_million_tokens: f64,
    /// Power of the whole, the building included.
    pub power_kw: f64,
}

/// Searches, or times the one mesh that is asked for, and says what it comes to.
pub fn plan(
    platform: &Platform,
    task: &Task,
    fixed: &Fixed,
    checkpoints: &Checkpoints,
    watch: &dyn Fn(usize, usize) -> bool,
) -> Result<Plan, Trouble> {
    let found = search(platform, task, fixed, watch)?;
    let mut figures =
        found.best.iter().map(|candidate| figures(platform, task, candidate)).collect::<Vec<_>>();
    if figures.is_empty() {
        return Err(Trouble::NoMesh("no mesh could be timed".to_owned()));
    }
    let best = figures.remove(0);
    let goodput = match task.work {
        Work::Train => run::goodput(platform, checkpoints).0,
        // A failure takes down the copy of the model that it hits.
        Work::Prefill | Work::Decode => {
            let mesh = &best.candidate.mesh;
            let chips = (mesh.tp * mesh.pp) as f64;
            let lost = checkpoints.restart_s / 3600.0 * chips * platform.failures_per_chip_hour;
            1.0 / (1.0 + lost)
        }
    };
    Ok(Plan {
        system: platform.name.clone(),
        chips: platform.chips,
        work: task.work,
        best,
        alternatives: figures,
        candidates: found.candidates,
        too_large: found.too_large,
        pruned: found.pruned,
        memory_limit: platform.memory_bytes,
        goodput,
    })
}

/// Operations of the model in one step, as the field counts them: those of a forward pass, three times for training.
pub fn model_operations(task: &Task) -> f64 {
    let (sequences, length) = (task.batch as f64, task.length as f64);
    match task.work {
        Work::Train => 3.0 * forward_operations(&task.config, sequences, length, Pairs::Window),
        Work::Prefill => {
            let all = forward_operations(&task.config, sequences, length, Pairs::Window);
            all - cost::logits_operations(&task.config, sequences * (length - 1.0))
        }
        Work::Decode => {
            let layers = (0..task.config.layers).map(|index| {
                operations(&task.config, index, sequences, length, Pairs::Window).total()
            });
            layers.sum::<f64>() + cost::logits_operations(&task.config, sequences)
        }
    }
}

fn figures(platform: &Platform, task: &Task, candidate: &Candidate) -> Figures {
    let step = &candidate.step;
    let chips = platform.chips as f64;
    let tokens_per_s = task.tokens() / step.seconds;
    let peak = (platform.peak)(task.precision.name()).unwrap_or(f64::INFINITY);
    let power_w = power_w(platform, candidate, peak);
    Figures {
        candidate: *candidate,
        tokens_per_s,
        mfu: model_operations(task) / (step.seconds * chips * peak),
        energy_j_per_token: power_w / tokens_per_s,
        usd_per_million_tokens: chips * platform.usd_per_chip_hour / 3600.0 / tokens_per_s * 1e6,
        power_kw: power_w / 1e3,
    }
}

/// Mean power of the whole during a step: operations, bytes of memory and of links, and what chips, hosts and switches
/// take for being on; never more than all at full load.
fn power_w(platform: &Platform, candidate: &Candidate, peak: f64) -> f64 {
    let (mesh, step, effort) = (&candidate.mesh, &candidate.step, &candidate.step.effort);
    let compute = platform.compute_energy_fraction * platform.chip_w * effort.operations / peak;
    let memory = effort.memory_bytes * 8.0 * platform.memory_j_per_bit;
    let near = platform.fabric.joules(&mesh.tensor_axes(), effort.near_bytes);
    let far = platform.fabric.joules(&mesh.data_axes(), effort.far_bytes);
    let idle = platform.idle_fraction * platform.chip_w;
    let working = (idle + (compute + memory + near + far) / step.seconds).min(platform.chip_w);
    let used = mesh.chips() as f64;
    let unused = platform.chips as f64 - used;
    (used * working + unused * idle + platform.other_w) * platform.pue
}
