//! Language models from their `config.json`, where a verb takes a model: prefill of `tokens`.

use super::failure::Failure;
use systole::{Code, Error, ErrorKind, Model, data};
use systole_compiler::import::llm::{self, Config, Options, Workload};

/// What `--dim` can say of a configuration.
const SIZES: [&str; 3] = ["batch", "tokens", "layers"];

/// Whether the file is a configuration.
pub(super) fn is_config(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The model of a configuration with the sizes that `dims` give: sequences in a batch, tokens of each (2048), and layers
/// other than the configuration's.
pub(super) fn model(path: &std::path::Path, dims: &[(String, usize)]) -> Result<Model, Failure> {
    if let Some((name, _)) = dims.iter().find(|(name, _)| !SIZES.contains(&name.as_str())) {
        return Err(Failure::usage_with_help(
            format!("a configuration has no size `{name}`"),
            format!("use --dim with {}", SIZES.join(", ")),
        ));
    }
    let size = |name: &str| dims.iter().rev().find(|(own, _)| own == name).map(|&(_, size)| size);
    let text = data::read_text(path)?;
    let file = path.display().to_string();
    let wrong = |message: String| {
        let error = Error::new(ErrorKind::Program, Code::Input, message);
        Failure::Library(error.in_file(&file, None))
    };
    let mut config = Config::parse(&text).map_err(|error| wrong(error.to_string()))?;
    if let Some(layers) = size("layers") {
        config.layers = layers;
    }
    let batch = size("batch").unwrap_or(1);
    let tokens = size("tokens").unwrap_or(2048);
    let workload = Workload::Prefill { batch, tokens };
    let graph = llm::build(&config, &Options::new(&config, workload))
        .map_err(|error| wrong(error.to_string()))?;
    Ok(Model::from_graph(&file, graph))
}
