//! The report: one page that answers a run's question, made from its records alone.
//!
//! ```text
//! records -> subjects (groups of all runs) -> problems (what can be compared) -> facets (what shares a panel) -> figures, tables -> page
//! ```
//!
//! The page holds everything it needs: pictures, style, configs. It loads nothing and runs no script.

mod group;
mod number;
mod page;
mod plot;
mod sections;

use crate::{
    config::{names, targets::Targets},
    record::{run::Run, workload::Workload},
};
use anyhow::{Result, bail};
use group::{Problem, Subject, facets, problems};
use maud::{Markup, html};
use page::{Cell, text};
use plot::Figure;
use sections::{
    curves::{self, By},
    results::{self, Pairs},
    schedules,
    target::{self, Profiles, Target},
    trials, tuning, warmup,
};

/// More facets than this are folded away where they repeat what is seen before.
const MANY_FACETS: usize = 3;

/// So many pairs of groups have the inside of their model drawn: a picture of each layer takes room.
const MANY_INSIDES: usize = 4;

/// The report on `runs`, a page of its own: on one run, or comparing the groups of several.
///
/// # Errors
/// When there is no run, the records of one contradict each other, or a target is out of range.
pub fn html(runs: &[Run], options: &Targets) -> Result<String> {
    options.check()?;
    if runs.is_empty() {
        bail!("a report needs a run");
    }
    let subjects = Subject::all(runs)?;
    let (problems, apart) = problems(&subjects);
    let profiles = Profiles::of(&problems, options, runs);
    let title = match (runs, problems.as_slice()) {
        ([run], [problem]) => format!("{}: {}", run.experiment.experiment, problem.title),
        ([run], _) => format!("{}: {} problems", run.experiment.experiment, problems.len()),
        _ => format!("Comparison of {} runs", runs.len()),
    };
    let several = problems.len() > 1;
    let pairs: Vec<Pairs> = problems.iter().map(Pairs::of).collect();
    let sections = problems.iter().zip(&pairs).enumerate().map(|(i, (problem, pairs))| {
        anyhow::Ok(html! {
            h2 id=(format!("problem-{i}")) { (text(&problem.title)) }
            (section(problem, pairs, options, runs, several)?)
        })
    });
    let sections = sections.collect::<Result<Vec<_>>>()?;
    let body = html! {
        h1 { (text(&title)) }
        div.answer {
            @for (problem, pairs) in problems.iter().zip(&pairs) {
                @for answer in warmup::answer(problem, several) { p { (text(&answer)) } }
                p { (text(&results::answer(problem, pairs, several))) }
            }
            @if let Some(answer) = profiles.as_ref().and_then(Profiles::answer) { p { (text(&answer)) } }
            @for note in &apart { p { (text(note)) } }
        }
        nav aria-label="Contents" { ul {
            @for (i, problem) in problems.iter().enumerate() { li { a href=(format!("#problem-{i}")) { (text(&problem.title)) } } }
            @if profiles.is_some() { li { a href="#profiles" { "Over all problems" } } }
            li { a href="#settings" { "Settings" } }
            li { a href="#runs" { @if runs.len() == 1 { "How to reproduce it" } @else { "The runs" } } }
            li { a href="#trials" { "All trials" } }
        } }
        @for section in &sections { (section) }
        @if let Some(profiles) = &profiles {
            h2 id="profiles" { "Over all problems" }
            (page::figure(&profiles.figure(), &profiles.caption())?)
            (profiles.table())
        }
        h2 id="settings" { "Settings" }
        (settings(&problems))
        h2 id="runs" { @if runs.len() == 1 { "How to reproduce it" } @else { "The runs" } }
        @for (i, run) in runs.iter().enumerate() {
            @if runs.len() > 1 { h3 { (text(&group::run_name(runs, i))) } }
            (facts(run)?)
        }
        h2 id="trials" { "All trials" }
        p { "Every number above leads here: to the trials that it comes from, and what they were configured with." }
        @for subject in &subjects { (trials::section(subject)) }
    };
    Ok(page::page(&title, &body))
}

/// The pictures of `run`, as pairs of a file name and its content.
///
/// # Errors
/// When the records contradict each other or a drawing fails.
pub fn pictures(run: &Run) -> Result<Vec<(String, String)>> {
    let runs = std::slice::from_ref(run);
    let subjects = Subject::all(runs)?;
    let (problems, _) = problems(&subjects);
    let all: Vec<&Subject> = subjects.iter().collect();
    let facets = facets(&all);
    let name = &run.experiment.experiment;
    let mut figures = vec![
        ("learning_curves", curves::figure(&format!("{name}: learning curves"), &facets, By::Step)),
        ("learning_curves_by_time", curves::figure(&format!("{name}: learning curves"), &facets, By::Seconds)),
    ];
    let tuned = problems.iter().filter(|problem| tuning::is_tuned(problem)).map(tuning::figure);
    let merged = |title: &str, figures: Vec<Figure>| {
        let rows: Vec<_> = figures.into_iter().flat_map(|figure| figure.rows).collect();
        (!rows.is_empty()).then(|| Figure { title: title.to_owned(), rows })
    };
    figures.extend(merged("Tuning", tuned.collect()).map(|figure| ("tuning", figure)));
    if let Some(profiles) = Profiles::of(&problems, &Targets::default(), runs) {
        figures.push(("profiles", profiles.figure()));
    }
    match name.as_str() {
        "schedules" => {
            let drawn = facets.iter().map(|facet| {
                let mut figure = schedules::figure(facet);
                figure.rows.first_mut().into_iter().for_each(|row| row.title.clone_from(&facet.title));
                figure
            });
            figures.extend(
                merged("Schedules and the losses that they led to", drawn.collect())
                    .map(|figure| ("schedules", figure)),
            );
        }
        "warmup" => {
            figures.push(("warmup", warmup::figure(&facets)));
            let settings: Vec<_> = problems.iter().flat_map(warmup::Setting::all).collect();
            let is_drawn = |facet: &&group::Facet| facets.len() == 1 || warmup::is_at_the_limit(&settings, facet);
            let drawn = facets.iter().filter(|facet| warmup::is_probed(facet)).filter(is_drawn);
            let probed = drawn.map(|facet| {
                let mut figure = warmup::inside(facet);
                figure
                    .rows
                    .iter_mut()
                    .for_each(|row| row.title = format!("{} {}", row.title, facet.title).trim().to_owned());
                figure
            });
            figures.extend(merged("Inside the model", probed.collect()).map(|figure| ("inside", figure)));
        }
        _ => {}
    }
    figures.into_iter().map(|(name, figure)| Ok((format!("{name}.svg"), figure.svg()?))).collect()
}

/// All about one problem.
fn section(problem: &Problem, pairs: &Pairs, options: &Targets, runs: &[Run], several: bool) -> Result<Markup> {
    let facets = facets(&problem.subjects);
    let is_all = |experiment: &str| problem.subjects.iter().all(|subject| subject.experiment == experiment);
    let (is_warmup, is_schedules) = (is_all("warmup"), is_all("schedules"));
    let place = if several { format!(", {}", problem.title) } else { String::new() };
    let curves = |by: By| {
        let title = match by {
            By::Step => format!("Learning curves by step{place}"),
            By::Seconds => format!("Learning curves by training time{place}"),
        };
        let figure = page::figure(&curves::figure(&title, &facets, by), &curves::caption(by))?;
        // Where there are many, the first thing that a reader sees of each is enough.
        let is_folded = facets.len() > MANY_FACETS && by == By::Seconds;
        anyhow::Ok(if is_folded { folded(&title, false, &figure) } else { figure })
    };
    let schedules = if is_schedules {
        let figures = facets.iter().map(|facet| page::figure(&schedules::figure(facet), &schedules::caption()));
        figures.collect::<Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let mut insides = Vec::new();
    let probed: Vec<&group::Facet> = facets.iter().filter(|facet| warmup::is_probed(facet)).collect();
    if is_warmup {
        let settings = warmup::Setting::all(problem);
        let is_drawn = |facet: &&&group::Facet| probed.len() == 1 || warmup::is_at_the_limit(&settings, facet);
        for facet in probed.iter().filter(is_drawn).take(MANY_INSIDES) {
            let figure = warmup::inside(facet);
            insides.push(folded(&figure.title, true, &page::figure(&figure, &warmup::inside_caption(facet))?));
        }
    }
    Ok(html! {
        @if is_warmup { (warmup::tables(problem)) }
        (results::groups(problem))
        (results::comparisons(problem, pairs))
        @for target in Target::of(problem, options, runs) { (target::time_to(problem, target)) }
        @for figure in &schedules { (figure) }
        @if is_schedules { (schedules::areas(problem)) }
        @if is_warmup {
            (page::figure(&warmup::figure(&facets), warmup::CAPTION)?)
            @if probed.is_empty() { p { "No trial was probed, so nothing is known of what happened inside the model." } }
            @else if insides.len() < probed.len() {
                p { "What happened inside the model is drawn at the largest usable learning rates, with and without warmup: "
                    (insides.len()) " of " (probed.len()) " pairs. " code { "metrics.jsonl" } " has it for all." }
            }
            @for inside in &insides { (inside) }
        }
        // These two have the losses by step in figures of their own.
        @if !is_schedules && !is_warmup { (curves(By::Step)?) }
        @if is_warmup && facets.len() > MANY_FACETS {
            p { "Losses and accuracies by training time are in " code { "learning_curves_by_time.svg" } ", beside the report on a run." }
        } @else {
            (curves(By::Seconds)?)
        }
        @if tuning::is_tuned(problem) {
            (page::figure(&tuning::figure(problem), tuning::CAPTION)?)
            (tuning::picked(problem))
        }
    })
}

fn folded(title: &str, is_open: bool, content: &Markup) -> Markup {
    html! { details.drawn open[is_open] { summary { (text(title)) } div { (content) } } }
}

/// What each problem is in full.
fn settings(problems: &[Problem]) -> Markup {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut seen: Vec<(&str, &Workload)> = Vec::new();
    for problem in problems {
        for workload in problem.subjects.iter().filter_map(|subject| subject.workload) {
            if seen.contains(&(&problem.title, workload)) {
                continue;
            }
            seen.push((&problem.title, workload));
            rows.push(vec![
                Cell::new(&problem.title),
                Cell::new(&workload.model),
                Cell::new(workload.parameters.to_string()),
                Cell::new(workload.classes.to_string()),
                Cell::new(workload.steps.to_string()),
                Cell::new(workload.batch_size.to_string()),
                Cell::new(workload.evaluate_every.to_string()),
                Cell::new(number::number(workload.constant_loss)),
                Cell::new(workload.floor.map_or(number::NONE.to_owned(), number::number)),
            ]);
        }
    }
    page::table(
        "What was trained",
        &[
            "problem",
            "model",
            ">parameters",
            ">classes",
            ">updates",
            ">batch",
            ">evaluated every",
            ">constant",
            ">floor",
        ],
        &rows,
        "Models with all their keys; batch: examples per update; evaluated: updates between two evaluations; constant: the loss of the best \
         prediction that ignores the input; floor: the loss that no model's expected loss is below, where that is known.",
    )
}

/// When, where and by what a run was made, and how to make it again.
fn facts(run: &Run) -> Result<Markup> {
    let experiment = &run.experiment;
    let versions = &experiment.versions;
    let seeds: Vec<String> = experiment.seeds.iter().map(u64::to_string).collect();
    let processor = versions.processor.as_ref().map(|processor| format!(", {processor}"));
    let config = config(&experiment.config)?;
    let commit = experiment.commit.as_deref();
    let differing = experiment.workloads.iter().filter(|workload| !workload.data_differs.is_empty());
    let mut other_data: Vec<String> = differing
        .map(|Workload { dataset, data_differs, .. }| {
            format!("not what was published: {} of {dataset}", data_differs.join(", "))
        })
        .collect();
    other_data.dedup();
    Ok(html! {
        dl.facts {
            dt { "began" } dd { (to_seconds(&experiment.started)) }
            dt { "command" } dd { code { (command_line(&experiment.command_line)) } }
            dt { "commit" } dd {
                @match commit {
                    Some(commit) => { code { (commit) } @if commit.ends_with("-dirty") { " (with changes that were not committed)" } }
                    None => { "none: the program was built outside a repository" }
                }
            }
            @for continuation in &experiment.continued {
                dt { "went on" }
                dd {
                    (continuation.started) " by " code { (command_line(&continuation.command_line)) }
                    @if let Some(commit) = &continuation.commit { ", commit " code { (commit) } }
                    ", candle " (continuation.versions.candle)
                    @if let Some(processor) = &continuation.versions.processor { ", " (processor) }
                }
            }
            dt { "seeds" } dd { (seeds.join(", ")) }
            dt { "device" } dd { (experiment.device) }
            dt { "system" } dd { (versions.os) " on " (versions.arch) @if let Some(processor) = processor { (processor) } }
            dt { "memory" } dd {
                @match run.summary.peak_memory_bytes {
                    Some(bytes) => {
                        (format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)))
                        " at most, of the whole process: its data, and all trials that ran at a time"
                    }
                    None => { "unknown" }
                }
            }
            @if !other_data.is_empty() { dt { "other data" } dd { (other_data.join("; ")) } }
            dt { "versions" } dd { "experiments " (versions.experiments) ", candle " (versions.candle) }
        }
        p {
            "To make it again: "
            @if let Some(commit) = commit { code { "git checkout " (commit.trim_end_matches("-dirty")) } ", then " }
            "the command above in a new folder. On the same kind of processor a CPU gives the same bits, times excepted, for any number of threads."
        }
        details {
            summary { code { "config.toml" } ": all options" }
            div { pre { (config) } }
        }
    })
}

/// A time such as `2026-01-02T03:04:05.123456789+00:00[UTC]` without the fractions of its second.
fn to_seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((start, rest)) => start.to_owned() + rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => time.to_owned(),
    }
}

/// The options as they are in `config.toml`. What is null was not set, for which TOML has no word.
fn config(options: &serde_json::Value) -> Result<String> {
    fn without_null(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(fields) => {
                let set = fields.iter().filter(|(_, value)| !value.is_null());
                set.map(|(key, value)| (key.clone(), without_null(value))).collect()
            }
            serde_json::Value::Array(items) => items.iter().filter(|item| !item.is_null()).map(without_null).collect(),
            value => value.clone(),
        }
    }
    match without_null(options) {
        options @ serde_json::Value::Object(_) => Ok(toml::to_string_pretty(&options)?),
        other => Ok(serde_json::to_string_pretty(&other)?),
    }
}

/// The words of a command as a shell reads them; no line breaks within one.
fn command_line(words: &[String]) -> Markup {
    html! {
        @for (i, word) in words.iter().enumerate() {
            @if i > 0 { " " }
            span { (names::for_shell(word.as_ref())) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted() {
        let words = ["shootout", "--opt", "sgd:lr=0.1", "--out", "my run", "it's", ""].map(str::to_owned);
        let line = command_line(&words).into_string().replace("<span>", "").replace("</span>", "");
        assert_eq!(line, r"shootout --opt sgd:lr=0.1 --out 'my run' 'it'\''s' ''");
    }

    #[test]
    fn a_time_is_told_to_the_second() {
        for time in ["2026-01-02T03:04:05+00:00[UTC]", "2026-01-02T03:04:05.186824949+00:00[UTC]"] {
            assert_eq!(to_seconds(time), "2026-01-02T03:04:05+00:00[UTC]");
        }
    }

    #[test]
    fn options_become_toml_without_what_is_not_set() {
        let options =
            serde_json::json!({"seeds": 3, "out": null, "opt": ["sgd", "adam"], "tune": {"trials": 8, "grid": null}});
        let parsed: toml::Value = toml::from_str(&config(&options).unwrap()).unwrap();
        assert_eq!(parsed["seeds"].as_integer(), Some(3));
        assert_eq!(parsed["tune"]["trials"].as_integer(), Some(8));
        assert!(parsed.get("out").is_none() && parsed["tune"].get("grid").is_none());
        assert_eq!(config(&serde_json::Value::Null).unwrap(), "null");
    }
}
