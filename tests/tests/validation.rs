//! What the model predicts for published measurements of the chip: how far it may be from them.

use systole_tests::validation::{self, Answer, Row};

fn answers() -> Vec<(Row, Answer)> {
    let rows = validation::rows().expect("the rows can be read");
    assert!(rows.len() >= 16, "{} rows", rows.len());
    rows.into_iter().map(|row| (row.clone(), validation::answer(&row))).collect()
}

#[test]
fn published_times_are_predicted() {
    let mut errors = Vec::new();
    for (row, answer) in answers() {
        let name = &row.name;
        let Some(error) = row.error(&answer) else {
            let fits = !matches!(answer, Answer::DoesNotFit(_));
            assert!(row.published_us.is_none() && !fits, "{name}: {answer:?}");
            continue;
        };
        errors.push(error.abs());
        assert!(error.abs() <= 0.10, "{name}: {error:+.3}");
    }
    errors.sort_by(f64::total_cmp);
    let median = errors[errors.len() / 2];
    assert!(median < 0.05, "the median error is {median:.3}");
}

#[test]
fn answers_are_the_same_every_time() {
    assert_eq!(answers(), answers());
}

/// The texts of the schedules are as they are built, and read back to the same programs. `SYSTOLE_BLESS=1` writes them.
#[test]
fn schedules_are_written_as_they_are_built() {
    let folder = systole_tests::data().join("validation");
    for (name, text) in validation::texts().expect("the rows can be read") {
        let path = folder.join(&name);
        if std::env::var_os("SYSTOLE_BLESS").is_some() {
            std::fs::write(&path, &text).expect("the folder can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{name} is not as it is built; SYSTOLE_BLESS=1 writes it anew");
        let again = systole_systolic::asm::parse(&text).expect("what is printed can be read");
        assert_eq!(systole_systolic::asm::print(&again), text, "{name}");
    }
}
