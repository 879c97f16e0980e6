//! How fast the simulator is: every published schedule, instruction by instruction and with steady loops skipped.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::process::ExitCode;
use std::time::Instant;
use systole_systolic::machine::Machine;
use systole_systolic::simulate::{self, Mode, Options, Report};
use systole_tests::validation;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), String> {
    println!(
        "schedule                          instructions   ms one by one   million/s   ms skipped"
    );
    let (mut all, mut seconds) = (0, 0.0);
    let mut seen: Vec<String> = Vec::new();
    for row in validation::rows()? {
        if seen.contains(&row.schedule) {
            continue;
        }
        let program = validation::program(&row.schedule);
        let program = program.ok_or_else(|| format!("there is no schedule `{}`", row.schedule))?;
        if row.published_us.is_none() {
            continue;
        }
        let machine = Machine::preset(&row.target);
        let machine = machine.ok_or_else(|| format!("there is no machine `{}`", row.target))?;
        let timed = |skip: bool| -> Result<(Report, f64), String> {
            let options = Options { skip, ..Options::default() };
            let start = Instant::now();
            let report = simulate::run(&program, &machine, Mode::Time, &[], options)
                .map_err(|error| error.to_string())?;
            Ok((report, start.elapsed().as_secs_f64()))
        };
        let ((slow, one_by_one), (fast, skipped)) = (timed(false)?, timed(true)?);
        if slow != fast {
            return Err(format!("{}: skipping changes the report", row.schedule));
        }
        all += slow.instructions;
        seconds += one_by_one;
        println!(
            "{:32} {:13} {:15.2} {:11.2} {:12.2}",
            row.schedule,
            slow.instructions,
            one_by_one * 1e3,
            slow.instructions as f64 / one_by_one / 1e6,
            skipped * 1e3
        );
        seen.push(row.schedule);
    }
    println!(
        "all: {:.2} million instructions a second without skipping",
        all as f64 / seconds / 1e6
    );
    Ok(())
}
