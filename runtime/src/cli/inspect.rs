//! `systole inspect`: what a file holds.

use super::args::InspectArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::session::{self, Loaded};
use super::show;
use serde_json::{Value, json};
use std::path::Path;
use systole::data::{self, Array, Bundle, Stored};
use systole::{Model, Port, SavedProgram, Tensor};

pub(super) fn inspect(context: &Context, args: &InspectArgs) -> Result<(), Failure> {
    let extension = args.file.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("npz") => bundle(context, &args.file),
        Some("npy" | "pb") => array(context, &args.file),
        _ => match session::load_any(context, &args.file)? {
            Loaded::Model(loaded) => model(context, &loaded),
            Loaded::Program(saved) => program(context, &saved),
        },
    }
}

fn model(context: &Context, model: &Model) -> Result<(), Failure> {
    let contents = model.contents();
    let signature = model.signature();
    if context.json {
        let object = json!({
            "schema": 1,
            "file": model.name(),
            "format": contents.format,
            "producer": contents.producer,
            "opsets": contents.opsets.iter().map(|(domain, version)| json!({"domain": domain, "version": version})).collect::<Vec<_>>(),
            "inputs": ports(&signature.inputs),
            "outputs": ports(&signature.outputs),
            "weights": contents.weights,
            "operators": contents.operators.iter().map(|op| json!({"name": op.name, "count": op.count})).collect::<Vec<_>>(),
        });
        return console::print(&format!("{object}\n"));
    }
    let mut rows = vec![vec!["format".to_owned(), contents.format.to_owned()]];
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    if !contents.producer.is_empty() {
        row("producer", contents.producer);
    }
    for (domain, version) in contents.opsets {
        row("opset", format!("{domain} {version}"));
    }
    for port in &signature.inputs {
        row("input", port.to_string());
    }
    for port in &signature.outputs {
        row("output", port.to_string());
    }
    row("weights", contents.weights.to_string());
    for op in contents.operators {
        row("nodes", format!("{:>5}  {}", op.count, op.name));
    }
    console::print(&show::table(&rows))
}

fn program(context: &Context, saved: &SavedProgram) -> Result<(), Failure> {
    let signature = saved.signature();
    let (weights, bytes) = saved.weights();
    if context.json {
        let object = json!({
            "schema": 1,
            "file": saved.name(),
            "format": "program",
            "producer": saved.producer(),
            "cpu": saved.cpu(),
            "inputs": ports(&signature.inputs),
            "outputs": ports(&signature.outputs),
            "weights": weights,
            "weight_bytes": bytes,
            "kernels": saved.kernels(),
        });
        return console::print(&format!("{object}\n"));
    }
    let mut rows = vec![vec!["format".to_owned(), "program".to_owned()]];
    let mut row = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    row("producer", saved.producer().to_owned());
    row("cpu", saved.cpu().unwrap_or("none").to_owned());
    for port in &signature.inputs {
        row("input", port.to_string());
    }
    for port in &signature.outputs {
        row("output", port.to_string());
    }
    row("weights", format!("{weights}, {bytes} bytes"));
    row("kernels", saved.kernels().to_string());
    console::print(&show::table(&rows))
}

fn ports(ports: &[Port]) -> Vec<Value> {
    ports.iter().map(|port| json!({"name": port.name, "type": port.type_text()})).collect()
}

fn bundle(context: &Context, path: &Path) -> Result<(), Failure> {
    let mut bundle = Bundle::open(path)?;
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    for name in bundle.names().to_vec() {
        let array = bundle.read(&name)?;
        objects.push(object(&name, &array));
        rows.push(line(&name, array)?);
    }
    if context.json {
        return console::print(&format!("{}\n", json!({"schema": 1, "arrays": objects})));
    }
    console::print(&rows.concat())
}

fn array(context: &Context, path: &Path) -> Result<(), Failure> {
    let array = data::read(path, None)?;
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("array");
    if context.json {
        let objects = [object(name, &array)];
        return console::print(&format!("{}\n", json!({"schema": 1, "arrays": objects})));
    }
    console::print(&line(name, array)?)
}

fn line(name: &str, array: Array) -> Result<String, Failure> {
    Ok(match array.element {
        Stored::Known(_) => {
            let tensor: Tensor = array.into_tensor(None)?;
            format!("{}\n", show::tensor_line(name, &tensor))
        }
        Stored::Raw(bytes) => {
            format!("{name}: raw elements of {bytes} bytes, shape {:?}\n", array.shape)
        }
    })
}

fn object(name: &str, array: &Array) -> Value {
    let dtype = match array.element {
        Stored::Known(dtype) => Some(dtype.name()),
        Stored::Raw(_) => None,
    };
    json!({"name": name, "dtype": dtype, "shape": array.shape})
}
