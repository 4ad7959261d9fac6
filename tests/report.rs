//! The report on runs of all three experiments: its numbers, its structure, and the program `report` as a user runs it.
//!
//! The records are made up, so that what the report must say is known; the pages are left in the target folder, to be looked at.

use experiments::{
    GroupConfig, Targets,
    config::operations::Operations,
    record::{
        ExperimentRecord, LayerProbe, Metric, MetricsWriter, Outcome, Phase, Run, TrialConfig, TrialRecord, Versions,
        Workload,
        summary::{GroupSummary, Searched, Summary, TrialSummary},
        write_json,
    },
    report,
    stats::Estimate,
};
use scraper::{Html, Selector};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const CLASSES: usize = 10;
const STEPS: u64 = 200;

/// What a trial comes to.
#[derive(Clone, Copy)]
enum End {
    /// The test loss at the end.
    Loss(f64),
    /// The updates until it diverges.
    Diverges(u64),
}
use End::{Diverges, Loss};

/// A group that is made up.
struct Group {
    name: &'static str,
    dataset: &'static str,
    model: &'static str,
    optimizer: String,
    schedule: &'static str,
    factors: Vec<(&'static str, &'static str)>,
    /// By seed.
    ends: Vec<End>,
    /// Learning rates with their ends.
    tuning: Vec<(f64, End)>,
    searched: Option<Searched>,
    lr: f64,
    warmup: u64,
    probed: bool,
    /// Whether an average of the weights is kept, which has half the loss.
    ema: bool,
}

impl Group {
    fn new(name: &'static str, ends: &[End]) -> Self {
        Self {
            name,
            dataset: "digits",
            model: "mlp",
            optimizer: "adamw:lr=0.001".to_owned(),
            schedule: "constant",
            factors: vec![("optimizer", name)],
            ends: ends.to_vec(),
            tuning: Vec::new(),
            searched: None,
            lr: 1e-3,
            warmup: 0,
            probed: false,
            ema: false,
        }
    }

    fn trial(&self, phase: Phase, seed: u64, lr: f64, end: End) -> (TrialRecord, Vec<Metric>) {
        let config = TrialConfig {
            phase,
            dataset: self.dataset.to_owned(),
            text_sha256: None,
            model: self.model.to_owned(),
            // No two groups have the same trials.
            optimizer: format!(
                "{}:lr={lr},beta1=0.9,eps={}",
                self.optimizer.split(':').next().unwrap(),
                self.name.bytes().map(u32::from).sum::<u32>()
            ),
            schedule: self.schedule.to_owned(),
            ema: self.ema.then_some(0.99),
            lookahead: None,
            clip: None,
            decay_matrices_only: false,
            batch_size: 32,
            steps: STEPS,
            evaluate_every: 20,
            evaluate_on: None,
            augment: Default::default(),
            max_loss: 100.0,
            probe: self.probed,
            device: "cpu".to_owned(),
            ops: Operations::Descent,
            precision: Default::default(),
            seed,
            repeat: None,
        };
        let (metrics, outcome) = measurements(self, seed, lr, end);
        let record = TrialRecord {
            id: config.id(),
            group: self.name.to_owned(),
            config,
            outcome: Some(outcome),
            metrics_sha256: None,
        };
        (record, metrics)
    }
}

/// A loss that falls from that of a guess to its end, or leaves the finite numbers.
fn measurements(group: &Group, seed: u64, lr: f64, end: End) -> (Vec<Metric>, Outcome) {
    let guess = (CLASSES as f64).ln();
    let (last, level) = match end {
        Loss(loss) => (STEPS, loss),
        Diverges(step) => (step, 0.5),
    };
    let at = |step: u64| {
        let fall = (-6.0 * step as f64 / STEPS as f64).exp() - (-6.0f64).exp();
        level + (guess - level) * fall
    };
    let mut metrics = Vec::new();
    let mut best: Option<(f64, f64)> = None;
    for step in 1..=last {
        let wave = 0.05 * ((step * (seed + 2)) as f64 * 0.7).sin();
        let seconds = step as f64 * 0.01 * (1.0 + seed as f64 * 0.1);
        let blown = matches!(end, Diverges(_)) && step + 5 > last;
        let rate = lr * if step <= group.warmup { step as f64 / group.warmup as f64 } else { 1.0 };
        let rate = if group.schedule.starts_with("cosine") {
            rate * (1.0 + (step as f64 / STEPS as f64 * 3.0).cos()) / 2.0
        } else {
            rate
        };
        if step == 1 || step % 10 == 0 || step == last {
            let loss = if blown { f64::NAN } else { at(step) * (1.0 + wave) };
            metrics.push(Metric::Train {
                step,
                epoch: step / 50,
                loss,
                lr: rate,
                grad_norm: Some((1.0 + wave) * 2.0 * at(step)),
                seconds,
            });
        }
        if group.probed {
            let layer = |i: usize| LayerProbe {
                layer: format!("blocks.{i}"),
                grad_norm: Some((1.0 + wave) * at(step) / (i + 1) as f64),
                update_ratio: Some(rate * (1.0 + i as f64) * (1.0 + wave)),
                activation_max: Some(3.0 + i as f64 + wave),
                attention_logit_max: (i > 0).then_some(5.0 + step as f64 * rate),
            };
            let update_angle = (step > 1).then_some(60.0 + 400.0 * wave);
            metrics.push(Metric::Probe {
                step,
                update_ratio: rate * (1.0 + wave),
                update_angle,
                layers: (0..10).map(layer).collect(),
            });
        }
        if step % 20 == 0 && !blown {
            let (loss, accuracy) = (at(step), 1.0 - at(step) / 3.0);
            metrics.push(Metric::Eval { step, loss, accuracy, seconds });
            if group.ema {
                metrics.push(Metric::Ema { step, loss: loss / 2.0, accuracy, seconds });
            }
            best = Some(best.map_or((loss, accuracy), |(l, a)| (l.min(loss), a.max(accuracy))));
        }
    }
    let diverged = matches!(end, Diverges(_));
    let outcome = Outcome {
        final_loss: (!diverged).then_some(level),
        best_loss: best.map(|(loss, _)| loss),
        final_accuracy: (!diverged).then_some(1.0 - level / 3.0),
        best_accuracy: best.map(|(_, accuracy)| accuracy),
        ema_loss: (group.ema && !diverged).then_some(level / 2.0),
        ema_accuracy: (group.ema && !diverged).then_some(1.0 - level / 3.0),
        steps: last,
        seconds: last as f64 * 0.01 * (1.0 + seed as f64 * 0.1),
        stopped: false,
        diverged,
        cause: diverged.then(|| format!("the loss was not finite at step {last} <NaN>")),
    };
    (metrics, outcome)
}

fn run(experiment: &str, out: &str, config: Value, groups: Vec<Group>) -> Run {
    let mut workloads: Vec<Workload> = Vec::new();
    for group in &groups {
        if !workloads.iter().any(|workload| workload.dataset == group.dataset && workload.model == group.model) {
            workloads.push(Workload {
                dataset: group.dataset.to_owned(),
                data_sha256: None,
                model: group.model.to_owned(),
                classes: CLASSES,
                parameters: 12_345,
                batch_size: 32,
                steps: STEPS,
                steps_per_epoch: 50,
                evaluate_every: 20,
                evaluate_on: None,
                constant_loss: (CLASSES as f64).ln(),
                floor: (group.dataset == "language").then_some(0.25),
                data_differs: Vec::new(),
            });
        }
    }
    let final_trials = groups.iter().flat_map(|group| {
        group.ends.iter().enumerate().map(|(seed, end)| group.trial(Phase::Final, seed as u64, group.lr, *end))
    });
    let tuning_trials =
        groups.iter().flat_map(|group| group.tuning.iter().map(|(lr, end)| group.trial(Phase::Tune, 100, *lr, *end)));
    let (finals, tuning): (Vec<_>, Vec<_>) = (final_trials.collect(), tuning_trials.collect());
    let summaries = |trials: &[(TrialRecord, Vec<Metric>)]| -> Vec<TrialSummary> {
        let summary = |(record, _): &(TrialRecord, Vec<Metric>)| {
            let TrialRecord { id, group, config, outcome, .. } = record.clone();
            TrialSummary::new(id, group, config.seed, &outcome.unwrap())
        };
        trials.iter().map(summary).collect()
    };
    let trials = summaries(&finals);
    let none = Estimate::of(&[]);
    let summary = |group: &Group| {
        GroupSummary {
            name: group.name.to_owned(),
            dataset: group.dataset.to_owned(),
            model: group.model.to_owned(),
            optimizer: group.optimizer.split(':').next().unwrap().to_owned(),
            schedule: group.schedule.to_owned(),
            hyperparameters: json!({"lr": group.lr, "beta1": 0.9}).as_object().unwrap().clone(),
            searched: group.searched.clone(),
            n: 0,
            median_loss: None,
            loss: none,
            accuracy: none,
            ema_loss: None,
            ema_accuracy: None,
            seconds: none,
            diverged: 0,
        }
        .measure(&trials)
    };
    let summary = Summary {
        experiment: experiment.to_owned(),
        dataset: groups[0].dataset.to_owned(),
        model: groups[0].model.to_owned(),
        groups: groups.iter().map(summary).collect(),
        tuning: summaries(&tuning),
        peak_memory_bytes: Some(300 << 20),
        trials: trials.clone(),
    };
    let group = |group: &Group| GroupConfig {
        name: group.name.to_owned(),
        dataset: group.dataset.to_owned(),
        model: group.model.to_owned(),
        optimizer: group.optimizer.clone(),
        schedule: group.schedule.to_owned(),
        factors: group.factors.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    };
    let experiment = ExperimentRecord {
        experiment: experiment.to_owned(),
        command_line: [experiment, "--out", "my <runs>"].map(str::to_owned).into(),
        started: "2026-01-02T03:04:05+00:00[UTC]".to_owned(),
        config,
        workloads,
        groups: groups.iter().map(group).collect(),
        seeds: (0..groups.iter().map(|group| group.ends.len() as u64).max().unwrap()).collect(),
        device: "cpu".to_owned(),
        versions: Versions {
            experiments: "0.1.0".to_owned(),
            candle: "0.11.1".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            processor: Some("A & B \"fast\" processor".to_owned()),
        },
        commit: Some("0123456789abcdef-dirty".to_owned()),
        continued: Vec::new(),
    };
    Run { out: PathBuf::from(out), experiment, summary, trials: finals.into_iter().chain(tuning).collect() }
}

/// Names that would break a page if they were not escaped.
const ODD: &str = "sgd <b>\"&amp;'";

fn shootout() -> Run {
    let lr = |end: f64| vec![(1e-4, Loss(end + 1.0)), (1e-3, Loss(end)), (1e-2, Loss(end + 0.2)), (1e-1, Diverges(40))];
    let searched = |at_edge: &[&str]| Searched {
        space: "lr=1e-4..0.1".to_owned(),
        at_edge: at_edge.iter().map(|key| (*key).to_owned()).collect(),
    };
    let tuned = |group: Group, end: f64, at_edge: &[&str]| Group {
        tuning: lr(end),
        searched: Some(searched(at_edge)),
        ..group
    };
    let problem = |dataset: &'static str, model: &'static str, groups: Vec<Group>| {
        groups.into_iter().map(move |group| Group { dataset, model, ..group })
    };
    let mut groups: Vec<Group> = problem(
        "digits",
        "mlp",
        vec![
            tuned(Group::new("adamw", &[Loss(0.1), Loss(0.2), Loss(0.3)]), 0.15, &["lr"]),
            tuned(Group::new(ODD, &[Loss(0.2), Loss(0.4), Loss(0.6)]), 0.3, &[]),
            Group::new("lion", &[Loss(0.05), Diverges(120), Loss(0.06)]),
            Group::new("rmsprop", &[Diverges(3), Diverges(30), Diverges(60)]),
        ],
    )
    .collect();
    groups.extend(problem(
        "language",
        "gpt",
        vec![
            Group {
                factors: vec![("optimizer", "adamw")],
                ..Group::new("adamw on gpt", &[Loss(0.5), Loss(0.52), Loss(0.51)])
            },
            Group {
                factors: vec![("optimizer", ODD)],
                ..Group::new("sgd on gpt", &[Loss(0.9), Loss(0.92), Loss(0.91)])
            },
        ],
    ));
    run("shootout", "runs/one", json!({"target_accuracy": 0.8, "seeds": 3, "out": null}), groups)
}

fn schedules() -> Run {
    let group = |name, schedule, ends: &[End]| Group {
        schedule,
        factors: vec![("schedule", schedule)],
        ..Group::new(name, ends)
    };
    let groups = vec![
        group("constant", "constant", &[Loss(0.4), Loss(0.41), Loss(0.42)]),
        group("cosine", "cosine:steps=200", &[Loss(0.2), Loss(0.22), Loss(0.21)]),
        Group {
            warmup: 40,
            ..group("cosine, warm", "cosine:steps=200,warmup=40", &[Loss(0.26), Loss(0.21), Loss(0.22)])
        },
    ];
    run("schedules", "runs/two", Value::Null, groups)
}

/// The best of each setting learned 2 of ln(10), so a loss above ln(10) - 1.6 = 0.7026 is too slow. Of pre-norm with warmup the largest rate is
/// worse than a smaller one; of post-norm the largest diverges with one seed.
fn warmup() -> Run {
    let mut groups = Vec::new();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut names = names.into_iter();
    let best = (CLASSES as f64).ln() - 2.0;
    for (norm, model, ends) in [
        ("pre", "gpt:norm=pre", [[0.69, 0.71, 0.69], [1.2, best, 0.6]]),
        ("post", "gpt:norm=post", [[0.5, 0.702, f64::NAN], [best, 0.4, f64::NAN]]),
    ] {
        for (warmup, ends) in [("no", ends[0]), ("yes", ends[1])] {
            for (peak, end) in [("0.0001", ends[0]), ("0.001", ends[1]), ("0.01", ends[2])] {
                let seed = |shift: f64| {
                    if end.is_nan() && shift > 0.0 {
                        Diverges(20)
                    } else if end.is_nan() {
                        Loss(0.6)
                    } else {
                        Loss(end + shift)
                    }
                };
                groups.push(Group {
                    model,
                    factors: vec![("norm", norm), ("warmup", warmup), ("peak", peak), ("optimizer", "adamw")],
                    warmup: if warmup == "yes" { 40 } else { 0 },
                    lr: peak.parse().unwrap(),
                    probed: true,
                    ..Group::new(names.next().unwrap(), &[seed(-0.002), seed(0.0), seed(0.002)])
                });
            }
        }
    }
    run("warmup", "runs/three", json!({"target_loss": 1.0}), groups)
}

/// The page for `runs`, well-formed and complete; a copy is left to be looked at.
fn page(name: &str, runs: &[Run], targets: Targets) -> Html {
    let html = report::html(runs, &targets, None).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.html")), &html).unwrap();
    check(&html)
}

fn check(html: &str) -> Html {
    let page = Html::parse_document(html);
    assert!(page.errors.is_empty(), "{:?}", &page.errors[..page.errors.len().min(5)]);
    let mut ids = BTreeSet::new();
    for element in page.select(&Selector::parse("[id]").unwrap()) {
        let id = element.value().attr("id").unwrap();
        assert!(ids.insert(id.to_owned()), "`{id}` is there twice");
    }
    let links: Vec<_> = page.select(&Selector::parse("[href]").unwrap()).collect();
    assert!(!links.is_empty());
    for link in links {
        let href = link.value().attr("href").unwrap();
        let id = href.strip_prefix('#').unwrap_or_else(|| panic!("`{href}` leads out of the page"));
        assert!(ids.contains(id), "`{href}` leads nowhere");
    }
    let outside = html.replace("http://www.w3.org/2000/svg", "");
    for word in ["http:", "https:", "//fonts", "@import", "url(", "<script", " src=", "<link", "NaN\"", ">NaN", ">inf"]
    {
        assert!(!outside.contains(word), "`{word}` in the page");
    }
    let pictures = Selector::parse("svg[role=img]").unwrap();
    assert!(page.select(&pictures).all(|svg| svg.value().attr("aria-label").is_some_and(|label| !label.is_empty())));
    page
}

fn text(page: &Html, selector: &str) -> String {
    page.select(&Selector::parse(selector).unwrap()).map(|element| element.text().collect::<String>() + "\n").collect()
}

/// What the pictures of the page are called.
fn labels(page: &Html) -> Vec<String> {
    let pictures = Selector::parse("svg[role=img]").unwrap();
    page.select(&pictures).map(|svg| svg.attr("aria-label").unwrap().to_owned()).collect()
}

/// The cells of the table whose caption begins with `title`, by row.
fn table(page: &Html, title: &str) -> BTreeMap<String, Vec<String>> {
    let (figure, caption, row, cell) = ("figure", "figcaption strong", "tbody tr", "th, td");
    let select = |selector: &str| Selector::parse(selector).unwrap();
    let figure = page.select(&select(figure)).find(|figure| {
        figure.select(&select(caption)).any(|caption| caption.text().collect::<String>().starts_with(title))
            && figure.select(&select("table")).next().is_some()
    });
    let figure = figure.unwrap_or_else(|| panic!("no table `{title}`"));
    let cells = |row: scraper::ElementRef| -> Vec<String> {
        let small = |cell: &scraper::ElementRef| -> String {
            cell.select(&select("small")).map(|small| small.text().collect::<String>()).collect()
        };
        let text = |cell: scraper::ElementRef| {
            let (all, small) = (cell.text().collect::<String>(), small(&cell));
            if small.is_empty() { all } else { format!("{}|{small}", all.strip_suffix(&small).unwrap()) }
        };
        row.select(&select(cell)).map(text).collect()
    };
    figure.select(&select(row)).map(cells).map(|mut cells| (cells.remove(0), cells)).collect()
}

#[test]
fn shootout_says_who_won_and_how_sure_that_is() {
    let page = page("shootout", &[shootout()], Targets::default());
    let answer = text(&page, ".answer");
    // By hand: lion's differences from adamw are -0.05 and -0.24: standard error 0.095, t = -1.526 with one degree of freedom and
    // p = 0.369, times 4 of the 6 pairs. t(1 - 0.05 / 12, 1) = 76.39, times 0.095 is 7.257.
    let expected = format!(
        "On mlp on digits, lion reached the lowest median test loss, 0.06000 over 3 seeds (mean of the 2 that ended 0.05500, 95 % CI \
         0.01733 to 0.17459), though 1 of its 3 trials diverged, more than of adamw, {ODD}; its lead over adamw (0.2000) is not significant \
         (p = 1.00 over the 2 seeds of which neither diverged; no difference of means below 7.257 could have been significant, and more than 1,000 seeds would show one of \
         0.01000 (5 %) in four runs of five). Picked at the edge of \
         what was searched: adamw. Diverged: 3 of 3 trials of rmsprop."
    );
    assert!(answer.contains(&expected), "{answer}");
    assert!(
        answer.contains("On gpt on language, adamw on gpt reached the lowest median test loss, 0.5100"),
        "{answer}"
    );
    assert!(answer.contains("its lead over sgd on gpt (0.9100) is significant (p < 0.001)"), "{answer}");
    assert!(answer.contains("Over the 2 problems, adamw is soonest at the target by steps"), "{answer}");

    let rows = table(&page, "Results, mlp on digits");
    // By hand: mean 0.2, s 0.1, t(0.975, 2) 4.302653: 0.2 exp(+- 0.248414 / 0.2).
    let adamw = &rows["adamw|lr at the edge of its space"];
    assert_eq!(adamw[..3], ["0.2000", "0.2000|0.0578 to 0.6926", "3"]);
    assert_eq!(adamw[3], "0.1000|seed 0");
    // Wilson by hand: 3 of 3 is 1 / (1 + 1.96^2 / 3) = 43.85 % to 100 %.
    assert_eq!(rows["rmsprop"][7], "3 of 3|44 % to 100 %");
    assert_eq!(rows["rmsprop"][..3], ["diverged", "–", "0"]);
    assert_eq!(rows["lion"][..3], ["0.06000", "0.05500|0.01733 to 0.17459", "2"]);
    assert_eq!(rows[ODD][1].split('|').next(), Some("0.4000"));

    let rows = table(&page, "Comparisons, mlp on digits");
    // By rank: lion, adamw, the other. Differences -0.1, -0.2, -0.3: t = -3.4641 and p = 1 - 3.4641 / sqrt(14) = 0.0742, the least
    // of six: three more are with what diverged.
    let cell = &rows["adamw"][2];
    assert_eq!(cell, "-0.2000|p = 0.45");
    assert_eq!(rows[ODD][1].replace('+', "-"), *cell, "the same comparison from the other side");
    let captions = text(&page, "figcaption");
    for part in [
        "Holm's method for the 6 comparisons of each group with each other, of which 3 cannot be tested and count as p = 1;",
        "which tuning picked once, by one seed of its own",
        "not whether one rule would beat another if both were tuned again",
        // By pair: t(1 - 0.05 / 12, 2) = 10.886 times 0.1 / sqrt(3); 76.39 times 0.195.
        "could have shown as significant: 0.6285 to 14.90, by pair",
        "Seconds depend on the trials that ran at the same time",
    ] {
        assert!(captions.contains(part), "{part}: {captions}");
    }

    // 0.8 is a loss of at most 0.6, which the curve of adamw reaches first at step 60 or 80 of every seed.
    let rows = table(&page, "Time to a test accuracy of 80.00 %, mlp on digits");
    assert_eq!(rows["adamw"][0], "3 of 3");
    assert!(["60", "80"].contains(&rows["adamw"][1].split('|').next().unwrap()), "{:?}", rows["adamw"]);
    assert_eq!(rows["rmsprop"][1], "not reached");

    assert!(text(&page, "svg text").contains("entropy: no model does better"));
    // What the pointer tells: the mean over three seeds, the end of a curve, and where a trial diverged.
    let told = text(&page, "svg title");
    for part in [
        "adamw: step 200, test loss 0.2000\n",
        "adamw: test loss 0.2000 at the end\n",
        "lion, seed 1: diverged at step 120\n",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let plain = Selector::parse("svg[role=img]").unwrap();
    assert!(page.select(&plain).all(|svg| svg.select(&Selector::parse("title").unwrap()).next().is_some()));
    let details = text(&page, "#group-0-3");
    assert!(
        details.contains("the loss was not finite at step 3 <NaN>") && details.contains("\"batch_size\": 32"),
        "{details}"
    );
    assert!(text(&page, "pre").contains("target_accuracy = 0.8"));
    assert!(text(&page, ".facts").contains("0123456789abcdef-dirty (with changes that were not committed)"));
    assert!(text(&page, ".facts").contains("shootout --out 'my <runs>'"));
    assert!(text(&page, ".facts").contains("300 MiB at most, of the whole process"));
    assert!(table(&page, "What was trained").contains_key("mlp on digits"));
}

#[test]
fn tuning_shows_what_was_tried_and_picked() {
    let page = page("tuning", &[shootout()], Targets::default());
    let rows = table(&page, "Picked by tuning, mlp on digits");
    assert_eq!(rows.len(), 2, "only what was tuned");
    assert_eq!(rows["adamw"], ["adamw:lr=0.001", "lr=1e-4..0.1", "lr=0.001|lr at the edge", "4", "1", "0.1500"]);
    assert_eq!(rows[ODD][2], "lr=0.001");
    // Four trials, of which one ended after 40 of 200 updates: 3.2 times a final trial. 0.15 and 0.35 differ by 133 %; by hand the end losses
    // 0.1, 0.2, 0.3 have the standard deviation 0.1, twice of which is 100 % of their mean.
    let rows = table(&page, "What tuning cost, mlp on digits");
    assert_eq!(rows.len(), 2);
    let adamw = &rows["adamw"];
    assert_eq!(adamw[..2], ["4", "640|3.2 × a final trial"]);
    assert_eq!(adamw[3..], ["lr=0.001|0.1500", "lr=0.01|0.3500", "133.33 %|noise 100.00 %", "1 of 4"]);
    // 0.3 and 0.5.
    assert_eq!(rows[ODD][5..], ["66.67 %|noise 100.00 %", "2 of 4|lr 0.001 to 0.01"]);
    let warnings = text(&page, ".warnings li");
    assert_eq!(
        warnings,
        format!(
            "{ODD}: lr=0.001 and lr=0.01 are equally good as far as the seeds tell: the second is worse by 66.67 %, and the noise is 100.00 %. So are 2 of 4 trials in all, with lr 0.001 to 0.01.\n"
        )
    );
    let captions = text(&page, "figcaption");
    assert!(captions.contains("no confidence band, since") && !captions.contains("95 % band"), "{captions}");
    let labels = labels(&page);
    for title in ["validation loss by learning rate: Tuning", "expected best of k trials: Tuning"] {
        assert!(labels.iter().any(|label| label.starts_with(title)), "{labels:?}");
    }
    // A ring around what was picked.
    let svg =
        page.select(&Selector::parse("svg[aria-label^='validation loss by learning rate']").unwrap()).next().unwrap();
    assert_eq!(svg.select(&Selector::parse("circle[fill=none]").unwrap()).count(), 2);
}

#[test]
fn averaged_weights_have_curves_where_they_were_kept() {
    for ema in [false, true] {
        let groups = vec![
            Group { ema, ..Group::new("adamw", &[Loss(0.2), Loss(0.2)]) },
            Group::new("sgd", &[Loss(0.3), Loss(0.3)]),
        ];
        let page = page(&format!("ema-{ema}"), &[run("shootout", "runs/ema", json!({}), groups)], Targets::default());
        let select = |selector: &str| Selector::parse(selector).unwrap();
        for (panel, value) in
            [("test loss", "test loss 0.1000"), ("test accuracy", "test accuracy 93.33 %"), ("training loss", "")]
        {
            for by in ["step", "training time"] {
                let svg = select(&format!("svg[aria-label^='{panel}: Learning curves by {by}']"));
                let svg = page.select(&svg).next().unwrap();
                let dotted = svg.select(&select("polyline[stroke-dasharray='3 6'][stroke='#0072B2']")).count();
                assert_eq!(dotted, usize::from(ema && !value.is_empty()), "{panel} by {by}");
                let titles: Vec<String> = svg.select(&select("title")).map(|title| title.text().collect()).collect();
                let expected = format!("adamw, average of the weights: {value} at the end");
                assert_eq!(titles.contains(&expected), dotted == 1, "{titles:?}");
                assert!(!titles.iter().any(|title| title.starts_with("sgd, average")));
            }
        }
        assert_eq!(text(&page, ".legend").matches("average of the weights").count(), if ema { 2 } else { 0 });
        assert_eq!(text(&page, "figcaption").contains("dotted line"), ema);
        assert_eq!(text(&page, "thead").contains("EMA loss"), ema);
    }
}

#[test]
fn ranks_in_the_course_of_a_run() {
    // Losses fall by the same law, so who ends lower is lower before: but `late` is made to be worse early.
    let mut run = run(
        "shootout",
        "runs/course",
        json!({}),
        vec![
            Group::new("early", &[Loss(0.3), Loss(0.31), Loss(0.32)]),
            Group::new("late", &[Loss(0.1), Loss(0.11), Loss(0.12)]),
            Group::new("lost", &[Loss(0.2), Diverges(90), Diverges(40)]),
            Group::new("twin", &[Loss(0.3), Loss(0.31), Loss(0.32)]),
        ],
    );
    for (record, metrics) in &mut run.trials {
        for metric in metrics {
            if let Metric::Eval { step, loss, .. } = metric {
                *loss = match (record.group.as_str(), *step) {
                    ("late", 120..200) => 0.5,
                    ("late", ..120) => 2.0,
                    ("lost", ..120) => 1.5,
                    (_, ..120) => 1.0,
                    _ => *loss,
                };
            }
        }
    }
    let page_of = page("course", &[run.clone()], Targets::default());
    let rows = table(&page_of, "Rank in the course of the run, mlp on digits");
    // After 50 of 200 updates one of three trials of `lost` has diverged, after 100 two.
    for (name, expected) in [
        ("early", ["1|1.000", "1|1.000", "2|0.3100"]),
        ("twin", ["1|1.000", "1|1.000", "2|0.3100"]),
        ("late", ["4|2.000", "3|2.000", "1|0.1100"]),
        ("lost", ["3|1.500", "4|diverged", "4|diverged"]),
    ] {
        assert_eq!(rows[name], expected, "{name}");
    }
    assert!(text(&page_of, "figcaption").contains("who leads early and loses later"));
    // Without evaluations before the end there is nothing to tell.
    for (_, metrics) in &mut run.trials {
        metrics.retain(|metric| !matches!(metric, Metric::Eval { step, .. } if *step < 200));
    }
    let page_of = page("course-end", &[run], Targets::default());
    assert!(!text(&page_of, "figcaption").contains("Rank in the course"));
}

/// Names and values of what sets a group apart.
type Factors = Vec<(&'static str, &'static str)>;

/// Groups by their factors with their ends.
fn by_factors(cells: Vec<(Factors, Vec<End>)>) -> Vec<Group> {
    let group = |(factors, ends): (Factors, Vec<End>)| {
        let name = factors.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
        Group { factors, ..Group::new(name.leak(), &ends) }
    };
    cells.into_iter().map(group).collect()
}

#[test]
fn two_numbers_make_a_heat_map_of_each_optimizer() {
    let mut cells: Vec<(Factors, Vec<End>)> = Vec::new();
    for (optimizer, shift) in
        [("adamw:lr=1e-3|3e-3|1e-2,weight_decay=0|0.1", 0.0), ("sgd:lr=1e-3|3e-3|1e-2,weight_decay=0|0.1", 1.0)]
    {
        for (i, lr) in ["0.01", "0.001", "0.003"].into_iter().enumerate() {
            for (j, decay) in ["0", "0.1"].into_iter().enumerate() {
                let loss = shift + 0.2 + 0.1 * i as f64 + 0.05 * j as f64;
                let ends = match (lr, decay) {
                    ("0.01", "0") => vec![Loss(loss), Diverges(30), Loss(loss)],
                    ("0.003", "0.1") => vec![Diverges(30); 3],
                    _ => vec![Loss(loss), Loss(loss + 0.01), Loss(loss + 0.02)],
                };
                cells.push((vec![("optimizer", optimizer), ("lr", lr), ("weight_decay", decay)], ends));
            }
        }
    }
    let run = run("shootout", "runs/grid", json!({}), by_factors(cells));
    let page = page("grid", std::slice::from_ref(&run), Targets::default());
    let select = |selector: &str| Selector::parse(selector).unwrap();
    let maps: Vec<_> = page.select(&select("svg[aria-label*='Test loss by lr and weight decay']")).collect();
    assert_eq!(
        maps.iter().map(|map| map.attr("aria-label").unwrap().split(':').next().unwrap()).collect::<Vec<_>>(),
        ["adamw", "sgd"]
    );
    for (map, shift) in maps.iter().zip([0.0, 1.0]) {
        let titles: Vec<String> = map.select(&select("rect > title")).map(|title| title.text().collect()).collect();
        assert_eq!(titles.len(), 6);
        let of = |cell: &str| titles.iter().find(|title| title.contains(cell)).unwrap();
        let (mean, lost) = (0.36 + shift, "lr 0.003, weight_decay 0.1");
        assert!(of("lr 0.001, weight_decay 0.1").contains(&format!("test loss {mean:.3}")), "{titles:?}");
        assert!(of(lost).ends_with(": 3 of 3 trials diverged"), "{titles:?}");
        assert!(of("lr 0.01, weight_decay 0:").ends_with(", 1 of 3 trials diverged"), "{titles:?}");
        // Written in the cells too: lr from left to right, the decay from the bottom up.
        let texts: Vec<String> =
            map.select(&select("text")).map(|text| text.text().collect::<String>().trim().to_owned()).collect();
        for part in ["lr", "weight decay", "0.001", "0.003", "0.01", "0", "0.1", "diverged"] {
            assert!(texts.iter().any(|text| text == part), "{part}: {texts:?}");
        }
        let place = |text: &str| {
            let text =
                map.select(&select("text")).find(|element| element.text().any(|part| part.trim() == text)).unwrap();
            ["x", "y"].map(|name| text.attr(name).unwrap().parse::<i32>().unwrap())
        };
        assert!(place("0.001")[0] < place("0.003")[0] && place("0.003")[0] < place("0.01")[0]);
        assert!(place("0.1")[1] < place("0")[1]);
        // A colour for each mean, of which the least of all has the brightest.
        let fills: Vec<&str> = map
            .select(&select("rect[fill]"))
            .filter_map(|rect| rect.attr("fill"))
            .filter(|fill| *fill != "#E1E1E1")
            .collect();
        assert_eq!(fills.iter().collect::<BTreeSet<_>>().len(), 5, "{fills:?}");
        assert_eq!(
            fills.iter().any(|fill| fill.starts_with("#FDE7") || fill.starts_with("#FEE8")),
            shift == 0.0,
            "{fills:?}"
        );
        // One frame; crosses in the corners of two cells, and a grey cell.
        assert_eq!(map.select(&select("polyline[stroke-width='7']")).count(), 1);
        assert_eq!(map.select(&select("line[stroke-width='4'], polyline[stroke-width='4']")).count(), 4);
        assert_eq!(map.select(&select("rect[fill='#E1E1E1']")).count(), 1);
    }
    assert!(report::pictures(&run).unwrap().iter().any(|(name, _)| name == "factors.svg"));
}

#[test]
fn what_differs_in_one_number_is_a_curve_by_it() {
    let ends = |loss: f64| vec![Loss(loss), Loss(loss + 0.01), Loss(loss + 0.02)];
    let cells = |factors: &[[(&'static str, &'static str); 2]]| -> Vec<Group> {
        let cells = factors.iter().enumerate();
        by_factors(cells.map(|(i, factors)| (factors.to_vec(), ends(0.1 + 0.1 * i as f64))).collect())
    };
    let (a, b) = (("optimizer", "adamw"), ("optimizer", "sgd"));
    for (name, factors, curves) in [
        (
            "by-batch",
            &[[a, ("batch_size", "8")], [a, ("batch_size", "64")], [b, ("batch_size", "8")], [b, ("batch_size", "64")]]
                [..],
            Some(("batch size", &["adamw", "sgd"][..])),
        ),
        (
            "by-clip",
            &[[a, ("clip", "1")], [a, ("clip", "2")], [a, ("clip", "0.5")]],
            Some(("clip", &["mlp on digits"])),
        ),
        // Two values of one thing are two groups, and what is no number has no axis.
        ("two-values", &[[a, ("clip", "1")], [a, ("clip", "2")]], None),
        ("no-number", &[[a, ("clip", "1")], [a, ("clip", "2")], [a, ("clip", "none")], [b, ("clip", "none")]], None),
    ] {
        let page = page(name, &[run("shootout", "runs/curve", json!({}), cells(factors))], Targets::default());
        let svg = Selector::parse("svg[aria-label*='Test loss by']").unwrap();
        let told: Vec<String> = page.select(&svg).map(|svg| svg.attr("aria-label").unwrap().to_owned()).collect();
        let Some((axis, curves)) = curves else {
            assert!(told.is_empty(), "{name}: {told:?}");
            continue;
        };
        assert_eq!(told, [format!("test loss at the end: Test loss by {axis}, mlp on digits")]);
        let titles: Vec<String> = page
            .select(&svg)
            .next()
            .unwrap()
            .select(&Selector::parse("circle title").unwrap())
            .map(|title| title.text().collect())
            .collect();
        let expected = format!("{}: {axis} 8, test loss 0.1100", curves[0]);
        assert!(name != "by-batch" || titles.contains(&expected), "{titles:?}");
        assert!(curves.iter().all(|curve| titles.iter().any(|title| title.starts_with(curve))), "{titles:?}");
        assert_eq!(titles.len(), factors.len());
    }
}

#[test]
fn what_is_compared_keeps_no_groups_apart() {
    let group = |factor: &'static str, value: &'static str, loss: f64| Group {
        factors: vec![("optimizer", "adamw"), (factor, value)],
        ..Group::new(value, &[Loss(loss), Loss(loss + 0.01), Loss(loss + 0.03)])
    };
    type Change = fn(&mut TrialConfig);
    for (factor, change) in [
        ("batch_size", (|config| (config.batch_size, config.steps, config.evaluate_every) = (64, 100, 10)) as Change),
        ("clip", |config| config.clip = Some(1.0)),
    ] {
        for compared in [true, false] {
            let groups = vec![
                group(if compared { factor } else { "name" }, "8", 0.3),
                group(if compared { factor } else { "name" }, "64", 0.4),
            ];
            let mut run = run("shootout", "runs/compared", json!({}), groups);
            run.trials
                .iter_mut()
                .filter(|(record, _)| record.group == "64")
                .for_each(|(record, _)| change(&mut record.config));
            let page = page(&format!("compared-{factor}-{compared}"), &[run], Targets::default());
            let answer = text(&page, ".answer");
            assert_eq!(answer.contains("mlp on digits is 2 problems here"), !compared, "{factor}: {answer}");
            assert_eq!(answer.contains("its lead over 64 (0.4100) is"), compared, "{factor}: {answer}");
        }
    }
    // Beside a run that did not compare it.
    let compares =
        run("shootout", "runs/a", json!({}), vec![group("batch_size", "8", 0.3), group("batch_size", "64", 0.4)]);
    let plain = run("shootout", "runs/b", json!({}), vec![Group::new("sgd", &[Loss(0.3), Loss(0.4)])]);
    let page = page("compared-beside", &[compares, plain], Targets::default());
    assert!(text(&page, ".answer").contains("batch size (compared, 32)"));
}

#[test]
fn problems_are_compared_by_profiles() {
    let page = page("profiles", &[shootout()], Targets { accuracy: None, loss: Some(1.0) });
    let rows = table(&page, "Performance scores");
    let score = |name: &str| rows[name][0].parse::<f64>().unwrap();
    // A loss of 1 is reached at the same evaluation or an earlier one by adamw on both problems.
    assert_eq!(score("adamw"), 1.0);
    assert!(!rows.contains_key("lion"), "it took part in one problem alone");
    assert!(score(ODD) < 1.0 && score(ODD) > 0.0, "{}", score(ODD));
    assert!(!text(&page, "figcaption").contains("No target was set"));
}

#[test]
fn schedules_stand_above_their_losses() {
    let page = page("schedules", &[schedules()], Targets::default());
    let answer = text(&page, ".answer");
    assert!(answer.contains("cosine reached the lowest median test loss, 0.2100 over 3 seeds"), "{answer}");
    assert!(!answer.contains("On mlp"), "the only problem needs no name: {answer}");
    let labels: Vec<String> = labels(&page).into_iter().filter(|label| label.contains("Schedules and")).collect();
    let expected = ["learning rate", "training loss", "test loss", "test accuracy"];
    assert_eq!(labels.len(), expected.len(), "{labels:?}");
    assert!(labels.iter().zip(expected).all(|(label, panel)| label.starts_with(panel)), "{labels:?}");
    // The curve of an end of 0.41 by trapezoids over its ten evaluations.
    let at = |step: f64, end: f64| end + (10f64.ln() - end) * ((-6.0 * step / 200.0).exp() - (-6.0f64).exp());
    let mean = |end: f64| {
        (1..10).map(|i| (at(20.0 * i as f64, end) + at(20.0 * (i + 1) as f64, end)) / 2.0).sum::<f64>() / 9.0
    };
    let expected = format!("{:.4}", mean(0.41));
    let rows = table(&page, "End and course of the loss");
    assert_eq!(rows["constant"][2].split('|').next(), Some(expected.as_str()));
    let rows = table(&page, "Time to a test loss of 0.2200");
    assert_eq!((rows["cosine"][0].as_str(), rows["constant"][0].as_str()), ("3 of 3", "0 of 3"));
    assert!(text(&page, "figcaption").contains("No target was set"));
}

#[test]
fn warmup_tells_the_largest_stable_learning_rates() {
    let page = page("warmup", &[warmup()], Targets::default());
    let rows = table(&page, "Largest stable learning rate, gpt on digits");
    assert_eq!(
        rows["pre-norm, adamw"],
        [
            "≥ 0.01|by seed ≥ 0.01, ≥ 0.01, ≥ 0.01",
            "0.001|by seed 0.001, 0.001, 0.001",
            "≤ 0.1 ×|≤ 0.1 × with each of 3 seeds"
        ]
    );
    // What is stable above an unstable one does not count.
    assert_eq!(
        rows["post-norm, adamw"],
        ["1e-4|by seed 1e-4, 1e-4, 1e-4", "0.001|by seed 0.001, 0.001, 0.001", "10 ×|10 × with each of 3 seeds"]
    );
    let answer = text(&page, ".answer");
    for sentence in [
        "pre-norm, adamw: warmup lowered the largest stable learning rate from 0.01 or more to 0.001 (≤ 0.1 ×; ≤ 0.1 × with each of 3 seeds).",
        "post-norm, adamw: warmup raised the largest stable learning rate from 1e-4 to 0.001 (10 ×; 10 × with each of 3 seeds).",
    ] {
        assert!(answer.contains(sentence), "{sentence}: {answer}");
    }
    let rows = table(&page, "Every peak that was tried");
    for (setting, expected) in [
        ("pre-norm, adamw, without warmup", ["0.6900|stable", "0.7100|too slow", "0.6900|stable"]),
        ("pre-norm, adamw, with warmup", ["1.200|too slow", "0.3026|stable", "0.6000|worse than a smaller rate"]),
        (
            "post-norm, adamw, without warmup",
            ["0.5000|stable", "0.7020|worse than a smaller rate", "0.6000|2 of 3 stable, 1 diverged"],
        ),
        (
            "post-norm, adamw, with warmup",
            ["0.3026|stable", "0.4000|stable", "0.6000|2 of 3 worse than a smaller rate, 1 diverged"],
        ),
    ] {
        assert_eq!(rows[setting], expected, "{setting}");
    }
    assert!(text(&page, "figcaption").contains("less than 80 % of that of the best group"));
    // The first picture of the page.
    assert!(labels(&page)[0].contains("Loss by peak learning rate"), "{:?}", labels(&page)[0]);
    // Pairs that differ in warmup alone: six, of which those with a diverged seed have two seeds left.
    assert_eq!(table(&page, "Comparisons, gpt on digits").len(), 6);

    let labels = labels(&page);
    let inside = |title: &str| {
        labels.iter().filter(|label| label.starts_with(title) && label.contains("Inside the model")).count()
    };
    for (title, panels) in [
        ("gradient norm, with warmup", 4),
        ("gradient norm, without warmup", 4),
        ("update ratio, with", 8),
        ("angle between updates", 4),
        ("largest activation", 4),
        ("largest attention logit", 4),
    ] {
        assert_eq!(inside(title), panels, "{title}");
    }
    assert_eq!(labels.iter().filter(|label| label.starts_with("gradient norm: Losses")).count(), 6);
    assert!(text(&page, "figcaption").contains("Of 10 layers 8 are drawn"));
    let open = text(&page, "details.drawn[open] > summary");
    let expected = ["pre-norm, peak 0.001", "pre-norm, peak 0.01", "post-norm, peak 0.0001", "post-norm, peak 0.001"];
    assert_eq!(open, expected.map(|facet| format!("Inside the model, {facet}\n")).concat());
    assert!(text(&page, "p").contains("4 of 6 pairs"));
}

#[test]
fn one_seed_is_no_interval_and_nothing_but_divergence_no_result() {
    let one = run(
        "shootout",
        "runs/single",
        json!({}),
        vec![Group::new("adam", &[Loss(0.3)]), Group::new("sgd", &[Loss(0.4)])],
    );
    let page_of_one = page("single", &[one], Targets::default());
    let answer = text(&page_of_one, ".answer");
    assert!(answer.contains("adam reached the lowest test loss, 0.3000 (1 seed); its lead over sgd (0.4000) cannot be tested with one seed."), "{answer}");
    assert!(text(&page_of_one, "p").contains("train with more seeds"));

    let none = run("shootout", "runs/none", json!({}), vec![Group::new("adam", &[Diverges(1), Diverges(6)])]);
    let page_of_none = page("none", &[none], Targets::default());
    assert!(text(&page_of_none, ".answer").contains("All 2 trials diverged: there is no result."));
    let alone = run("shootout", "runs/alone", json!({}), vec![Group::new("adam", &[Diverges(1)])]);
    let page_of_one = page("alone", &[alone], Targets::default());
    assert!(text(&page_of_one, ".answer").contains("The only trial diverged: there is no result."));
}

/// `n` trials, of which the first `diverged` diverge and the others end about `loss`.
fn ends(n: usize, diverged: usize, loss: f64) -> Vec<End> {
    (0..n).map(|i| if i < diverged { Diverges(30) } else { Loss(loss * (1.0 + 0.01 * i as f64)) }).collect()
}

#[test]
fn who_diverges_does_not_win_by_the_seeds_that_did_not() {
    for (name, groups, starts, never) in [
        // A mean over one seed is not better than one over seven.
        (
            "survivor",
            vec![("sgd", ends(8, 7, 0.056)), ("lion", ends(8, 1, 0.3))],
            "lion reached the lowest median test loss, 0.3135 over 8 seeds (mean of the 7 that ended 0.3120, 95 % CI 0.3061 to 0.3181), though 1 of \
             its 8 trials diverged; its lead over sgd (7 of 8 diverged) cannot be tested: fewer than two seeds ended with both. Diverged: 7 of \
             8 trials of sgd.",
            "sgd reached",
        ),
        // A loss that is seen in one seed of eight only to diverge does not make a far worse one the lowest.
        (
            "worst",
            vec![("sgd", ends(8, 1, 1.4)), ("adamw", ends(8, 0, 3.0))],
            "sgd reached the lowest median test loss, 1.463 over 8 seeds (mean of the 7 that ended 1.456, 95 % CI 1.428 to 1.484), though 1 of \
             its 8 trials diverged, more than of adamw; its lead over adamw (3.105) is significant (p < 0.001 over the 7 seeds",
            "adamw reached",
        ),
        // Where every median falls on what diverged, the share that did decides.
        (
            "half",
            vec![("sgd", ends(4, 3, 0.1)), ("adamw", ends(4, 2, 0.2)), ("adam", ends(4, 4, 0.0))],
            "at least half the trials of every group diverged: adamw comes first, of which 2 of 4 did (mean test loss of the 2 that ended",
            "reached the lowest",
        ),
        // No lead where the mean says otherwise, significant or not.
        (
            "means",
            vec![("adamw", vec![Loss(0.1), Loss(0.1), Loss(0.9)]), ("sgd", vec![Loss(0.2), Loss(0.21), Loss(0.22)])],
            "adamw reached the lowest median test loss, 0.1000 over 3 seeds (mean 0.3667, 95 % CI 0.0160 to 8.3804); but the mean of sgd (median \
             0.2100) is lower by 0.1567, which is not significant (p = 0.61)",
            "its lead",
        ),
        (
            "wrong-sign",
            vec![
                ("adamw", [0.50, 0.51, 0.52, 0.53, 9.0, 9.1, 9.0].map(Loss).to_vec()),
                ("sgd", [0.54, 0.54, 0.54, 0.54, 0.55, 0.55, 0.55].map(Loss).to_vec()),
            ],
            "adamw reached the lowest median test loss, 0.5300 over 7 seeds",
            "its lead",
        ),
    ] {
        let groups = groups.iter().map(|(name, ends)| Group::new(name, ends)).collect();
        let page = page(name, &[run("shootout", "runs/ranked", json!({}), groups)], Targets::default());
        let answer = text(&page, ".answer");
        assert!(answer.trim_start().starts_with(starts), "{name}: {answer}");
        assert!(!answer.contains(never), "{name}: {answer}");
    }
}

#[test]
fn who_shares_the_lowest_loss_does_not_lead() {
    let three = [Loss(2.8), Loss(2.834), Loss(2.9)];
    for (name, groups, expected) in [
        (
            "tie",
            vec![("adam", three.to_vec()), ("sgd", three.to_vec())],
            "adam, sgd share the lowest median test loss, 2.834 over 3 seeds (mean 2.845, 95 % CI 2.721 to 2.974); no seed tells them apart \
             (p = 1.00).",
        ),
        (
            "tie-of-five",
            ["a", "b", "c", "d", "e"].map(|name| (name, three.to_vec())).to_vec(),
            "a and 4 other groups share the lowest median test loss, 2.834 over 3 seeds",
        ),
        (
            "tie-of-one-seed",
            vec![("adam", vec![Loss(0.3)]), ("sgd", vec![Loss(0.3)])],
            "adam, sgd share the lowest test loss, 0.3000 (1 seed); a difference of them cannot be tested with one seed.",
        ),
        // By hand: differences 0, 0, -0.3 have the standard error 0.1, so t = -1 with two degrees of freedom; t(0.975, 2) is 4.303.
        (
            "tie-of-medians",
            vec![("adam", vec![Loss(0.1), Loss(0.2), Loss(0.3)]), ("sgd", vec![Loss(0.1), Loss(0.2), Loss(0.6)])],
            "adam, sgd share the lowest median test loss, 0.2000 over 3 seeds (mean of adam 0.2000, 95 % CI 0.0578 to 0.6926); the mean of sgd is \
             higher by 0.1000, which is not significant (p = 0.42; no difference of means below 0.4303 could have been significant, and more than 1,000 seeds would show one of 0.01500 (5 %) in four runs of five).",
        ),
        // The medians differ by the seed that diverged alone.
        (
            "tie-of-what-ended",
            vec![("adam", vec![Loss(0.1), Loss(0.2), Diverges(30)]), ("sgd", vec![Loss(0.1), Loss(0.2), Loss(0.15)])],
            "; no seed tells it from adam (0.2000) (p = 1.00 over the 2 seeds of which neither diverged).",
        ),
    ] {
        let groups = groups.iter().map(|(name, ends)| Group::new(name, ends)).collect();
        let page = page(name, &[run("shootout", "runs/tied", json!({}), groups)], Targets::default());
        let answer = text(&page, ".answer");
        assert!(answer.contains(expected), "{name}: {answer}");
        assert!(!answer.contains("its lead"), "{name}: {answer}");
        if name == "tie" {
            let set_off = text(&page, "td.strong");
            assert!(set_off.starts_with("2.834\n2.834\n"), "both are set off: {set_off}");
        }
        let captions = text(&page, "figcaption");
        assert!(!captions.contains("as significant: 0.000"), "{name}: {captions}");
    }
}

#[test]
fn what_a_diverged_trial_alone_measured_changes_no_mean() {
    let of = |name: &str, measured: &[(u64, f64)]| {
        let group = Group::new("sgd", &[Loss(0.2), Loss(0.3), Diverges(132)]);
        let mut run = run("shootout", "runs/last", json!({}), vec![group]);
        // All are measured at 130, in the same part as 132, and at 120.
        run.trials[2].1.retain_mut(|metric| match metric {
            Metric::Train { step, loss, .. } if *step > 120 => match measured.iter().find(|(at, _)| at == step) {
                Some((_, value)) => {
                    *loss = *value;
                    true
                }
                None => false,
            },
            _ => true,
        });
        let page = page(name, &[run], Targets::default());
        ["step", "training time"].map(|by| {
            let panel = format!("svg[aria-label^='training loss: Learning curves by {by}']");
            page.select(&Selector::parse(&panel).unwrap()).next().unwrap().html()
        })
    };
    assert!(of("last-left-out", &[(130, 1.0)]) == of("last-measured", &[(130, 1.0), (132, 2.0)]));
    assert!(
        of("shared-left-out", &[(130, 1.0)]) != of("shared-measured", &[(130, 2.0)]),
        "what all have is in the mean"
    );
}

/// `runs` as if each of them had trained in its own way.
fn changed(mut run: Run, out: &str, change: impl Fn(&mut TrialConfig)) -> Run {
    run.out = PathBuf::from(out);
    run.trials.iter_mut().for_each(|(record, _)| change(&mut record.config));
    run
}

#[test]
fn what_is_not_the_same_problem_stands_side_by_side() {
    let two = |name: &'static str| {
        run(
            "shootout",
            name,
            json!({}),
            vec![
                Group::new("adam", &[Loss(0.3), Loss(0.31), Loss(0.32)]),
                Group::new("sgd", &[Loss(0.4), Loss(0.41), Loss(0.42)]),
            ],
        )
    };
    type Change = fn(&mut TrialConfig);
    for (name, change, differing) in [
        (
            "text",
            (|config| config.text_sha256 = Some("0123456789abcdef".to_owned())) as Change,
            "text (fedcba98, 01234567)",
        ),
        ("steps", |config| config.steps = 100, "updates (200, 100)"),
        ("batch", |config| config.batch_size = 64, "batch size (32, 64)"),
        ("often", |config| config.evaluate_every = 10, "updates between evaluations (20, 10)"),
        (
            "precision",
            |config| config.precision = experiments::config::precision::Precision::Bf16,
            "precision (f32, bf16)",
        ),
        (
            "augment",
            |config| config.augment = experiments::config::augmentation::Augmentation::Random,
            "augmentation (none, random)",
        ),
        ("clip", |config| config.clip = Some(1.0), "clipping (none, 1)"),
        ("decay", |config| config.decay_matrices_only = true, "decay of matrices only (no, yes)"),
        ("ops", |config| config.ops = Operations::Candle, "operations (descent, candle)"),
    ] {
        let hash: Change = |config| config.text_sha256 = Some("fedcba9876543210".to_owned());
        let first = changed(two("runs/a"), "runs/a", |config| {
            if name == "text" {
                hash(config)
            }
        });
        let runs = [first, changed(two("runs/b"), "runs/b", change)];
        let page = page(&format!("unlike-{name}"), &runs, Targets::default());
        let answer = text(&page, ".answer");
        let note = format!(
            "mlp on digits is 2 problems here, set side by side and not compared, since they differ in: {differing}."
        );
        assert!(answer.contains(&note), "{name}: {answer}");
        // Each is compared with the other of its own run alone.
        assert_eq!(answer.matches("reached the lowest median").count(), 2, "{name}: {answer}");
        let titles = text(&page, "figcaption strong");
        assert_eq!(titles.matches("Results, mlp on digits (").count(), 2, "{name}: {titles}");
    }
    // The data set has the same name, and other data.
    let of_data = |out: &'static str, hash: &str| {
        let mut run = two(out);
        run.experiment.workloads.iter_mut().for_each(|workload| workload.data_sha256 = Some(hash.to_owned()));
        run
    };
    let runs = [of_data("runs/a", "0123456789abcdef"), of_data("runs/b", "0123456789abcdee")];
    let page_of_data = page("unlike-data", &runs, Targets::default());
    let answer = text(&page_of_data, ".answer");
    assert!(answer.contains("since they differ in: data (01234567, 01234567)."), "{answer}");
    let page_of_data = page("alike-data", &[of_data("runs/a", "01"), two("runs/b")], Targets::default());
    assert!(!text(&page_of_data, ".answer").contains("side by side"));
    // One that is known, beside one that is not, tells what is like both.
    let runs = [two("runs/a"), of_data("runs/b", "01"), of_data("runs/c", "02")];
    let page_of_data = page("half-known-data", &runs, Targets::default());
    assert!(text(&page_of_data, ".answer").contains("mlp on digits is 2 problems here"));
    // What an old record does not tell is not known to differ.
    let hash: Change = |config| config.text_sha256 = Some("fedcba9876543210".to_owned());
    for change in [hash, |_| ()] {
        let page = page("alike", &[two("runs/a"), changed(two("runs/b"), "runs/b", change)], Targets::default());
        let answer = text(&page, ".answer");
        assert!(
            answer.contains("a: adam, b: adam share the lowest median") && !answer.contains("side by side"),
            "{answer}"
        );
    }
}

#[test]
fn a_profile_names_a_winner_only_where_there_is_one() {
    let group = |optimizer: &'static str, dataset: &'static str, name: &'static str, loss: f64| Group {
        dataset,
        factors: vec![("optimizer", optimizer)],
        ..Group::new(name, &[Loss(loss), Loss(loss)])
    };
    let target = Targets { accuracy: None, loss: Some(1.0) };
    let answer = |name: &str, runs: &[Run]| text(&page(name, runs, target), ".answer");
    let alone = json!({"jobs": 1});
    let run_of = |out: &str, config: &Value, groups: Vec<Group>| run("shootout", out, config.clone(), groups);

    // The same ends: no one is soonest.
    let tied = run_of(
        "runs/tied",
        &alone,
        vec![
            group("adam", "digits", "a", 0.3),
            group("sgd", "digits", "b", 0.3),
            group("adam", "language", "c", 0.3),
            group("sgd", "language", "d", 0.3),
        ],
    );
    let text = answer("tied", &[tied]);
    assert!(
        text.contains("none is soonest at the target by steps: adam, sgd share the highest performance score, 1.000."),
        "{text}"
    );

    // No two groups are on the same two problems.
    let apart = run_of(
        "runs/apart",
        &alone,
        vec![
            group("adam", "digits", "a", 0.3),
            group("sgd", "digits", "b", 0.4),
            group("lion", "language", "c", 0.3),
            group("lamb", "language", "d", 0.4),
        ],
    );
    assert!(!answer("apart", &[apart]).contains("soonest"));
    let lonely =
        run_of("runs/lonely", &alone, vec![group("adam", "digits", "a", 0.3), group("sgd", "language", "b", 0.4)]);
    assert!(!answer("lonely", &[lonely]).contains("soonest"));

    // Nobody reaches the target on one of the problems, and nobody on any.
    let partly = |name: &'static str, digits: f64| {
        let groups = vec![
            group("adam", "digits", "a", digits),
            group("sgd", "digits", "b", digits + 0.6),
            group("adam", "language", "c", 1.5),
            group("sgd", "language", "d", 1.6),
        ];
        answer(name, &[run_of("runs/partly", &alone, groups)])
    };
    let text = partly("partly", 0.3);
    assert!(
        text.contains(
            "Only on 1 of the 2 problems did any group that took part in all reach the target, by the median of its seeds. There, adam is soonest at the target by \
             steps: its performance score is 0.500, of at most 0.500."
        ),
        "{text}"
    );
    assert!(!partly("nowhere", 1.2).contains("soonest"));

    // The same optimizers in two runs, each on a problem of its own.
    let runs = |config: &Value| {
        [("runs/a", "digits", ["a", "b"]), ("runs/b", "language", ["c", "d"])].map(|(out, dataset, [a, b])| {
            run_of(out, config, vec![group("adam", dataset, a, 0.3), group("sgd", dataset, b, 0.9)])
        })
    };
    let text = answer("soonest", &runs(&alone));
    assert!(
        text.contains("Over the 2 problems, adam is soonest at the target by steps: its performance score is 1.000"),
        "{text}"
    );
    assert!(text.contains("By training time the highest score is 1.000, of adam."), "{text}");
    // By time nothing is said where trials competed for the cores, or nobody knows.
    for config in [json!({"jobs": 2}), json!({"threads": 8}), json!({})] {
        let text = answer("neighbours", &runs(&config));
        assert!(text.contains("by steps") && !text.contains("By training time"), "{config}: {text}");
    }
}

#[test]
fn numbers_can_be_pasted_and_intervals_can_be() {
    let mut run = run(
        "shootout",
        "runs/wide",
        json!({}),
        vec![Group::new("adam", &[Loss(0.001), Loss(2.9)]), Group::new("sgd", &[Loss(1e-7), Loss(2e-7)])],
    );
    // As old summaries have them.
    run.summary.groups[0].accuracy.ci95 = Some([-1.16, 1.84]);
    let page = page("wide", &[run], Targets::default());
    let html = page.html();
    assert!(!html.contains('−'), "another minus sign than the keyboard's");
    assert!(html.contains("1.500e-7"));
    let rows = table(&page, "Results, mlp on digits");
    for (name, row) in &rows {
        for cell in [&row[1], &row[4], &row[6]] {
            let ends: Vec<f64> =
                cell.split_once('|').unwrap().1.split(" to ").map(|end| end.parse().unwrap()).collect();
            assert!(ends[0] >= 0.0 && ends[0] <= ends[1], "{name}: {cell}");
        }
        let accuracy = row[4].split_once('|').unwrap().1.split(" to ").nth(1).unwrap().parse::<f64>().unwrap();
        assert!(accuracy <= 100.0, "{name}: {accuracy}");
    }
}

#[test]
fn many_groups_are_compared_with_the_best_and_drawn_in_parts() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let page_of = |name: &str, diverged: usize| {
        let groups = names.iter().enumerate().map(|(i, name)| {
            let end = |seed: f64| match i {
                i if i + diverged >= names.len() => Diverges(30),
                _ => Loss(0.2 + 0.01 * i as f64 + 0.003 * seed * (i as f64 + 1.0)),
            };
            Group::new(name, &[end(0.0), end(1.0), end(2.0)])
        });
        page(name, &[run("shootout", "runs/many", json!({}), groups.collect())], Targets::default())
    };
    for (name, diverged, family) in [
        ("many", 0, "for the 45 comparisons of each group with each other; "),
        // What diverges makes the others no more significant.
        (
            "many-but-one",
            1,
            "for the 45 comparisons of each group with each other, of which 9 cannot be tested and count as p = 1; ",
        ),
        (
            "many-but-three",
            3,
            "for the 45 comparisons of each group with each other, of which 24 cannot be tested and count as p = 1; ",
        ),
    ] {
        let page = page_of(name, diverged);
        // The correction is for all pairs, not for those that are shown or that ended.
        let captions = text(&page, "figcaption");
        assert!(captions.contains(family), "{name}: {captions}");
    }
    let page = page_of("many", 0);
    let rows = page
        .select(&Selector::parse("figure").unwrap())
        .find(|figure| figure.text().any(|text| text == "Comparisons, mlp on digits."));
    assert_eq!(rows.unwrap().select(&Selector::parse("tbody tr").unwrap()).count(), 9);
    assert!(text(&page, ".row-title").contains("part 1 of 2") && text(&page, ".row-title").contains("part 2 of 2"));
}

#[test]
fn what_cannot_be_negative_has_no_band_down_to_the_edge() {
    // The mean is 0.01 and Student's t by hand is 4.302653 * 0.005 / sqrt(3) = 0.0124, so the plain interval reaches below 0; on a
    // logarithmic scale it is a factor of exp(1.24), less than a quarter of the way from ln(10).
    let groups = vec![Group::new("adamw", &[Loss(0.005), Loss(0.01), Loss(0.015)])];
    let page = page("band", &[run("shootout", "runs/band", json!({}), groups)], Targets::default());
    let panel = Selector::parse("svg[aria-label^='test loss: Learning curves by step']").unwrap();
    let svg = page.select(&panel).next().unwrap();
    let ys = |selector: &str| -> Vec<f64> {
        let selector = Selector::parse(selector).unwrap();
        let points = svg.select(&selector).map(|element| element.attr("points").unwrap());
        points.flat_map(str::split_whitespace).map(|pair| pair.split_once(',').unwrap().1.parse().unwrap()).collect()
    };
    let lowest = |ys: Vec<f64>| ys.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let (band, axis) = (lowest(ys("polygon[opacity='0.18']")), lowest(ys("polyline[stroke='#282828']")));
    assert!(band.is_finite() && band + 5.0 < axis, "{band} of {axis}");
}

#[test]
fn no_curve_is_on_a_page_twice_and_a_page_of_many_groups_is_small() {
    let peaks = ["0.0001", "0.001", "0.01", "0.1"];
    let optimizers = ["sgd", "adam", "adamw", "lion"];
    let mut groups = Vec::new();
    let names: Vec<&'static str> = (0..64).map(|i| &*format!("group {i}").leak()).collect();
    for (norm, model) in [("pre", "gpt:norm=pre"), ("post", "gpt:norm=post")] {
        for (optimizer, peak) in optimizers.iter().flat_map(|optimizer| peaks.map(|peak| (*optimizer, peak))) {
            for warmup in ["yes", "no"] {
                groups.push(Group {
                    model,
                    factors: vec![("norm", norm), ("warmup", warmup), ("peak", peak), ("optimizer", optimizer)],
                    lr: peak.parse().unwrap(),
                    probed: true,
                    ..Group::new(names[groups.len()], &[Loss(0.3), Loss(0.31)])
                });
            }
        }
    }
    let html = report::html(&[run("warmup", "runs/large", json!({}), groups)], &Targets::default(), None).unwrap();
    let labels = labels(&check(&html));
    let (losses, unique): (Vec<_>, BTreeSet<_>) =
        (labels.iter().filter(|label| label.starts_with("training loss")).collect(), labels.iter().collect());
    // One for each optimizer, peak and norm.
    assert_eq!((losses.len(), unique.len()), (4 * 4 * 2, labels.len()));
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("report/large.html"), &html).unwrap();
    assert!(html.len() < 5 << 18, "{} bytes", html.len());
}

#[test]
fn several_runs_are_one_comparison() {
    let page = page("several", &[shootout(), schedules()], Targets::default());
    assert!(text(&page, "h1").contains("Comparison of 2 runs"));
    let rows = table(&page, "Results, mlp on digits");
    assert!(
        rows.contains_key("one: adamw|lr at the edge of its space") && rows.contains_key("two: cosine"),
        "{:?}",
        rows.keys()
    );
    assert_eq!(text(&page, "#runs ~ h3").lines().take(2).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn a_page_of_a_run_that_goes_on_says_so_and_is_loaded_again() {
    let refresh = Selector::parse("meta[http-equiv=refresh][content='10']").unwrap();
    for (running, expected) in
        [(None, ""), (Some("Running: 12 of 50 trials have ended <&>."), "Running: 12 of 50 trials have ended <&>.\n")]
    {
        let page = check(&report::html(&[schedules()], &Targets::default(), running).unwrap());
        assert_eq!(text(&page, "[role=status]"), expected);
        assert_eq!(page.select(&refresh).count(), usize::from(running.is_some()));
    }
}

const FORMATS: [&str; 4] = ["markdown", "csv", "latex", "json"];

/// The groups of all `runs` in the order of the rows of numbers, which is that of the problems.
fn in_order(runs: &[Run]) -> Vec<&GroupSummary> {
    let mut groups: Vec<&GroupSummary> = runs.iter().flat_map(|run| &run.summary.groups).collect();
    let mut models: Vec<&String> = Vec::new();
    groups.iter().map(|group| &group.model).for_each(|model| {
        if !models.contains(&model) {
            models.push(model)
        }
    });
    groups.sort_by_key(|group| models.iter().position(|model| **model == group.model));
    groups
}

#[test]
fn every_format_has_the_numbers_of_the_records() {
    for runs in [vec![shootout()], vec![shootout(), schedules()]] {
        let text = |format: &str| {
            let format = clap::ValueEnum::from_str(format, false).unwrap();
            report::in_format(&runs, &Targets::default(), format).unwrap()
        };
        let summaries = in_order(&runs);

        // csv: the numbers of summary.json to the last bit, and nothing that is not one.
        let csv = text("csv");
        assert!(csv.lines().count() == summaries.len() + 1 && csv.matches("\r\n").count() == summaries.len() + 1);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let head = reader.headers().unwrap().clone();
        let rows: Vec<BTreeMap<String, String>> = reader
            .records()
            .map(|row| {
                head.iter().zip(row.unwrap().iter()).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
            })
            .collect();
        assert_eq!(rows.len(), summaries.len());
        for (row, summary) in rows.iter().zip(&summaries) {
            assert_eq!(row["group"], summary.name);
            let low = |estimate: &Estimate| estimate.ci95.map(|[low, _]| low);
            let high = |estimate: &Estimate| estimate.ci95.map(|[_, high]| high);
            for (name, expected) in [
                ("median_loss", summary.median_loss),
                ("mean_loss", summary.loss.mean),
                ("mean_loss_low", low(&summary.loss)),
                ("mean_loss_high", high(&summary.loss)),
                ("mean_accuracy", summary.accuracy.mean),
                ("mean_accuracy_high", high(&summary.accuracy)),
                ("mean_seconds", summary.seconds.mean),
                ("mean_ema_loss", None),
                ("n", Some(summary.n as f64)),
                ("diverged", Some(summary.diverged as f64)),
            ] {
                let found = (!row[name].is_empty()).then(|| row[name].parse::<f64>().unwrap());
                assert_eq!(found, expected, "{name} of {}", summary.name);
            }
        }

        // json: the same rows, with the answers and the tests.
        let json: Value = serde_json::from_str(&text("json")).unwrap();
        let groups = json["groups"].as_array().unwrap();
        assert_eq!(groups.len(), rows.len());
        for (group, row) in groups.iter().zip(&rows) {
            for (name, value) in group.as_object().unwrap() {
                let text = match value {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                };
                assert_eq!(row[name], text, "{name}");
            }
        }
        let page = check(&report::html(&runs, &Targets::default(), None).unwrap());
        let answers: Vec<&str> =
            json["answers"].as_array().unwrap().iter().map(|answer| answer.as_str().unwrap()).collect();
        assert_eq!(answers.join("\n") + "\n", self::text(&page, ".answer p"));
        let pairs = json["comparisons"].as_array().unwrap();
        let known = pairs.iter().find(|pair| pair["n"] == 3).unwrap();
        assert!(known["p"].as_f64().unwrap() <= known["adjusted_p"].as_f64().unwrap());
        assert_eq!(json["differences"].is_null(), runs.len() == 1);

        // Tables: the same cells as on the page.
        let name = if runs.len() > 1 { "one: adamw" } else { "adamw" };
        let cells = &table(&page, "Results, mlp on digits")[&format!("{name}|lr at the edge of its space")];
        let (markdown, latex) = (text("markdown"), text("latex"));
        let row = |text: &str, start: &str| {
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}")).to_owned()
        };
        let of_markdown = row(&markdown, &format!("| {name} (lr at the edge"));
        let of_latex = row(&latex, &format!("{name} {{\\footnotesize lr at the edge"));
        for cell in cells {
            let (value, note) = cell.split_once('|').unwrap_or((cell, ""));
            let note_of_latex = note.replace('%', "\\%");
            assert!(of_markdown.contains(value) && of_markdown.contains(note), "{cell}: {of_markdown}");
            assert!(of_latex.contains(value) && of_latex.contains(&note_of_latex), "{cell}: {of_latex}");
        }
        for answer in answers {
            let start: String = answer.chars().take_while(|c| c.is_alphanumeric() || " ,:".contains(*c)).collect();
            assert!(markdown.contains(&start), "{start}");
        }
    }
}

#[test]
fn a_name_breaks_no_format() {
    // Everything that has a meaning to one of them.
    let odd = "a|b_c % & # \\ \"q\", $x$ {y} *z* <i>\n~^";
    let groups = vec![
        Group { factors: vec![("optimizer", odd)], ..Group::new(odd, &[Loss(0.1), Loss(0.2)]) },
        Group::new("sgd", &[Loss(0.3), Loss(0.3)]),
    ];
    let run = [run("shootout", "runs/odd", json!({}), groups)];
    let text = |format: &str| {
        report::in_format(&run, &Targets::default(), clap::ValueEnum::from_str(format, false).unwrap()).unwrap()
    };
    // Every row of a table has as many cells as its head.
    let unescaped = |line: &str, sign: char| {
        let mut before = ' ';
        line.chars()
            .filter(|c| {
                let is = *c == sign && before != '\\';
                before = if before == '\\' { ' ' } else { *c };
                is
            })
            .count()
    };
    let markdown = text("markdown");
    let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4 + 4);
    for part in rows.chunks(4) {
        assert!(part.iter().all(|row| unescaped(row, '|') == unescaped(part[1], '|')), "{part:#?}");
    }
    let latex = text("latex");
    let mut columns = 0;
    let mut lines = 0;
    for line in latex.lines() {
        if let Some(spec) = line.strip_prefix("\\begin{tabular}{") {
            columns = spec.trim_end_matches('}').len();
        }
        assert!(
            line.starts_with('%') || unescaped(line, '%') + unescaped(line, '#') + unescaped(line, '_') == 0,
            "{line}"
        );
        if line.ends_with(" \\\\") {
            lines += 1;
            assert_eq!(unescaped(line, '&') + 1, columns, "{line}");
        }
    }
    assert_eq!(lines, 3 + 3);
    assert_eq!(latex.matches("\\begin{table}").count(), latex.matches("\\bottomrule").count());
    let csv = text("csv");
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let place = reader.headers().unwrap().iter().position(|name| name == "group").unwrap();
    assert_eq!(&reader.records().next().unwrap().unwrap()[place], odd);
    let json: Value = serde_json::from_str(&text("json")).unwrap();
    assert_eq!(json["groups"][0]["group"], odd);
}

#[test]
fn the_program_writes_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = schedules();
    write(&run, &folder.path().join("run"));
    run.out = PathBuf::from("run");
    for format in FORMATS {
        let expected = report::in_format(
            std::slice::from_ref(&run),
            &Targets::default(),
            clap::ValueEnum::from_str(format, false).unwrap(),
        )
        .unwrap();
        let output = report(folder.path(), &["run", "--format", format]);
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap() == expected, "{format}");
        assert!(!folder.path().join("run/report.html").exists());
        let output = report(folder.path(), &["run", "--format", format, "--out", "file"]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout) == "file\n", "{format}");
        assert!(fs::read_to_string(folder.path().join("file")).unwrap() == expected, "{format}");
    }
    let output = report(folder.path(), &["run", "--format", "html"]);
    assert!(output.status.success() && folder.path().join("run/report.html").exists());
}

#[test]
fn what_differs_between_runs_is_told_and_nothing_else() {
    let config = |seeds: u64, clip: Value, opt: &[&str]| json!({"seeds": seeds, "clip": clip, "opt": opt, "dataset": ["digits"], "out": seeds.to_string(), "tune": {"trials": 8}});
    let of =
        |out: &str, config: Value| run("shootout", out, config, vec![Group::new("adamw", &[Loss(0.1), Loss(0.2)])]);
    let first = of("runs/a", config(3, Value::Null, &["sgd", "adamw"]));
    let mut other = of("runs/b", config(3, json!(1.0), &["sgd", "lion"]));
    other.experiment.versions.candle = "0.12.0".to_owned();
    other.experiment.commit = None;
    other.experiment.workloads[0].data_sha256 = Some("0123456789abcdef0123456789abcdef".to_owned());
    let mut third = of("runs/c", config(5, Value::Null, &["sgd", "adamw"]));
    third.experiment.config["tune"]["trials"] = json!(16);
    let commit = "0123456789ab-dirty";
    for (name, runs, expected) in [
        ("alike", vec![first.clone(), of("runs/b", config(3, Value::Null, &["sgd", "adamw"]))], vec![]),
        (
            "differing",
            vec![first.clone(), other, third],
            vec![
                ("seeds", ["3", "3", "5"]),
                ("clip", ["-", "1.0", "-"]),
                ("opt", ["sgd, adamw", "sgd, lion", "sgd, adamw"]),
                ("tune.trials", ["8", "8", "16"]),
                ("version of candle", ["0.11.1", "0.12.0", "0.11.1"]),
                ("commit", [commit, "-", commit]),
                ("data of digits", ["-", "0123456789ab", "-"]),
            ],
        ),
    ] {
        let page = page(&format!("differences-{name}"), &runs, Targets::default());
        if expected.is_empty() {
            assert!(text(&page, "#differences + p").contains("Nothing differs between the runs"));
            assert!(!text(&page, "figcaption").contains("What differs"));
            continue;
        }
        let rows = table(&page, "What differs between the runs");
        let expected: BTreeMap<String, Vec<String>> =
            expected.iter().map(|(name, values)| ((*name).to_owned(), values.map(str::to_owned).to_vec())).collect();
        assert_eq!(rows, expected);
        // It stands above the runs.
        let headings: Vec<String> =
            page.select(&Selector::parse("h2").unwrap()).filter_map(|h2| Some(h2.attr("id")?.to_owned())).collect();
        assert!(headings.iter().position(|id| id == "differences") < headings.iter().position(|id| id == "runs"));
    }
    let alone = page("differences-none", &[first], Targets::default());
    assert!(!text(&alone, "h2").contains("What differs"));
}

#[test]
fn records_that_contradict_each_other_are_an_error() {
    let mut broken = schedules();
    broken.experiment.groups.pop();
    let message = report::html(&[broken], &Targets::default(), None).unwrap_err().to_string();
    assert_eq!(message, "`runs/two`: summary.json has the group `cosine, warm`, experiment.json has not");
    assert!(report::html(&[], &Targets::default(), None).is_err());
}

#[test]
fn pictures_stand_for_themselves() {
    let names = |run: &Run| -> Vec<String> {
        let pictures = report::pictures(run).unwrap();
        for (name, svg) in &pictures {
            let parsed = Html::parse_fragment(svg);
            assert!(parsed.errors.is_empty(), "{name}: {:?}", parsed.errors);
            assert!(svg.starts_with("<svg ") && svg.contains("xmlns=") && svg.contains("<text"), "{name}");
            assert!(!svg.contains("NaN") && !svg.contains("<b>"), "{name}");
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{}-{name}", run.experiment.experiment)), svg).unwrap();
        }
        pictures.into_iter().map(|(name, _)| name).collect()
    };
    let common = ["learning_curves.svg", "learning_curves_by_time.svg"];
    assert_eq!(names(&shootout()), [&common[..], &["tuning.svg", "profiles.svg"]].concat());
    assert_eq!(names(&schedules()), [&common[..], &["schedules.svg"]].concat());
    assert_eq!(names(&warmup()), [&common[..], &["warmup.svg", "inside.svg"]].concat());
}

/// Writes the records of `run` into `folder`.
fn write(run: &Run, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    write_json(&folder.join("experiment.json"), &run.experiment).unwrap();
    write_json(&folder.join("summary.json"), &run.summary).unwrap();
    for (record, metrics) in &run.trials {
        let trial = folder.join("trials").join(&record.id);
        fs::create_dir_all(&trial).unwrap();
        write_json(&trial.join("trial.json"), record).unwrap();
        let mut writer = MetricsWriter::open(trial.join("metrics.jsonl")).unwrap();
        metrics.iter().for_each(|metric| writer.write(metric).unwrap());
    }
}

fn report(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_report")).args(args).current_dir(folder).output().unwrap()
}

#[test]
fn the_program_makes_the_report_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = shootout();
    write(&run, &folder.path().join("one"));
    let output = report(folder.path(), &["one"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one/report.html\n");
    let page = fs::read_to_string(folder.path().join("one/report.html")).unwrap();
    run.out = PathBuf::from("one");
    assert!(
        page == report::html(&[run], &Targets::default(), None).unwrap(),
        "the records on disk are all that it needs"
    );
    for picture in ["learning_curves.svg", "learning_curves_by_time.svg", "tuning.svg", "profiles.svg"] {
        assert!(fs::read_to_string(folder.path().join("one").join(picture)).unwrap().starts_with("<svg"), "{picture}");
    }

    write(&schedules(), &folder.path().join("two"));
    let output = report(folder.path(), &["one", "two", "--target-loss", "0.5"]);
    assert!(output.status.success(), "{output:?}");
    let page = check(&fs::read_to_string(folder.path().join("report.html")).unwrap());
    assert!(table(&page, "Time to a test loss of 0.5000, mlp on digits").contains_key("two: cosine"));
    let output = report(folder.path(), &["two", "--out", "page.html"]);
    assert!(output.status.success() && folder.path().join("page.html").exists(), "{output:?}");
    assert!(!folder.path().join("two/report.html").exists());
    let output = report(folder.path(), &["two", "--out", "none/page.html"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.starts_with("error: cannot write `none/page.html`: ") && !message.contains(".part-"), "{message}");
}

/// `/dev/fd/1` is what `/dev/stdout` leads to, where nothing can be replaced by mistake.
#[cfg(unix)]
#[test]
fn a_page_goes_into_what_is_no_file_and_through_links() {
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&schedules(), &at("run"));
    assert!(report(folder.path(), &["run", "--out", "page.html"]).status.success());
    let page = fs::read_to_string(at("page.html")).unwrap();

    let output = report(folder.path(), &["run", "--out", "/dev/fd/1"]);
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap() == page, "the page and nothing else");

    fs::write(at("log"), "before\n").unwrap();
    let log = fs::File::options().append(true).open(at("log")).unwrap();
    let program = || Command::new(env!("CARGO_BIN_EXE_report"));
    let status = program().args(["run", "--out", "/dev/fd/1"]).current_dir(folder.path()).stdout(log).status();
    assert!(status.unwrap().success());
    assert!(fs::read_to_string(at("log")).unwrap() == format!("before\n{page}"));

    std::os::unix::fs::symlink("page.html", at("link")).unwrap();
    fs::write(at("page.html"), "old").unwrap();
    let output = report(folder.path(), &["run", "--out", "link"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout) == "link\n", "{output:?}");
    assert!(fs::read_to_string(at("page.html")).unwrap() == page && at("link").is_symlink());

    // A reader that has seen enough is no error.
    let mut child = program();
    child.args(["run", "--out", "/dev/fd/1"]).current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn wrong_input_is_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    write(&schedules(), &folder.path().join("run"));
    write(&schedules(), &folder.path().join("other"));
    #[cfg(unix)]
    std::os::unix::fs::symlink("run", folder.path().join("link")).unwrap();
    let trial = fs::read_dir(folder.path().join("run/trials")).unwrap().next().unwrap().unwrap().path();
    for (args, named) in [
        (&[][..], "no run given"),
        (&["nowhere"], "`nowhere` has no summary.json"),
        (&["run", "--target-accuracy", "95"], "--target-accuracy 95"),
        (&["run", "--target-loss", "low"], "'low'"),
        (&["run", "--target-loss", "-1"], "--target-loss -1"),
        (&["run", "--colour"], "--colour"),
        (&["run", "--format", "pdf"], "html, markdown, csv, latex, json"),
        (&["run", "run"], "`run` is the same folder as `run`"),
        (&["run", "./run/trials/../"], "`./run/trials/../`"),
        #[cfg(unix)]
        (&["run", "other", "link"], "`link` is the same folder as `run`"),
    ] {
        let output = report(folder.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.lines().count() == 1 && stderr.contains(named),
            "{args:?}: {stderr}"
        );
        assert!(!folder.path().join("run/report.html").exists() && output.stdout.is_empty());
    }
    fs::write(trial.join("metrics.jsonl"), "{\"kind\":").unwrap();
    let output = report(folder.path(), &["run"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && stderr.contains("metrics.jsonl`, line 1"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
