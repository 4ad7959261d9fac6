//! Who is fast over many workloads.

/// The largest ratio to the best time that a profile looks at.
const MAX_RATIO: f64 = 4.0;

/// How a solver's times compare to the best over all workloads: a step function, continuous from the right.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Where it steps, ascending, between its ends 1 and 4.
    pub tau: Vec<f64>,
    /// Its value there: the share of workloads that the solver solves within `tau` times the best time.
    pub rho: Vec<f64>,
    /// The integral of rho over tau from 1 to 4, over 3: 1 for a solver that is the best everywhere.
    pub score: f64,
}

/// The performance profile of each solver (Dolan & Moré 2002), scored as in AlgoPerf (Dahl et al. 2023, arXiv:2306.07179).
/// `times[solver][workload]` is the time to the target, none (or not finite) where it was never reached.
///
/// With `r = t / best t of the workload`, `rho(tau)` is the share of workloads with `r <= tau`. A workload that nobody solves
/// counts for nobody: it stays among those that the share is of. Profiles depend on who else takes part.
pub fn performance_profiles(times: &[Vec<Option<f64>>]) -> Vec<Profile> {
    let time =
        |solver: usize, workload: usize| times[solver].get(workload).copied().flatten().filter(|time| time.is_finite());
    let workloads = times.iter().map(Vec::len).max().unwrap_or(0);
    let best: Vec<Option<f64>> = (0..workloads)
        .map(|workload| (0..times.len()).filter_map(|solver| time(solver, workload)).reduce(f64::min))
        .collect();
    let ratios = |solver: usize| {
        let ratio = |(workload, best): (usize, &Option<f64>)| {
            let (time, best) = time(solver, workload).zip(*best)?;
            // Also where the best time is 0.
            Some(if time == best { 1.0 } else { time / best })
        };
        best.iter().enumerate().filter_map(ratio).filter(|ratio| *ratio <= MAX_RATIO).collect()
    };
    (0..times.len()).map(|solver| Profile::of(ratios(solver), workloads)).collect()
}

impl Profile {
    /// The profile of a solver with these `ratios`, all of 1 to 4, out of a number of workloads.
    fn of(ratios: Vec<f64>, workloads: usize) -> Self {
        let mut tau = [vec![1.0, MAX_RATIO], ratios.clone()].concat();
        tau.sort_unstable_by(f64::total_cmp);
        tau.dedup();
        let share = |tau: &f64| match workloads {
            0 => 0.0,
            _ => ratios.iter().filter(|ratio| *ratio <= tau).count() as f64 / workloads as f64,
        };
        let rho: Vec<f64> = tau.iter().map(share).collect();
        let area: f64 = tau.windows(2).zip(&rho).map(|(step, rho)| (step[1] - step[0]) * rho).sum();
        Self { tau, rho, score: area / (MAX_RATIO - 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{assert_near, cases};
    use super::*;
    use serde::Deserialize;

    #[test]
    fn profiles_by_hand() {
        // Ratios: a 1, 2, 1, -; b 3, 1, -, -; c 4.5, 4, -, -.
        let times = [
            vec![Some(10.0), Some(40.0), Some(5.0), None],
            vec![Some(30.0), Some(20.0), None, None],
            vec![Some(45.0), Some(80.0), Some(f64::INFINITY), None],
        ];
        let [a, b, c] = performance_profiles(&times).try_into().unwrap();
        assert_eq!((a.tau, a.rho, a.score), (vec![1.0, 2.0, 4.0], vec![0.5, 0.75, 0.75], 2.0 / 3.0));
        assert_eq!((b.tau, b.rho), (vec![1.0, 3.0, 4.0], vec![0.25, 0.5, 0.5]));
        assert_near(b.score, (0.25 * 2.0 + 0.5) / 3.0);
        // A ratio of 4 is within 4, but adds no area.
        assert_eq!((c.tau, c.rho, c.score), (vec![1.0, 4.0], vec![0.0, 0.25], 0.0));
    }

    #[test]
    fn ties_and_times_of_zero_share_the_best_place() {
        let times = [vec![Some(0.0), Some(7.0)], vec![Some(0.0), Some(7.0)], vec![Some(1.0), None]];
        let [a, b, c] = performance_profiles(&times).try_into().unwrap();
        assert_eq!((&a.tau, &a.rho, a.score), (&vec![1.0, 4.0], &vec![1.0, 1.0], 1.0));
        assert_eq!(a, b);
        assert_eq!((c.rho, c.score), (vec![0.0, 0.0], 0.0));
        assert_eq!(performance_profiles(&[]), []);
        assert_eq!(performance_profiles(&[Vec::new()])[0].rho, [0.0, 0.0]);
    }

    #[test]
    fn scores_agree_with_a_numerical_integral() {
        #[derive(Deserialize)]
        struct Case {
            times: Vec<Vec<Option<f64>>>,
            scores: Vec<f64>,
            /// Any tau, and the profiles there.
            tau: Vec<f64>,
            rho: Vec<Vec<f64>>,
        }
        for Case { times, scores, tau, rho } in cases("performance_profiles") {
            let found = performance_profiles(&times);
            assert_eq!(found.len(), scores.len());
            for (solver, profile) in found.iter().enumerate() {
                assert_near(profile.score, scores[solver]);
                for (tau, expected) in tau.iter().zip(&rho[solver]) {
                    let place = profile.tau.iter().rposition(|step| step <= tau).unwrap();
                    assert_near(profile.rho[place], *expected);
                }
            }
        }
    }
}
