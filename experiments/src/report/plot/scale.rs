//! Where a value stands on an axis: the range of the axis, and its ticks.

use super::figure::{Axis, Panel};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// A logarithmic axis shows at most this ratio of its ends.
const LONGEST_RATIO: f64 = 1e10;

/// The range of an axis, and where its ticks are.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Whether equal lengths are equal ratios.
    logarithmic: bool,
    /// Where its ticks are, from the lower end on.
    ticks: Vec<f64>,
}

/// From a value to where it stands on an axis, or back.
type Scale = fn(f64) -> f64;

impl Span {
    /// The span of `values`, and of `bands` as far as they do not take most of the room. An axis that is `tight` ends with its
    /// values, and begins at zero where that is near.
    fn of(axis: &Axis, values: &[f64], bands: &[f64], tight: bool) -> Self {
        let finite = |x: &&f64| x.is_finite();
        let logarithmic = axis.logarithmic
            && axis.range.is_none_or(|[low, _]| low > 0.0)
            && values.iter().filter(finite).any(|x| *x > 0.0);
        let (forward, back): (Scale, Scale) = if logarithmic { (f64::ln, f64::exp) } else { (|x| x, |x| x) };
        if let Some([low, high]) = axis.range {
            return Self::between(low, high, logarithmic);
        }
        let shown = |x: &&f64| x.is_finite() && (!logarithmic || **x > 0.0);
        let fold = |values: &[f64]| {
            values
                .iter()
                .filter(shown)
                .map(|x| forward(*x))
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
        };
        let (mut low, mut high) = fold(values);
        if low > high {
            return Self::between(0.0, 1.0, false);
        }
        if let Some(cap) = axis.cap.map(forward).filter(|cap| *cap > low) {
            high = high.min(cap);
        }
        if logarithmic {
            low = low.max(high - LONGEST_RATIO.ln());
        }
        let length = high - low;
        let (band_low, band_high) = fold(bands);
        low = low.min(band_low.max(low - length / 4.0));
        high = high.max(band_high.min(high + length / 4.0));
        let pad = match (logarithmic, high - low) {
            (true, 0.0) => 0.3,
            (false, 0.0) => (high.abs() * 0.1).max(1e-6),
            (_, length) if tight && !logarithmic => {
                // A point at the frame is seen whole, since points are few where it matters.
                let start = if low >= 0.0 && low < length / 2.0 { 0.0 } else { low };
                return Self::between(start, high, false);
            }
            (_, length) => length * 0.05,
        };
        let [least, greatest] = axis.within.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
        Self::between(back(low - pad).max(least), back(high + pad).min(greatest), logarithmic)
    }

    /// How far along the axis a value stands, from 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    fn between(low: f64, high: f64, logarithmic: bool) -> Self {
        let ticks = if logarithmic { logarithmic_ticks(low, high) } else { linear_ticks(low, high) };
        Self { low, high, logarithmic, ticks }
    }
}

impl Ranged for Span {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (f64::from(end - start) * self.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Span {
    fn format_ext(&self, value: &f64) -> String {
        short(*value)
    }
}

/// The spans of the horizontal and the vertical axis of `panel`, which hold all that is drawn in it.
pub fn spans(panel: &Panel) -> [Span; 2] {
    let marked = panel.marks.iter().filter_map(|mark| mark.y);
    let lines = panel.reference_lines.iter().map(|line| line.y);
    let ys = panel.points().map(|point| point.y).chain(lines).chain(marked);
    let xs = panel.points().map(|point| point.x).chain(panel.marks.iter().map(|mark| mark.x));
    let bands = panel.points().filter_map(|point| point.band).flatten();
    let x = Span::of(&panel.x, &xs.collect::<Vec<_>>(), &[], true);
    [x, Span::of(&panel.y, &ys.collect::<Vec<_>>(), &bands.collect::<Vec<_>>(), false)]
}

/// Gives `panels` the same vertical range, so that they can be compared.
pub fn share_y(panels: &mut [Panel]) {
    let spans: Vec<Span> =
        panels.iter().filter(|panel| panel.points().next().is_some()).map(|panel| spans(panel)[1].clone()).collect();
    let low = spans.iter().map(|span| span.low).fold(f64::INFINITY, f64::min);
    let high = spans.iter().map(|span| span.high).fold(f64::NEG_INFINITY, f64::max);
    if low < high {
        panels.iter_mut().for_each(|panel| panel.y.range = Some([low, high]));
    }
}

/// Round numbers between `low` and `high`, some four to eight of them.
fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let decade = 10f64.powf(rough.log10().floor());
    let multiple = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|multiple| multiple * decade >= rough * 0.999);
    let step = multiple.unwrap_or(10.0) * decade;
    let slack = step * 1e-9;
    let ticks = (0..20).map(|i| ((low - slack) / step).ceil() * step + f64::from(i) * step);
    // Zero is zero, not what rounding leaves of it.
    ticks.take_while(|tick| *tick <= high + slack).map(|tick| if tick.abs() < slack { 0.0 } else { tick }).collect()
}

/// Round numbers between `low` and `high`, some four to a dozen of them.
fn logarithmic_ticks(low: f64, high: f64) -> Vec<f64> {
    let length = (high / low).log10();
    let multiples: &[f64] = match length {
        length if length < 0.7 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        length if length < 3.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let every = (length / 8.0).ceil().max(1.0) as usize;
    let decades = (low.log10().floor() as i32..=high.log10().floor() as i32).step_by(every);
    let ticks = decades.flat_map(|decade| multiples.iter().map(move |multiple| multiple * 10f64.powi(decade)));
    let ticks: Vec<f64> = ticks.filter(|tick| (low..=high).contains(tick)).collect();
    if ticks.len() < 3 && length < 0.7 { linear_ticks(low, high) } else { ticks }
}

/// A number with as many digits as a tick needs.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let text = if size != 0.0 && !(1e-4..1e6).contains(&size) { format!("{value:.2e}") } else { format!("{value:.6}") };
    let (digits, exponent) = text.split_once('e').map_or((text.as_str(), None), |(digits, e)| (digits, Some(e)));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    exponent.map_or(digits.to_owned(), |exponent| format!("{digits}e{exponent}"))
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Curve, Drawn, Point};
    use super::*;

    #[test]
    fn an_axis_leaves_out_what_would_hide_the_rest() {
        let axis = Axis { cap: Some(10.0), ..Axis::logarithmic("loss") };
        let span = Span::of(&axis, &[0.1, 1.0, 1e9], &[1e-9, 2.0], false);
        assert!(span.logarithmic && span.high > 10.0 && span.high < 20.0, "{span:?}");
        assert!(span.low < 0.05 && span.low > 0.01, "a quarter of the two decades for the band: {span:?}");
        let limit = (100, 0);
        assert_eq!((span.map(&1e9, limit), span.map(&0.0, limit)), (0, 100));
        assert_eq!(Span::of(&Axis::linear("step"), &[1.0, 50.0], &[], true).low, 0.0);
        assert_eq!(Span::of(&Axis::linear("step"), &[40.0, 50.0], &[], true).low, 40.0);
    }

    #[test]
    fn shared_axes_are_the_same() {
        let panel = |values: &[(f64, f64)]| {
            let point = |&(x, y): &(f64, f64)| Point { x, y, band: Some([y * 0.9, y * 1.1]) };
            let curve =
                Curve { name: String::new(), style: 1, points: values.iter().map(point).collect(), drawn: Drawn::Line };
            Panel { y: Axis::logarithmic("loss"), curves: vec![curve], ..Panel::default() }
        };
        let mut panels = [panel(&[(1.0, 1.0), (2.0, 0.5)]), panel(&[(1.0, 8.0)]), panel(&[])];
        share_y(&mut panels);
        let [low, high] = panels[0].y.range.unwrap();
        assert!(low < 0.5 && high > 8.0);
        assert_eq!(panels[1].y.range, panels[0].y.range);
    }

    #[test]
    fn logarithmic_ticks_are_round_and_enough() {
        for (low, high, ticks) in [
            (0.04, 3.0, &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0][..]),
            (0.9, 2.3, &[0.9, 1.0, 1.5, 2.0]),
            (3e-5, 2.0, &[1e-4, 1e-3, 1e-2, 0.1, 1.0]),
            (1.01, 1.06, &[1.01, 1.02, 1.03, 1.04, 1.05, 1.06]),
        ] {
            let found = logarithmic_ticks(low, high);
            assert!(
                found.len() == ticks.len() && found.iter().zip(ticks).all(|(a, b)| (a / b - 1.0).abs() < 1e-12),
                "{found:?}"
            );
        }
        assert!((4..=9).contains(&logarithmic_ticks(1e-9, 1e9).len()));
    }

    #[test]
    fn linear_ticks_are_round_and_enough() {
        assert_eq!(linear_ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(linear_ticks(-1.0, 0.5), [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5]);
        assert_eq!(linear_ticks(0.0, 1120.0), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
    }

    #[test]
    fn ticks_are_short() {
        for (value, text) in [
            (0.1, "0.1"),
            (100.0, "100"),
            (0.0, "0"),
            (0.0025, "0.0025"),
            (97.5, "97.5"),
            (0.6000000000000001, "0.6"),
            (1e-5, "1e-5"),
            (2.5e7, "2.5e7"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
