//! Our own bugs: a panic becomes exit code 70, one line, and a file from which it can be reproduced.

use std::backtrace::Backtrace;
use std::fmt::Write;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

static FIRST: Mutex<Option<Crash>> = Mutex::new(None);

struct Crash {
    message: String,
    place: String,
    backtrace: String,
}

/// Keeps what the first panic says, and prints nothing.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(describe(info));
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> Crash {
    let message = info.payload_as_str().unwrap_or("a panic without words").to_owned();
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    Crash { message, place, backtrace: Backtrace::force_capture().to_string() }
}

/// Writes the file and gives the line that names it.
pub(super) fn report(phase: &str, model: Option<&Path>) -> String {
    let crash = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
    let crash = crash.unwrap_or_else(|| Crash {
        message: "a thread ended without words".to_owned(),
        place: "an unknown place".to_owned(),
        backtrace: String::new(),
    });
    let summary = format!("internal error in phase `{phase}`: {} ({})", crash.message, crash.place);
    let first_line = summary.lines().next().unwrap_or_default().to_owned();
    match write_reproducer(&summary, &crash, model) {
        Some(path) => format!("{first_line}; this is a bug, reproduce it with {}", path.display()),
        None => format!("{first_line}; this is a bug, and no file could be written about it"),
    }
}

/// One text file with everything that is known; a small model is put beside it, so that both can be sent.
fn write_reproducer(summary: &str, crash: &Crash, model: Option<&Path>) -> Option<PathBuf> {
    const SMALL: u64 = 64 << 20;
    let arguments: Vec<String> = std::env::args().map(|argument| format!("{argument:?}")).collect();
    let name = format!("systole-crash-{:08x}", fingerprint(&[&crash.place, &arguments.join(" ")]));
    let folders = [PathBuf::new(), std::env::temp_dir()];
    folders.into_iter().find_map(|folder| {
        let mut text = format!(
            "systole {}\n{summary}\n\ncommand: {}\n",
            env!("CARGO_PKG_VERSION"),
            arguments.join(" ")
        );
        if let Some(model) = model
            && std::fs::metadata(model)
                .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= SMALL)
        {
            let extension =
                model.extension().and_then(|extension| extension.to_str()).unwrap_or("model");
            let copy = folder.join(format!("{name}.{extension}"));
            if std::fs::copy(model, &copy).is_ok() {
                let _ =
                    writeln!(text, "model: {} (copied from {})", copy.display(), model.display());
            }
        }
        let _ = write!(text, "\n{}", crash.backtrace);
        let path = folder.join(format!("{name}.txt"));
        std::fs::write(&path, text).ok().map(|()| path)
    })
}

/// The same crash of the same command gets the same name. FNV-1a.
fn fingerprint(texts: &[&str]) -> u32 {
    let bytes = texts.iter().flat_map(|text| text.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
