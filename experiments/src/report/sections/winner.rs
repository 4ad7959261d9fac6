//! Who won, and how sure that is, in a few sentences.

use crate::report::{
    group::ReportGroup,
    number,
    pairs::Pairs,
    problem::Problem,
    ranking::{ranking, share_diverged, shares_median},
};

/// Who won, in a few sentences.
pub fn answer(problem: &Problem, pairs: &Pairs, name_problem: bool) -> String {
    let place = if name_problem { format!("On {}, ", problem.title) } else { String::new() };
    let ranked = ranking(problem);
    let Some(best) = ranked.first() else {
        let n: usize = problem.groups.iter().map(|group| group.summary.n).sum();
        let all = match (n, name_problem) {
            // A page of a run that still tunes.
            (0, false) => return "No trial that is compared has ended yet.".to_owned(),
            (0, true) => return format!("{place}no trial that is compared has ended yet."),
            (1, false) => "The only trial".to_owned(),
            (1, true) => "the only trial".to_owned(),
            (n, false) => format!("All {n} trials"),
            (n, true) => format!("all {n} trials"),
        };
        return format!("{place}{all} diverged: there is no result.");
    };
    let mut text = format!("{place}{}", won(best, &ranked));
    if let Some(second) = ranked.get(1) {
        text += &format!("; {}", lead(best, second, pairs));
    }
    text += ".";
    if let Some(warning) = best.summary.searched.as_ref().and_then(|searched| searched.warning()) {
        text += &format!(" Of {}, {warning}: a better value may lie outside.", best.name);
    }
    let others = || problem.groups.iter().filter(|group| !group.is(best));
    let at_edge: Vec<&str> =
        others().filter(|group| !group.at_edge().is_empty()).map(|group| group.name.as_str()).collect();
    text += &listed(
        &at_edge,
        |few| format!(" Picked at the edge of what was searched: {few}."),
        |n| format!(" {n} other groups were picked at the edge of what was searched."),
    );
    let diverged = others().filter(|group| group.summary.diverged > 0);
    let diverged: Vec<String> = diverged
        .map(|group| format!("{} of {} trials of {}", group.summary.diverged, group.summary.n, group.name))
        .collect();
    text += &listed(&diverged, |few| format!(" Diverged: {few}."), |n| format!(" In {n} groups trials diverged."));
    text
}

/// Lists up to three things by name, and tells of more by their number; of none it says nothing.
fn listed<T: AsRef<str>>(names: &[T], few: impl Fn(String) -> String, many: impl Fn(usize) -> String) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.len() {
        0 => String::new(),
        1..=3 => few(names.join(", ")),
        n => many(n),
    }
}

/// What the first of `ranked` reached, and what that is worth where trials diverged.
fn won(best: &ReportGroup, ranked: &[&ReportGroup]) -> String {
    let summary = &best.summary;
    let (mean, interval) = number::estimate(&summary.loss);
    let mean = mean.unwrap_or_default();
    let interval = interval.map_or(String::new(), |interval| format!(", 95 % CI {interval}"));
    let (n, ended, diverged) = (summary.n, summary.ended(), summary.diverged);
    let of_ended = if diverged > 0 { format!(" of the {ended} that ended") } else { String::new() };
    let Some(median) = summary.median_loss else {
        return format!(
            "at least half the trials of every group diverged: {} comes first, of which {diverged} of {n} did (mean test loss{of_ended} \
             {mean}{interval})",
            best.name
        );
    };
    let sharing: Vec<&ReportGroup> = ranked.iter().copied().filter(|other| shares_median(best, other)).collect();
    let median = number::number(median);
    let lowest = if sharing.len() > 1 {
        let names: Vec<&str> = sharing.iter().map(|group| group.name.as_str()).collect();
        let names = listed(&names, |few| few, |n| format!("{} and {} other groups", best.name, n - 1));
        // The first of them is named where the others differ from it.
        let is_same = sharing.iter().all(|other| other.summary.loss == summary.loss && other.summary.n == n);
        let whose = if is_same { String::new() } else { format!(" of {}", best.name) };
        match n {
            1 => format!("{names} share the lowest test loss, {median} (1 seed)"),
            n => format!(
                "{names} share the lowest median test loss, {median} over {n} seeds (mean{whose}{of_ended} {mean}{interval})"
            ),
        }
    } else if n == 1 {
        format!("{} reached the lowest test loss, {median} (1 seed)", best.name)
    } else {
        format!(
            "{} reached the lowest median test loss, {median} over {n} seeds (mean{of_ended} {mean}{interval})",
            best.name
        )
    };
    if diverged == 0 {
        return lowest;
    }
    let fewer = ranked.iter().filter(|other| share_diverged(other) < share_diverged(best));
    let fewer: Vec<&str> = fewer.map(|other| other.name.as_str()).collect();
    let than = listed(&fewer, |few| format!(", more than of {few}"), |n| format!(", more than of {n} other groups"));
    let trials = if sharing.len() > 1 { format!("the {n} trials of {}", best.name) } else { format!("its {n} trials") };
    format!("{lowest}, though {diverged} of {trials} diverged{than}")
}

/// A difference that is worth to be told, as a share of the loss.
const SMALL: f64 = 0.05;

/// How far `best` leads `second`, if it does.
fn lead(best: &ReportGroup, second: &ReportGroup, pairs: &Pairs) -> String {
    let (name, summary) = (&second.name, &second.summary);
    let loss = match summary.median_loss {
        Some(median) => number::number(median),
        None => format!("{} of {} diverged", summary.diverged, summary.n),
    };
    let is_tied = shares_median(best, second);
    let Some(pair) = pairs.get(best, second) else {
        if is_tied {
            return "pairs here differ in warmup alone, so these were not tested".to_owned();
        }
        return format!("its lead over {name} ({loss}) was not tested: pairs here differ in warmup alone");
    };
    let Some(tested) = pair.tested else {
        let why = if best.summary.n < 2 { " with one seed" } else { ": fewer than two seeds ended with both" };
        let what = if is_tied { "a difference of them".to_owned() } else { format!("its lead over {name} ({loss})") };
        return format!("{what} cannot be tested{why}");
    };
    let p = number::p_value(tested.adjusted);
    let is_partial = tested.test.n < best.summary.n.max(summary.n);
    let seeds =
        if is_partial { format!(" over the {} seeds of which neither diverged", tested.test.n) } else { String::new() };
    let mean = tested.mean();
    // What could have been told apart is known by the spread of the differences alone.
    let limit = tested.least.filter(|_| !tested.is_significant()).map_or(String::new(), |least| {
        let could = format!("; no difference of means below {} could have been significant", number::number(least));
        let Some(size) = summary.loss.mean.map(|mean| mean * SMALL).filter(|size| *size > 0.0 && *size < least) else {
            return could;
        };
        let seeds = tested.seeds_to_show(size).map_or("more than 1,000".to_owned(), |seeds| seeds.to_string());
        format!(
            "{could}, and {seeds} seeds would show one of {} ({} %) in four runs of five",
            number::number(size),
            SMALL * 100.0
        )
    });
    if mean == 0.0 {
        let how = match (is_tied, tested.least.is_none()) {
            (true, true) => "no seed tells them apart".to_owned(),
            (true, false) => "their means do not differ".to_owned(),
            (false, true) => format!("no seed tells it from {name} ({loss})"),
            (false, false) => format!("its mean is that of {name} ({loss})"),
        };
        return format!("{how} ({p}{seeds}{limit})");
    }
    if is_tied {
        let is = if tested.is_significant() { "is" } else { "is not" };
        let (than, by) = (if mean > 0.0 { "lower" } else { "higher" }, number::number(mean.abs()));
        return format!("the mean of {name} is {than} by {by}{seeds}, which {is} significant ({p}{limit})");
    }
    if mean > 0.0 {
        let is = if tested.is_significant() { "is" } else { "is not" };
        let by = number::number(mean);
        return format!("but the mean of {name} (median {loss}) is lower by {by}{seeds}, which {is} significant ({p})");
    }
    if tested.is_significant() {
        return format!("its lead over {name} ({loss}) is significant ({p}{seeds})");
    }
    format!("its lead over {name} ({loss}) is not significant ({p}{seeds}{limit})")
}
