//! The fabric model against measured collectives. A third of the rows, those of seven of the 21 sizes, calibrated the presets;
//! the test is over all rows.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use support::{CALIBRATED, MEASURED, rows, system};
use systole_interconnect::System;
use systole_interconnect::measured::{self, Measurement};

fn mean(system: &System, rows: &[Measurement]) -> f64 {
    let mean = measured::mean_absolute_error(system, rows).expect("it predicts each");
    100.0 * mean.expect("there are rows")
}

#[test]
fn predictions_are_within_a_tenth_of_measurements_on_average() {
    let mut sum = 0.0;
    let mut count = 0;
    for (name, text) in MEASURED {
        let system = system(name);
        let rows = rows(text);
        let found = mean(&system, &rows);
        assert!(found <= 7.0, "{name}: {found}");
        let kept = rows.iter().filter(|row| !row.outlier).count();
        sum += found * kept as f64;
        count += kept;
    }
    let all = sum / f64::from(count as u32);
    assert!(all <= 6.0, "{all}");
}

#[test]
fn sizes_that_were_not_calibrated_are_predicted_as_well() {
    for (name, text) in MEASURED {
        let system = system(name);
        let (seen, unseen): (Vec<_>, Vec<_>) =
            rows(text).into_iter().partition(|row| CALIBRATED.contains(&row.bytes));
        assert!(3 * seen.len() <= seen.len() + unseen.len(), "more than a third is calibrated");
        let unseen = mean(&system, &unseen);
        assert!(unseen <= 7.5, "{name}: {unseen}");
    }
}

#[test]
fn rows_that_make_no_sense_are_told() {
    for wrong in ["a,b", "all_reduce,f16,2,512,-1", "all_reduce,f16,2,512,nan", "x,f16,2,512,1"] {
        assert!(measured::parse(wrong).expect_err("it is wrong").starts_with("line 1"), "{wrong}");
    }
    assert_eq!(measured::parse("# nothing\n").expect("it reads").len(), 0);
}
