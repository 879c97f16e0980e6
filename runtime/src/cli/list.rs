//! `systole list` and `systole explain`: tables that come from the code itself.

use super::args::{ExplainArgs, ListArgs, Table};
use super::console;
use super::failure::Failure;
use super::show;
use serde_json::{Value, json};
use systole::{Code, DType, Target};
use systole_compiler::op;
use systole_compiler::passes::{GRAPH_PASSES, KERNEL_PASSES, MODULE_PASSES};
use systole_compiler::scalar::ScalarFn;
use systole_interconnect::algorithms::{ALGORITHMS, HIERARCHICAL, HIERARCHICAL_SUMMARY};
use systole_interconnect::{PRESETS, System};

/// A table with a name for each column.
struct Rows {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

pub(super) fn list(args: &ListArgs) -> Result<(), Failure> {
    let Rows { columns, rows } = rows(args.what);
    if args.json {
        let objects: Vec<Value> = rows
            .into_iter()
            .map(|row| {
                columns
                    .iter()
                    .map(|column| (*column).to_owned())
                    .zip(row.into_iter().map(Value::from))
                    .collect()
            })
            .map(Value::Object)
            .collect();
        return console::print(&format!("{}\n", json!({"schema": 1, "rows": objects})));
    }
    console::print(&show::table(&rows))
}

pub(super) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let found = Code::CATALOG.iter().find(|(_, name, _)| *name == args.code);
    let (_, name, text) = found.ok_or_else(|| {
        let known: Vec<&str> = Code::CATALOG.iter().map(|(_, name, _)| *name).collect();
        Failure::usage_with_help(
            format!("there is no code `{}`", args.code),
            format!("the codes are {}", known.join(", ")),
        )
    })?;
    console::print(&format!("{name}\n\n{}", doc(text)))
}

fn rows(table: Table) -> Rows {
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<String>>();
    match table {
        Table::Passes => {
            let graph = GRAPH_PASSES.iter().map(|pass| row(&[pass.name, "graph", pass.summary]));
            let kernel =
                KERNEL_PASSES.iter().map(|pass| row(&[pass.name, "kernels", pass.summary]));
            let module = MODULE_PASSES.iter().map(|pass| row(&[pass.name, "module", pass.summary]));
            Rows {
                columns: &["name", "level", "summary"],
                rows: graph.chain(kernel).chain(module).collect(),
            }
        }
        Table::Ops => Rows {
            columns: &["name", "kind", "summary"],
            rows: op::CATALOG
                .iter()
                .map(|(name, kind, text, _)| {
                    row(&[name, &format!("{kind:?}").to_lowercase(), first_line(text)])
                })
                .collect(),
        },
        Table::Targets => Rows {
            columns: &["name", "summary"],
            rows: Target::CATALOG
                .iter()
                .map(|target| row(&[target.name, target.summary]))
                .collect(),
        },
        Table::Systems => Rows {
            columns: &["name", "chips", "summary"],
            rows: PRESETS
                .iter()
                .filter_map(|preset| System::named(preset.name, &[])?.ok())
                .map(|system| row(&[&system.name, &system.chips().to_string(), &system.summary]))
                .collect(),
        },
        Table::Algorithms => Rows {
            columns: &["name", "summary"],
            rows: ALGORITHMS
                .iter()
                .map(|algorithm| row(&[algorithm.name, algorithm.summary]))
                .chain([row(&[HIERARCHICAL, HIERARCHICAL_SUMMARY])])
                .collect(),
        },
        Table::Functions => Rows {
            columns: &["name", "summary"],
            rows: ScalarFn::CATALOG
                .iter()
                .map(|(function, text)| row(&[function.name(), first_line(text)]))
                .collect(),
        },
        Table::Codes => Rows {
            columns: &["name", "summary"],
            rows: Code::CATALOG
                .iter()
                .map(|(_, name, text)| row(&[name, first_line(text)]))
                .collect(),
        },
        Table::Dtypes => Rows {
            columns: &["name", "bits", "class"],
            rows: DType::ALL
                .iter()
                .map(|dtype| {
                    let class = format!("{:?}", dtype.class()).to_lowercase();
                    row(&[dtype.name(), &dtype.bits().to_string(), &class])
                })
                .collect(),
        },
    }
}

/// The first line of a doc comment.
fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

/// A doc comment without the space that stands before each line.
fn doc(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}
