//! Runs a command under its limits: on a thread with a large stack, watched from the main thread, which also draws the
//! progress line.

use super::args::{LimitArgs, TalkArgs};
use super::console;
use super::crash;
use super::failure::{Failure, exit};
use super::memory::{self, LastWords};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use systole::{Cancel, RunOptions};

/// Recursion in parsers and drops follows the input's nesting, so the stack is as large as any input is long. It is
/// reserved, not taken: only what is used becomes memory.
const STACK_BYTES: [usize; 4] = [1 << 30, 256 << 20, 64 << 20, 8 << 20];
/// How long a command may take to notice that its time is up.
const GRACE: Duration = Duration::from_millis(200);
/// How often the main thread looks.
const TICK: Duration = Duration::from_millis(20);
/// What ends sooner needs no progress line.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a command knows of the world around it.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) json: bool,
    pub(super) talk: TalkArgs,
    limits: LimitArgs,
    cancel: Cancel,
    deadline: Option<Instant>,
    phase: Mutex<String>,
    steps: Mutex<Option<(u64, u64)>>,
}

/// What all verbs say of themselves.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) limits: LimitArgs,
    pub(super) talk: TalkArgs,
    pub(super) json: bool,
    /// The file that a reproducer needs.
    pub(super) file: Option<&'a Path>,
}

type Work<'a> = Box<dyn FnOnce(&Context) -> Result<(), Failure> + Send + 'a>;

/// Does the work and gives the exit code; failures have been reported.
pub(super) fn guarded(frame: Frame<'_>, work: Work<'_>) -> u8 {
    crash::install_hook();
    set_memory_limit(&frame);
    let context = Arc::new(Context {
        json: frame.json,
        talk: frame.talk,
        limits: frame.limits,
        cancel: Cancel::new(),
        deadline: frame.limits.time_limit.and_then(|limit| Instant::now().checked_add(limit)),
        phase: Mutex::new("start".to_owned()),
        steps: Mutex::default(),
    });
    let (sender, receiver) = mpsc::channel();
    let work = Mutex::new(Some(work));
    std::thread::scope(|scope| {
        let spawned = STACK_BYTES.into_iter().find_map(|bytes| {
            let (context, sender, work) = (Arc::clone(&context), sender.clone(), &work);
            let body = move || {
                let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
                let result = work.map_or(Ok(()), |work| work(&context));
                // The main thread only stops listening when it ends the process.
                let _ = sender.send(result);
            };
            std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, body).ok()
        });
        drop(sender);
        let result = match spawned {
            Some(worker) => {
                let result = watch(&context, &receiver);
                // A panic is taken from the worker here, so that the scope does not raise it again.
                let _ = worker.join();
                result
            }
            None => Some(Err(Failure::usage("the system gives no thread to work on"))),
        };
        finish(&context, result, frame.file)
    })
}

/// Waits for the result; `None` where the worker panicked. Ends the process where the worker overstays.
fn watch(
    context: &Context,
    results: &mpsc::Receiver<Result<(), Failure>>,
) -> Option<Result<(), Failure>> {
    let start = Instant::now();
    let mut progress: Option<ProgressBar> = None;
    let draws = !context.talk.quiet && std::io::stderr().is_terminal();
    let result = loop {
        match results.recv_timeout(TICK) {
            Ok(result) => break Some(result),
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(deadline) = context.deadline {
            let now = Instant::now();
            if now >= deadline {
                context.cancel.cancel();
            }
            if now >= deadline + GRACE {
                memory::end(
                    &last_words(&context.time_message(), context.json),
                    i32::from(exit::LIMIT),
                );
            }
        }
        if draws && start.elapsed() >= PATIENCE {
            let bar = progress.get_or_insert_with(ProgressBar::new_spinner);
            bar.set_message(format!(
                "{} ({:.0} s)",
                context.phase_name(),
                start.elapsed().as_secs_f64()
            ));
            if let Some((done, all)) = context.steps() {
                if bar.length() != Some(all) {
                    bar.set_style(steps_style());
                    bar.set_length(all);
                }
                bar.set_position(done);
            }
            bar.tick();
        }
    };
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    result
}

/// How a phase with a known number of steps is drawn.
fn steps_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {msg} [{bar:30}] {pos}/{len}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn finish(context: &Context, result: Option<Result<(), Failure>>, file: Option<&Path>) -> u8 {
    let failure = match result {
        Some(Ok(())) => return exit::OK,
        Some(Err(failure)) => failure,
        None => {
            let line = crash::report(&context.phase_name(), file);
            console::note(&format!("error[bug]: {line}\n"));
            if context.json {
                let error =
                    json!({"exit": exit::BUG, "code": "bug", "message": line, "diagnostics": []});
                let _ = console::print(&format!("{}\n", json!({"schema": 1, "error": error})));
            }
            return exit::BUG;
        }
    };
    let code = failure.exit_code();
    // A run that was cancelled from here has no other reason than the time.
    if code == exit::LIMIT && context.cancel_was_ours() {
        memory::end(&last_words(&context.time_message(), context.json), i32::from(code));
    }
    console::note(&failure.text());
    if let Some(json) = failure.json().filter(|_| context.json) {
        let _ = console::print(&json);
    }
    code
}

fn set_memory_limit(frame: &Frame<'_>) {
    let asked = frame.limits.mem_limit;
    let limit = asked.or_else(machine_bytes).unwrap_or(usize::MAX);
    let whose = if asked.is_some() { "limit" } else { "machine's memory" };
    let size = match limit {
        0..1024 => format!("{limit} bytes"),
        1024..0x10_0000 => format!("{} KiB", limit >> 10),
        _ => format!("{} MiB", limit >> 20),
    };
    let message = format!("more memory is needed than the {whose} of {size}");
    memory::set_limit(limit, last_words(&message, frame.json));
}

fn last_words(message: &str, json: bool) -> LastWords {
    let error =
        json!({"exit": exit::LIMIT, "code": "limit", "message": message, "diagnostics": []});
    LastWords {
        text: format!("error[limit]: {message}\n"),
        json: json.then(|| format!("{}\n", json!({"schema": 1, "error": error}))),
    }
}

/// The memory of the machine or of the container that this runs in, where the system says.
fn machine_bytes() -> Option<usize> {
    let read = |path: &str| std::fs::read_to_string(PathBuf::from(path)).ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? << 10)
    });
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

impl Context {
    /// Says what is being done now, for the progress line, for `-v` and for crash reports.
    pub(super) fn enter(&self, phase: &str) {
        if self.talk.verbose {
            console::note(&format!("systole: {phase}\n"));
        }
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner) = None;
        phase.clone_into(&mut self.phase.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says how far a phase of many steps is.
    pub(super) fn progress(&self, done: usize, all: usize) {
        let steps = (done as u64, all as u64);
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner) = Some(steps);
    }

    fn steps(&self) -> Option<(u64, u64)> {
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the time is up.
    pub(super) fn is_over(&self) -> bool {
        self.cancel_was_ours()
    }

    /// Says something that is neither a result nor an error.
    pub(super) fn note(&self, text: &str) {
        if !self.talk.quiet {
            console::note(&format!("systole: {text}\n"));
        }
    }

    /// What ends this command's work early.
    pub(super) fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// When this command's work ends at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The limits of this command as those of a run.
    pub(super) fn run_options(&self) -> RunOptions {
        RunOptions {
            threads: None,
            pool: None,
            cancel: Some(self.cancel.clone()),
            deadline: self.deadline,
            memory_limit: self.limits.mem_limit,
        }
    }

    fn phase_name(&self) -> String {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the time is up.
    pub(super) fn cancel_was_ours(&self) -> bool {
        self.cancel.is_cancelled()
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn time_message(&self) -> String {
        let limit = self.limits.time_limit.unwrap_or_default();
        format!("the time limit of {limit:?} was reached in phase `{}`", self.phase_name())
    }
}
