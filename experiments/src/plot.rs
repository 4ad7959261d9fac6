//! Learning curves as SVG.

use crate::record::Metric;
use anyhow::{Result, anyhow};
use plotters::{coord::Shift, prelude::*};
use std::collections::BTreeMap;

/// The measurements of a group: a list per trial.
#[derive(Clone, Debug)]
pub struct GroupMetrics {
    /// Its name in the legend.
    pub name: String,
    /// `metrics.jsonl` of each of its trials.
    pub trials: Vec<Vec<Metric>>,
}

/// The palette of Okabe & Ito (2008), which people with any colour vision can tell apart, without black and yellow.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Training losses are averaged over this many equal parts of the run.
const TRAIN_POINTS: u64 = 60;

/// A point of a group's curve: the step, and mean, least and greatest value over the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    step: f64,
    mean: f64,
    low: f64,
    high: f64,
}

/// What a panel shows.
struct Panel {
    title: &'static str,
    unit: &'static str,
    logarithmic: bool,
    curves: Vec<Vec<Point>>,
}

const WIDTH: u32 = 1440;
const TITLE_HEIGHT: u32 = 44;
const PANEL_HEIGHT: u32 = 400;
const LEGEND_COLUMNS: usize = 3;
const LEGEND_ROW: u32 = 26;
const TEXT: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawResult = Result<(), Box<dyn std::error::Error>>;

/// The training loss, test loss and test accuracy of each group by step, as an SVG: the mean over its seeds as a line, least
/// to greatest as a band. Losses have a logarithmic axis.
///
/// # Errors
/// When the drawing fails.
pub fn learning_curves(title: &str, groups: &[GroupMetrics]) -> Result<String> {
    let percent = |accuracy: f64| accuracy * 100.0;
    let panels = [
        Panel {
            title: "training loss",
            unit: "cross entropy",
            logarithmic: true,
            curves: curves(groups, train_losses),
        },
        Panel {
            title: "test loss",
            unit: "cross entropy",
            logarithmic: true,
            curves: curves(groups, |trial| {
                let eval = |metric: &Metric| match *metric {
                    Metric::Eval { step, loss, .. } => Some((step as f64, loss)),
                    Metric::Train { .. } | Metric::Probe { .. } => None,
                };
                trial.iter().filter_map(eval).collect()
            }),
        },
        Panel {
            title: "test accuracy",
            unit: "%",
            logarithmic: false,
            curves: curves(groups, |trial| {
                let eval = |metric: &Metric| match *metric {
                    Metric::Eval { step, accuracy, .. } => Some((step as f64, percent(accuracy))),
                    Metric::Train { .. } | Metric::Probe { .. } => None,
                };
                trial.iter().filter_map(eval).collect()
            }),
        },
    ];
    let rows = groups.len().div_ceil(LEGEND_COLUMNS) as u32;
    let size = (WIDTH, TITLE_HEIGHT + PANEL_HEIGHT + rows * LEGEND_ROW + 16);
    let mut svg = String::new();
    draw(SVGBackend::with_string(&mut svg, size).into_drawing_area(), title, groups, &panels)
        .map_err(|error| anyhow!("cannot draw the learning curves: {error}"))?;
    Ok(svg)
}

/// Each group's curve of what `values` takes from a trial: pairs of step and value, at the same steps in every trial.
fn curves(groups: &[GroupMetrics], values: impl Fn(&[Metric]) -> Vec<(f64, f64)>) -> Vec<Vec<Point>> {
    groups
        .iter()
        .map(|group| {
            // A positive f64 sorts as its bits do.
            let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            for trial in &group.trials {
                for (step, value) in values(trial).into_iter().filter(|(_, value)| value.is_finite()) {
                    by_step.entry(step.to_bits()).or_default().push(value);
                }
            }
            let point = |(step, values): (u64, Vec<f64>)| Point {
                step: f64::from_bits(step),
                mean: values.iter().sum::<f64>() / values.len() as f64,
                low: values.iter().copied().fold(f64::INFINITY, f64::min),
                high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            };
            by_step.into_iter().map(point).collect()
        })
        .collect()
}

/// The training losses of a trial, averaged over equal parts of the run.
fn train_losses(trial: &[Metric]) -> Vec<(f64, f64)> {
    let losses = || {
        trial.iter().filter_map(|metric| match *metric {
            Metric::Train { step, loss, .. } => Some((step, loss)),
            Metric::Eval { .. } | Metric::Probe { .. } => None,
        })
    };
    let part_len = losses().map(|(step, _)| step).max().unwrap_or(0).div_ceil(TRAIN_POINTS).max(1);
    let mut parts: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for (step, loss) in losses() {
        parts.entry((step - 1) / part_len).or_default().push((step as f64, loss));
    }
    let mean =
        |points: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    parts.values().map(|points| (mean(points, |p| p.0), mean(points, |p| p.1))).collect()
}

fn colour(group: usize) -> RGBColor {
    COLOURS[group % COLOURS.len()]
}

fn draw(root: Area, title: &str, groups: &[GroupMetrics], panels: &[Panel]) -> DrawResult {
    root.fill(&WHITE)?;
    let (top, rest) = root.split_vertically(TITLE_HEIGHT);
    let (charts, legend) = rest.split_vertically(PANEL_HEIGHT);
    top.draw(&Text::new(title.to_owned(), (20, 14), ("sans-serif", 20).into_font().color(&TEXT)))?;
    for (area, panel) in charts.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, panel)?;
    }
    for (i, group) in groups.iter().enumerate() {
        let column = (i % LEGEND_COLUMNS) as u32 * WIDTH / LEGEND_COLUMNS as u32;
        let (x, y) = (column as i32 + 60, (i / LEGEND_COLUMNS) as i32 * LEGEND_ROW as i32 + 14);
        legend.draw(&PathElement::new([(x, y), (x + 30, y)], colour(i).stroke_width(3)))?;
        legend.draw(&Text::new(group.name.clone(), (x + 40, y - 8), ("sans-serif", 16).into_font().color(&TEXT)))?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(area: &Area, panel: &Panel) -> DrawResult {
    let points = || panel.curves.iter().flatten();
    let last = points().map(|point| point.step).fold(1.0, f64::max);
    let low = points().map(|point| point.low).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.high).fold(f64::NEG_INFINITY, f64::max);
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(12)
        .caption(panel.title, ("sans-serif", 17).into_font().color(&TEXT))
        .x_label_area_size(44)
        .y_label_area_size(64);
    if low > high {
        // Every trial diverged before its first measurement.
        builder.build_cartesian_2d(0.0..last, 0.0..1.0)?.configure_mesh().x_desc("step").y_desc(panel.unit).draw()?;
        return Ok(());
    }
    if panel.logarithmic && low > 0.0 {
        let (low, high) = (low / 1.15, high * 1.15);
        let axis = (low..high).log_scale().with_key_points(logarithmic_ticks(low, high));
        let mut chart = builder.build_cartesian_2d(0.0..last, axis)?;
        draw_mesh(&mut chart.configure_mesh(), panel)?;
        draw_curves(&mut chart, panel)
    } else {
        let pad = ((high - low) * 0.04).max(1e-6);
        let mut chart = builder.build_cartesian_2d(0.0..last, (low - pad)..(high + pad))?;
        draw_mesh(&mut chart.configure_mesh(), panel)?;
        draw_curves(&mut chart, panel)
    }
}

fn draw_mesh<'a, Y>(
    mesh: &mut plotters::chart::MeshStyle<'a, '_, plotters::coord::types::RangedCoordf64, Y, SVGBackend<'_>>,
    panel: &Panel,
) -> DrawResult
where
    Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    mesh.x_desc("step")
        .y_desc(panel.unit)
        .x_labels(6)
        .y_labels(8)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(TEXT)
        .label_style(("sans-serif", 14).into_font().color(&TEXT))
        .axis_desc_style(("sans-serif", 14).into_font().color(&TEXT))
        .draw()?;
    Ok(())
}

fn draw_curves<Y: Ranged<ValueType = f64>>(
    chart: &mut ChartContext<SVGBackend<'_>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>,
    panel: &Panel,
) -> DrawResult {
    for (i, curve) in panel.curves.iter().enumerate() {
        let band: Vec<_> = curve
            .iter()
            .map(|point| (point.step, point.high))
            .chain(curve.iter().rev().map(|point| (point.step, point.low)))
            .collect();
        chart.draw_series([Polygon::new(band, colour(i).mix(0.18))])?;
    }
    for (i, curve) in panel.curves.iter().enumerate() {
        let line = curve.iter().map(|point| (point.step, point.mean));
        chart.draw_series(LineSeries::new(line.clone(), colour(i).stroke_width(2)))?;
        if curve.len() < 20 {
            chart.draw_series(line.map(|at| Circle::new(at, 3, colour(i).filled())))?;
        }
    }
    Ok(())
}

/// Round numbers between `low` and `high`, some four to a dozen of them.
fn logarithmic_ticks(low: f64, high: f64) -> Vec<f64> {
    let multiples: &[f64] = match (high / low).log10() {
        decades if decades < 0.7 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
        decades if decades < 3.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let decades = low.log10().floor() as i32..=high.log10().floor() as i32;
    let ticks = decades.flat_map(|decade| multiples.iter().map(move |multiple| multiple * 10f64.powi(decade)));
    ticks.filter(|tick| (low..=high).contains(tick)).collect()
}

/// A number with as many digits as a tick needs.
fn short(value: &f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(step: u64, loss: f64) -> Metric {
        Metric::Train { step, epoch: 0, loss, lr: 0.1, grad_norm: None, seconds: 0.0 }
    }

    fn eval(step: u64, loss: f64) -> Metric {
        Metric::Eval { step, loss, accuracy: 1.0 / (1.0 + loss), seconds: 0.0 }
    }

    #[test]
    fn a_curve_is_mean_and_range_over_the_trials_that_have_the_step() {
        let group = GroupMetrics {
            name: "g".to_owned(),
            trials: vec![vec![eval(5, 1.0), eval(10, 0.5)], vec![eval(5, 3.0), eval(10, f64::NAN)]],
        };
        let losses = |trial: &[Metric]| {
            let eval = |metric: &Metric| match *metric {
                Metric::Eval { step, loss, .. } => Some((step as f64, loss)),
                Metric::Train { .. } | Metric::Probe { .. } => None,
            };
            trial.iter().filter_map(eval).collect()
        };
        let point = |step, mean, low, high| Point { step, mean, low, high };
        assert_eq!(curves(&[group], losses), [[point(5.0, 2.0, 1.0, 3.0), point(10.0, 0.5, 0.5, 0.5)]]);
    }

    #[test]
    fn training_losses_are_averaged_over_equal_parts() {
        let trial: Vec<Metric> = (1..=TRAIN_POINTS * 10).map(|step| train(step, step as f64)).collect();
        let points = train_losses(&trial);
        assert_eq!(points.len() as u64, TRAIN_POINTS);
        assert_eq!((points[0], points[1]), ((5.5, 5.5), (15.5, 15.5)));
        assert_eq!(train_losses(&[train(1, 2.0)]), [(1.0, 2.0)]);
        assert!(train_losses(&[]).is_empty());
    }

    #[test]
    fn draws_whatever_was_measured() {
        let trial = vec![train(1, 2.0), train(10, 1.0), eval(10, 0.5)];
        for (trials, polygons) in [
            (vec![], 0),
            (vec![vec![train(1, f64::NAN)]], 0),
            (vec![vec![eval(1, 0.0)]], 1),
            (vec![trial.clone(), vec![train(1, f64::NAN)]], 3),
        ] {
            let groups = [GroupMetrics { name: "one & <two>".to_owned(), trials }];
            let svg = learning_curves("title", &groups).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("one &amp; &lt;two&gt;") && svg.contains("test accuracy"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.matches("<polygon").count() >= polygons);
        }
    }

    #[test]
    fn logarithmic_ticks_are_round_and_enough() {
        for (low, high, ticks) in [
            (0.04, 3.0, &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0][..]),
            (0.9, 2.3, &[0.9, 1.0, 1.5, 2.0]),
            (3e-5, 2.0, &[1e-4, 1e-3, 1e-2, 0.1, 1.0]),
        ] {
            let found = logarithmic_ticks(low, high);
            assert!(
                found.len() == ticks.len() && found.iter().zip(ticks).all(|(a, b)| (a / b - 1.0).abs() < 1e-12),
                "{found:?}"
            );
        }
    }

    #[test]
    fn ticks_are_short() {
        for (value, text) in [(0.1, "0.1"), (100.0, "100"), (0.0, "0"), (0.0025, "0.0025"), (97.5, "97.5")] {
            assert_eq!(short(&value), text);
        }
    }
}
