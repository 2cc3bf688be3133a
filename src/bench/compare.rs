//! Two results beside each other.

use std::path::Path;

use super::BenchError;
use super::record::{Against, Key, Row};

/// Rows of one result that the other lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unmatched {
    /// Measured earlier, not now.
    pub only_before: Vec<Key>,
    /// Measured now, not earlier.
    pub only_now: Vec<Key>,
}

/// Writes into each row of `now` what `before` says about the same measurement. A row is slower if its best
/// time exceeds the earlier one by more than the factor `tolerance` (at least 1).
///
/// # Errors
/// [`BenchError::OutOfRange`] for a tolerance below 1.
pub fn compare(now: &mut [Row], before: &[Row], tolerance: f64) -> Result<Unmatched, BenchError> {
    check_tolerance(tolerance)?;
    let mut unmatched = Unmatched::default();
    for row in now.iter_mut() {
        let key = row.key();
        row.against = before.iter().find(|old| old.key() == key).map(|old| Against {
            ns_per_element: old.ns_per_element,
            ratio: old.ns_per_element / row.ns_per_element,
            slower: row.ns_per_element > tolerance * old.ns_per_element,
        });
        if row.against.is_none() {
            unmatched.only_now.push(key);
        }
    }
    let here: Vec<Key> = now.iter().map(Row::key).collect();
    unmatched.only_before = before.iter().map(Row::key).filter(|key| !here.contains(key)).collect();
    Ok(unmatched)
}

/// Refuses a tolerance that no machine could keep.
///
/// # Errors
/// [`BenchError::OutOfRange`].
pub fn check_tolerance(tolerance: f64) -> Result<(), BenchError> {
    if (1.0..1e6).contains(&tolerance) {
        return Ok(());
    }
    let expected = "a factor of 1 or more, such as 1.25".to_owned();
    Err(BenchError::OutOfRange { name: "--tolerance", expected, found: tolerance.to_string() })
}

/// Refuses two results without a common measurement, before time is spent on the second.
///
/// # Errors
/// [`BenchError::NothingInCommon`].
pub fn check_common(now: &[Row], before: &[Row], path: &Path) -> Result<(), BenchError> {
    if now.iter().any(|row| before.iter().any(|old| old.key() == row.key())) {
        return Ok(());
    }
    let first = |rows: &[Row]| {
        let names: Vec<String> = rows.iter().take(3).map(|r| r.key().to_string()).collect();
        names.join("; ") + if rows.len() > 3 { "; ..." } else { "" }
    };
    Err(BenchError::NothingInCommon { path: path.to_path_buf(), wanted: first(now), found: first(before) })
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::made_up;
    use super::*;

    #[test]
    fn ratios_and_what_is_missing() {
        let before = made_up(&[("fwht", 12.0, 0.5), ("clip", 12.0, 0.1), ("sum", 12.0, 1.0)]).rows;
        let mut now = made_up(&[("fwht", 12.0, 0.25), ("fwht", 13.0, 0.3), ("clip", 12.0, 0.124)]).rows;
        let unmatched = compare(&mut now, &before, 1.25).unwrap();
        let fwht = now[0].against.unwrap();
        assert!(fwht.ratio == 2.0 && !fwht.slower);
        assert!(now[1].against.is_none() && !now[2].against.unwrap().slower);
        assert_eq!(unmatched.only_now, [now[1].key()]);
        assert_eq!(unmatched.only_before, [before[2].key()]);
        compare(&mut now, &before, 1.2).unwrap();
        assert!(now[2].against.unwrap().slower);
        // The other way round, the faster is the slower.
        let mut back = before.clone();
        compare(&mut back, &now, 1.25).unwrap();
        assert!(back[0].against.unwrap().slower && back[0].against.unwrap().ratio == 0.5);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let (a, b) = (made_up(&[("fwht", 12.0, 0.5)]).rows, made_up(&[("clip", 12.0, 0.5)]).rows);
        assert!(check_common(&a, &a, Path::new("x")).is_ok());
        let message = check_common(&a, &b, Path::new("old.jsonl")).unwrap_err().to_string();
        assert!(message.contains("old.jsonl has no row for fwht 1 x 2^12"), "{message}");
        for tolerance in [0.9, f64::NAN, -1.0, f64::INFINITY] {
            assert!(compare(&mut a.clone(), &b, tolerance).is_err());
        }
    }
}
