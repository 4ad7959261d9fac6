//! What warmup does: the largest learning rate that is stable with it and without, and what happens inside the model.

use super::{
    curves::{self, By, Sample},
    html::{Cell, keys, table},
    number,
    subject::{Facet, Labelled, Problem, Subject, aspect},
};
use crate::{
    plot::{Axis, Curve, Drawn, Figure, Panel, Row, STYLES, share_y},
    record::{LayerProbe, Metric},
};
use maud::{Markup, html};

/// A stable group recovers at least this share of what the best recovers.
const RECOVERED: f64 = 0.8;

/// The inside of a model is drawn for this many updates from the start.
const FIRST_STEPS: u64 = 200;

/// It is averaged over this many equal parts of them.
const FIRST_PARTS: u64 = 100;

/// Groups that differ in their peak and in warmup alone.
#[derive(Clone, Debug)]
pub struct Setting<'s, 'a> {
    /// What sets it apart: the place of the norms, the optimizer.
    pub title: String,
    /// Without warmup, by peak.
    without: Vec<Tried<'s, 'a>>,
    /// With warmup, by peak.
    with: Vec<Tried<'s, 'a>>,
}

/// A peak that was tried.
#[derive(Clone, Debug)]
struct Tried<'s, 'a> {
    peak: f64,
    subject: &'s Subject<'a>,
    is_stable: bool,
}

impl<'s, 'a> Setting<'s, 'a> {
    /// The settings of `problem` in the order of their first groups.
    pub fn all(problem: &Problem<'s, 'a>) -> Vec<Self> {
        let aspects = |subject: &Subject| {
            let factors = ["norm", "optimizer"];
            let named = factors.map(|name| subject.factor(name).map(|value| aspect(name, &value)));
            named.into_iter().flatten().collect::<Vec<_>>().join(", ")
        };
        let mut settings: Vec<Self> = Vec::new();
        for &subject in &problem.subjects {
            let peak = subject.factor("peak").and_then(|peak| peak.parse::<f64>().ok());
            let (Some(peak), Some(warmup)) = (peak, subject.factor("warmup")) else { continue };
            let tried = Tried { peak, subject, is_stable: is_stable(problem, subject) };
            let title = aspects(subject);
            let place = settings.iter().position(|setting| setting.title == title).unwrap_or_else(|| {
                settings.push(Self { title, without: Vec::new(), with: Vec::new() });
                settings.len() - 1
            });
            let side = if warmup == "yes" { &mut settings[place].with } else { &mut settings[place].without };
            side.push(tried);
        }
        for side in settings.iter_mut().flat_map(|setting| [&mut setting.without, &mut setting.with]) {
            side.sort_by(|a, b| a.peak.total_cmp(&b.peak));
        }
        settings
    }

    /// The largest stable peaks without warmup and with it.
    fn largest(&self) -> [Option<&Tried<'s, 'a>>; 2] {
        [&self.without, &self.with].map(|side| side.iter().rfind(|tried| tried.is_stable))
    }
}

/// Whether no seed of `subject` diverged and its mean loss at the end recovers most of what the best does, from the loss of a guess.
fn is_stable(problem: &Problem, subject: &Subject) -> bool {
    let peers = problem.subjects.iter().filter(|other| {
        other.summary.dataset == subject.summary.dataset
            && other.family() == subject.family()
            && other.factor("optimizer") == subject.factor("optimizer")
            && other.summary.diverged == 0
    });
    let best = peers.filter_map(|other| other.summary.loss.mean).fold(f64::INFINITY, f64::min);
    let (Some(loss), Some(workload)) = (subject.summary.loss.mean, subject.workload) else { return false };
    let guess = (workload.classes as f64).ln();
    subject.summary.diverged == 0 && best < guess && guess - loss >= RECOVERED * (guess - best)
}

/// What [`is_stable`] means, for readers.
pub const DEFINITION: &str = "A learning rate is stable here if no seed diverged and the mean final test loss recovers at least 80 % of the drop \
    from ln(classes), the loss of a guess, to the best mean final loss of the same data set, model family and optimizer (any norm, peak and \
    warmup): it is within 20 % of the best, relative to that drop.";

/// What warmup did to the largest stable learning rate, in a sentence or two.
pub fn answer(problem: &Problem, name_problem: bool) -> Option<String> {
    let settings = Setting::all(problem);
    let compared: Vec<&Setting> =
        settings.iter().filter(|setting| !setting.with.is_empty() && !setting.without.is_empty()).collect();
    if compared.is_empty() {
        return None;
    }
    let peak = |tried: Option<&Tried>| tried.map_or(0.0, |tried| tried.peak);
    let changed = |is_raised: bool| -> Vec<String> {
        let of = |setting: &&&Setting| {
            let [without, with] = setting.largest();
            if is_raised { peak(with) > peak(without) } else { peak(with) < peak(without) }
        };
        let text = |setting: &&Setting| {
            let [without, with] = setting.largest();
            let text = |tried: Option<&Tried>| tried.map_or("none".to_owned(), |tried| number::setting(tried.peak));
            format!("{} from {} to {}", setting.title, text(without), text(with))
        };
        compared.iter().filter(of).map(text).collect()
    };
    let (raised, lowered) = (changed(true), changed(false));
    let place = if name_problem { format!("On {}, warmup", problem.title) } else { "Warmup".to_owned() };
    let all = compared.len();
    let settings = if all == 1 { "the one setting".to_owned() } else { format!("{all} settings") };
    let list = |changes: &[String]| match changes {
        few if few.len() <= 4 => few.join("; "),
        many => format!("{}; and {} more", many[..4].join("; "), many.len() - 4),
    };
    let mut text = match raised.len() {
        0 if all == 1 => format!("{place} did not raise the largest stable learning rate."),
        0 => format!("{place} raised the largest stable learning rate in none of {settings}."),
        n => {
            let of = if all == 1 { settings } else { format!("{n} of {settings}") };
            format!("{place} raised the largest stable learning rate in {of}: {}.", list(&raised))
        }
    };
    if !lowered.is_empty() {
        text += &format!(" It lowered it in {}: {}.", lowered.len(), list(&lowered));
    }
    let neither = compared.iter().filter(|setting| setting.largest().iter().all(Option::is_none)).count();
    if neither > 0 {
        text += &format!(" In {neither} no rate that was tried is stable.");
    }
    Some(text)
}

/// The largest stable learning rates, and below them everything that was tried.
pub fn tables(problem: &Problem) -> Markup {
    let settings = Setting::all(problem);
    if settings.is_empty() {
        return html! {};
    }
    let largest = |tried: Option<&Tried>, side: &[Tried]| match (tried, side.last()) {
        (Some(tried), Some(last)) => {
            let sign = if tried.peak == last.peak { "≥ " } else { "" };
            let loss = tried.subject.summary.loss.mean.map(|loss| format!("loss {}", number::number(loss)));
            Cell::new(format!("{sign}{}", number::setting(tried.peak))).to(tried.subject.href()).note(loss)
        }
        (_, Some(_)) => Cell::new("none"),
        (_, None) => Cell::new(number::NONE),
    };
    let row = |setting: &Setting| {
        let [without, with] = setting.largest();
        let ratio = without.zip(with).map(|(without, with)| with.peak / without.peak);
        vec![
            Cell::new(&setting.title),
            largest(without, &setting.without),
            largest(with, &setting.with),
            Cell::new(ratio.map_or(number::NONE.to_owned(), |ratio| {
                format!("{} ×", number::setting((ratio * 100.0).round() / 100.0))
            })),
        ]
    };
    let rows: Vec<_> = settings.iter().map(row).collect();
    let summary = table(
        &format!("Largest stable learning rate, {}", problem.title),
        &["setting", ">without warmup", ">with warmup", ">ratio"],
        &rows,
        &format!("{DEFINITION} ≥: the largest that was tried is stable, so the limit lies higher."),
    );

    let sides = || {
        settings.iter().flat_map(|setting| {
            [(setting, "without warmup", &setting.without), (setting, "with warmup", &setting.with)]
        })
    };
    let mut peaks: Vec<f64> = sides().flat_map(|(_, _, side)| side.iter().map(|tried| tried.peak)).collect();
    peaks.sort_by(f64::total_cmp);
    peaks.dedup();
    let row = |(setting, warmup, side): (&Setting, &str, &Vec<Tried>)| {
        let cell = |peak: &f64| match side.iter().find(|tried| tried.peak == *peak) {
            None => Cell::new(""),
            Some(Tried { subject, is_stable, .. }) => {
                let summary = subject.summary;
                let note = match summary.diverged {
                    0 if *is_stable => "stable".to_owned(),
                    0 => "not stable".to_owned(),
                    diverged => format!("{diverged} of {} diverged", summary.n),
                };
                let text = summary.loss.mean.map_or("all diverged".to_owned(), number::number);
                Cell::new(text).to(subject.href()).note(Some(note)).strong(*is_stable)
            }
        };
        std::iter::once(Cell::new(format!("{}, {warmup}", setting.title))).chain(peaks.iter().map(cell)).collect()
    };
    let rows: Vec<Vec<Cell>> = sides().filter(|(_, _, side)| !side.is_empty()).map(row).collect();
    let head: Vec<String> = std::iter::once("peak learning rate".to_owned())
        .chain(peaks.iter().map(|peak| format!(">{}", number::setting(*peak))))
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let all = table(
        &format!("Every peak that was tried, {}", problem.title),
        &head,
        &rows,
        "The mean final test loss over the seeds that did not diverge; what is stable by the definition above is set off.",
    );
    html! { (summary) (all) }
}

/// Losses and gradient norms side by side, a row per facet, with warmup and without in the same panel.
pub fn figure(facets: &[Facet]) -> Figure {
    let row = |facet: &Facet| Row {
        title: facet.title.clone(),
        panels: vec![
            curves::train_loss(facet, By::Step),
            curves::test_loss(facet, By::Step),
            curves::gradient_norm(facet),
        ],
        legend: curves::legend(facet),
    };
    Figure {
        title: "Losses and gradient norms with and without warmup".to_owned(),
        rows: facets.iter().map(row).collect(),
    }
}

/// What [`figure`] shows.
pub const CAPTION: &str = "Means over the seeds that have the step, with the 95 % confidence interval of the mean (Student's t) as the band. The \
    training loss and the gradient norm (L2, of all parameters, before clipping) are averaged over 60 equal parts of the run. A \
    cross at the top edge marks where a trial diverged.";

/// Whether any trial in `facet` was probed.
pub fn is_probed(facet: &Facet) -> bool {
    let mut trials = facet.curves.iter().flat_map(|curve| &curve.subject.finals);
    trials.any(|trial| trial.metrics.iter().any(|metric| matches!(metric, Metric::Probe { .. })))
}

/// Whether `facet` is at the largest peak that is stable with warmup: where warmup matters most.
pub fn is_at_the_limit(settings: &[Setting], facet: &Facet) -> bool {
    let at_limit = |curve: &Labelled| {
        let limits = settings.iter().filter_map(|setting| setting.largest()[1]);
        limits.into_iter().any(|tried| tried.subject.anchor() == curve.subject.anchor())
    };
    facet.curves.iter().any(at_limit)
}

/// What happened inside the model in the first steps: each layer on its own, then the whole.
pub fn inside(facet: &Facet) -> Figure {
    let layers = layers(facet);
    let mut norms = Vec::new();
    let mut ratios = Vec::new();
    for curve in &facet.curves {
        let panel = |title: &str, y: &str, value: fn(&LayerProbe) -> Option<f64>| {
            let of_layer = |(style, layer): (usize, &String)| {
                let value = |probe: &Probe| probe.layers.iter().find(|probe| probe.layer == *layer).and_then(value);
                let points =
                    curves::over_seeds(curve.subject.finals.iter().map(|trial| probes(trial.metrics, value)), By::Step);
                Curve { style, points, drawn: Drawn::Line }
            };
            Panel {
                title: format!("{title}, {}", curve.label),
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
        let mut panel = curves::panel(title, y, By::Step, facet, |_, metrics| probes(metrics, value));
        panel.marks.retain(|mark| mark.x <= FIRST_STEPS as f64);
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
        legend: keys(names.clone(), Drawn::Line),
    };
    let rows = vec![
        by_layer("Gradient norm by layer", norms),
        by_layer("Update ratio by layer", ratios),
        Row { title: "The whole model".to_owned(), panels: whole, legend: curves::legend(facet) },
    ];
    let title = if facet.title.is_empty() { String::new() } else { format!(", {}", facet.title) };
    Figure { title: format!("Inside the model{title}"), rows }
}

/// What [`inside`] shows.
pub fn inside_caption(facet: &Facet) -> String {
    let all = named_layers(facet).len();
    let shown = if all > STYLES {
        format!(" Of {all} layers {STYLES} are drawn, evenly spread from the first to the last.")
    } else {
        String::new()
    };
    format!(
        "The first {FIRST_STEPS} updates, averaged over {FIRST_PARTS} equal parts; means over the seeds that have the step with the 95 % confidence \
         interval of the mean (Student's t) as the band. The gradient norm is before clipping; the update ratio is the norm of the update \
         over that of the parameters before it; the angle is that between an update and the one before, 90 degrees for unrelated \
         directions; activation and attention logit are the largest absolute values of any layer (logits before masking). Panels of a \
         row by layer share their vertical axis.{shown}"
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
    curves::smoothed(&samples, FIRST_STEPS, FIRST_PARTS)
}

fn largest(probe: &Probe, value: fn(&LayerProbe) -> Option<f64>) -> Option<f64> {
    probe.layers.iter().filter_map(value).reduce(f64::max)
}

/// The layers that have parameters, in the order of the forward pass.
fn named_layers(facet: &Facet) -> Vec<String> {
    let mut trials = facet.curves.iter().flat_map(|curve| &curve.subject.finals);
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_names_the_share_that_is_used() {
        assert!(super::DEFINITION.contains(&format!("at least {} %", super::RECOVERED * 100.0)));
        assert!(super::CAPTION.contains(&format!("averaged over {} equal parts", super::curves::PARTS)));
    }
}
