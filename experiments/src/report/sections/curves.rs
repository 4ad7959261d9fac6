//! Learning curves: losses, accuracies and gradient norms of a facet's groups, panel by panel.

use crate::{
    record::metric::Metric,
    report::{
        facet::{Facet, Member},
        plot::figure::{Axis, Curve, Drawn, Figure, Key, Mark, Panel, Point, ReferenceLine, Row, Shape},
        samples::{
            By, Estimator, PARTS, Sample, averages, evaluations, grad_norm, loss, over_seeds, shared, smoothed,
            training,
        },
    },
    stats::Estimate,
};

/// A loss of this many times the first is beyond the axis.
const CAP: f64 = 1.5;

/// A panel of what `samples` takes from each trial of each group in `facet`, with a cross where a trial diverged. What a logarithmic
/// axis shows cannot be negative.
pub fn panel(title: &str, y: Axis, by: By, facet: &Facet, samples: impl Fn(&[Metric]) -> Vec<Sample>) -> Panel {
    let estimate = if y.logarithmic { Estimate::positive } else { Estimate::of };
    panel_of(title, y, by, facet, samples, estimate, None)
}

fn panel_of(
    title: &str,
    y: Axis,
    by: By,
    facet: &Facet,
    samples: impl Fn(&[Metric]) -> Vec<Sample>,
    estimate: Estimator,
    parts: Option<u64>,
) -> Panel {
    let mut panel = Panel { title: title.to_owned(), x: by.axis(), y, ..Panel::default() };
    for member in &facet.members {
        let finals = &member.group.finals;
        let trials = finals.iter().map(|trial| samples(trial.metrics)).collect();
        let steps = member.group.steps();
        // What is not of the group is left out before it can be averaged with what is.
        let trials = shared(trials).into_iter().map(|trial| match parts {
            Some(parts) => smoothed(&trial, steps, parts),
            None => trial,
        });
        let points = over_seeds(trials, by, estimate);
        for (trial, outcome) in finals.iter().filter_map(|trial| Some((trial, trial.outcome()?))) {
            if !outcome.diverged {
                continue;
            }
            let title =
                format!("{}, seed {}: diverged at step {}", member.label, trial.record.config.seed, outcome.steps);
            let x = if by == By::Step { outcome.steps as f64 } else { outcome.seconds };
            panel.marks.push(Mark { title, x, y: None, style: member.style, shape: Shape::Cross });
        }
        panel.curves.push(Curve { name: member.label.clone(), style: member.style, points, drawn: Drawn::Line });
    }
    // All panels of a facet have the same horizontal axis, from the start to the end of its runs.
    let end = match by {
        By::Step => facet.members.iter().map(|member| member.group.steps() as f64).fold(0.0, f64::max),
        By::Seconds => panel.greatest_x(),
    };
    panel.x.range = (end > 0.0).then_some([0.0, end]);
    panel
}

/// What the legend calls evaluations with averaged weights.
const AVERAGE: &str = "average of the weights";

/// The curves of what `value` takes from evaluations with averaged weights, where a group kept them; bands of both would hide each other.
fn of_averages(facet: &Facet, by: By, value: fn(f64, f64) -> f64, estimate: Estimator) -> Vec<Curve> {
    let curve = |member: &Member| {
        let trials = member.group.finals.iter().map(|trial| averages(trial.metrics, value));
        let mut points = over_seeds(trials, by, estimate);
        points.iter_mut().for_each(|point| point.band = None);
        Curve { name: format!("{}, {AVERAGE}", member.label), style: member.style, points, drawn: Drawn::Dotted }
    };
    facet.members.iter().map(curve).filter(|curve| !curve.points.is_empty()).collect()
}

/// Whether any trial in `facet` was evaluated with averaged weights.
fn has_averages(facet: &Facet) -> bool {
    let mut trials = facet.members.iter().flat_map(|member| &member.group.finals);
    trials.any(|trial| trial.metrics.iter().any(|metric| matches!(metric, Metric::Ema { .. })))
}

/// An axis of losses: what is far above the first loss is beyond it.
fn loss_axis(facet: &Facet) -> Axis {
    let first = |member: &Member| {
        let trials = member.group.finals.iter();
        let guess = member.group.workload.map(|workload| (workload.classes as f64).ln());
        let first = trials.filter_map(|trial| trial.metrics.iter().find_map(loss).filter(|loss| loss.is_finite()));
        first.chain(guess).fold(0.0, f64::max)
    };
    let cap = facet.members.iter().map(first).fold(0.0, f64::max) * CAP;
    Axis { cap: (cap > 0.0).then_some(cap), ..Axis::logarithmic("cross entropy") }
}

/// The least expected loss that any model can reach, where it is known and the same for the whole facet.
fn floor(facet: &Facet) -> Vec<ReferenceLine> {
    let mut floors = facet.members.iter().map(|member| member.group.workload.and_then(|workload| workload.floor));
    let first = floors.next().flatten().filter(|y| *y > 0.0);
    let same = floors.all(|floor| floor == first);
    first
        .filter(|_| same)
        .map(|y| ReferenceLine { y, label: "entropy: no model does better".to_owned() })
        .into_iter()
        .collect()
}

/// The training loss, averaged over parts of the run.
pub fn train_loss(facet: &Facet, by: By) -> Panel {
    let samples = |metrics: &[Metric]| training(metrics, loss);
    let mut panel = panel_of("training loss", loss_axis(facet), by, facet, samples, Estimate::positive, Some(PARTS));
    panel.reference_lines = floor(facet);
    panel
}

/// The test loss.
pub fn test_loss(facet: &Facet, by: By) -> Panel {
    let samples = |metrics: &[Metric]| evaluations(metrics, |loss, _| loss);
    let mut panel = panel("test loss", loss_axis(facet), by, facet, samples);
    panel.curves.extend(of_averages(facet, by, |loss, _| loss, Estimate::positive));
    panel.reference_lines = floor(facet);
    panel
}

/// The test accuracy in percent.
pub fn test_accuracy(facet: &Facet, by: By) -> Panel {
    let samples = |metrics: &[Metric]| evaluations(metrics, |_, accuracy| accuracy);
    let axis = Axis { within: Some([0.0, 100.0]), ..Axis::linear("%") };
    let mut panel = panel_of("test accuracy", axis, by, facet, samples, Estimate::share, None);
    panel.curves.extend(of_averages(facet, by, |_, accuracy| accuracy, Estimate::share));
    for point in panel.curves.iter_mut().flat_map(|curve| &mut curve.points) {
        *point = Point { y: point.y * 100.0, band: point.band.map(|band| band.map(|share| share * 100.0)), ..*point };
    }
    panel
}

/// The norm of the gradient, averaged over parts of the run.
pub fn gradient_norm(facet: &Facet) -> Panel {
    let samples = |metrics: &[Metric]| training(metrics, grad_norm);
    let axis = Axis::logarithmic("L2 norm before clipping");
    panel_of("gradient norm", axis, By::Step, facet, samples, Estimate::positive, Some(PARTS))
}

/// The style of the legend's entry for averages, which have those of their groups: black.
const ANY_STYLE: usize = 6;

/// The legend of `facet`.
pub fn legend(facet: &Facet) -> Vec<Key> {
    Key::all(facet.members.iter().map(|member| (member.label.as_str(), member.style)), Drawn::Line)
}

/// The legend of `facet` below panels of evaluations.
pub fn legend_of_evaluations(facet: &Facet) -> Vec<Key> {
    let mut keys = legend(facet);
    if has_averages(facet) {
        keys.extend(Key::all([(AVERAGE, ANY_STYLE)].into_iter(), Drawn::Dotted));
    }
    keys
}

/// Training loss, test loss and test accuracy, a row per facet.
pub fn figure(title: &str, facets: &[Facet], by: By) -> Figure {
    let row = |facet: &Facet| Row {
        title: facet.title.clone(),
        panels: vec![train_loss(facet, by), test_loss(facet, by), test_accuracy(facet, by)],
        legend: legend_of_evaluations(facet),
    };
    Figure { title: title.to_owned(), rows: facets.iter().map(row).collect() }
}

/// What bands are.
pub const BANDS: &str = "the 95 % confidence interval of the mean (Student's t, of losses and norms on a logarithmic scale and of accuracies \
    on that of the logit; none for one seed)";

/// What the curves of [`figure`] are.
pub fn caption(by: By, facets: &[Facet]) -> String {
    let place = match by {
        By::Step => "By update.",
        By::Seconds => {
            "By training time without evaluation and saving; a point stands at the mean time of its step over the seeds, \
             and goes on by the time of the others where a trial diverged."
        }
    };
    let averages = if facets.iter().any(has_averages) {
        " A dotted line of the same colour is the same group with the average of its weights (--ema)."
    } else {
        ""
    };
    format!(
        "{place} Lines are means over the seeds that came to the step, bands {BANDS}. The training loss is averaged over {PARTS} equal parts of the run, the test loss is not smoothed. A cross at \
         the top edge marks where a trial diverged, whose curve is in the mean until then; what lies beyond an axis is drawn at \
         its end. Losses have logarithmic axes.{averages} Where the pointer rests on a curve, its values are told."
    )
}
