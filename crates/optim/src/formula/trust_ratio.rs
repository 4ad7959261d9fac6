//! The step of a whole tensor, rescaled by its norm.

/// The trust ratio of a tensor (You et al. 2017, arXiv:1708.03888): its step is rescaled by
/// `r = norm(theta) / norm(w)`, with `w` the direction plus decoupled weight decay; `r = 1` if either norm is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrustRatio {
    /// Cap `r` at 1.
    pub at_most_one: bool,
}

impl TrustRatio {
    /// `r`, from the two norms.
    pub fn ratio(&self, param_norm: f64, direction_norm: f64) -> f64 {
        if param_norm == 0.0 || direction_norm == 0.0 {
            return 1.0;
        }
        let ratio = param_norm / direction_norm;
        if self.at_most_one && ratio > 1.0 { 1.0 } else { ratio }
    }
}
