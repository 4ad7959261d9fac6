//! Numbers as text. All have the same minus sign, the one of the keyboard: numbers are copied into options.

use crate::stats::Estimate;

/// What stands where there is no number.
pub const NONE: &str = "–";

/// Digits of a mean that a reader can use.
const DIGITS: i32 = 4;

/// `value` with four significant digits, as a decimal fraction where that is short.
pub fn number(value: f64) -> String {
    Form::of(value).text(value)
}

/// `value`, or what stands for none.
pub fn optional(value: Option<f64>) -> String {
    value.map_or(NONE.to_owned(), number)
}

/// A learning rate or another number that was set.
pub use crate::config::names::number as setting;

/// A share in percent, without the sign.
pub fn percent(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}

/// A duration.
pub fn seconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2} s"),
        value if value < 1000.0 => format!("{value:.1} s"),
        value => format!("{value:.0} s"),
    }
}

/// `p = 0.034`, or a bound where it is smaller than anyone should believe.
pub fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => "p < 0.001".to_owned(),
        p if p < 0.1 => format!("p = {p:.3}"),
        p => format!("p = {p:.2}"),
    }
}

/// The mean and the interval of `estimate`, to the same decimal place.
pub fn estimate(estimate: &Estimate) -> (Option<String>, Option<String>) {
    let form = Form::of(estimate.mean.unwrap_or(0.0));
    (estimate.mean.map(|mean| form.text(mean)), estimate.ci95.map(|[low, high]| between(&form, low, high)))
}

/// The mean and the interval of a share, in percent without the sign.
pub fn percent_estimate(estimate: &Estimate) -> (Option<String>, Option<String>) {
    let interval = estimate.ci95.map(|[low, high]| format!("{} to {}", percent(low), percent(high)));
    (estimate.mean.map(percent), interval)
}

/// A difference with its sign.
pub fn difference(value: f64) -> String {
    let text = number(value.abs());
    if value < 0.0 { format!("-{text}") } else { format!("+{text}") }
}

fn between(form: &Form, low: f64, high: f64) -> String {
    format!("{} to {}", form.text(low), form.text(high))
}

/// How a number is written: with a fixed count of decimal places, or with an exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimals(usize),
    Exponent,
}

impl Form {
    fn of(value: f64) -> Self {
        let size = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
        if (-4..6).contains(&size) { Self::Decimals((DIGITS - 1 - size).clamp(0, 6) as usize) } else { Self::Exponent }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Decimals(decimals) => format!("{value:.decimals$}"),
            Self::Exponent => format!("{value:.*e}", DIGITS as usize - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.071_234, "0.07123"),
            (1.0, "1.000"),
            (-2.345_678, "-2.346"),
            (12_345.6, "12346"),
            (0.0, "0.000"),
            (1.5e-7, "1.500e-7"),
            (3e12, "3.000e12"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn an_interval_has_the_decimals_of_its_mean() {
        let of = |mean, low, high| estimate(&Estimate { mean: Some(mean), ci95: Some([low, high]) });
        assert_eq!(of(0.0712, -0.0013, 0.15), (Some("0.07120".into()), Some("-0.00130 to 0.15000".into())));
        assert_eq!(estimate(&Estimate { mean: Some(2.5), ci95: None }), (Some("2.500".into()), None));
        assert_eq!(estimate(&Estimate { mean: None, ci95: None }), (None, None));
    }

    #[test]
    fn settings_and_p_values_are_short() {
        assert_eq!([1e-5, 0.003, 0.1, 1.0].map(setting), ["1e-5", "0.003", "0.1", "1"]);
        assert_eq!([0.0, 0.0123, 0.21].map(p_value), ["p < 0.001", "p = 0.012", "p = 0.21"]);
        assert_eq!((difference(-0.5), difference(0.25)), ("-0.5000".to_owned(), "+0.2500".to_owned()));
    }
}
