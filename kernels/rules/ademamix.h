// Printed from the rule `ademamix` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_ademamix {
  enum { SCALARS = 8, SLOTS = 3, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real v_scale = scalar[5];
    const real alpha = scalar[6];
    const real one_minus_beta3 = scalar[7];
    const real exp_avg = slot[0];
    const real exp_avg_slow = slot[1];
    const real exp_avg_sq = slot[2];
    const real x13 = grad - exp_avg;
    const real x14 = one_minus_beta1 * x13;
    const real new_exp_avg = exp_avg + x14;
    const real x16 = grad - exp_avg_slow;
    const real x17 = one_minus_beta3 * x16;
    const real new_exp_avg_slow = exp_avg_slow + x17;
    const real x19 = beta2 * exp_avg_sq;
    const real x20 = grad * grad;
    const real x21 = one_minus_beta2 * x20;
    const real new_exp_avg_sq = x19 + x21;
    const real x23 = new_exp_avg * m_scale;
    const real x24 = alpha * new_exp_avg_slow;
    const real x25 = x23 + x24;
    const real x26 = new_exp_avg_sq * v_scale;
    const real x27 = rule_sqrt(x26);
    const real x28 = x27 + eps;
    const real x29 = x25 / x28;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_slow;
    slot[2] = new_exp_avg_sq;
    (void)param;
    return x29;
  }
  RULE_NO_SUMS
};
