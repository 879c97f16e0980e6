//! Published measurements of collectives, each with its source, beside what presets predict.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use support::{points, predicted};

#[test]
fn published_points_are_predicted() {
    for point in points() {
        let told = predicted(&point);
        let off = told.time_us / point.measured_us - 1.0;
        assert!(
            off.abs() <= point.tolerance,
            "{} {}: measured {} us, predicted {} us by {}",
            point.system,
            point.kind.name(),
            point.measured_us,
            told.time_us,
            told.algorithm
        );
    }
}
