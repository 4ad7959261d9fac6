//! What warmup does: the largest learning rates that are stable with it and without, and the losses that it leads to.

use super::curves;
use crate::report::{
    facet::Facet,
    number,
    page::table,
    plot::figure::{Axis, Curve, Drawn, Figure, Key, Mark, Panel, Point, Row, Shape},
    problem::Problem,
    samples::By,
    stable_lr::{DEFINITION, Limit, Peak, Ratio, Sweep},
    table::Cell,
};
use maud::{Markup, html};
use std::cmp::Ordering;

/// What warmup did to the largest stable learning rate, a sentence for each sweep.
pub fn answer(problem: &Problem, name_problem: bool) -> Vec<String> {
    let sweeps = Sweep::all(problem);
    let compared = sweeps.iter().filter(|sweep| !sweep.with.is_empty() && !sweep.without.is_empty());
    let place = if name_problem { format!("{}, ", problem.title) } else { String::new() };
    compared.map(|sweep| format!("{place}{}: {}.", sweep.title, outcome(sweep))).collect()
}

/// The loss at the end by the peak learning rate, with warmup and without.
pub fn by_peak(problem: &Problem) -> Figure {
    let sweeps = Sweep::all(problem);
    let sides = ["with warmup", "without warmup"];
    let row = |sweep: &Sweep| {
        let mut panel = Panel {
            title: "test loss at the end".to_owned(),
            is_wide: true,
            x: Axis::logarithmic("peak learning rate"),
            y: Axis::logarithmic("cross entropy"),
            ..Panel::default()
        };
        for (style, side) in [&sweep.with, &sweep.without].into_iter().enumerate() {
            let mut points = Vec::new();
            for peak in side {
                let loss = &peak.group.summary.loss;
                points.extend(loss.mean.map(|y| Point { x: peak.lr, y, band: loss.ci95 }));
                if peak.group.summary.diverged > 0 {
                    let title = format!(
                        "{}: {} of {} trials diverged at {}",
                        sides[style],
                        peak.group.summary.diverged,
                        peak.group.summary.n,
                        number::setting(peak.lr)
                    );
                    panel.marks.push(Mark { title, x: peak.lr, y: None, style, shape: Shape::Cross });
                }
            }
            panel.curves.push(Curve { name: String::new(), style, points: points.clone(), drawn: Drawn::Line });
            panel.curves.push(Curve { name: sides[style].to_owned(), style, points, drawn: Drawn::Markers });
        }
        let legend = Key::all(sides.into_iter().zip(0..), Drawn::Line);
        Row { title: sweep.title.clone(), panels: vec![panel], legend }
    };
    Figure { title: format!("Loss by peak learning rate, {}", problem.title), rows: sweeps.iter().map(row).collect() }
}

/// What [`by_peak`] shows.
pub const BY_PEAK: &str = "The mean test loss at the end over the seeds that did not diverge, with its 95 % confidence interval (Student's t, on a logarithmic scale) as \
    the band. A cross at the top edge marks a learning rate at which a trial diverged.";

fn outcome(sweep: &Sweep) -> String {
    let (ratio, by_seed) = sweep.ratios();
    let limits = sweep.largest().map(|limit| limit.map(|(_, limit)| limit));
    let (without, with) = match limits {
        [None, None] => return "no learning rate that was tried is stable, with warmup or without".to_owned(),
        [None, Some(with)] => {
            return format!(
                "no learning rate that was tried is stable without warmup, and {} with it",
                with.in_words()
            );
        }
        [Some(without), None] => {
            return format!(
                "no learning rate that was tried is stable with warmup, and {} without",
                without.in_words()
            );
        }
        [Some(without), Some(with)] => (without, with),
    };
    let Some(ratio) = ratio else {
        let peaks = if with.lr == without.lr {
            format!("{}, the largest learning rate that was tried, is stable", number::setting(with.lr))
        } else {
            let [without, with] = [without, with].map(|limit| number::setting(limit.lr));
            format!("{with} and {without}, the largest learning rates that were tried, are stable")
        };
        return format!(
            "{peaks} with warmup and without, so that nothing is known of what warmup does to the largest that is: give larger ones by --lr"
        );
    };
    let change = match ratio.times.total_cmp(&1.0) {
        Ordering::Greater => "raised",
        Ordering::Less => "lowered",
        Ordering::Equal => return format!("warmup left the largest stable learning rate at {}", with.in_words()),
    };
    let by_seed = by_seed.map_or(String::new(), |by_seed| format!("; {by_seed}"));
    format!(
        "warmup {change} the largest stable learning rate from {} to {} ({}{by_seed})",
        without.in_words(),
        with.in_words(),
        ratio.text()
    )
}

/// The largest stable learning rates, and below them everything that was tried.
pub fn tables(problem: &Problem) -> Markup {
    let sweeps = Sweep::all(problem);
    if sweeps.is_empty() {
        return html! {};
    }
    let sides = || {
        sweeps.iter().flat_map(|sweep| [(sweep, "without warmup", &sweep.without), (sweep, "with warmup", &sweep.with)])
    };
    let mut lrs: Vec<f64> = sides().flat_map(|(_, _, side)| side.iter().map(|peak| peak.lr)).collect();
    lrs.sort_by(f64::total_cmp);
    lrs.dedup();
    let row = |(sweep, warmup, side): (&Sweep, &str, &Vec<Peak>)| {
        let cell = |lr: &f64| match side.iter().find(|peak| peak.lr == *lr) {
            None => Cell::new(""),
            Some(peak) => {
                let summary = &peak.group.summary;
                let text = summary.loss.mean.map_or("all diverged".to_owned(), number::number);
                Cell::new(text).to(peak.group.href()).note(Some(peak.in_words())).strong(peak.learns())
            }
        };
        std::iter::once(Cell::new(format!("{}, {warmup}", sweep.title))).chain(lrs.iter().map(cell)).collect()
    };
    let rows: Vec<Vec<Cell>> = sides().filter(|(_, _, side)| !side.is_empty()).map(row).collect();
    let head: Vec<String> = std::iter::once("peak learning rate".to_owned())
        .chain(lrs.iter().map(|lr| format!(">{}", number::setting(*lr))))
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let all = table(
        &format!("Every peak that was tried, {}", problem.title),
        &head,
        &rows,
        "The mean final test loss over the seeds that did not diverge; what is stable and not too slow by the definition above is set off.",
    );
    html! {
        (limits(problem, &sweeps))
        (all)
    }
}

/// The table of the largest peaks that are stable.
fn limits(problem: &Problem, sweeps: &[Sweep]) -> Markup {
    let row = |sweep: &Sweep| {
        let limits = sweep.largest();
        let side = |index: usize| {
            let seeds: Vec<String> = sweep
                .by_seed()
                .iter()
                .map(|limits| limits[index].map_or(number::NONE.to_owned(), Limit::in_table))
                .collect();
            let seeds = (seeds.len() > 1).then(|| format!("by seed {}", seeds.join(", ")));
            match limits[index] {
                Some((peak, limit)) => Cell::new(limit.in_table()).to(peak.group.href()).note(seeds),
                None if [&sweep.without, &sweep.with][index].is_empty() => Cell::new(number::NONE),
                None => Cell::new("none").note(seeds),
            }
        };
        let (ratio, by_seed) = sweep.ratios();
        let ratio = ratio.map_or("unknown".to_owned(), Ratio::text);
        vec![Cell::new(&sweep.title), side(0), side(1), Cell::new(ratio).note(by_seed)]
    };
    let rows: Vec<_> = sweeps.iter().map(row).collect();
    table(
        &format!("Largest stable learning rate, {}", problem.title),
        &["setting", ">without warmup", ">with warmup", ">ratio"],
        &rows,
        &format!(
            "{} A learning rate is stable if the trial of every seed is; the largest is the last before the first that is not, and below it \
             stands the same with each seed alone. ≥: the largest that was tried is stable, so the limit lies there or higher, and the \
             ratio is at least (≥) or at most (≤) what it seems. Unknown: that is so on both sides, or a side has none.",
            DEFINITION
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
        legend: curves::legend_of_evaluations(facet),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::PARTS;

    #[test]
    fn the_caption_names_the_number_that_is_used() {
        assert!(CAPTION.contains(&format!("averaged over {PARTS} equal parts")));
    }
}
