//! The fuzz targets, for about a second each: random bytes, and the seeds with a few bytes changed.

use systole_tests::fuzz;

fn check(target: fn(&[u8]), seeds: &str) {
    let seeds: Vec<Vec<u8>> = fuzz::seeds(seeds).into_values().collect();
    seeds.iter().for_each(|seed| target(seed));
    arbtest::arbtest(|u| {
        if seeds.is_empty() || u.ratio(1, 8)? {
            let data = u.bytes(u.len())?;
            target(data);
            return Ok(());
        }
        let mut data = u.choose(&seeds)?.clone();
        for _ in 0..u.int_in_range(1..=4)? {
            let at = u.int_in_range(0..=data.len().max(1) - 1)?;
            let end = u.int_in_range(at..=(at + 20).min(data.len()))?;
            match u.int_in_range(0..=2)? {
                0 => data.truncate(at),
                1 => drop(data.drain(at..end)),
                _ => data.get_mut(at).into_iter().for_each(|byte| *byte = at as u8),
            }
        }
        target(&data);
        Ok(())
    })
    .budget_ms(1000)
    .size_max(4096);
}

#[test]
fn any_text() {
    check(fuzz::any_text, "any_text");
}

#[test]
fn any_onnx() {
    check(fuzz::any_onnx, "any_onnx");
}

/// `SYSTOLE_SEEDS=1000..2000` tries others. The default ones are the same at every run, so that nobody's change fails for
/// what another one broke.
#[test]
fn random_graphs_agree_on_every_engine() {
    let seeds = std::env::var("SYSTOLE_SEEDS").unwrap_or_else(|_| "0..150".to_owned());
    let (first, end) = seeds.split_once("..").expect("SYSTOLE_SEEDS is a range: 0..150");
    let number = |text: &str| text.parse::<u64>().expect("SYSTOLE_SEEDS has numbers");
    let mut failures = Vec::new();
    for seed in number(first)..number(end) {
        let data = fuzz::noise(seed, 400);
        if let Err(message) = fuzz::agreement(&data) {
            failures.push(format!("seed {seed}: {message}"));
        }
    }
    let count = failures.len();
    failures.truncate(5);
    assert!(count == 0, "{count} seeds fail\n{}", failures.join("\n"));
}
