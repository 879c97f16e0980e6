//! `systole bench`.

use super::args::BenchArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::run;
use super::session::{self, Wanted};
use serde_json::json;
use std::time::{Duration, Instant};
use systole::{Inputs, MemoryPlan, Program, RunOptions, Workspace};

/// Runs before the measured ones: the first faults pages in and fills caches.
const WARM_UP: usize = 2;
const DEFAULT_TIME: Duration = Duration::from_secs(2);
const FEWEST_RUNS: usize = 3;

pub(super) fn bench(context: &Context, args: &BenchArgs) -> Result<(), Failure> {
    let threads = args.threads.threads;
    let mut session = session::open(context, &args.model, threads, None, None)?;
    let inputs = session::inputs(context, session.program.signature(), &args.inputs, Wanted::All)?;
    session.prepare(context, &inputs)?;
    let options = context.run_options();
    context.enter("warm up");
    let mut workspace = session.program.workspace();
    let outputs = session.program.run_with(&options, inputs.clone())?;
    warm_up(&session.program, &mut workspace, &options, &inputs)?;
    context.enter("measure");
    let time = args.seconds.unwrap_or(DEFAULT_TIME);
    let mut latencies = Vec::new();
    let start = Instant::now();
    let goes_on = |done: usize| match args.runs {
        Some(runs) => done < runs as usize,
        None => done < FEWEST_RUNS || start.elapsed() < time,
    };
    while goes_on(latencies.len()) {
        let start = Instant::now();
        session.program.run_in(&mut workspace, &options, &inputs)?;
        latencies.push(start.elapsed().as_nanos() as f64 / 1e6);
    }
    latencies.sort_by(f64::total_cmp);
    let comparison = run::keep(context, &args.outputs, &outputs)?;
    let threads = match (session.target.name(), threads) {
        ("host", Some(threads)) => usize::from(threads),
        ("host", None) => std::thread::available_parallelism().map_or(1, usize::from),
        _ => 1,
    };
    let (min, median, p90) = (latencies[0], rank(&latencies, 0.5), rank(&latencies, 0.9));
    let peak = peak_rss_mib();
    let times = session.program.compile_times();
    let [import, passes, code, packing] = session::parts(&times);
    let plan = session.program.memory_plan();
    let text = if context.json {
        let object = json!({
            "schema": 1,
            "model": session.name,
            "target": session.target.name(),
            "threads": threads,
            "load_ms": session.load_ms,
            "compile_ms": session.compile_ms,
            "runs": latencies.len(),
            "latency_ms": {"min": min, "median": median, "p90": p90},
            "peak_rss_mib": peak,
            "compile_parts_ms": {"import": import, "passes": passes, "code": code, "packing": packing},
            "kernels": plan.map(|plan| plan.kernels),
            "memory_bytes": plan.map(|plan| json!({
                "arena": plan.arena_bytes,
                "arena_lower_bound": plan.arena_lower_bound_bytes,
                "scratch_per_thread": plan.scratch_bytes,
                "results": plan.result_bytes,
                "constants": plan.constant_bytes,
            })),
        });
        format!("{object}\n")
    } else {
        let compared = comparison.iter().flat_map(|comparison| &comparison.lines);
        let compared: String = compared.map(|line| format!("compare {line}\n")).collect();
        let plural = if threads == 1 { "" } else { "s" };
        let peak = peak.map_or_else(|| "unknown".to_owned(), |peak| format!("{peak:.0} MiB"));
        let parts = match plan {
            Some(_) => format!(" ({})", session::times_text(&times)),
            None => String::new(),
        };
        let plan = plan.map(|plan| plan_lines(&plan)).unwrap_or_default();
        format!(
            "{compared}{} on {}, {threads} thread{plural}\n\
             load     {:.1} ms\ncompile  {:.1} ms{parts}\n\
             latency  {median:.3} ms median of {} runs, {min:.3} least, {p90:.3} at 90 %\n\
             memory   {peak} at the peak\n{plan}",
            session.name,
            session.target.name(),
            session.load_ms,
            session.compile_ms,
            latencies.len(),
        )
    };
    console::print(&text)?;
    run::judge(comparison.as_ref())
}

/// What the planner gives a run, against the least that any plan needs.
fn plan_lines(plan: &MemoryPlan) -> String {
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    format!(
        "arena    {:.2} MiB, of which {:.2} MiB must be live at once\n\
         besides  {:.2} MiB of scratch a thread, {:.2} MiB of results, {:.2} MiB of constants, {} kernels\n",
        mib(plan.arena_bytes),
        mib(plan.arena_lower_bound_bytes),
        mib(plan.scratch_bytes),
        mib(plan.result_bytes),
        mib(plan.constant_bytes),
        plan.kernels,
    )
}

fn warm_up(
    program: &Program,
    workspace: &mut Workspace,
    options: &RunOptions,
    inputs: &Inputs,
) -> Result<(), Failure> {
    for _ in 0..WARM_UP {
        program.run_in(workspace, options, inputs)?;
    }
    Ok(())
}

/// The least value that at least that share of the sorted values does not exceed.
fn rank(sorted: &[f64], share: f64) -> f64 {
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

/// The most memory that the process had, where the system says.
fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_are_values_that_were_measured() {
        assert_eq!(rank(&[1.0, 2.0, 3.0], 0.5), 2.0);
        assert_eq!(rank(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.0);
        assert_eq!(rank(&[1.0, 2.0], 0.9), 2.0);
        assert_eq!(rank(&[1.0], 0.9), 1.0);
    }
}
