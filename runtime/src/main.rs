//! The binary `systole`: see `systole --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
