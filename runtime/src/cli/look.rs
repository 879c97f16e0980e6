//! Looking inside a compilation: prints, dumps, stops and bisects, as the flags say.

use super::args::LookArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use std::path::PathBuf;
use std::time::Instant;
use systole::{Cancel, data};
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::pass::{Changed, Declined};
use systole_compiler::passes::{GRAPH_PASSES, KERNEL_PASSES, MODULE_PASSES};
use systole_compiler::pipeline::{self, Go, Level, Observer};

/// An observer with the wishes of the command line.
#[derive(Debug)]
pub(super) struct Look {
    print_after: Option<String>,
    print_changed: bool,
    dump_dir: Option<PathBuf>,
    bisect_limit: Option<usize>,
    verify: bool,
    explain: bool,
    verbose: bool,
    stop_after: Option<String>,
    ran: usize,
    optional: usize,
    start: Instant,
    cancel: Cancel,
    deadline: Option<Instant>,
    /// The text after the pass that was to be the last.
    pub(super) stopped: Option<String>,
}

impl Look {
    /// Whether any flag wants to look.
    pub(super) fn is_asked(args: &LookArgs) -> bool {
        Look::first_flag(args).is_some()
    }

    /// The first flag that is given.
    pub(super) fn first_flag(args: &LookArgs) -> Option<&'static str> {
        let flags = [
            ("--print-after", args.print_after.is_some()),
            ("--print-changed", args.print_changed),
            ("--dump-dir", args.dump_dir.is_some()),
            ("--bisect-limit", args.bisect_limit.is_some()),
            ("--verify", args.verify),
            ("--explain", args.explain),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }

    /// An observer for one compilation. Patterns that match no pass are refused.
    pub(super) fn new(
        context: &Context,
        args: &LookArgs,
        stop_after: Option<&str>,
    ) -> Result<Look, Failure> {
        if let Some(pattern) = &args.print_after
            && !pass_names().any(|name| matches(pattern, name))
        {
            return Err(no_pass(pattern));
        }
        if let Some(name) = stop_after
            && !pass_names().any(|known| known == name)
        {
            return Err(no_pass(name));
        }
        if let Some(folder) = &args.dump_dir {
            std::fs::create_dir_all(folder).map_err(|error| {
                Failure::usage(format!("cannot make the folder {}: {error}", folder.display()))
            })?;
        }
        Ok(Look {
            print_after: args.print_after.clone(),
            print_changed: args.print_changed,
            dump_dir: args.dump_dir.clone(),
            bisect_limit: args.bisect_limit,
            verify: args.verify,
            explain: args.explain,
            verbose: context.talk.verbose,
            stop_after: stop_after.map(str::to_owned),
            ran: 0,
            optional: 0,
            start: Instant::now(),
            cancel: context.cancel(),
            deadline: context.deadline(),
            stopped: None,
        })
    }

    /// Whether the command's time is up.
    pub(super) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    fn dump(&self, pass: &str, text: &str) -> Result<(), Diagnostics> {
        let Some(folder) = &self.dump_dir else { return Ok(()) };
        let name = format!("{:03}.{}.tir", self.ran, data::file_stem(pass));
        data::write_text(&folder.join(name), text)
            .map_err(|error| Diagnostics(error.diagnostics().to_vec()))
    }
}

impl Observer for Look {
    fn before(&mut self, _level: &'static str, pass: &'static str) -> Go {
        if self.stopped.is_some() || self.is_over() {
            return Go::Stop;
        }
        if !is_required(pass) {
            self.optional += 1;
            if self.bisect_limit.is_some_and(|limit| self.optional > limit) {
                return Go::Skip;
            }
            if self.bisect_limit == Some(self.optional) {
                console::note(&format!("systole: the last optional pass that runs is {pass}\n"));
            }
        }
        self.start = Instant::now();
        Go::Run
    }

    fn after(
        &mut self,
        pass: &'static str,
        changed: Changed,
        level: Level<'_>,
        declined: &[Declined],
    ) -> Result<(), Diagnostics> {
        let milliseconds = self.start.elapsed().as_secs_f64() * 1e3;
        self.ran += 1;
        let changed = changed == Changed::Yes;
        if self.verbose {
            let effect = if changed { "" } else { ", no change" };
            console::note(&format!("systole:   {pass} {milliseconds:.2} ms{effect}\n"));
        }
        if self.explain {
            for Declined { place, reason, .. } in declined {
                console::note(&format!("{pass}: {place}: {reason}\n"));
            }
        }
        let is_last = self.stop_after.as_deref() == Some(pass);
        let prints = self.print_after.as_ref().is_some_and(|pattern| matches(pattern, pass))
            || (self.print_changed && changed);
        if prints || is_last || self.dump_dir.is_some() {
            let text = level_text(level);
            self.dump(pass, &text)?;
            if prints {
                console::note(&format!("// after {pass} ({})\n{text}\n", level.name()));
            }
            if is_last {
                self.stopped = Some(text);
            }
        }
        if self.verify { verify(pass, level) } else { Ok(()) }
    }
}

/// The text of a whole level.
pub(super) fn level_text(level: Level<'_>) -> String {
    match level {
        Level::Graph(graph) => graph.to_string(),
        Level::Kernels(module) | Level::Module(module) => module.to_string(),
    }
}

/// What a pass broke is a bug of ours, and the reproducer names the pass.
fn verify(pass: &str, level: Level<'_>) -> Result<(), Diagnostics> {
    let result = match level {
        Level::Graph(graph) => systole_compiler::verify::graph(graph),
        Level::Kernels(module) | Level::Module(module) => systole_compiler::module::verify(module),
    };
    match result {
        Ok(()) => Ok(()),
        Err(problems) => panic!("the program is not valid after pass `{pass}`: {problems}"),
    }
}

/// Passes without which nothing can be lowered or run.
fn is_required(pass: &str) -> bool {
    let of_graphs = GRAPH_PASSES.iter().any(|known| known.name == pass);
    let optional = (of_graphs && !pipeline::NONE.contains(&pass)) || pass == "layout";
    !optional
}

fn pass_names() -> impl Iterator<Item = &'static str> {
    let graph = GRAPH_PASSES.iter().map(|pass| pass.name);
    let kernel = KERNEL_PASSES.iter().map(|pass| pass.name);
    let module = MODULE_PASSES.iter().map(|pass| pass.name);
    graph.chain(["lower"]).chain(kernel).chain(module)
}

fn no_pass(name: &str) -> Failure {
    let known: Vec<&str> = pass_names().collect();
    Failure::usage_with_help(
        format!("no pass is called `{name}`"),
        format!("the passes are {}", known.join(", ")),
    )
}

/// Whether a name is of the pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("fuse", "fuse", true),
            ("fuse", "fuser", false),
            ("*", "fuse", true),
            ("*-*", "drop-dead", true),
            ("drop*", "drop-dead", true),
            ("*fold", "drop-dead", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
