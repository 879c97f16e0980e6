//! What a description may say, and what is said about one that is wrong.

use systole_catalog::{Allowed, File, Mark, Problems, Reader};

const GOOD: &str = r#"
name = "toy"
[sources]
C2 = "https://example.com"
[hbm]
hbm_gbs = { value = 2900, mark = "documented", source = "C2" }
pad_ns = { value = 50, mark = "inferred", note = "a guess" }
[[tier]]
name = "rack"
sizes = [4, 4]
[[tier]]
name = "pod"
sizes = [2]
"#;

#[derive(Debug, PartialEq)]
struct Toy {
    name: String,
    hbm_gbs: f64,
    pad_ns: Option<f64>,
    tiers: Vec<(String, Vec<i64>)>,
}

fn read(file: &File) -> Result<Toy, Problems> {
    let reader = file.read();
    let hbm = reader.table("hbm");
    let toy = Toy {
        name: reader.text("name").to_owned(),
        hbm_gbs: hbm.number("hbm_gbs", Allowed::Positive),
        pad_ns: hbm.optional_number("pad_ns", Allowed::NonNegative),
        tiers: reader
            .tables("tier")
            .iter()
            .map(|tier: &Reader<'_>| {
                (tier.text("name").to_owned(), tier.integers("sizes", 1..=1024))
            })
            .collect(),
    };
    reader.finish()?;
    Ok(toy)
}

fn parse(text: &str) -> File {
    File::parse(text, "toy.toml").expect("it parses")
}

fn problems(text: &str) -> Vec<String> {
    let told = match File::parse(text, "toy.toml") {
        Ok(file) => read(&file).expect_err("it is wrong"),
        Err(problems) => problems,
    };
    let shown = told.to_string();
    assert!(!shown.is_empty());
    told.0
        .iter()
        .map(|problem| {
            let place = problem.place.as_ref().map(ToString::to_string).unwrap_or_default();
            let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{place}: {}{help}", problem.message)
        })
        .collect()
}

#[test]
fn a_good_file_is_read_whole() {
    let toy = read(&parse(GOOD)).expect("it is good");
    assert_eq!((toy.name.as_str(), toy.hbm_gbs, toy.pad_ns), ("toy", 2900.0, Some(50.0)));
    assert_eq!(toy.tiers, [("rack".to_owned(), vec![4, 4]), ("pod".to_owned(), vec![2])]);
}

#[test]
fn numbers_are_listed_with_mark_and_source() {
    let file = parse(GOOD);
    let numbers = file.numbers();
    let paths: Vec<&str> = numbers.iter().map(|number| number.path.as_str()).collect();
    assert_eq!(paths, ["hbm.hbm_gbs", "hbm.pad_ns", "tier.rack.sizes", "tier.pod.sizes"]);
    assert_eq!(numbers[0].mark, Mark::Documented);
    assert_eq!(numbers[0].sources, ["C2"]);
    assert_eq!(numbers[1].note.as_deref(), Some("a guess"));
    assert_eq!(file.unmarked(), ["tier.rack.sizes", "tier.pod.sizes"]);
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let text = GOOD
        .replace("value = 2900", "value = -1")
        .replace("pad_ns", "pad_nss")
        .replace("name = \"toy\"", "nam = 3")
        .replace("sizes = [2]", "sizes = true");
    let told = problems(&text);
    assert_eq!(
        told,
        [
            "toy.toml:1:1: `toy.toml` does not state `name`",
            "toy.toml:2:1: unknown key `nam` (there is `name`)",
            "toy.toml:6:21: `hbm_gbs` is -1, but must be more than 0 and at most 1e18",
            "toy.toml:7:1: unknown key `pad_nss` in `hbm` (there is `pad_ns`)",
            "toy.toml:13:9: `sizes` must be a list, not true or false",
        ]
    );
}

#[test]
fn what_stands_beside_a_value_is_checked() {
    assert_eq!(
        problems(&GOOD.replace("source = \"C2\"", "source = \"C3\"")),
        ["toy.toml:6:1: `sources` does not list `C3` (there is `C2`)"]
    );
    assert_eq!(
        problems(&GOOD.replace(", source = \"C2\"", "")),
        ["toy.toml:6:1: a value marked documented needs its `source`"]
    );
    assert!(problems(&GOOD.replace("\"inferred\"", "\"rumour\""))[0].contains("no mark `rumour`"));
    assert!(problems(&GOOD.replace("note =", "nota ="))[0].contains("unknown key `nota` beside"));
}

#[test]
fn values_are_set_by_path_or_by_the_end_of_a_path() {
    for path in ["hbm.hbm_gbs=4000", "hbm_gbs=4000", " hbm_gbs = 4e3 "] {
        let mut file = parse(GOOD);
        file.set(path).expect("it can be set");
        assert_eq!(read(&file).expect("it is good").hbm_gbs, 4000.0, "{path}");
        assert_eq!(file.numbers()[0].mark, Mark::Given);
    }
    let mut file = parse(GOOD);
    file.set("tier.pod.sizes=[8]").expect("by name");
    file.set("tier.0.sizes=[2, 2]").expect("by number");
    file.set("name=other one").expect("bare text");
    let toy = read(&file).expect("it is good");
    assert_eq!(toy.tiers[1].1, [8]);
    assert_eq!(toy.tiers[0].1, [2, 2]);
    assert_eq!(toy.name, "other one");
}

#[test]
fn what_cannot_be_set_is_told() {
    let told = |assignment: &str| {
        let mut file = parse(GOOD);
        let set = file.set(assignment).and_then(|()| read(&file).map(drop));
        set.expect_err("it cannot be set").0[0].message.clone()
    };
    assert!(told("hbm_gbs").contains("is not KEY=VALUE"));
    assert!(told("sizes=[1]").contains("could be `tier.rack.sizes` or `tier.pod.sizes`"));
    assert!(told("hbm=3").contains("is a table, not a value"));
    assert!(told("hbm.speed=3").contains("unknown key `speed` in `hbm`"));
    assert!(told("speed=3").contains("unknown key `speed`"));
    assert!(told("no.such=3").contains("has no key `no.such`"));
    assert!(told("hbm_gbs=fast").contains("must be a number, not text"));
    assert!(told("hbm_gbs=inf").contains("is inf, but must be"));
    assert!(told("hbm_gbs=[[").contains("not a TOML value"));
    assert!(told("..=1").contains("is not a path of keys"));
}

#[test]
fn a_variant_states_only_what_differs() {
    let child = "inherit = \"base\"\nname = \"fast\"\n[hbm]\nhbm_gbs = 9\n[[tier]]\nname = \"pod\"\nsizes = [3]\n";
    let find = |name: &str| (name == "base").then(|| GOOD.to_owned());
    let file = File::parse_with(child, "fast.toml", &find).expect("it parses");
    let toy = read(&file).expect("it is good");
    assert_eq!((toy.name.as_str(), toy.hbm_gbs, toy.pad_ns), ("fast", 9.0, Some(50.0)));
    assert_eq!(toy.tiers, [("rack".to_owned(), vec![4, 4]), ("pod".to_owned(), vec![3])]);
    let endless = |_: &str| Some("inherit = \"me\"".to_owned());
    assert!(File::parse_with("inherit = \"me\"", "x", &endless).is_err());
    assert!(File::parse_with("inherit = 3", "x", &endless).is_err());
    assert!(File::parse("inherit = \"me\"", "x").is_err());
}

#[test]
fn broken_text_never_panics() {
    let hostile = [
        "",
        "=",
        "a = ",
        "[a",
        "a = {value = {value = 1}}",
        "[[tier]]\n[[tier]]\nname = 3\n",
        "hbm = 3\ntier = 4\nname = []\nsources = 7",
        "[sources]\na = 3\n",
        "é = \"ü\"\n[hbm]\nhbm_gbs = \"ñ\"",
        "tier = [1, {name = \"x\"}]",
        "name = 1979-05-27",
        "[[tier]]\nname = \"a\"\nsizes=[1]\n[[tier]]\nname = \"a\"\nsizes=[1]\n",
    ];
    for text in hostile {
        assert!(!problems(text).is_empty(), "{text}");
    }
    let deep = format!("a = {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(!problems(&deep).is_empty());
    let long = format!("a{} = 1", ".a".repeat(5000));
    assert!(!problems(&long).is_empty());
    let big = "a = 1\n".repeat(200_000);
    assert!(!problems(&big).is_empty());
}
