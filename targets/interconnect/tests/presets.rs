//! Every preset reads, and each number of it has a mark.

use systole_catalog::File;
use systole_interconnect::{Group, Kind, Options, PRESETS, System, collective_time};

fn system(name: &str) -> System {
    match System::named(name, &[]) {
        Some(Ok(system)) => system,
        Some(Err(problems)) => panic!("{name}:\n{problems}"),
        None => panic!("there is no {name}"),
    }
}

#[test]
fn every_preset_reads_and_answers() {
    for preset in PRESETS {
        let system = system(preset.name);
        assert_eq!(system.name, preset.name);
        let group = Group::first(system.chips());
        for kind in Kind::ALL {
            let told = collective_time(&system, *kind, &group, 1 << 20, &Options::default());
            let told =
                told.unwrap_or_else(|error| panic!("{} {}: {error}", preset.name, kind.name()));
            assert!(told.time_us.is_finite() && told.time_us > 0.0);
        }
    }
}

#[test]
fn every_number_of_a_preset_has_a_mark() {
    for preset in PRESETS {
        let find = |name: &str| {
            let path = format!("{}/systems/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(path).ok()
        };
        let file = File::parse_with(preset.text, preset.name, &find).expect("it parses");
        assert_eq!(file.unmarked(), Vec::<String>::new(), "{}", preset.name);
    }
}

#[test]
fn several_of_a_system_are_joined_by_its_network() {
    assert_eq!(system("trn3-gen2-144*64").chips(), 9216);
    assert_eq!(system("gb200-nvl72x2").chips(), 144);
    assert_eq!(system("rainier-6400").chips(), 6400);
    assert!(System::named("rainier-65", &[]).is_none());
    assert!(System::named("nvlink5*2", &[]).is_none());
    assert!(System::named("dgx-h100*0", &[]).is_none());
    assert!(System::named("dgx-h100*99999999", &[]).is_none());
}
