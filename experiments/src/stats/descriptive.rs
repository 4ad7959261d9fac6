//! Descriptive statistics: of values as they are.

/// The arithmetic mean; none of no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation over n - 1 degrees of freedom; none of fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The median, between the middle two of an even number; none of no values. Infinite values have their place, so that a
/// trial that never got somewhere can be told by one.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => Some(sorted[middle]),
        _ => Some(sorted.get(middle.checked_sub(1)?)?.midpoint(sorted[middle])),
    }
}

/// The values in order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_near, cases};
    use super::*;
    use serde::Deserialize;

    #[test]
    fn a_median_agrees_with_numpy() {
        #[derive(Deserialize)]
        struct Case {
            values: Vec<f64>,
            median: f64,
        }
        for Case { values, median: expected } in cases("median") {
            assert_near(median(&values).unwrap(), expected);
        }
    }

    #[test]
    fn a_median_may_fall_on_what_never_ended() {
        let never = f64::INFINITY;
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[never, 2.0, 1.0]), Some(2.0));
        assert_eq!(median(&[never, 2.0]), Some(never));
        assert_eq!(median(&[never, 1.0, never]), Some(never));
    }
}
