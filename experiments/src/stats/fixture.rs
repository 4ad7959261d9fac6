//! The cases of a function in the fixtures, and how near a value must be.

use serde::de::DeserializeOwned;

/// The cases of `function`.
pub fn cases<T: DeserializeOwned>(function: &str) -> Vec<T> {
    let json: serde_json::Value = serde_json::from_str(include_str!("../../tests/fixtures/statistics.json")).unwrap();
    let cases: Vec<T> = serde_json::from_value(json[function].clone()).unwrap();
    assert!(cases.len() >= 6, "{function} has {} cases", cases.len());
    cases
}

/// Panics unless `found` is `expected` to ten digits.
#[track_caller]
pub fn assert_near(found: f64, expected: f64) {
    assert_within(found, expected, expected.abs());
}

/// Panics unless `found` is `expected` to ten digits of `scale`, for values that are differences of such a size.
#[track_caller]
pub fn assert_within(found: f64, expected: f64, scale: f64) {
    assert!(found == expected || (found - expected).abs() <= 1e-10 * scale, "{found} is not {expected}");
}
