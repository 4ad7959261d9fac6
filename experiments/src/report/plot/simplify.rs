//! Lines with fewer points, that look the same.

/// The indices of the points of `line` that make a difference of more than `unseen` (Douglas & Peucker 1973): a picture of a long run is
/// then as small as that of a short one, and jumps stay where they are.
pub fn kept(line: &[(f64, f64)], unseen: f64) -> Vec<usize> {
    let mut placed: Vec<(usize, (f64, f64))> = line.iter().copied().enumerate().collect();
    placed.dedup_by_key(|(_, place)| *place);
    let mut kept = vec![false; placed.len()];
    let mut parts = vec![(0, placed.len().saturating_sub(1))];
    while let Some((first, last)) = parts.pop() {
        let Some(&[(_, from), .., (_, to)]) = placed.get(first..=last) else {
            kept.iter_mut().for_each(|kept| *kept = true);
            break;
        };
        (kept[first], kept[last]) = (true, true);
        let distances = placed[first..=last].iter().enumerate().map(|(i, (_, point))| (distance(*point, from, to), i));
        let (farthest, i) = distances.max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap_or_default();
        if farthest > unseen {
            parts.extend([(first, first + i), (first + i, last)]);
        }
    }
    placed.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|((i, _), _)| i).collect()
}

/// How far `point` is from the line between `from` and `to`.
fn distance((x, y): (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx * dx + dy * dy;
    let share = if length == 0.0 { 0.0 } else { (((x - from.0) * dx + (y - from.1) * dy) / length).clamp(0.0, 1.0) };
    (x - from.0 - share * dx).hypot(y - from.1 - share * dy)
}
