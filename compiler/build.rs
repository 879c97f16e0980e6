//! Generates the parsers from every `.lalrpop` file under `src`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The directives that lalrpop emits name the files there are; a new one shows in its folder.
    println!("cargo::rerun-if-changed=src/text");
    println!("cargo::rerun-if-changed=src/kernel/text");
    lalrpop::Configuration::new().use_cargo_dir_conventions().emit_rerun_directives(true).process()
}
