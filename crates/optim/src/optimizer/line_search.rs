//! A search along a line for a point where the strong Wolfe conditions hold (Nocedal and Wright, Numerical Optimization, algorithms
//! 3.5 and 3.6), in the steps of PyTorch's `strong_wolfe`.

use candle_core::Tensor;

/// The decrease that is asked for, as a share of what the first slope promises.
const DECREASE: f64 = 1e-4;
/// The slope that is allowed, as a share of the first one.
const SLOPE: f64 = 0.9;
/// An interval in which no parameter changes by more than this is not searched.
const SMALLEST_CHANGE: f64 = 1e-9;

/// A point on the line.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Where, in lengths of the direction.
    pub at: f64,
    pub loss: f64,
    pub grad: Tensor,
    /// The loss's derivative along the line.
    pub slope: f64,
}

/// Where the cubic through two points with their slopes is smallest, within `bounds`; their middle where it is nowhere.
fn smallest_of_cubic(a: &Point, b: &Point, bounds: (f64, f64)) -> f64 {
    let d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.at - b.at);
    let square = d1 * d1 - a.slope * b.slope;
    // Also for NaN.
    if square.is_nan() || square < 0.0 {
        return (bounds.0 + bounds.1) / 2.0;
    }
    let d2 = square.sqrt();
    let (left, right) = if a.at <= b.at { (a, b) } else { (b, a) };
    let at = right.at - (right.at - left.at) * ((right.slope + d2 - d1) / (right.slope - left.slope + 2.0 * d2));
    // As Python's min and max, which keep the first where a number is NaN.
    let at = if bounds.0 > at { bounds.0 } else { at };
    if bounds.1 < at { bounds.1 } else { at }
}

/// The point that is found from `start` (at 0), and how often the loss was evaluated. `first`: where it is evaluated first.
/// `size`: the largest absolute value of the direction. At most `most + 1` evaluations are made.
pub(crate) fn strong_wolfe<E>(
    start: &Point,
    first: f64,
    size: f64,
    most: u64,
    mut evaluate: impl FnMut(f64) -> Result<Point, E>,
) -> Result<(Point, u64), E> {
    let is_low = |point: &Point| point.loss <= start.loss + DECREASE * point.at * start.slope;
    let is_flat = |point: &Point| point.slope.abs() <= -SLOPE * start.slope;
    let (mut before, mut now) = (start.clone(), evaluate(first)?);
    let (mut evaluations, mut tries) = (1, 0);
    // Two points with one between them.
    let mut bracket = loop {
        if tries >= most {
            break [start.clone(), now];
        }
        if !is_low(&now) || (tries > 1 && now.loss >= before.loss) {
            break [before, now];
        }
        if is_flat(&now) {
            return Ok((now, evaluations));
        }
        if now.slope >= 0.0 {
            break [before, now];
        }
        let bounds = (now.at + 0.01 * (now.at - before.at), 10.0 * now.at);
        let next = evaluate(smallest_of_cubic(&before, &now, bounds))?;
        (before, now) = (now, next);
        evaluations += 1;
        tries += 1;
    };
    let lower = |bracket: &[Point; 2]| usize::from(bracket[0].loss > bracket[1].loss);
    let (mut low, mut is_stuck) = (lower(&bracket), false);
    while tries < most {
        let ends = [bracket[0].at.min(bracket[1].at), bracket[0].at.max(bracket[1].at)];
        if (ends[1] - ends[0]) * size < SMALLEST_CHANGE {
            break;
        }
        let mut at = smallest_of_cubic(&bracket[0], &bracket[1], (ends[0], ends[1]));
        // Close to an end twice, or at it: a tenth of the way from it instead.
        let margin = 0.1 * (ends[1] - ends[0]);
        if (ends[1] - at).min(at - ends[0]) < margin {
            is_stuck = !(is_stuck || at >= ends[1] || at <= ends[0]);
            if !is_stuck {
                at = if (at - ends[1]).abs() < (at - ends[0]).abs() { ends[1] - margin } else { ends[0] + margin };
            }
        } else {
            is_stuck = false;
        }
        let next = evaluate(at)?;
        evaluations += 1;
        tries += 1;
        if !is_low(&next) || next.loss >= bracket[low].loss {
            bracket[1 - low] = next;
            low = lower(&bracket);
        } else {
            let is_done = is_flat(&next);
            if !is_done && next.slope * (bracket[1 - low].at - bracket[low].at) >= 0.0 {
                bracket[1 - low] = bracket[low].clone();
            }
            bracket[low] = next;
            if is_done {
                break;
            }
        }
    }
    let [first, second] = bracket;
    Ok((if low == 0 { first } else { second }, evaluations))
}
