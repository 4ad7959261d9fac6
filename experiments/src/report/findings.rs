//! What the runs say, as plain data: every format of the report is made from it.

use super::{
    group::{ReportGroup, run_name},
    pairs::Pairs,
    problem::{Problem, problems},
    ranking::ranking,
    sections::{comparisons, differences, profiles::Profiles, results, warmup, winner},
    table::Table,
};
use crate::{config::targets::Targets, record::run::Run, stats::Estimate};
use optim::text::SpecText;
use serde_json::{Map, Value, json};

/// What the runs say.
#[derive(Clone, Debug)]
pub struct Findings<'s, 'a> {
    /// What they are.
    pub title: String,
    /// The answers, a paragraph each.
    pub answers: Vec<String>,
    /// What can be compared, and how.
    pub problems: Vec<(Problem<'s, 'a>, Pairs<'s, 'a>)>,
    /// Who is soonest over all problems, where there are several.
    pub profiles: Option<Profiles>,
    /// What differs between the runs, where there are several.
    pub differences: Option<Table>,
    runs: Vec<String>,
}

impl<'s, 'a> Findings<'s, 'a> {
    /// What `groups`, which are all of `runs`, say.
    pub fn of(groups: &'s [ReportGroup<'a>], runs: &[Run], options: &Targets) -> Self {
        let (problems, apart) = problems(groups);
        let profiles = Profiles::of(&problems, options, runs);
        let title = match (runs, problems.as_slice()) {
            ([run], [problem]) => format!("{}: {}", run.experiment.experiment, problem.title),
            ([run], _) => format!("{}: {} problems", run.experiment.experiment, problems.len()),
            _ => format!("Comparison of {} runs", runs.len()),
        };
        let several = problems.len() > 1;
        let problems: Vec<(Problem, Pairs)> = problems
            .into_iter()
            .map(|problem| {
                let pairs = Pairs::of(&problem);
                (problem, pairs)
            })
            .collect();
        let mut answers = Vec::new();
        for (problem, pairs) in &problems {
            answers.extend(warmup::answer(problem, several));
            answers.push(winner::answer(problem, pairs, several));
        }
        answers.extend(profiles.as_ref().and_then(Profiles::answer));
        answers.extend(apart);
        let differences = (runs.len() > 1).then(|| differences::table(runs));
        let runs = (0..runs.len()).map(|run| run_name(runs, run)).collect();
        Self { title, answers, problems, profiles, differences, runs }
    }

    /// The results and the comparisons of each problem; or a sentence, where nothing can be tested.
    pub fn tables(&self) -> impl Iterator<Item = (&Problem<'s, 'a>, Table, Option<Result<Table, String>>)> {
        let problems = self.problems.iter();
        problems.map(|(problem, pairs)| (problem, results::table(problem), comparisons::table(problem, pairs)))
    }

    /// A row per group with all its numbers, by the names of the columns.
    pub fn rows(&self) -> Vec<Map<String, Value>> {
        let of = |(problem, _): &(Problem, Pairs)| -> Vec<Map<String, Value>> {
            let ranked = ranking(problem);
            let row = |group: &&ReportGroup| {
                let rank = ranked.iter().position(|other| other.is(group)).map(|rank| rank + 1);
                self.row(problem, group, rank)
            };
            problem.groups.iter().map(row).collect()
        };
        self.problems.iter().flat_map(of).collect()
    }

    fn row(&self, problem: &Problem, group: &ReportGroup, rank: Option<usize>) -> Map<String, Value> {
        let summary = &group.summary;
        let mut optimizer = SpecText::of(&summary.optimizer);
        for (key, value) in &summary.hyperparameters {
            optimizer.set(key, value.as_str().unwrap_or(&value.to_string()));
        }
        let config = group.finals.first().map(|trial| &trial.record.config);
        let mut row = Map::new();
        let mut put = |name: &str, value: Value| _ = row.insert(name.to_owned(), value);
        put("run", json!(self.runs[group.run]));
        put("problem", json!(problem.title));
        put("group", json!(group.config.name));
        put("rank", json!(rank));
        put("dataset", json!(summary.dataset));
        put("model", json!(summary.model));
        put("optimizer", json!(optimizer.to_string()));
        put("schedule", json!(config.map_or(&summary.schedule, |config| &config.schedule)));
        put("batch_size", json!(config.map(|config| config.batch_size)));
        put("updates", json!(config.map(|config| config.steps)));
        for (name, value) in &group.config.factors {
            put(&format!("factor_{name}"), json!(value));
        }
        put("n", json!(summary.n));
        put("ended", json!(summary.ended()));
        put("diverged", json!(summary.diverged));
        put("median_loss", json!(summary.median_loss));
        let mut estimate = |name: &str, estimate: Option<&Estimate>| {
            let ends = estimate.and_then(|estimate| estimate.ci95);
            put(name, json!(estimate.and_then(|estimate| estimate.mean)));
            put(&format!("{name}_low"), json!(ends.map(|[low, _]| low)));
            put(&format!("{name}_high"), json!(ends.map(|[_, high]| high)));
        };
        estimate("mean_loss", Some(&summary.loss));
        estimate("mean_accuracy", Some(&summary.accuracy));
        estimate("mean_ema_loss", summary.ema_loss.as_ref());
        estimate("mean_ema_accuracy", summary.ema_accuracy.as_ref());
        estimate("mean_seconds", Some(&summary.seconds));
        put("best_loss", json!(group.best_loss().map(|(loss, _)| loss)));
        put("best_accuracy", json!(group.best_accuracy().map(|(accuracy, _)| accuracy)));
        row
    }

    /// The tests of pairs of groups, by the names of their numbers.
    pub fn tests(&self) -> Vec<Value> {
        let of = |(problem, pairs): &(Problem, Pairs)| -> Vec<Value> {
            let test = |pair: &super::pairs::Pair| {
                let tested = pair.tested.as_ref();
                json!({
                    "problem": problem.title,
                    "a": pair.a.name,
                    "b": pair.b.name,
                    "n": tested.map_or(0, |tested| tested.test.n),
                    "difference": tested.map(|tested| tested.mean()),
                    "ci95": tested.and_then(|tested| tested.test.difference.ci95),
                    "p": tested.map(|tested| tested.test.p),
                    "adjusted_p": tested.map(|tested| tested.adjusted),
                    "is_significant": tested.is_some_and(|tested| tested.is_significant()),
                    "least_significant": tested.and_then(|tested| tested.least),
                })
            };
            pairs.all().iter().map(test).collect()
        };
        self.problems.iter().flat_map(of).collect()
    }
}
