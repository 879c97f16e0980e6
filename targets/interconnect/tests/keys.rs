//! Every key of every description moves a result, and the right way.

use systole_catalog::Number;
use systole_interconnect::{Element, Group, Kind, Options, PRESETS, System, Work, collective_time};

/// Everything that a description is asked for. Each result is such that more of it is worse: times, watts, dollars.
fn results(system: &System) -> Vec<f64> {
    let mut results = Vec::new();
    let several = system.times(2);
    let all: Vec<&System> = [Some(system), several.as_ref()].into_iter().flatten().collect();
    for system in all {
        let chips = system.chips().min(512);
        let mut groups = vec![Group::first(chips)];
        let mut stride = 1;
        for axis in system.tiers.iter().flat_map(|tier| &tier.axes) {
            if axis.size > 1 && axis.size <= 512 {
                groups.push(Group::strided(0, axis.size, stride));
            }
            stride *= axis.size;
        }
        for group in groups {
            for kind in [Kind::AllReduce, Kind::AllToAll, Kind::AllGather, Kind::PointToPoint] {
                for bytes in [512u64, 1 << 14, 1 << 18, 1 << 21, 1 << 24, 1 << 29] {
                    for dtype in ["bf16", "i8"] {
                        let element = Element::named(dtype).expect("there is one");
                        for protocol in system.tiers.iter().flat_map(|tier| &tier.protocols) {
                            for name in ["auto", "in-switch", "ring", "direct"] {
                                let options = Options {
                                    element,
                                    algorithm: Some(name.to_owned()),
                                    protocol: Some(protocol.name.clone()),
                                    chunks: None,
                                };
                                let told = collective_time(system, kind, &group, bytes, &options);
                                results.push(told.map_or(0.0, |told| told.time_us));
                            }
                        }
                        let options = Options { element, ..Options::default() };
                        let told = collective_time(system, kind, &group, bytes, &options);
                        results.push(told.map_or(0.0, |told| told.time_us));
                    }
                }
            }
        }
        results.push(system.facility_kw());
        results.push(system.usd_per_hour());
        results.push(1.0 / system.mean_hours_between_failures());
        results.push(system.economy.racks);
        results.push(system.economy.electricity_usd_per_kwh * system.facility_kw());
        results.push(1.0 / system.device.memory_gib);
        results.push(system.device.kernel_us);
        results.push(1.0 / system.most() as f64);
        let work = Work {
            dtype: system.device.peaks[0].dtype.clone(),
            tflop: 1.0,
            memory_bytes: 1e9,
            tier_bytes: vec![1e9; system.tiers.len()],
            seconds: 1.0,
        };
        results.push(system.energy_j(&work));
    }
    for peak in &system.device.peaks {
        for bytes in [1.0, 1e12] {
            let time = system.device.roofline_us(&peak.dtype, 1e12, bytes);
            results.push(time.expect("it has a peak"));
        }
    }
    let cores = system.device.machine.as_ref().map_or(1, |(_, cores)| *cores);
    results.push(1.0 / cores as f64);
    results
}

/// Which way results go where the number grows: down for what is good to have.
fn better(path: &str) -> Option<bool> {
    let key = path.rsplit('.').next().unwrap_or(path);
    if path.starts_with("device.peak_tflops") {
        return Some(true);
    }
    let good = ["_gbs", "efficiency", "memory_gib", "cores", "overlap", "links"];
    let bad = ["_us", "_w", "_kw", "hosts", "racks", "pue", "usd_", "failures", "pj_per_bit"];
    let worse = ["fraction", "oversubscription", "crossings"];
    if good.iter().any(|end| key.ends_with(end)) {
        return Some(true);
    }
    let is = |known: &[&str]| known.iter().any(|part| key.contains(part));
    (is(&bad) || is(&worse)).then_some(false)
}

fn changed(number: &Number, factor: f64) -> String {
    let values: Vec<String> =
        number.values.iter().map(|value| format!("{:?}", (value * factor).max(0.0))).collect();
    format!("{}=[{}]", number.path, values.join(", "))
}

#[test]
fn every_key_moves_a_result_the_right_way() {
    let mut problems = Vec::new();
    let mut moved = 0;
    for name in
        ["dgx-h100", "trn2-ultra64", "trn3-gen2-144", "astra-ring8", "rainier", "trn4-nvlf72"]
    {
        let text = PRESETS.iter().find(|preset| preset.name == name).expect("there is one").text;
        let system = System::parse(text, name, &[]).expect("it reads");
        let before = results(&system);
        for number in &system.numbers {
            let key = number.path.rsplit('.').next().unwrap_or_default();
            // Whole numbers of things are what results are about, not what they depend on.
            if key == "sizes" || key == "chunks" || key == "cores" {
                continue;
            }
            let zero = number.values.iter().all(|value| *value == 0.0);
            // The parity preset has no chip, and nothing that costs.
            if name == "astra-ring8" && !number.path.starts_with("tier.") {
                continue;
            }
            // What does not bind as it is binds once it is worse.
            let mut told = Vec::new();
            let mut found = false;
            for factor in if zero { &[1.0][..] } else { &[0.7, 1.5, 0.1, 10.0] } {
                let set = if zero {
                    format!("{}=0.5", number.path)
                } else if number.values.len() == 1 {
                    format!("{}={:?}", number.path, number.values[0] * factor)
                } else {
                    changed(number, *factor)
                };
                let grows = zero || *factor > 1.0;
                let Ok(other) = System::parse(text, name, std::slice::from_ref(&set)) else {
                    continue;
                };
                let after = results(&other);
                let change = |way: f64| {
                    let pairs = before.iter().zip(&after);
                    pairs.filter(|(a, b)| (*b - *a) * way > 1e-9 * a.abs()).count()
                };
                let (up, down) = (change(1.0), change(-1.0));
                if up + down == 0 {
                    continue;
                }
                found = true;
                match better(&number.path) {
                    Some(good) if good == grows && down == 0 => {
                        told.push(format!("{name} {set}: nothing is better, {up} are worse"));
                    }
                    Some(good) if good != grows && up == 0 => {
                        told.push(format!("{name} {set}: nothing is worse, {down} are better"));
                    }
                    Some(_) => {}
                    None => told.push(format!("the test does not know {}", number.path)),
                }
                break;
            }
            if !found {
                told.push(format!("{name} {}: moves nothing", number.path));
            }
            moved += usize::from(found);
            problems.append(&mut told);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(moved > 150, "{moved}");
}

#[test]
fn more_of_a_kind_is_more() {
    let system = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        System::named("trn2.48xl", &sets).expect("there is one").expect("it reads")
    };
    assert_eq!(system(&["tier.neuronlink.sizes=[4, 8]"]).chips(), 32);
    assert_eq!(system(&["scale_out.sizes=8"]).most(), 8);
    assert_eq!(system(&["cores=4"]).device.machine.expect("it has one").1, 4);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let told = |set: &str| {
        let sets = [set.to_owned()];
        let system = System::named("dgx-h100", &sets).expect("there is one");
        system.expect_err("it is wrong").to_string()
    };
    assert!(told("hop=1").contains("unknown key `hop`"));
    assert!(told("tier.nvlink.hop_us=-1").contains("must be from 0"));
    assert!(told("tier.nvlink.links=many").contains("must be a number"));
    assert!(told("tier.nvlink.sizes=9999999999").contains("must be from 1 to"));
    assert!(told("tier.nvlink.kind=mash").contains("must be one of torus, switch, mesh"));
    assert!(told("tier.nvlink.sizes=[2000, 2000]").contains("only a torus"));
    assert!(told("tier.nvlink.library.all-reduce=['rings']").contains("no algorithm `rings`"));
}
