//! The classic systolic array as one more machine: R × C cells and nothing else, as SCALE-Sim models it, so that its users
//! can compare. Cycles of a layer are a closed form; there are no engines, memories or stalls.

use systole_catalog::{Allowed, File, Problems};

/// What stays in the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataflow {
    /// The weights.
    WeightStationary,
    /// The results.
    OutputStationary,
}

/// An array.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicArray {
    /// What it is called.
    pub name: String,
    /// What it is, for reports.
    pub title: String,
    /// Rows of cells.
    pub rows: u64,
    /// Columns of cells.
    pub columns: u64,
    /// What stays in the cells.
    pub dataflow: Dataflow,
    /// The clock, for times: cycles do not depend on it.
    pub clock_ghz: f64,
}

/// A product of an M × K by a K × N matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The name.
    pub name: String,
    /// Rows of the result.
    pub m: u64,
    /// Columns of the result.
    pub n: u64,
    /// What is summed.
    pub k: u64,
}

/// What a layer takes.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerReport {
    /// The layer.
    pub layer: Layer,
    /// Cycles.
    pub cycles: u64,
    /// Multiplications that the cells do, of those that they could do.
    pub utilization: f64,
}

/// The arrays that come with the compiler, by name.
pub const ARRAYS: &[(&str, &str)] = &[
    ("array-128x128", include_str!("../machines/array-128x128.toml")),
    ("array-128x128-os", include_str!("../machines/array-128x128-os.toml")),
];

/// No larger arrays, and no larger layers, so that the formulas do not overflow.
const MAX_SIDE: i64 = 1 << 20;
const MAX_EXTENT: u64 = 1 << 40;

impl ClassicArray {
    /// An array that comes with the compiler.
    pub fn preset(name: &str) -> Option<ClassicArray> {
        let (_, text) = ARRAYS.iter().find(|(known, _)| *known == name)?;
        Some(ClassicArray::with_settings(text, name, &[]).expect("the tests read every preset"))
    }

    /// Whether a description file is one of an array: those state `kind = "array"`.
    pub fn describes(file: &File) -> bool {
        let reader = file.read();
        reader.optional_text("kind") == Some("array")
    }

    /// The array of a description file with some values replaced, each written `key=value`.
    pub fn with_settings(
        text: &str,
        name: &str,
        settings: &[&str],
    ) -> Result<ClassicArray, Problems> {
        let preset = |name: &str| {
            let found = ARRAYS.iter().find(|(known, _)| *known == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        let mut file = File::parse_with(text, name, &preset)?;
        for setting in settings {
            file.set(setting)?;
        }
        ClassicArray::from_file(&file)
    }

    /// The array that a parsed description says.
    pub fn from_file(file: &File) -> Result<ClassicArray, Problems> {
        let top = file.read();
        top.choice("kind", &["array"]);
        let side = |key| u64::try_from(top.integer(key, 1..=MAX_SIDE)).unwrap_or(1);
        let array = ClassicArray {
            name: top.text("name").to_owned(),
            title: top.text("title").to_owned(),
            rows: side("row_count"),
            columns: side("column_count"),
            dataflow: match top.choice("dataflow", &["weight-stationary", "output-stationary"]) {
                0 => Dataflow::WeightStationary,
                _ => Dataflow::OutputStationary,
            },
            clock_ghz: top.number("clock_ghz", Allowed::Between(1e-6, 1e6)),
        };
        top.finish()?;
        Ok(array)
    }

    /// The cycles of a layer: for each part that fits the array, its fill and what streams through; the last part ends one
    /// cycle early with weights in the cells.
    pub fn cycles(&self, layer: &Layer) -> u64 {
        let Layer { m, n, k, .. } = layer;
        let (rows, columns) = (u128::from(self.rows), u128::from(self.columns));
        let (m, n, k) = (u128::from(*m), u128::from(*n), u128::from(*k));
        if m == 0 || n == 0 || k == 0 {
            return 0;
        }
        let cycles = match self.dataflow {
            Dataflow::WeightStationary => {
                k.div_ceil(rows) * n.div_ceil(columns) * (2 * rows + columns + m - 2) - 1
            }
            Dataflow::OutputStationary => {
                m.div_ceil(rows) * n.div_ceil(columns) * (k + rows + columns - 2) - 1
            }
        };
        u64::try_from(cycles).unwrap_or(u64::MAX)
    }

    /// What a layer takes.
    pub fn report(&self, layer: &Layer) -> LayerReport {
        let cycles = self.cycles(layer);
        let work = layer.m as f64 * layer.n as f64 * layer.k as f64;
        let cells = self.rows as f64 * self.columns as f64;
        let utilization = if cycles == 0 { 0.0 } else { work / (cells * cycles as f64) };
        LayerReport { layer: layer.clone(), cycles, utilization }
    }
}

/// The layers of a SCALE-Sim topology: convolutions (`name, ifmap height, ifmap width, filter height, filter width,
/// channels, filters, stride`, with an optional second stride) or products (`name, M, N, K`). Further columns are ignored. All
/// that is wrong is told, with its line.
pub fn read_topology(text: &str) -> Result<Vec<Layer>, Vec<String>> {
    const MAX_BYTES: usize = 16 << 20;
    if text.len() > MAX_BYTES {
        return Err(vec![format!(
            "the topology has {} bytes; at most {MAX_BYTES} are read",
            text.len()
        )]);
    }
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let Some((_, header)) = lines.next() else {
        return Err(vec!["the topology is empty".to_owned()]);
    };
    let titles: Vec<String> = header.split(',').map(|title| title.trim().to_lowercase()).collect();
    let product = ["m", "n", "k"]
        .iter()
        .enumerate()
        .all(|(at, name)| titles.get(at + 1).is_some_and(|title| title == name));
    let convolution = titles.get(1).is_some_and(|title| title.starts_with("ifmap"));
    if !product && !convolution {
        return Err(vec![format!(
            "line 1: `{header}` is neither `Layer, M, N, K` nor `Layer, IFMAP Height, IFMAP Width, …`"
        )]);
    }
    // A column for what was measured may follow; a second stride is one only if its title says so.
    let second = titles.get(8).is_some_and(|title| title.contains("stride"));
    let (mut layers, mut problems) = (Vec::new(), Vec::new());
    for (at, line) in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let wanted = if product { 4 } else { 8 };
        if cells.len() < wanted {
            problems.push(format!(
                "line {}: {} columns, but {wanted} are needed",
                at + 1,
                cells.len()
            ));
            continue;
        }
        let mut number =
            |column: usize| -> u64 {
                match cells[column].parse::<u64>() {
                    Ok(value) if (1..=MAX_EXTENT).contains(&value) => value,
                    Ok(_) | Err(_) => {
                        problems.push(format!(
                        "line {}: `{}` in column {} is not a whole number from 1 to {MAX_EXTENT}",
                        at + 1, cells[column], column + 1
                    ));
                        1
                    }
                }
            };
        let name = cells[0].to_owned();
        let layer = if product {
            Layer { name, m: number(1), n: number(2), k: number(3) }
        } else {
            let [height, width, rows, columns] = [1, 2, 3, 4].map(&mut number);
            let [channels, filters, down] = [5, 6, 7].map(&mut number);
            let across = if second { number(8) } else { down };
            if rows > height || columns > width {
                problems.push(format!(
                    "line {}: a filter of {rows} × {columns} is larger than its input of {height} × {width}",
                    at + 1
                ));
                continue;
            }
            // As there, the number of positions is rounded up.
            let positions =
                |extent: u64, filter: u64, stride: u64| (extent - filter + stride).div_ceil(stride);
            let m = positions(height, rows, down).checked_mul(positions(width, columns, across));
            let k = rows.checked_mul(columns).and_then(|area| area.checked_mul(channels));
            match (m, k) {
                (Some(m), Some(k)) if m <= MAX_EXTENT && k <= MAX_EXTENT => {
                    Layer { name, m, n: filters, k }
                }
                _ => {
                    problems
                        .push(format!("line {}: the layer is larger than {MAX_EXTENT}", at + 1));
                    continue;
                }
            }
        };
        layers.push(layer);
    }
    if layers.is_empty() && problems.is_empty() {
        problems.push("the topology has no layers".to_owned());
    }
    if problems.is_empty() { Ok(layers) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(name: &str) -> ClassicArray {
        ClassicArray::preset(name).unwrap_or_else(|| panic!("no array {name}"))
    }

    /// Checks every layer against the last column of the file, and their sum.
    fn check(text: &str, total: u64) {
        let measured: Vec<u64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(1)
            .filter_map(|line| line.rsplit(',').next()?.trim().parse().ok())
            .collect();
        let layers = read_topology(text).unwrap_or_else(|problems| panic!("{problems:?}"));
        let array = array("array-128x128");
        let cycles: Vec<u64> = layers.iter().map(|layer| array.cycles(layer)).collect();
        assert_eq!(cycles, measured);
        assert_eq!(cycles.iter().sum::<u64>(), total);
    }

    #[test]
    fn cycles_are_those_of_scale_sim() {
        check(include_str!("../tests/scalesim/alexnet-128x128-ws.csv"), 139_901);
        check(include_str!("../tests/scalesim/resnet50-128x128-ws.csv"), 876_832);
        let layer = Layer { name: String::new(), m: 64, n: 16, k: 4096 };
        assert_eq!(array("array-128x128-os").cycles(&layer), 4349);
    }

    #[test]
    fn one_part_is_its_fill_and_what_streams_through() {
        let layer = Layer { name: String::new(), m: 1000, n: 128, k: 128 };
        assert_eq!(array("array-128x128").cycles(&layer), 128 + 128 + 128 + 1000 - 3);
        let layer = Layer { name: String::new(), m: 128, n: 128, k: 1000 };
        assert_eq!(array("array-128x128-os").cycles(&layer), 1000 + 128 + 128 - 3);
    }

    #[test]
    fn topologies_of_both_kinds_are_read_and_mistakes_are_told_by_line() {
        let products = "Layer, M, N, K,\nqkv, 128, 64, 32,\n\n";
        let layer = Layer { name: "qkv".to_owned(), m: 128, n: 64, k: 32 };
        assert_eq!(read_topology(products), Ok(vec![layer]));
        let wrong = "Layer,M,N,K\na,1,2\nb,1,x,3\nc,0,1,1\n";
        let problems = read_topology(wrong).expect_err("three mistakes");
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[1].starts_with("line 3: `x` in column 3"), "{problems:?}");
        for text in
            ["", "nothing", "Layer,IFMAP Height\nx,1", "a,M,N,K\nb,99999999999999999999,1,1"]
        {
            assert!(read_topology(text).is_err(), "{text}");
        }
    }
}
