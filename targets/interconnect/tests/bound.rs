//! No prediction falls under what links allow: any system, group, collective, algorithm, protocol and number of chunks.

use arbtest::arbitrary::{Result, Unstructured};
use systole_interconnect::algorithms::{ALGORITHMS, HIERARCHICAL};
use systole_interconnect::{
    Group, Kind, Options, PRESETS, System, collective_time, flow, link_bound_us,
};

const ROUNDING: f64 = 1.0 - 1e-9;

fn systems() -> Vec<System> {
    let named = |name: &str| System::named(name, &[]).expect("there is one").expect("it reads");
    let mut systems: Vec<System> = PRESETS.iter().map(|preset| named(preset.name)).collect();
    systems.push(named("dgx-h100*4"));
    systems.push(named("trn2-ultra64*2"));
    systems
}

fn group(u: &mut Unstructured<'_>, chips: usize) -> Result<Group> {
    if u.ratio(1, 4)? {
        // Any chips at all.
        let mut found: Vec<u32> = Vec::new();
        for _ in 0..u.int_in_range(2..=12usize)? {
            let chip = u.int_in_range(0..=chips as u32 - 1)?;
            if !found.contains(&chip) {
                found.push(chip);
            }
        }
        return Ok(Group::of(found));
    }
    let stride = *u.choose(&[1usize, 1, 1, 2, 4, 8])?;
    let most = (chips / stride).clamp(2, 64);
    let ranks = u.int_in_range(2..=most)?;
    Ok(Group::strided(0, ranks, stride))
}

#[test]
fn no_prediction_falls_under_the_link_bound() {
    let systems = systems();
    let mut seen = 0;
    arbtest::arbtest(|u| {
        let system = u.choose(&systems)?;
        let group = group(u, system.chips())?;
        let kind = *u.choose(Kind::ALL)?;
        let bytes = 1u64 << u.int_in_range(0..=33u32)?;
        let bytes = bytes + u.int_in_range(0..=bytes)?;
        let at = u.int_in_range(0..=ALGORITHMS.len() + 1)?;
        let names = ALGORITHMS.iter().map(|one| one.name).chain([HIERARCHICAL, "auto"]);
        let name = names.collect::<Vec<_>>()[at];
        let chunks = if u.arbitrary()? { Some(u.int_in_range(1..=100u32)?) } else { None };
        let options = Options { algorithm: Some(name.to_owned()), chunks, ..Options::default() };
        let Ok(told) = collective_time(system, kind, &group, bytes, &options) else {
            return Ok(());
        };
        let bound = link_bound_us(system, kind, &group, bytes).expect("the group is good");
        assert!(told.time_us.is_finite());
        let parts = told.cost.total_us();
        assert!(
            parts >= bound * ROUNDING,
            "{} {} {name} {:?} {bytes}: {parts} us is under {bound} us",
            system.name,
            kind.name(),
            group.chips()
        );
        seen += 1;
        if group.ranks() <= 16 {
            let flow = flow::simulate(system, kind, &group, bytes, &options).expect("it can be");
            let parts = flow.cost.total_us();
            assert!(
                parts >= bound * ROUNDING,
                "{} {} {name} {:?} {bytes}: simulated {parts} us is under {bound} us",
                system.name,
                kind.name(),
                group.chips()
            );
        }
        Ok(())
    })
    .size_min(64)
    .budget_ms(4000);
    assert!(seen > 50, "{seen}");
}
