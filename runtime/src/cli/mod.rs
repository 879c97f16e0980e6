//! The command line tool: reads arguments, calls the library, prints.

mod args;
mod bench;
mod check;
mod claims;
mod collective;
mod compare;
mod compile;
mod config;
mod console;
mod crash;
mod diff;
mod failure;
mod guard;
mod inspect;
mod list;
mod look;
mod memory;
mod opt;
mod plan;
mod profile;
mod run;
mod session;
mod show;
mod spec;
mod timeline;
mod topology;

use args::{Command, CommonArgs, LimitArgs, TalkArgs, Verb};
use clap::Parser;
use clap::error::ErrorKind;
use failure::{Failure, exit};
use guard::{Context, Frame, guarded};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Does what the arguments say and gives the exit code.
pub(super) fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => return ExitCode::from(not_parsed(&error)),
    };
    ExitCode::from(dispatch(&command.verb))
}

fn dispatch(verb: &Verb) -> u8 {
    match verb {
        Verb::Run(args) => guarded(
            common(&args.common, Some(&args.model.model)),
            Box::new(|context| run::run(context, args)),
        ),
        Verb::Bench(args) => guarded(
            common(&args.common, Some(&args.model.model)),
            Box::new(|context| bench::bench(context, args)),
        ),
        Verb::Check(args) => guarded(
            common(&args.common, Some(&args.model.model)),
            Box::new(|context| check::check(context, args)),
        ),
        Verb::Profile(args) => guarded(
            common(&args.common, Some(&args.model)),
            Box::new(|context| profile::profile(context, args)),
        ),
        Verb::Compile(args) => {
            let frame = common(&args.common, Some(&args.model.model));
            guarded(frame, Box::new(|context| compile::compile(context, args)))
        }
        Verb::Opt(args) => {
            let frame =
                Frame { limits: args.limits, talk: args.talk, json: false, file: Some(&args.file) };
            guarded(frame, Box::new(|context| opt::opt(context, args)))
        }
        Verb::Diff(args) => guarded(
            common(&args.common, Some(&args.model)),
            Box::new(|context| diff::diff(context, args)),
        ),
        Verb::Inspect(args) => guarded(
            common(&args.common, Some(&args.file)),
            Box::new(|context| inspect::inspect(context, args)),
        ),
        Verb::Collective(args) => guarded(
            common(&args.common, None),
            Box::new(|context| collective::collective(context, args)),
        ),
        Verb::Plan(args) => guarded(
            common(&args.common, Some(&args.config)),
            Box::new(|context| plan::plan(context, args)),
        ),
        Verb::Claims(args) => plain(args.json, Box::new(|_| claims::claims(args))),
        Verb::List(args) => plain(args.json, Box::new(|_| list::list(args))),
        Verb::Explain(args) => plain(false, Box::new(|_| list::explain(args))),
    }
}

type Work<'a> = Box<dyn FnOnce(&Context) -> Result<(), Failure> + Send + 'a>;

/// A verb that reads no files.
fn plain(json: bool, work: Work<'_>) -> u8 {
    let limits = LimitArgs { time_limit: None, mem_limit: None };
    let talk = TalkArgs { verbose: false, quiet: false };
    guarded(Frame { limits, talk, json, file: None }, work)
}

fn common<'a>(args: &CommonArgs, file: Option<&'a Path>) -> Frame<'a> {
    Frame { limits: args.limits, talk: args.talk, json: args.json, file }
}

/// Help and version go to standard output and are no failure; everything else that clap says is.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other kind of the parser's is a mistake in the arguments"
)]
fn not_parsed(error: &clap::Error) -> u8 {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = console::print(&text.to_string());
            exit::OK
        }
        _ => {
            console::note(&text.to_string());
            // clap has not parsed the flags, so the wish for JSON is looked for by hand.
            if std::env::args().any(|argument| argument == "--json") {
                let message = text.to_string();
                let first =
                    message.lines().next().unwrap_or_default().trim_start_matches("error: ");
                let error = json!({"exit": exit::USAGE, "code": "usage", "message": first, "diagnostics": []});
                let _ = console::print(&format!("{}\n", json!({"schema": 1, "error": error})));
            }
            exit::USAGE
        }
    }
}
