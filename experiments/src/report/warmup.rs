//! What warmup does: the largest learning rate that is stable with it and without, and what happens inside the model.

use super::{
    curves::{self, By, Sample},
    html::{Cell, keys, table},
    number,
    subject::{Facet, Labelled, Problem, Subject, Trial, aspect},
};
use crate::{
    plot::{Axis, Curve, Drawn, Figure, Panel, Row, STYLES, share_y},
    record::{LayerProbe, Metric},
};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// A stable trial keeps at least this share of what the best group of its setting learned.
const KEPT: f64 = 0.8;

/// The inside of a model is drawn for this many updates from the start.
const FIRST_STEPS: u64 = 200;

/// It is averaged over this many equal parts of them.
const FIRST_PARTS: u64 = 50;

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
    /// By seed, whether it is stable.
    stable: BTreeMap<u64, bool>,
}

impl Tried<'_, '_> {
    fn is_stable(&self) -> bool {
        !self.stable.is_empty() && self.stable.values().all(|stable| *stable)
    }
}

/// The largest peak of `side` that is stable as are all smaller ones, down to the first that is. What is below that learned too
/// slowly, and what is stable above an unstable one was lucky.
fn last_stable<'t, 's, 'a>(
    side: &'t [Tried<'s, 'a>],
    is_stable: impl Fn(&Tried<'s, 'a>) -> bool,
) -> Option<&'t Tried<'s, 'a>> {
    side.iter().skip_while(|tried| !is_stable(tried)).take_while(|tried| is_stable(tried)).last()
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
            let tried = Tried { peak, subject, stable: BTreeMap::new() };
            let title = aspects(subject);
            let place = settings.iter().position(|setting| setting.title == title).unwrap_or_else(|| {
                settings.push(Self { title, without: Vec::new(), with: Vec::new() });
                settings.len() - 1
            });
            let side = if warmup == "yes" { &mut settings[place].with } else { &mut settings[place].without };
            side.push(tried);
        }
        settings.iter_mut().for_each(Self::judge);
        settings
    }

    /// Sorts the peaks and finds out which are stable.
    fn judge(&mut self) {
        let all = || self.without.iter().chain(&self.with);
        let ended = all().filter(|tried| tried.subject.summary.diverged == 0);
        let best = ended.filter_map(|tried| tried.subject.summary.loss.mean).fold(f64::INFINITY, f64::min);
        for side in [&mut self.without, &mut self.with] {
            side.sort_by(|a, b| a.peak.total_cmp(&b.peak));
            for tried in side {
                let constant = tried.subject.workload.map_or(f64::NEG_INFINITY, |workload| workload.constant_loss);
                let is_stable = |trial: &Trial| {
                    trial
                        .final_loss()
                        .is_some_and(|loss| best < constant && constant - loss >= KEPT * (constant - best))
                };
                let trials = tried.subject.finals.iter();
                tried.stable = trials.map(|trial| (trial.record.config.seed, is_stable(trial))).collect();
            }
        }
    }

    /// The largest peaks without warmup and with it that are stable for every seed.
    fn largest(&self) -> [Option<&Tried<'s, 'a>>; 2] {
        [&self.without, &self.with].map(|side| last_stable(side, |tried| tried.is_stable()))
    }

    /// The seeds that each peak was tried with.
    fn seeds(&self) -> Vec<u64> {
        let mut all = self.without.iter().chain(&self.with);
        let Some(first) = all.next() else { return Vec::new() };
        let is_everywhere = |seed: &u64| all.clone().all(|tried| tried.stable.contains_key(seed));
        first.stable.keys().copied().filter(is_everywhere).collect()
    }

    /// The largest stable peak with each seed alone: without warmup, and with it.
    fn by_seed(&self) -> Vec<[Option<f64>; 2]> {
        let of = |seed: &u64| {
            [&self.without, &self.with].map(|side| Some(last_stable(side, |tried| tried.stable[seed])?.peak))
        };
        self.seeds().iter().map(of).collect()
    }

    /// By how much warmup raised the largest stable peak: for all seeds together, and for each on its own.
    fn ratios(&self) -> (Option<f64>, Vec<f64>) {
        let [without, with] = self.largest();
        let ratios = self.by_seed().into_iter().filter_map(|[without, with]| Some(with? / without?));
        (without.zip(with).map(|(without, with)| with.peak / without.peak), ratios.collect())
    }
}

/// What is stable, for readers.
pub const DEFINITION: &str = "A trial is stable here if it did not diverge and its test loss at the end keeps at least 80 % of what the best \
    group of its setting learned, with warmup or without: the drop from the loss of the best constant prediction (the entropy of the \
    classes' shares in the test data) to that group's mean. A learning rate is stable if the trial of every seed is; the largest is the \
    last before the first that is not.";

fn times(ratio: f64) -> String {
    format!("{} ×", number::setting((ratio * 100.0).round() / 100.0))
}

/// The range of `ratios` in words; none for fewer than two.
fn range(ratios: &[f64]) -> Option<String> {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match ratios.len() {
        0 | 1 => None,
        _ if least == greatest => Some(format!("{} with each of {} seeds", times(least), ratios.len())),
        _ => Some(format!("{} to {} over {} seeds", times(least), times(greatest), ratios.len())),
    }
}

/// What warmup did to the largest stable learning rate, a sentence for each setting.
pub fn answer(problem: &Problem, name_problem: bool) -> Vec<String> {
    let settings = Setting::all(problem);
    let compared: Vec<&Setting> =
        settings.iter().filter(|setting| !setting.with.is_empty() && !setting.without.is_empty()).collect();
    let place = if name_problem { format!("{}, ", problem.title) } else { String::new() };
    let sentence = |setting: &&Setting| {
        let [without, with] = setting.largest();
        let at_end = |tried: &Tried, side: &[Tried]| side.last().is_some_and(|last| last.peak == tried.peak);
        let peak = |tried: &Tried, side: &[Tried]| {
            format!("{}{}", number::setting(tried.peak), if at_end(tried, side) { " or more" } else { "" })
        };
        let (ratio, by_seed) = setting.ratios();
        let ratio = match (ratio, range(&by_seed)) {
            (Some(ratio), Some(range)) => format!(" ({}; {range})", times(ratio)),
            (Some(ratio), None) => format!(" ({})", times(ratio)),
            (None, _) => String::new(),
        };
        let outcome = match (without, with) {
            (None, None) => "no learning rate that was tried is stable, with warmup or without".to_owned(),
            (None, Some(with)) => {
                format!(
                    "no learning rate that was tried is stable without warmup, and {} with it",
                    peak(with, &setting.with)
                )
            }
            (Some(without), None) => {
                format!(
                    "no learning rate that was tried is stable with warmup, and {} without",
                    peak(without, &setting.without)
                )
            }
            (Some(without), Some(with)) => {
                let change = match with.peak.total_cmp(&without.peak) {
                    std::cmp::Ordering::Greater => "raised",
                    std::cmp::Ordering::Less => "lowered",
                    std::cmp::Ordering::Equal => {
                        let peak = peak(with, &setting.with);
                        return format!(
                            "{place}{}: warmup left the largest stable learning rate at {peak}.",
                            setting.title
                        );
                    }
                };
                format!(
                    "warmup {change} the largest stable learning rate from {} to {}{ratio}",
                    peak(without, &setting.without),
                    peak(with, &setting.with)
                )
            }
        };
        format!("{place}{}: {outcome}.", setting.title)
    };
    compared.iter().map(sentence).collect()
}

/// The largest stable learning rates, and below them everything that was tried.
pub fn tables(problem: &Problem) -> Markup {
    let settings = Setting::all(problem);
    if settings.is_empty() {
        return html! {};
    }
    let largest = |tried: Option<&Tried>, side: &[Tried], by_seed: Vec<Option<f64>>| {
        let seeds: Vec<String> =
            by_seed.iter().map(|peak| peak.map_or(number::NONE.to_owned(), number::setting)).collect();
        let seeds = (seeds.len() > 1).then(|| format!("by seed {}", seeds.join(", ")));
        match (tried, side.last()) {
            (Some(tried), Some(last)) => {
                let sign = if tried.peak == last.peak { "≥ " } else { "" };
                Cell::new(format!("{sign}{}", number::setting(tried.peak))).to(tried.subject.href()).note(seeds)
            }
            (_, Some(_)) => Cell::new("none").note(seeds),
            (_, None) => Cell::new(number::NONE),
        }
    };
    let row = |setting: &Setting| {
        let [without, with] = setting.largest();
        let side = |index: usize| setting.by_seed().iter().map(|peaks| peaks[index]).collect();
        let (ratio, by_seed) = setting.ratios();
        vec![
            Cell::new(&setting.title),
            largest(without, &setting.without, side(0)),
            largest(with, &setting.with, side(1)),
            Cell::new(ratio.map_or(number::NONE.to_owned(), times)).note(range(&by_seed)),
        ]
    };
    let rows: Vec<_> = settings.iter().map(row).collect();
    let summary = table(
        &format!("Largest stable learning rate, {}", problem.title),
        &["setting", ">without warmup", ">with warmup", ">ratio"],
        &rows,
        &format!(
            "{DEFINITION} Below it the same with each seed alone. ≥: the largest that was tried is stable, so the limit lies higher."
        ),
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
            Some(tried) => {
                let summary = tried.subject.summary;
                let stable = tried.stable.values().filter(|stable| **stable).count();
                let note = match (stable, summary.diverged) {
                    _ if tried.is_stable() => "stable".to_owned(),
                    (stable, 0) => format!("{stable} of {} stable", summary.n),
                    (stable, diverged) => format!("{stable} of {} stable, {diverged} diverged", summary.n),
                };
                let text = summary.loss.mean.map_or("all diverged".to_owned(), number::number);
                Cell::new(text).to(tried.subject.href()).note(Some(note)).strong(tried.is_stable())
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

/// Whether `facet` is at the largest peak that is stable with warmup, or without: where warmup matters most.
pub fn is_at_the_limit(settings: &[Setting], facet: &Facet) -> bool {
    let at_limit = |curve: &Labelled| {
        let limits = settings.iter().flat_map(Setting::largest).flatten();
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
                let trials = curve.subject.finals.iter().map(|trial| probes(trial.metrics, value));
                let mut points = curves::over_seeds(trials, By::Step);
                // Bands of so many curves would hide each other.
                points.iter_mut().for_each(|point| point.band = None);
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
        "The first {FIRST_STEPS} updates, averaged over {FIRST_PARTS} equal parts; means over the seeds that have the step, for the whole model \
         with the 95 % confidence interval of the mean (Student's t) as the band. The gradient norm is before clipping; the update ratio is the norm of the update \
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
        assert!(super::DEFINITION.contains(&format!("at least {} %", super::KEPT * 100.0)));
        assert!(super::CAPTION.contains(&format!("averaged over {} equal parts", super::curves::PARTS)));
    }
}
