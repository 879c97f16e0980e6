//! Published measurements beside what the model predicts. A row of `validation/*.toml` says what was measured; its
//! schedule is a program in `schedules.rs`, written as the published code is.

pub mod build;
pub mod schedules;

use schedules::{Block, Shape, Sizes};
use std::fmt::Write as _;
use std::fs;
use systole_catalog::{Allowed, File};
use systole_compiler::types::DType;
use systole_systolic::check;
use systole_systolic::isa::Function;
use systole_systolic::machine::Machine;
use systole_systolic::program::Program;
use systole_systolic::simulate::{self, Mode, Options};

/// One published measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is called: its file and its table.
    pub name: String,
    /// What is run, in words.
    pub what: String,
    /// The machine.
    pub target: String,
    /// The schedule, by name.
    pub schedule: String,
    /// The published time; `None` where the answer is that it does not fit.
    pub published_us: Option<f64>,
    /// Where it was published.
    pub source: String,
    /// `documented` or `press`.
    pub mark: String,
    /// Whether a constant of the machine was fitted to it.
    pub is_fit: bool,
    /// What should be known beside the number.
    pub note: String,
}

/// What the model says to a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The time.
    Us(f64),
    /// That it does not fit, and why.
    DoesNotFit(String),
    /// Something else that is wrong.
    Failed(String),
}

impl Row {
    /// How far the prediction is from what was published, of what was published.
    pub fn error(&self, answer: &Answer) -> Option<f64> {
        match (answer, self.published_us) {
            (Answer::Us(us), Some(published)) => Some(us / published - 1.0),
            (Answer::Us(_) | Answer::DoesNotFit(_) | Answer::Failed(_), _) => None,
        }
    }
}

/// Every row, file by file.
pub fn rows() -> Result<Vec<Row>, String> {
    let folder = crate::data().join("validation");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    names.sort();
    let mut rows = Vec::new();
    for path in names {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.unwrap_or_default();
        // Files of other parts of the house have rows of other kinds.
        if !text.contains("schedule = ") {
            continue;
        }
        let name = path.display().to_string();
        let file =
            File::parse_with(&text, &name, &|_| None).map_err(|problems| problems.to_string())?;
        let top = file.read();
        let source = top.text("source").to_owned();
        let mark = top.text("mark").to_owned();
        for table in top.tables("row") {
            rows.push(Row {
                name: format!("{stem}/{}", table.text("name")),
                what: table.text("what").to_owned(),
                target: table.text("target").to_owned(),
                schedule: table.text("schedule").to_owned(),
                published_us: table.optional_number("published_us", Allowed::Between(0.0, 1e9)),
                source: source.clone(),
                mark: mark.clone(),
                is_fit: table.optional_flag("fit").unwrap_or(false),
                note: table.optional_text("note").unwrap_or_default().to_owned(),
            });
        }
        top.finish().map_err(|problems| problems.to_string())?;
    }
    Ok(rows)
}

/// The program of a schedule, by name.
pub fn program(schedule: &str) -> Option<Program> {
    let tutorial = |dtype| Sizes { dtype, m: 4096, k: 8192, n: 8192 };
    let (half, full) = (tutorial(DType::BF16), tutorial(DType::F32));
    let whole = Shape { k: 128, s: 128, m: 512 };
    let program = match schedule {
        "matmul-bf16-tiled" => schedules::tiled(half),
        "matmul-bf16-hoisted" => schedules::hoisted(half),
        "matmul-bf16-blocked" => schedules::blocked(half),
        "matmul-bf16-fully-blocked" => schedules::fully_blocked(half, Block { m: 16, n: 2, k: 8 }),
        "matmul-f32-tiled" => schedules::tiled(full),
        "matmul-f32-hoisted" => schedules::hoisted(full),
        "matmul-f32-blocked" => schedules::blocked(full),
        "matmul-f32-fully-blocked" => schedules::fully_blocked(full, Block { m: 8, n: 2, k: 4 }),
        "products-back-to-back" => schedules::back_to_back(&[whole], 2048),
        "products-mixed" => schedules::back_to_back(
            &[Shape { s: 32, ..whole }, Shape { m: 64, ..whole }, Shape { k: 32, ..whole }, whole],
            512,
        ),
        "copy-512" => schedules::stream_through(DType::BF16, (16, 512), false, None),
        "copy-2048" => schedules::stream_through(DType::BF16, (16, 2048), false, None),
        "silu" => schedules::stream_through(DType::F32, (32, 7168), true, Some(Function::Silu)),
        "rope" => schedules::rope(64, 4096, 128),
        "matmul-row-major" => {
            schedules::row_major(Sizes { dtype: DType::F32, m: 4096, k: 5120, n: 12288 })
        }
        "matmul-batched" => {
            schedules::batched(16, Sizes { dtype: DType::F32, m: 4096, k: 64, n: 4096 })
        }
        _ => return None,
    };
    Some(program)
}

/// What the model says to a row.
pub fn answer(row: &Row) -> Answer {
    let Some(mut program) = program(&row.schedule) else {
        return Answer::Failed(format!("there is no schedule `{}`", row.schedule));
    };
    let Some(machine) = Machine::preset(&row.target) else {
        return Answer::Failed(format!("there is no machine `{}`", row.target));
    };
    program.machine.clone_from(&row.target);
    let limits = check::Limits::of(&machine);
    if let Some(kernel) = program.kernels.iter().find(|k| k.sbuf_bytes > limits.sbuf_bytes) {
        let (needed, there) = (kernel.sbuf_bytes, limits.sbuf_bytes);
        return Answer::DoesNotFit(format!("{needed} of {there} bytes of each SBUF partition"));
    }
    if let Err(problems) = check::check(&program, &limits) {
        return Answer::Failed(problems.iter().map(|problem| format!("{problem}\n")).collect());
    }
    match simulate::run(&program, &machine, Mode::Time, &[], Options::default()) {
        Ok(report) => Answer::Us(report.time_us),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// Every row with its answer, as the page and the command show it.
pub fn table() -> Result<String, String> {
    let rows = rows()?;
    let mut text = String::from(
        "| measurement | machine | published us | predicted us | error | constants |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    let mut errors = Vec::new();
    for row in &rows {
        let answer = answer(row);
        let error = row.error(&answer);
        errors.extend(error.map(f64::abs));
        let published = row.published_us.map_or("does not fit".to_owned(), |us| format!("{us:.2}"));
        let predicted = match &answer {
            Answer::Us(us) => format!("{us:.2}"),
            Answer::DoesNotFit(why) => format!("does not fit: {why}"),
            Answer::Failed(why) => format!("failed: {why}"),
        };
        let error = error.map_or(String::new(), |error| format!("{:+.1} %", 100.0 * error));
        let fit = if row.is_fit { "fitted" } else { "predicted" };
        writeln!(
            text,
            "| {}: {} | {} | {published} | {predicted} | {error} | {fit} |",
            row.name, row.what, row.target
        )
        .map_err(|error| error.to_string())?;
    }
    errors.sort_by(f64::total_cmp);
    if let (Some(median), Some(most)) = (errors.get(errors.len() / 2), errors.last()) {
        write!(
            text,
            "\nMedian error {:.1} %, largest {:.1} %, over {} times.\n",
            100.0 * median,
            100.0 * most,
            errors.len()
        )
        .map_err(|error| error.to_string())?;
    }
    let notes: Vec<&Row> = rows.iter().filter(|row| !row.note.is_empty()).collect();
    if !notes.is_empty() {
        text.push('\n');
    }
    for row in notes {
        writeln!(text, "- {}: {}", row.name, row.note).map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// The generated page of `docs/`.
pub fn page() -> String {
    let table = table().unwrap_or_else(|error| format!("{error}\n"));
    format!(
        "# Validation: the chip\n\nPublished times of kernels on one core, and what the model predicts for them. `cargo run -p systole-tests --bin validation` \
         prints the same.\n\nThe rows are in `tests/validation/*.toml`, with their sources. Each schedule is a program, \
         instruction by instruction as\nthe published code has it: `tests/validation/SCHEDULE.asm`, which \
         `systole profile` takes too. Where a constant of\n`targets/systolic/machines/` was fitted to a measurement, its row says so; \
         the rest is predicted. Nothing is fitted row by\nrow.\n\n{table}"
    )
}

/// The assembly texts of all schedules that rows name, by file name: `tests/validation` holds them.
pub fn texts() -> Result<Vec<(String, String)>, String> {
    let mut texts = Vec::new();
    for row in rows()? {
        let name = format!("{}.asm", row.schedule);
        let Some(mut program) = program(&row.schedule) else { continue };
        program.machine = row.target;
        if texts.iter().all(|(known, _)| *known != name) {
            texts.push((name, systole_systolic::asm::print(&program)));
        }
    }
    Ok(texts)
}
