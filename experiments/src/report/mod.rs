//! The report: one page that answers a run's question, made from its records alone.
//!
//! ```text
//! records -> groups (of all runs) -> problems (what can be compared) -> findings (answers, tables, tests) -> page and other forms
//!                                    problems -> facets (what shares a panel) -> figures -> page
//! ```
//!
//! The page holds everything it needs: pictures, style, configs. It loads nothing and runs no script.

mod facet;
mod findings;
mod format;
mod group;
mod number;
mod page;
mod pairs;
mod plot;
mod problem;
mod ranking;
mod samples;
mod sections;
mod stable_lr;
mod table;

use crate::{config::targets::Targets, record::run::Run};
use anyhow::{Result, bail};
use facet::{Facet, facets};
use findings::Findings;
pub use format::Format;
use format::{csv, json, latex, markdown};
use group::ReportGroup;
use maud::{Markup, html};
use page::text;
use pairs::Pairs;
use plot::figure::Figure;
use problem::{Problem, problems};
use samples::By;
use sections::{
    comparisons, course, curves, differences, factors, inside, profiles::Profiles, reproduce, results, schedules,
    search_cost, settings, target, trials, tuning, warmup,
};
use stable_lr::{Sweep, is_at_the_limit};

/// More facets than this are folded away where they repeat what is seen before.
const MANY_FACETS: usize = 3;

/// So many pairs of groups have the inside of their model drawn: a picture of each layer takes room.
const MANY_INSIDES: usize = 4;

/// The report on `runs`, a page of its own: on one run, or comparing the groups of several. `running` says how far a run is that still
/// goes on: it stands on top, and a browser loads the page again every ten seconds.
///
/// # Errors
/// When there is no run, the records of one contradict each other, or a target is out of range.
pub fn html(runs: &[Run], options: &Targets, running: Option<&str>) -> Result<String> {
    let groups = groups_of(runs, options)?;
    let findings = Findings::of(&groups, runs, options);
    let Findings { title, problems, profiles, .. } = &findings;
    let several = problems.len() > 1;
    let sections = problems.iter().enumerate().map(|(i, (problem, pairs))| {
        anyhow::Ok(html! {
            h2 id=(format!("problem-{i}")) { (text(&problem.title)) }
            (section(problem, pairs, options, runs, several)?)
        })
    });
    let sections = sections.collect::<Result<Vec<_>>>()?;
    let body = html! {
        @if let Some(running) = running { p.running role="status" { (text(running)) } }
        h1 { (text(title)) }
        div.answer {
            @for answer in &findings.answers { p { (text(answer)) } }
        }
        nav aria-label="Contents" { ul {
            @for (i, (problem, _)) in problems.iter().enumerate() { li { a href=(format!("#problem-{i}")) { (text(&problem.title)) } } }
            @if profiles.is_some() { li { a href="#profiles" { "Over all problems" } } }
            li { a href="#settings" { "Settings" } }
            @if findings.differences.is_some() { li { a href="#differences" { "What differs" } } }
            li { a href="#runs" { @if runs.len() == 1 { "How to reproduce it" } @else { "The runs" } } }
            li { a href="#trials" { "All trials" } }
        } }
        @for section in &sections { (section) }
        @if let Some(profiles) = profiles {
            h2 id="profiles" { "Over all problems" }
            (page::figure(&profiles.figure(), &profiles.caption())?)
            (profiles.table())
        }
        h2 id="settings" { "Settings" }
        (settings::table_of(problems.iter().map(|(problem, _)| problem)))
        @if let Some(differing) = &findings.differences {
            h2 id="differences" { "What differs" }
            @if differing.rows.is_empty() { p { (differences::NOTHING) } } @else { (page::table_of(differing)) }
        }
        h2 id="runs" { @if runs.len() == 1 { "How to reproduce it" } @else { "The runs" } }
        @for (i, run) in runs.iter().enumerate() {
            @if runs.len() > 1 { h3 { (text(&group::run_name(runs, i))) } }
            (reproduce::facts(run)?)
        }
        h2 id="trials" { "All trials" }
        p { "Every number above leads here: to the trials that it comes from, and what they were configured with." }
        @for group in &groups { (trials::section(group)) }
    };
    Ok(page::page(title, &body, running.is_some()))
}

/// The report on `runs` in a `format`.
///
/// # Errors
/// As [`html()`].
pub fn in_format(runs: &[Run], options: &Targets, format: Format) -> Result<String> {
    let groups = groups_of(runs, options)?;
    let findings = Findings::of(&groups, runs, options);
    match format {
        Format::Html => html(runs, options, None),
        Format::Markdown => Ok(markdown::text(&findings)),
        Format::Csv => csv::text(&findings),
        Format::Latex => Ok(latex::text(&findings)),
        Format::Json => json::text(&findings),
    }
}

/// The groups of `runs`, which are some, once the options are checked.
fn groups_of<'a>(runs: &'a [Run], options: &Targets) -> Result<Vec<ReportGroup<'a>>> {
    options.check()?;
    if runs.is_empty() {
        bail!("a report needs a run");
    }
    ReportGroup::all(runs)
}

/// The pictures of `run`, as pairs of a file name and its content.
///
/// # Errors
/// When the records contradict each other or a drawing fails.
pub fn pictures(run: &Run) -> Result<Vec<(String, String)>> {
    let runs = std::slice::from_ref(run);
    let groups = ReportGroup::all(runs)?;
    let (problems, _) = problems(&groups);
    let all: Vec<&ReportGroup> = groups.iter().collect();
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
    let by_factor = problems.iter().filter_map(|problem| Some(factors::drawn(problem)?.0));
    figures.extend(merged("Test loss by what is compared", by_factor.collect()).map(|figure| ("factors", figure)));
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
            let sweeps: Vec<_> = problems.iter().flat_map(Sweep::all).collect();
            let is_drawn = |facet: &&Facet| facets.len() == 1 || is_at_the_limit(&sweeps, facet);
            let drawn = facets.iter().filter(|facet| inside::is_probed(facet)).filter(is_drawn);
            let probed = drawn.map(|facet| {
                let mut figure = inside::figure(facet);
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
    let tuning = match tuning::is_tuned(problem) {
        true => html! {
            (page::figure(&tuning::figure(problem), tuning::CAPTION)?)
            (tuning::picked(problem))
            (search_cost::section(problem))
        },
        false => html! {},
    };
    // A run that still tunes has nothing else to show.
    if problem.groups.iter().all(|group| group.finals.is_empty()) {
        return Ok(tuning);
    }
    let facets = facets(&problem.groups);
    let is_all = |experiment: &str| problem.groups.iter().all(|group| group.experiment == experiment);
    let (is_warmup, is_schedules) = (is_all("warmup"), is_all("schedules"));
    let place = if several { format!(", {}", problem.title) } else { String::new() };
    let curves = |by: By| {
        let title = match by {
            By::Step => format!("Learning curves by step{place}"),
            By::Seconds => format!("Learning curves by training time{place}"),
        };
        let figure = page::figure(&curves::figure(&title, &facets, by), &curves::caption(by, &facets))?;
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
    let probed: Vec<&Facet> = facets.iter().filter(|facet| inside::is_probed(facet)).collect();
    if is_warmup {
        let sweeps = Sweep::all(problem);
        let is_drawn = |facet: &&&Facet| probed.len() == 1 || is_at_the_limit(&sweeps, facet);
        for facet in probed.iter().filter(is_drawn).take(MANY_INSIDES) {
            let figure = inside::figure(facet);
            insides.push(folded(&figure.title, true, &page::figure(&figure, &inside::caption(facet))?));
        }
    }
    let factors = factors::drawn(problem).map(|(figure, caption)| page::figure(&figure, &caption)).transpose()?;
    Ok(html! {
        @if is_warmup {
            (page::figure(&warmup::by_peak(problem), warmup::BY_PEAK)?)
            (warmup::tables(problem))
        }
        @if let Some(figure) = &factors { (figure) }
        (page::table_of(&results::table(problem)))
        @match comparisons::table(problem, pairs) {
            Some(Ok(table)) => (page::table_of(&table)),
            Some(Err(sentence)) => p { (sentence) },
            None => {}
        }
        (course::table_of(problem))
        @for target in target::Target::of(problem, options, runs) { (target::time_to(problem, target)) }
        @for figure in &schedules { (figure) }
        @if is_schedules { (schedules::areas(problem)) }
        @if is_warmup {
            (page::figure(&warmup::figure(&facets), warmup::CAPTION)?)
            @if probed.is_empty() { p { "No trial was probed, so nothing is known of what happened inside the model." } }
            @else if insides.len() < probed.len() {
                p { "What happened inside the model is drawn at the largest stable learning rates, with and without warmup: "
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
        (tuning)
    })
}

fn folded(title: &str, is_open: bool, content: &Markup) -> Markup {
    html! { details.drawn open[is_open] { summary { (text(title)) } div { (content) } } }
}
