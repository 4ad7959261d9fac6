// Printed from the rule `amsgrad` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_amsgrad {
  enum { SCALARS = 6, SLOTS = 3, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real v_scale = scalar[5];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real max_exp_avg_sq = slot[2];
    const real x11 = grad - exp_avg;
    const real x12 = one_minus_beta1 * x11;
    const real new_exp_avg = exp_avg + x12;
    const real x14 = beta2 * exp_avg_sq;
    const real x15 = grad * grad;
    const real x16 = one_minus_beta2 * x15;
    const real new_exp_avg_sq = x14 + x16;
    const real new_max_exp_avg_sq = rule_max(max_exp_avg_sq, new_exp_avg_sq);
    const real x19 = new_exp_avg * m_scale;
    const real x20 = new_max_exp_avg_sq * v_scale;
    const real x21 = rule_sqrt(x20);
    const real x22 = x21 + eps;
    const real x23 = x19 / x22;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    slot[2] = new_max_exp_avg_sq;
    (void)param;
    return x23;
  }
  RULE_NO_SUMS
};
