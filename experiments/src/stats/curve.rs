//! What a learning curve comes to, given as points `(x, y)` with x ascending.

use super::descriptive::mean;

/// The x of the first point whose y is at `target` or past it, which is above where `at_least` and below elsewhere. Values
/// between points are not made up.
pub fn first_reached(points: &[(f64, f64)], target: f64, at_least: bool) -> Option<f64> {
    let is_past = |y: f64| if at_least { y >= target } else { y <= target };
    points.iter().find(|(_, y)| is_past(*y)).map(|(x, _)| *x)
}

/// The mean height of a curve: the area under it after the trapezoid rule, over its length in x; the mean of y where all
/// points have one x; none of no points.
pub fn mean_over_curve(points: &[(f64, f64)]) -> Option<f64> {
    let length = points.last()?.0 - points.first()?.0;
    if length == 0.0 {
        return mean(&points.iter().map(|(_, y)| *y).collect::<Vec<_>>());
    }
    let trapezoid = |pair: &[(f64, f64)]| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0;
    Some(points.windows(2).map(trapezoid).sum::<f64>() / length)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_near, cases};
    use super::*;
    use serde::Deserialize;

    #[test]
    fn a_target_is_reached_at_the_first_point_at_or_past_it() {
        let points = [(10.0, 0.3), (20.0, f64::NAN), (30.0, 0.8), (40.0, 0.5), (50.0, 0.9)];
        for (target, at_least, expected) in [
            (0.8, true, Some(30.0)),
            (0.81, true, Some(50.0)),
            (0.91, true, None),
            (0.3, true, Some(10.0)),
            (0.3, false, Some(10.0)),
            (0.5, false, Some(10.0)),
            (0.29, false, None),
        ] {
            assert_eq!(first_reached(&points, target, at_least), expected, "{target} {at_least}");
        }
        assert_eq!(first_reached(&points[1..], 0.5, false), Some(40.0));
        assert_eq!(first_reached(&[], 0.0, true), None);
    }

    #[test]
    fn the_mean_height_agrees_with_scipy() {
        #[derive(Deserialize)]
        struct Case {
            points: Vec<(f64, f64)>,
            mean: f64,
        }
        for Case { points, mean } in cases("mean_over_curve") {
            assert_near(mean_over_curve(&points).unwrap(), mean);
        }
        assert_eq!(mean_over_curve(&[]), None);
    }
}
