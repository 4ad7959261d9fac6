//! What happens inside the model in the first updates, with warmup and without.

use super::curves;
use crate::{
    record::metric::{LayerProbe, Metric},
    report::{
        facet::Facet,
        plot::{
            figure::{Axis, Curve, Drawn, Figure, Key, Panel, Row},
            scale::share_y,
            style::STYLES,
        },
        samples::{By, Sample, over_seeds, smoothed},
    },
    stats::Estimate,
};

/// The inside of a model is drawn for this many updates from the start.
const FIRST_STEPS: u64 = 200;

/// It is averaged over this many equal parts of them.
const FIRST_PARTS: u64 = 50;

/// Whether any trial in `facet` was probed.
pub fn is_probed(facet: &Facet) -> bool {
    let mut trials = facet.members.iter().flat_map(|member| &member.group.finals);
    trials.any(|trial| trial.metrics.iter().any(|metric| matches!(metric, Metric::Probe { .. })))
}

/// What happened inside the model in the first steps: each layer on its own, then the whole.
pub fn figure(facet: &Facet) -> Figure {
    let layers = layers(facet);
    let mut norms = Vec::new();
    let mut ratios = Vec::new();
    for member in &facet.members {
        let panel = |title: &str, y: &str, value: fn(&LayerProbe) -> Option<f64>| {
            let of_layer = |(style, layer): (usize, &String)| {
                let value = |probe: &Probe| probe.layers.iter().find(|probe| probe.layer == *layer).and_then(value);
                let trials = member.group.finals.iter().map(|trial| probes(trial.metrics, value));
                let mut points = over_seeds(trials, By::Step, Estimate::of);
                // Bands of so many curves would hide each other.
                points.iter_mut().for_each(|point| point.band = None);
                Curve { name: layer.clone(), style, points, drawn: Drawn::Line }
            };
            Panel {
                title: format!("{title}, {}", member.label),
                quantity: title.to_owned(),
                x: By::Step.axis(),
                y: Axis::logarithmic(y),
                curves: layers.iter().enumerate().map(of_layer).collect(),
                ..Panel::default()
            }
        };
        norms.push(panel("gradient norm", "L2 norm by layer", |layer| layer.grad_norm));
        ratios.push(panel("update ratio", "|update| / |parameters|", |layer| layer.update_ratio));
    }
    share_y(&mut norms);
    share_y(&mut ratios);
    let of_all = |title: &str, y: Axis, value: fn(&Probe) -> Option<f64>| {
        let mut panel = curves::panel(title, y, By::Step, facet, |metrics| probes(metrics, value));
        panel.marks.retain(|mark| mark.x <= FIRST_STEPS as f64);
        panel.x = By::Step.axis();
        panel
    };
    let whole = vec![
        of_all("update ratio", Axis::logarithmic("|update| / |parameters|"), |probe| Some(probe.update_ratio)),
        of_all("angle between updates", Axis::linear("degrees"), |probe| probe.update_angle),
        of_all("largest activation", Axis::logarithmic("absolute value"), |probe| {
            largest(probe, |layer| layer.activation_max)
        }),
        of_all("largest attention logit", Axis::logarithmic("absolute value"), |probe| {
            largest(probe, |layer| layer.attention_logit_max)
        }),
    ];
    // A model without attention has no logits, and an empty panel says nothing.
    let is_measured = |panel: &Panel| panel.curves.iter().any(|curve| !curve.points.is_empty());
    let whole = whole.into_iter().filter(is_measured).collect();
    let names = layers.iter().enumerate().map(|(style, name)| (name.as_str(), style));
    let by_layer = |title: &str, panels: Vec<Panel>| Row {
        title: title.to_owned(),
        panels,
        legend: Key::all(names.clone(), Drawn::Line),
    };
    let rows = vec![
        by_layer("Gradient norm by layer", norms),
        by_layer("Update ratio by layer", ratios),
        Row { title: "The whole model".to_owned(), panels: whole, legend: curves::legend(facet) },
    ];
    let title = if facet.title.is_empty() { String::new() } else { format!(", {}", facet.title) };
    Figure { title: format!("Inside the model{title}"), rows }
}

/// What [`figure`] shows.
pub fn caption(facet: &Facet) -> String {
    let all = named_layers(facet).len();
    let shown = if all > STYLES {
        format!(" Of {all} layers {STYLES} are drawn, evenly spread from the first to the last.")
    } else {
        String::new()
    };
    let left_out = match not_finite(facet) {
        0 => String::new(),
        n => format!(" {n} of the values were infinite or not numbers, and are not drawn."),
    };
    format!(
        "The first {FIRST_STEPS} updates, averaged over {FIRST_PARTS} equal parts; means over the seeds that have the step, for the whole model \
         with the 95 % confidence interval of the mean (Student's t) as the band. The gradient norm is before clipping; the update ratio is the norm of the update \
         over that of the parameters before it; the angle is that between an update and the one before, 90 degrees for unrelated \
         directions; activation and attention logit are the largest absolute values of any layer (logits before masking). Panels of a \
         row by layer share their vertical axis.{shown}{left_out}"
    )
}

/// The fields of [`Metric::Probe`].
struct Probe<'m> {
    update_ratio: f64,
    update_angle: Option<f64>,
    layers: &'m [LayerProbe],
}

fn probes(metrics: &[Metric], value: impl Fn(&Probe) -> Option<f64>) -> Vec<Sample> {
    let sample = |metric: &Metric| match metric {
        Metric::Probe { step, update_ratio, update_angle, layers } if *step <= FIRST_STEPS => {
            let probe = Probe { update_ratio: *update_ratio, update_angle: *update_angle, layers };
            Some(Sample { key: *step, step: *step as f64, seconds: 0.0, value: value(&probe)? })
        }
        _ => None,
    };
    let samples: Vec<Sample> = metrics.iter().filter_map(sample).collect();
    smoothed(&samples, FIRST_STEPS, FIRST_PARTS)
}

fn largest(probe: &Probe, value: fn(&LayerProbe) -> Option<f64>) -> Option<f64> {
    // A value that is not a number must not be hidden by the others.
    probe.layers.iter().filter_map(value).reduce(|a, b| if a > b || a.is_nan() { a } else { b })
}

/// How many values in the first steps of the trials in `facet` were infinite or not numbers.
fn not_finite(facet: &Facet) -> usize {
    let trials = facet.members.iter().flat_map(|member| &member.group.finals);
    let count = |metric: &Metric| match metric {
        Metric::Probe { step, update_ratio, update_angle, layers } if *step <= FIRST_STEPS => {
            let of_layers = layers.iter().flat_map(|layer| {
                [layer.grad_norm, layer.update_ratio, layer.activation_max, layer.attention_logit_max]
            });
            let values = of_layers.chain([Some(*update_ratio), *update_angle]).flatten();
            values.filter(|value| !value.is_finite()).count()
        }
        _ => 0,
    };
    trials.flat_map(|trial| trial.metrics).map(count).sum()
}

/// The layers that have parameters, in the order of the forward pass.
fn named_layers(facet: &Facet) -> Vec<String> {
    let mut trials = facet.members.iter().flat_map(|member| &member.group.finals);
    let first = trials.find_map(|trial| {
        trial
            .metrics
            .iter()
            .find_map(|metric| if let Metric::Probe { layers, .. } = metric { Some(layers) } else { None })
    });
    let with_parameters =
        first.into_iter().flatten().filter(|layer| layer.grad_norm.is_some() || layer.update_ratio.is_some());
    with_parameters.map(|layer| layer.layer.clone()).collect()
}

/// The layers that are drawn: as many as can be told apart, evenly spread.
fn layers(facet: &Facet) -> Vec<String> {
    let all = named_layers(facet);
    let last = all.len().saturating_sub(1);
    let count = all.len().min(STYLES);
    (0..count).map(|i| all[if count > 1 { i * last / (count - 1) } else { 0 }].clone()).collect()
}
