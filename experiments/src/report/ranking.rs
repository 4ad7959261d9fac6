//! Which group comes first.

use super::{group::ReportGroup, problem::Problem};

/// The groups of which any trial ended, best first: by the median loss at the end, of which trials that diverged have the worst;
/// where it falls on these, by the share of them; then by the mean of those that ended. A mean alone would favour who loses the
/// seeds that go badly.
pub fn ranking<'s, 'a>(problem: &Problem<'s, 'a>) -> Vec<&'s ReportGroup<'a>> {
    let mut ranked: Vec<_> = problem.groups.iter().copied().filter(|s| s.summary.loss.mean.is_some()).collect();
    let rank = |group: &ReportGroup| {
        let median = group.summary.median_loss;
        let share = if median.is_none() { share_diverged(group) } else { 0.0 };
        [median.unwrap_or(f64::INFINITY), share, group.summary.loss.mean.unwrap_or(f64::NAN)]
    };
    ranked.sort_by(|a, b| {
        let pairs = rank(a).into_iter().zip(rank(b));
        pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
    ranked
}

/// The share of its trials that diverged.
pub fn share_diverged(group: &ReportGroup) -> f64 {
    group.summary.diverged as f64 / group.summary.n.max(1) as f64
}

/// Whether both have the same median loss, so that neither leads.
pub fn shares_median(a: &ReportGroup, b: &ReportGroup) -> bool {
    a.summary.median_loss.is_some() && a.summary.median_loss == b.summary.median_loss
}
