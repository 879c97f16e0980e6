//! `systole collective` and `systole list systems`: what they print, and how they refuse.

use serde_json::Value;
use std::process::{Command, Output};

fn systole(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_systole")).args(arguments).output().expect("it starts")
}

fn object(arguments: &[&str]) -> Value {
    let output = systole(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// The exit code, and what is said.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    let output = systole(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_collective_has_a_time_and_a_reason() {
    let told = object(&[
        "collective",
        "all-reduce",
        "--system",
        "dgx-h100",
        "--ranks",
        "8",
        "--bytes",
        "64MiB",
        "--dtype",
        "f16",
        "--json",
    ]);
    assert_eq!(told["schema"], 1);
    assert!(told["time_us"].as_f64().expect("a time") > 100.0);
    assert!(
        told["busbw_gbs"].as_f64().expect("a rate") > told["algbw_gbs"].as_f64().expect("a rate")
    );
    for key in ["algorithm", "steps", "bottleneck"] {
        assert!(!told[key].is_null(), "{key}");
    }
}

#[test]
fn the_simulation_says_the_same_where_nothing_contends() {
    let arguments = [
        "collective",
        "all-gather",
        "--system",
        "trn2.48xl",
        "--bytes",
        "1MiB",
        "--algorithm",
        "torus",
        "--json",
    ];
    let closed = object(&arguments)["time_us"].as_f64().expect("a time");
    let moved = object(&[&arguments[..], &["--simulate"]].concat())["time_us"].as_f64();
    assert!((moved.expect("a time") / closed - 1.0).abs() < 0.01);
}

#[test]
fn a_value_that_is_set_moves_the_time() {
    let arguments =
        ["collective", "all-to-all", "--system", "trn2.48xl", "--bytes", "1GiB", "--json"];
    let before = object(&arguments)["time_us"].as_f64().expect("a time");
    let set = ["--set", "tier.neuronlink.link_gbs=256"];
    let after = object(&[&arguments[..], &set].concat())["time_us"].as_f64().expect("a time");
    assert!((before / after - 2.0).abs() < 0.01, "{before} {after}");
}

#[test]
fn systems_are_listed() {
    let listed = object(&["list", "systems", "--json"]);
    let rows = listed["rows"].as_array().expect("rows");
    assert!(rows.len() > 40);
    assert!(rows.iter().any(|row| row["name"] == "trn3-gen2-144" && row["chips"] == "144"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let ask = |system: &str, more: &[&str]| {
        refused(
            &[&["collective", "all-reduce", "--system", system, "--bytes", "1024"], more].concat(),
        )
    };
    let (code, told) = ask("dgx-h10", &[]);
    assert_eq!(code, Some(2));
    assert!(told.contains("dgx-h100"), "{told}");
    let (code, told) = ask("dgx-h100", &["--ranks", "9"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("8 chips"), "{told}");
    assert_eq!(ask("dgx-h100", &["--ranks", "1"]).0, Some(2));
    assert_eq!(ask("dgx-h100", &["--ranks", "0"]).0, Some(2));
    assert_eq!(ask("dgx-h100", &["--algorithm", "rings"]).0, Some(2));
    assert_eq!(ask("dgx-h100", &["--algorithm", "torus"]).0, Some(3));
    assert_eq!(ask("dgx-h100", &["--dtype", "f17"]).0, Some(2));
    assert_eq!(ask("dgx-h100", &["--chunks", "0"]).0, Some(2));
    assert_eq!(ask("nowhere.toml", &[]).0, Some(2));
    let (code, told) = ask("dgx-h100", &["--set", "tier.nvlink.lnks=3"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("--set:1:1") && told.contains("links"), "{told}");
    let none = ["collective", "all-reduce", "--system", "dgx-h100", "--bytes", "0"];
    assert_eq!(refused(&none).0, Some(2));
    assert_eq!(
        refused(&["collective", "all-sing", "--system", "dgx-h100", "--bytes", "8"]).0,
        Some(2)
    );
}
