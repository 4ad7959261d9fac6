//! What warmup does: the largest learning rates that are usable and stable with it and without, and what happens inside the model.

use crate::report::{
    group::{Facet, Labelled, Problem, Subject, Trial, aspect},
    number,
    page::{Cell, keys, table},
    sections::curves::{self, By, Sample},
};
use crate::stats::Estimate;
use crate::{
    record::metric::{LayerProbe, Metric},
    report::plot::{Axis, Curve, Drawn, Figure, Panel, Row, STYLES, share_y},
};
use maud::{Markup, html};
use std::{cmp::Ordering, collections::BTreeMap};

/// A usable trial keeps at least this share of what the best group of its setting learned.
const KEPT: f64 = 0.8;

/// The training loss of a stable trial never rises by more than this share of the loss of a constant prediction.
const RISE: f64 = 0.1;

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
    /// By seed, whether it meets each [`Criterion`].
    meets: BTreeMap<u64, [bool; 2]>,
}

/// What a learning rate may be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Criterion {
    /// It learns nearly as much as any.
    Usable,
    /// Its training loss does not blow up, whatever it learns.
    Stable,
}

impl Criterion {
    const ALL: [Self; 2] = [Self::Usable, Self::Stable];

    fn name(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Stable => "stable",
        }
    }

    /// What it is, for readers.
    fn definition(self) -> &'static str {
        match self {
            Self::Usable => {
                "A trial is usable here if it did not diverge and its test loss at the end keeps at least 80 % of what the best group of its \
                 setting learned, with warmup or without: the drop from the loss of the best constant prediction (the entropy of the \
                 classes' shares in the test data) to that group's mean. So a better learning rate among those tried can make others \
                 unusable, and one that learns slowly is unusable, however steady."
            }
            Self::Stable => {
                "A trial is stable here if it did not diverge and its training loss, averaged over 60 equal parts of the run, is in no part \
                 above the least before it by more than 10 % of the loss of the best constant prediction. So a run that spikes and \
                 recovers is not stable, and one that learns little may be."
            }
        }
    }
}

impl Tried<'_, '_> {
    /// Whether the trial of every seed is.
    fn is(&self, criterion: Criterion) -> bool {
        !self.meets.is_empty() && self.count(criterion) == self.meets.len()
    }

    /// Of how many seeds the trial is.
    fn count(&self, criterion: Criterion) -> usize {
        self.meets.values().filter(|meets| meets[criterion as usize]).count()
    }
}

/// The largest peak of a side.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit {
    peak: f64,
    /// Whether it is the largest that was tried, so that the limit lies there or higher.
    is_open: bool,
}

impl Limit {
    fn in_table(self) -> String {
        format!("{}{}", if self.is_open { "≥ " } else { "" }, number::setting(self.peak))
    }

    fn in_words(self) -> String {
        format!("{}{}", number::setting(self.peak), if self.is_open { " or more" } else { "" })
    }
}

/// By how much warmup raises a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio {
    times: f64,
    /// How the true ratio may lie: where the limit with warmup is open it is this or greater, without warmup this or less.
    bound: Ordering,
}

impl Ratio {
    /// None where a side has no limit, or both are open: then nothing is known.
    fn of([without, with]: [Option<Limit>; 2]) -> Option<Self> {
        let (without, with) = without.zip(with)?;
        let bound = match (without.is_open, with.is_open) {
            (false, false) => Ordering::Equal,
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (true, true) => return None,
        };
        Some(Self { times: with.peak / without.peak, bound })
    }

    fn text(self) -> String {
        let sign = match self.bound {
            Ordering::Equal => "",
            Ordering::Greater => "≥ ",
            Ordering::Less => "≤ ",
        };
        format!("{sign}{} ×", number::setting((self.times * 100.0).round() / 100.0))
    }
}

/// The last peak of `side` that is good as are all smaller ones, down to the first that is. What is below that learned too
/// slowly, and what is good above a bad one was lucky.
fn last_good<'t, 's, 'a>(
    side: &'t [Tried<'s, 'a>],
    is_good: impl Fn(&Tried<'s, 'a>) -> bool,
) -> Option<(&'t Tried<'s, 'a>, Limit)> {
    let tried = side.iter().skip_while(|tried| !is_good(tried)).take_while(|tried| is_good(tried)).last()?;
    let is_open = side.last().is_some_and(|last| last.peak == tried.peak);
    Some((tried, Limit { peak: tried.peak, is_open }))
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
            let tried = Tried { peak, subject, meets: BTreeMap::new() };
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

    /// Sorts the peaks and finds out what they are good for.
    fn judge(&mut self) {
        let all = || self.without.iter().chain(&self.with);
        let ended = all().filter(|tried| tried.subject.summary.diverged == 0);
        let best = ended.filter_map(|tried| tried.subject.summary.loss.mean).fold(f64::INFINITY, f64::min);
        for side in [&mut self.without, &mut self.with] {
            side.sort_by(|a, b| a.peak.total_cmp(&b.peak));
            for tried in side {
                let constant = tried.subject.workload.map_or(f64::NEG_INFINITY, |workload| workload.constant_loss);
                let is_usable = |trial: &Trial| {
                    trial
                        .final_loss()
                        .is_some_and(|loss| best < constant && constant - loss >= KEPT * (constant - best))
                };
                let steps = tried.subject.steps();
                let is_stable = |trial: &Trial| {
                    let losses = curves::smoothed(&curves::training(trial.metrics, curves::loss), steps, curves::PARTS);
                    trial.final_loss().is_some() && never_rises(losses.iter().map(|part| part.value), RISE * constant)
                };
                let trials = tried.subject.finals.iter();
                tried.meets =
                    trials.map(|trial| (trial.record.config.seed, [is_usable(trial), is_stable(trial)])).collect();
            }
        }
    }

    /// The largest peaks without warmup and with it that are good for every seed, with their groups.
    fn largest(&self, criterion: Criterion) -> [Option<(&Tried<'s, 'a>, Limit)>; 2] {
        [&self.without, &self.with].map(|side| last_good(side, |tried| tried.is(criterion)))
    }

    /// The seeds that each peak was tried with.
    fn seeds(&self) -> Vec<u64> {
        let mut all = self.without.iter().chain(&self.with);
        let Some(first) = all.next() else { return Vec::new() };
        let is_everywhere = |seed: &u64| all.clone().all(|tried| tried.meets.contains_key(seed));
        first.meets.keys().copied().filter(is_everywhere).collect()
    }

    /// The largest good peak with each seed alone: without warmup, and with it.
    fn by_seed(&self, criterion: Criterion) -> Vec<[Option<Limit>; 2]> {
        let of = |seed: &u64| {
            let is_good = |tried: &Tried| tried.meets[seed][criterion as usize];
            [&self.without, &self.with].map(|side| Some(last_good(side, is_good)?.1))
        };
        self.seeds().iter().map(of).collect()
    }

    /// By how much warmup raised the largest good peak: for all seeds together, and for each on its own in words.
    fn ratios(&self, criterion: Criterion) -> (Option<Ratio>, Option<String>) {
        let together = self.largest(criterion).map(|limit| limit.map(|(_, limit)| limit));
        let by_seed: Vec<Option<Ratio>> = self.by_seed(criterion).into_iter().map(Ratio::of).collect();
        (Ratio::of(together), counted(by_seed))
    }
}

/// Whether no number is above the least before it by more than `rise`.
fn never_rises(numbers: impl Iterator<Item = f64>, rise: f64) -> bool {
    let mut least = f64::INFINITY;
    // A number that is not one is above all.
    numbers.into_iter().all(|number| {
        let is_near = number <= least + rise;
        least = least.min(number);
        is_near
    })
}

/// The ratios with how many seeds have each, in words; none for fewer than two.
fn counted(mut ratios: Vec<Option<Ratio>>) -> Option<String> {
    let n = ratios.len();
    // What is not known comes last.
    let key =
        |ratio: &Option<Ratio>| ratio.map_or((f64::INFINITY, Ordering::Equal), |ratio| (ratio.times, ratio.bound));
    ratios.sort_by(|a, b| key(a).0.total_cmp(&key(b).0).then(key(a).1.cmp(&key(b).1)));
    let text = |ratio: &Option<Ratio>| ratio.map_or("unknown".to_owned(), Ratio::text);
    let groups: Vec<(String, usize)> =
        ratios.chunk_by(|a, b| a == b).map(|same| (text(&same[0]), same.len())).collect();
    match groups.as_slice() {
        _ if n < 2 => None,
        [(text, _)] => Some(format!("{text} with each of {n} seeds")),
        groups => {
            let texts: Vec<String> = groups.iter().map(|(text, count)| format!("{text} with {count}")).collect();
            Some(format!("{} of {n} seeds", texts.join(", ")))
        }
    }
}

/// What warmup did to the largest usable and the largest stable learning rate, a sentence for each setting.
pub fn answer(problem: &Problem, name_problem: bool) -> Vec<String> {
    let settings = Setting::all(problem);
    let compared = settings.iter().filter(|setting| !setting.with.is_empty() && !setting.without.is_empty());
    let place = if name_problem { format!("{}, ", problem.title) } else { String::new() };
    let sentence = |(setting, criterion): (&Setting, Criterion)| {
        format!("{place}{}: {}.", setting.title, outcome(setting, criterion))
    };
    compared.flat_map(|setting| Criterion::ALL.map(|criterion| sentence((setting, criterion)))).collect()
}

fn outcome(setting: &Setting, criterion: Criterion) -> String {
    let good = criterion.name();
    let (ratio, by_seed) = setting.ratios(criterion);
    let limits = setting.largest(criterion).map(|limit| limit.map(|(_, limit)| limit));
    let (without, with) = match limits {
        [None, None] => return format!("no learning rate that was tried is {good}, with warmup or without"),
        [None, Some(with)] => {
            return format!(
                "no learning rate that was tried is {good} without warmup, and {} with it",
                with.in_words()
            );
        }
        [Some(without), None] => {
            return format!(
                "no learning rate that was tried is {good} with warmup, and {} without",
                without.in_words()
            );
        }
        [Some(without), Some(with)] => (without, with),
    };
    let Some(ratio) = ratio else {
        let peaks = if with.peak == without.peak {
            format!("{}, the largest learning rate that was tried, is {good}", number::setting(with.peak))
        } else {
            let [without, with] = [without, with].map(|limit| number::setting(limit.peak));
            format!("{with} and {without}, the largest learning rates that were tried, are {good}")
        };
        return format!(
            "{peaks} with warmup and without, so that nothing is known of what warmup does to the largest that is: give larger ones by --lr"
        );
    };
    let change = match ratio.times.total_cmp(&1.0) {
        Ordering::Greater => "raised",
        Ordering::Less => "lowered",
        Ordering::Equal => return format!("warmup left the largest {good} learning rate at {}", with.in_words()),
    };
    let by_seed = by_seed.map_or(String::new(), |by_seed| format!("; {by_seed}"));
    format!(
        "warmup {change} the largest {good} learning rate from {} to {} ({}{by_seed})",
        without.in_words(),
        with.in_words(),
        ratio.text()
    )
}

/// The largest usable and stable learning rates, and below them everything that was tried.
pub fn tables(problem: &Problem) -> Markup {
    let settings = Setting::all(problem);
    if settings.is_empty() {
        return html! {};
    }
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
                let summary = &tried.subject.summary;
                let counts = Criterion::ALL.map(|criterion| match tried.count(criterion) {
                    _ if tried.is(criterion) => criterion.name().to_owned(),
                    count => format!("{count} of {} {}", summary.n, criterion.name()),
                });
                let diverged = (summary.diverged > 0).then(|| format!("{} diverged", summary.diverged));
                let note: Vec<String> = counts.into_iter().chain(diverged).collect();
                let text = summary.loss.mean.map_or("all diverged".to_owned(), number::number);
                Cell::new(text).to(tried.subject.href()).note(Some(note.join(", "))).strong(tried.is(Criterion::Usable))
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
        "The mean final test loss over the seeds that did not diverge; what is usable by the definition above is set off.",
    );
    html! {
        @for criterion in Criterion::ALL { (limits(problem, &settings, criterion)) }
        (all)
    }
}

/// The table of the largest peaks that are good.
fn limits(problem: &Problem, settings: &[Setting], criterion: Criterion) -> Markup {
    let row = |setting: &Setting| {
        let limits = setting.largest(criterion);
        let side = |index: usize| {
            let seeds: Vec<String> = setting
                .by_seed(criterion)
                .iter()
                .map(|limits| limits[index].map_or(number::NONE.to_owned(), Limit::in_table))
                .collect();
            let seeds = (seeds.len() > 1).then(|| format!("by seed {}", seeds.join(", ")));
            match limits[index] {
                Some((tried, limit)) => Cell::new(limit.in_table()).to(tried.subject.href()).note(seeds),
                None if [&setting.without, &setting.with][index].is_empty() => Cell::new(number::NONE),
                None => Cell::new("none").note(seeds),
            }
        };
        let (ratio, by_seed) = setting.ratios(criterion);
        let ratio = ratio.map_or("unknown".to_owned(), Ratio::text);
        vec![Cell::new(&setting.title), side(0), side(1), Cell::new(ratio).note(by_seed)]
    };
    let rows: Vec<_> = settings.iter().map(row).collect();
    let good = criterion.name();
    table(
        &format!("Largest {good} learning rate, {}", problem.title),
        &["setting", ">without warmup", ">with warmup", ">ratio"],
        &rows,
        &format!(
            "{} A learning rate is {good} if the trial of every seed is; the largest is the last before the first that is not, and below it \
             stands the same with each seed alone. ≥: the largest that was tried is {good}, so the limit lies there or higher, and the \
             ratio is at least (≥) or at most (≤) what it seems. Unknown: that is so on both sides, or a side has none.",
            criterion.definition()
        ),
    )
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
pub const CAPTION: &str = "Means over the seeds that have the step, with the 95 % confidence interval of the mean (Student's t, on a logarithmic scale) as the band. The \
    training loss and the gradient norm (L2, of all parameters, before clipping) are averaged over 60 equal parts of the run. A \
    cross at the top edge marks where a trial diverged.";

/// Whether any trial in `facet` was probed.
pub fn is_probed(facet: &Facet) -> bool {
    let mut trials = facet.curves.iter().flat_map(|curve| &curve.subject.finals);
    trials.any(|trial| trial.metrics.iter().any(|metric| matches!(metric, Metric::Probe { .. })))
}

/// Whether `facet` is at the largest peak that is usable with warmup, or without: where warmup matters most.
pub fn is_at_the_limit(settings: &[Setting], facet: &Facet) -> bool {
    let at_limit = |curve: &Labelled| {
        let limits = settings.iter().flat_map(|setting| setting.largest(Criterion::Usable)).flatten();
        limits.into_iter().any(|(tried, _)| tried.subject.anchor() == curve.subject.anchor())
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
                let mut points = curves::over_seeds(trials, By::Step, Estimate::of);
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
    curves::smoothed(&samples, FIRST_STEPS, FIRST_PARTS)
}

fn largest(probe: &Probe, value: fn(&LayerProbe) -> Option<f64>) -> Option<f64> {
    // A value that is not a number must not be hidden by the others.
    probe.layers.iter().filter_map(value).reduce(|a, b| if a > b || a.is_nan() { a } else { b })
}

/// How many values in the first steps of the trials in `facet` were infinite or not numbers.
fn not_finite(facet: &Facet) -> usize {
    let trials = facet.curves.iter().flat_map(|curve| &curve.subject.finals);
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
    use super::*;

    #[test]
    fn the_definitions_name_the_numbers_that_are_used() {
        assert!(Criterion::Usable.definition().contains(&format!("at least {} %", KEPT * 100.0)));
        assert!(Criterion::Stable.definition().contains(&format!("more than {} %", RISE * 100.0)));
        for text in [CAPTION, Criterion::Stable.definition()] {
            assert!(text.contains(&format!("averaged over {} equal parts", curves::PARTS)));
        }
    }

    #[test]
    fn a_ratio_says_on_which_side_a_limit_is_open() {
        let limit = |peak: f64, is_open| Some(Limit { peak, is_open });
        for (without, with, expected) in [
            (limit(1e-3, false), limit(1e-2, false), "10 ×"),
            (limit(1e-3, false), limit(1e-2, true), "≥ 10 ×"),
            (limit(1e-2, true), limit(1e-3, false), "≤ 0.1 ×"),
            (limit(1e-2, false), limit(1e-2, false), "1 ×"),
            (limit(1e-2, true), limit(1e-2, true), "unknown"),
            (None, limit(1e-2, false), "unknown"),
            (limit(1e-2, false), None, "unknown"),
        ] {
            let text = Ratio::of([without, with]).map_or("unknown".to_owned(), Ratio::text);
            assert_eq!(text, expected, "{without:?} {with:?}");
        }
        let ratio = |times: f64, bound| Some(Ratio { times, bound });
        let (exact, more) = (ratio(10.0, Ordering::Equal), ratio(10.0, Ordering::Greater));
        for (ratios, expected) in [
            (vec![], None),
            (vec![exact], None),
            (vec![exact; 3], Some("10 × with each of 3 seeds")),
            (vec![None, None], Some("unknown with each of 2 seeds")),
            (vec![None, more, exact, more], Some("10 × with 1, ≥ 10 × with 2, unknown with 1 of 4 seeds")),
        ] {
            assert_eq!(counted(ratios.clone()).as_deref(), expected, "{ratios:?}");
        }
    }

    #[test]
    fn a_loss_that_spikes_and_recovers_has_risen() {
        for (losses, expected) in [
            (&[2.0, 1.5, 1.0, 0.9][..], true),
            (&[2.0, 1.0, 1.1, 0.9], true),
            (&[2.0, 1.0, 1.6, 0.9], false),
            (&[2.0, 1.0, 1.0, 1.3], false),
            // Slowly, but far from the least.
            (&[1.0, 1.15, 1.3], false),
            (&[1.0, f64::NAN, 1.0], false),
            (&[1.0, f64::INFINITY, 1.0], false),
            (&[], true),
        ] {
            assert_eq!(never_rises(losses.iter().copied(), 0.2), expected, "{losses:?}");
        }
    }
}
