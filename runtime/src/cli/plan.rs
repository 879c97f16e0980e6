//! `systole plan`: the best way to divide a language model among the chips of a system, and what it comes to.

use super::args::PlanArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::show;
use serde_json::{Value, json};
use std::fmt::Write;
use systole::plan::{
    Candidate, Checkpoints, Figures, Fixed, GIB, Plan, Platform, Precision, Scores, Task,
    TrainingRun, Trouble, Work, load, platform, training_run,
};
use systole::{Code, Error, ErrorKind};
use systole_compiler::import::llm::{Config, Family};

/// Tokens of a step of training where nothing else is said: 2^24, as of the largest published runs.
const TRAINING_TOKENS: usize = 1 << 24;
/// The length of sequences where nothing else is said, if the model has so many positions.
const LENGTH: usize = 8192;
/// Sequences a chip where nothing else is said, of decoding.
const SEQUENCES: usize = 16;
/// How many alternatives are printed for people.
const SHOWN: usize = 5;

pub(super) fn plan(context: &Context, args: &PlanArgs) -> Result<(), Failure> {
    context.enter("read the configuration");
    let path = args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).map_err(|error| {
        Error::new(ErrorKind::File, Code::File, format!("cannot read {path}: {error}"))
    })?;
    let config =
        Config::parse(&text).map_err(|problems| Error::from(problems).in_file(&path, None))?;
    let fixed = args.mesh.as_deref().map(Fixed::parse).transpose();
    let fixed = fixed.map_err(|message| Failure::usage(format!("--mesh: {message}")))?;
    let fixed = fixed.unwrap_or_default();
    let checkpoints = Checkpoints { write_s: args.checkpoint_s, restart_s: args.restart_s };
    let mut reports = Vec::new();
    let mut too_small = Vec::new();
    let mut refused = None;
    for name in &args.system {
        let system = load(name, &args.set).map_err(Failure::usage)?;
        let (system, count) = match args.power_mw {
            Some(megawatts) => within_power(&system, megawatts)?,
            None => (system, 1),
        };
        let platform = platform(&system);
        let task = task(args, &config, &platform)?;
        context.enter(&format!("plan for {}", platform.name));
        let watch = |done: usize, all: usize| {
            context.progress(done, all);
            !context.is_over()
        };
        let plan = match systole::plan::plan(&platform, &task, &fixed, &checkpoints, &watch) {
            Ok(plan) => plan,
            // One of several that does not fit is a row of the comparison.
            Err(trouble @ Trouble::TooLarge { .. }) => {
                too_small.push(platform.name.clone());
                refused = Some(failure(&platform, trouble));
                continue;
            }
            Err(trouble) => return Err(failure(&platform, trouble)),
        };
        let run =
            args.train_tokens.map(|tokens| training_run(&platform, &plan, &checkpoints, tokens));
        reports.push(Report { platform, task, plan, run, units: args.power_mw.map(|_| count) });
    }
    if let (true, Some(refused)) = (reports.is_empty(), refused) {
        return Err(refused);
    }
    if context.json {
        let mut objects: Vec<Value> = reports.iter().map(Report::json).collect();
        let object = match args.system.len() {
            1 => objects.remove(0),
            _ => json!({"schema": 1, "systems": objects, "does_not_fit": too_small}),
        };
        return console::print(&format!("{object}\n"));
    }
    let mut text = String::new();
    match (reports.as_slice(), args.system.len()) {
        ([report], 1) => report.text(&mut text),
        (reports, _) => compared(reports, &too_small, &mut text),
    }
    console::print(&text)
}

/// As many of a system as the power feeds, the building included.
fn within_power(
    system: &systole_interconnect::System,
    megawatts: f64,
) -> Result<(systole_interconnect::System, usize), Failure> {
    let one_kw = system.facility_kw();
    let count = (megawatts * 1e3 / one_kw).floor();
    let count = if count.is_finite() && count >= 0.0 { count as usize } else { 0 };
    let name = &system.name;
    if count == 0 {
        return Err(Error::new(
            ErrorKind::DoesNotFit,
            Code::TooLarge,
            format!(
                "one {name} takes {one_kw:.0} kW with its building, but there are {:.0}",
                megawatts * 1e3
            ),
        )
        .into());
    }
    let most = count.min(system.most());
    let several = system.times(most).ok_or_else(|| {
        Failure::usage(format!("the description of {name} does not say how several are joined"))
    })?;
    Ok((several, most))
}

fn task(args: &PlanArgs, config: &Config, platform: &Platform) -> Result<Task, Failure> {
    let work = match args.workload {
        super::args::Workload::Train => Work::Train,
        super::args::Workload::Prefill => Work::Prefill,
        super::args::Workload::Decode => Work::Decode,
    };
    let precision = match args.precision {
        super::args::PlanPrecision::F32 => Precision::F32,
        super::args::PlanPrecision::F16 => Precision::F16,
        super::args::PlanPrecision::Bf16 => Precision::BF16,
        super::args::PlanPrecision::F8 => Precision::F8,
        super::args::PlanPrecision::F4 => Precision::F4,
    };
    let length = args.seq.unwrap_or_else(|| config.positions.min(LENGTH));
    if length > config.positions {
        let most = config.positions;
        return Err(Failure::usage(format!(
            "--seq is {length}, but the model has {most} positions"
        )));
    }
    let tokens = args.tokens.map(|tokens| tokens as usize);
    let batch = match (args.batch, tokens, work) {
        (Some(batch), _, _) => batch,
        (None, Some(tokens), Work::Train | Work::Prefill) => tokens / length,
        (None, Some(tokens), Work::Decode) => tokens,
        (None, None, Work::Train) => TRAINING_TOKENS / length,
        (None, None, Work::Prefill) => platform.chips,
        (None, None, Work::Decode) => platform.chips.saturating_mul(SEQUENCES),
    };
    if batch == 0 {
        return Err(Failure::usage(format!("not one sequence of {length} tokens is in a step")));
    }
    let scores = match args.attention {
        Some(super::args::Attention::Fused) => Scores::Fused,
        Some(super::args::Attention::Kept) => Scores::Kept,
        None if config.family == Family::Gpt2 => Scores::Kept,
        None => Scores::Fused,
    };
    Ok(Task { config: config.clone(), work, batch, length, precision, scores })
}

fn failure(platform: &Platform, trouble: Trouble) -> Failure {
    let name = &platform.name;
    match trouble {
        Trouble::NoMesh(message) => Failure::usage(message),
        Trouble::Unsupported(message) => {
            Error::new(ErrorKind::Unsupported, Code::Unsupported, message).into()
        }
        Trouble::Cancelled => {
            Error::new(ErrorKind::Limit, Code::Limit, "the search was ended by its time limit")
                .into()
        }
        Trouble::TooLarge { mesh, memory, limit } => {
            let (part, bytes) = memory.largest();
            let message = format!(
                "no mesh of {name} fits: the smallest, {mesh}, takes {:.1} GiB a chip of {:.1}",
                memory.total() / GIB,
                limit / GIB
            );
            let help = format!(
                "the largest part: {part}, {:.1} GiB; use more chips, a smaller batch, shorter sequences or a narrower type",
                bytes / GIB
            );
            Error::new(ErrorKind::DoesNotFit, Code::TooLarge, message).with_help(help).into()
        }
    }
}

/// A plan with what it was made for.
struct Report {
    platform: Platform,
    task: Task,
    plan: Plan,
    run: Option<TrainingRun>,
    units: Option<usize>,
}

fn mesh_json(candidate: &Candidate) -> Value {
    let mesh = &candidate.mesh;
    json!({
        "dp": mesh.dp, "tp": mesh.tp, "pp": mesh.pp, "ep": mesh.ep,
        "sequence_parallel": mesh.tp > 1, "microbatch": mesh.microbatch, "interleave": mesh.interleave,
        "recompute": mesh.recompute.name(), "shard": mesh.shard.name(),
    })
}

fn figures_json(figures: &Figures) -> Value {
    json!({
        "mesh": mesh_json(&figures.candidate),
        "time_s": figures.candidate.step.seconds,
        "tokens_per_s": figures.tokens_per_s,
        "mfu": figures.mfu,
        "memory_gib_per_chip": figures.candidate.step.memory.total() / GIB,
        "energy_j_per_token": figures.energy_j_per_token,
        "usd_per_million_tokens": figures.usd_per_million_tokens,
        "power_kw": figures.power_kw,
    })
}

impl Report {
    fn json(&self) -> Value {
        let (plan, best) = (&self.plan, &self.plan.best);
        let alternatives: Vec<Value> = plan.alternatives.iter().map(figures_json).collect();
        let mut object = json!({
            "schema": 1,
            "system": plan.system,
            "chips": plan.chips,
            "mesh": mesh_json(&best.candidate),
            "workload": plan.work.name(),
            "time_s": best.candidate.step.seconds,
            "tokens_per_s": best.tokens_per_s,
            "mfu": best.mfu,
            "memory_gib_per_chip": best.candidate.step.memory.total() / GIB,
            "energy_j_per_token": best.energy_j_per_token,
            "usd_per_million_tokens": best.usd_per_million_tokens,
            "power_kw": best.power_kw,
            "goodput": plan.goodput,
            "candidates": plan.candidates,
            "alternatives": alternatives,
        });
        if let Some(run) = &self.run {
            object["train_tokens"] = json!(run.tokens);
            object["days"] = json!(run.days);
            object["mwh"] = json!(run.mwh);
            object["usd"] = json!(run.usd);
            object["energy_usd"] = json!(run.energy_usd);
            object["failures"] = json!(run.failures);
            object["checkpoint_interval_s"] = json!(run.checkpoint_interval_s);
        }
        if let Some(units) = self.units {
            object["units"] = json!(units);
            object["racks"] = json!(self.platform.racks);
        }
        object
    }

    fn text(&self, text: &mut String) {
        let (plan, task) = (&self.plan, &self.task);
        let best = &plan.best;
        let (mesh, step) = (&best.candidate.mesh, &best.candidate.step);
        let _ = writeln!(
            text,
            "{}: {} chips ({}), a roofline device with the efficiencies that its file states",
            plan.system, plan.chips, self.platform.device
        );
        let _ = writeln!(
            text,
            "{} in {}, {} sequences of {}\n",
            plan.work.name(),
            task.precision.name(),
            task.batch,
            task.length
        );
        let _ = writeln!(
            text,
            "best: {mesh} (microbatch {}, interleave {}, recompute {}, shared among copies: {})",
            mesh.microbatch,
            mesh.interleave,
            mesh.recompute.name(),
            mesh.shard.name()
        );
        let row = |name: &str, value: String| vec![format!("  {name}"), value];
        let memory = &step.memory;
        let mut rows = vec![
            row("step", seconds(step.seconds)),
            row("throughput", format!("{} tokens/s", big(best.tokens_per_s))),
            row("utilization", format!("{:.1} % of the peak", 100.0 * best.mfu)),
            row(
                "memory",
                format!(
                    "{:.1} of {:.1} GiB a chip, {} the most of it",
                    memory.total() / GIB,
                    plan.memory_limit / GIB,
                    memory.largest().0
                ),
            ),
            row("power", format!("{:.0} kW, the building included", best.power_kw)),
            row("energy", format!("{:.3} J a token", best.energy_j_per_token)),
            row("rent", format!("{:.3} $ a million tokens", best.usd_per_million_tokens)),
            row("goodput", format!("{:.1} %", 100.0 * plan.goodput)),
        ];
        if let Some(units) = self.units {
            let racks = self.platform.racks;
            rows.push(row("within the power", format!("{units} systems, {racks:.0} racks")));
        }
        if let Some(run) = &self.run {
            rows.push(row("run", format!("{} tokens in {:.1} days", big(run.tokens), run.days)));
            rows.push(row("run energy", format!("{:.0} MWh, {} $", run.mwh, big(run.energy_usd))));
            rows.push(row("run rent", format!("{} $", big(run.usd))));
            rows.push(row(
                "failures",
                format!(
                    "{:.0}; a checkpoint every {}",
                    run.failures,
                    seconds(run.checkpoint_interval_s)
                ),
            ));
        }
        text.push_str(&show::table(&rows));
        text.push_str("\nwhere the time goes\n");
        let mut parts: Vec<(&str, f64)> =
            step.parts.named().into_iter().filter(|(_, part)| *part > 0.0).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let rows: Vec<Vec<String>> = parts
            .iter()
            .map(|(name, part)| {
                vec![
                    format!("  {name}"),
                    seconds(*part),
                    format!("{:.1} %", 100.0 * part / step.seconds),
                ]
            })
            .collect();
        text.push_str(&show::table(&rows));
        let _ = writeln!(
            text,
            "\n{} meshes: {} do not fit, {} ruled out by a bound; the runners-up",
            plan.candidates, plan.too_large, plan.pruned
        );
        let rows: Vec<Vec<String>> =
            plan.alternatives.iter().take(SHOWN).map(|other| runner_up(best, other)).collect();
        text.push_str(&show::table(&rows));
    }
}

/// One line on an alternative: what it is, and what makes it slower.
fn runner_up(best: &Figures, other: &Figures) -> Vec<String> {
    let (ours, theirs) = (&best.candidate.step, &other.candidate.step);
    let slower = 100.0 * (theirs.seconds / ours.seconds - 1.0);
    let pairs = theirs.parts.named().into_iter().zip(ours.parts.named());
    let worst = pairs
        .map(|((name, theirs), (_, ours))| (name, theirs - ours))
        .fold(("", 0.0), |a, b| if b.1 > a.1 { b } else { a });
    let why = if worst.1 > 0.0 {
        format!("{} more {}", seconds(worst.1), worst.0)
    } else {
        String::new()
    };
    vec![
        format!("  {}", other.candidate.mesh),
        seconds(theirs.seconds),
        format!("+{slower:.1} %"),
        format!("{:.1} GiB", theirs.memory.total() / GIB),
        why,
    ]
}

/// Several systems side by side.
fn compared(reports: &[Report], too_small: &[String], text: &mut String) {
    let mut rows = vec![
        [
            "system",
            "chips",
            "mesh",
            "step",
            "tokens/s",
            "MFU",
            "GiB",
            "kW",
            "J/token",
            "$/M tokens",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let with_run = reports.iter().any(|report| report.run.is_some());
    if with_run {
        rows[0].extend(["days", "MWh", "M$"].map(str::to_owned));
    }
    for report in reports {
        let best = &report.plan.best;
        let step = &best.candidate.step;
        let mut row = vec![
            report.plan.system.clone(),
            report.plan.chips.to_string(),
            best.candidate.mesh.to_string(),
            seconds(step.seconds),
            big(best.tokens_per_s),
            format!("{:.1} %", 100.0 * best.mfu),
            format!("{:.1}", step.memory.total() / GIB),
            format!("{:.0}", best.power_kw),
            format!("{:.3}", best.energy_j_per_token),
            format!("{:.3}", best.usd_per_million_tokens),
        ];
        if let Some(run) = &report.run {
            row.push(format!("{:.1}", run.days));
            row.push(format!("{:.0}", run.mwh));
            row.push(format!("{:.1}", run.usd / 1e6));
        }
        rows.push(row);
    }
    text.push_str(&show::table(&rows));
    for name in too_small {
        let _ = writeln!(text, "{name}: the model does not fit on any mesh");
    }
    text.push_str("devices are rooflines with the efficiencies that their files state\n");
}

fn seconds(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0} s")
    } else if value >= 1.0 {
        format!("{value:.2} s")
    } else if value >= 1e-3 {
        format!("{:.2} ms", value * 1e3)
    } else {
        format!("{:.1} us", value * 1e6)
    }
}

fn big(value: f64) -> String {
    let steps = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match steps.iter().find(|(size, _)| value >= *size) {
        Some((size, unit)) => format!("{:.2}{unit}", value / size),
        None => format!("{value:.1}"),
    }
}
