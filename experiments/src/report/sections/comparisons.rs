//! Which differences between groups are more than chance.

use crate::report::{
    group::ReportGroup,
    number,
    pairs::{Pair, Pairs, SIGNIFICANT, Tested},
    problem::Problem,
    ranking::ranking,
    table::{Cell, Table},
};

/// The most groups whose comparisons fit into a matrix; of more, those with the best are listed.
const WIDEST_MATRIX: usize = 8;

/// The matrix or list of comparisons, or why there is none; nothing where there is nothing to compare.
pub fn table(problem: &Problem, pairs: &Pairs) -> Option<Result<Table, String>> {
    if pairs.all().is_empty() {
        return None;
    }
    let tested: Vec<&Tested> = pairs.all().iter().filter_map(|pair| pair.tested.as_ref()).collect();
    if tested.is_empty() {
        return Some(Err(format!(
            "No pair of groups on {} has two seeds in common that did not diverge, so no difference can be tested; train with more seeds for \
             that.",
            problem.title
        )));
    }
    let family = match (pairs, pairs.all().len()) {
        (_, 1) => "one comparison".to_owned(),
        (Pairs::All(_), n) => format!("{n} comparisons of each group with each other"),
        (Pairs::Warmup(_), n) => format!("{n} comparisons of a group with warmup and the same without"),
    };
    let family = match pairs.all().len() - tested.len() {
        0 => family,
        n => format!("{family}, of which {n} cannot be tested and count{} as p = 1", if n == 1 { "s" } else { "" }),
    };
    let least = tested.iter().filter_map(|tested| tested.least);
    let ends = least.clone().reduce(f64::min).zip(least.reduce(f64::max));
    let least = match ends.map(|(smallest, largest)| (number::number(smallest), number::number(largest))) {
        None => "none, since all seeds differ by the same".to_owned(),
        Some((smallest, largest)) if smallest == largest => smallest,
        Some((smallest, largest)) => format!("{smallest} to {largest}, by pair"),
    };
    let is_tuned = problem.groups.iter().any(|group| !group.tuning.is_empty());
    let tuned = if is_tuned { ", which tuning picked once, by one seed of its own" } else { "" };
    let method = format!(
        "Differences of the mean test loss at the end, with the p value of a two-sided paired t-test: groups are paired by seed, which gives \
         them the same initial parameters and order of the data where models agree; seeds of which either diverged are left out, so that \
         the test says nothing of them. p values are adjusted by Holm's method for the {family}; a difference is set off where p < \
         {SIGNIFICANT}. They are over seeds with the hyperparameters as they are{tuned}: they tell whether these settings differ, not whether \
         one rule would beat another if both were tuned again. The least difference that so many seeds of such spread could \
         have shown as significant: {least}."
    );
    let ranked = ranking(problem);
    if let Pairs::All(_) = pairs
        && ranked.len() <= WIDEST_MATRIX
    {
        let head: Vec<String> = std::iter::once(String::new())
            .chain(ranked.iter().map(|column| format!(">minus {}", column.name)))
            .collect();
        let row = |row: &&ReportGroup| {
            let cells = ranked.iter().map(|column| {
                if row.is(column) {
                    return Cell::new("");
                }
                let Some(tested) = pairs.get(row, column).and_then(|pair| pair.tested) else {
                    return Cell::new(number::NONE);
                };
                Cell::new(number::difference(tested.mean()))
                    .to(row.href())
                    .note(Some(number::p_value(tested.adjusted)))
                    .strong(tested.is_significant())
            });
            std::iter::once(Cell::new(&row.name).to(row.href())).chain(cells).collect()
        };
        let rows: Vec<_> = ranked.iter().map(row).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let caption = format!("{method} A cell is row minus column, so a negative number speaks for the row.");
        return Some(Ok(Table::new(format!("Comparisons, {}", problem.title), &head, rows, caption)));
    }
    let row = |pair: &Pair| {
        let mut row = vec![Cell::new(&pair.a.name).to(pair.a.href()), Cell::new(&pair.b.name).to(pair.b.href())];
        match &pair.tested {
            Some(tested) => {
                let test = &tested.test;
                let interval = test
                    .difference
                    .ci95
                    .map(|[low, high]| format!("{} to {}", number::difference(low), number::difference(high)));
                row.push(Cell::new(test.n.to_string()).to(pair.a.href()));
                row.push(
                    Cell::new(number::difference(tested.mean()))
                        .to(pair.a.href())
                        .note(interval)
                        .strong(tested.is_significant()),
                );
                row.push(Cell::new(tested.least.map_or(number::NONE.to_owned(), number::number)));
                row.push(Cell::new(number::p_value(test.p)));
                row.push(Cell::new(number::p_value(tested.adjusted)));
            }
            None => row.extend([number::NONE; 5].map(Cell::new)),
        }
        row
    };
    let (rows, which): (Vec<_>, _) = match (pairs, ranked.first()) {
        (Pairs::All(pairs), Some(best)) => {
            let with_best = pairs.iter().filter(|pair| pair.a.is(best));
            (with_best.map(row).collect(), " Of all comparisons those of the first group with each other are shown.")
        }
        _ => (pairs.all().iter().map(row).collect(), ""),
    };
    let caption = format!(
        "{method}{which} A difference is the first group minus the second, with its 95 % confidence interval; beside it the least \
         that could have been significant."
    );
    Some(Ok(Table::new(
        format!("Comparisons, {}", problem.title),
        &["group", "compared with", ">pairs", ">difference", ">least", ">p", ">adjusted p"],
        rows,
        caption,
    )))
}
