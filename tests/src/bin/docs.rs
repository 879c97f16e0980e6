//! Writes the generated pages of `docs/`.
#![expect(clippy::print_stdout, reason = "a command says what it wrote")]

use systole_tests::{docs, workspace};

fn main() -> std::io::Result<()> {
    let folder = workspace().join("docs");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in docs::pages() {
        std::fs::write(folder.join(name), text)?;
        println!("docs/{name}");
    }
    Ok(())
}
