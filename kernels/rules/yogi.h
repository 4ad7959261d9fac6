// Printed from the rule `yogi` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_yogi {
  enum { SCALARS = 7, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real starts = scalar[0];
    const real first = scalar[1];
    const real one_minus_beta1 = scalar[2];
    const real one_minus_beta2 = scalar[3];
    const real eps = scalar[4];
    const real m_scale = scalar[5];
    const real v_scale = scalar[6];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x11 = rule_select_positive(starts, first, exp_avg);
    const real x12 = grad - x11;
    const real x13 = one_minus_beta1 * x12;
    const real new_exp_avg = x11 + x13;
    const real x15 = rule_select_positive(starts, first, exp_avg_sq);
    const real x16 = grad * grad;
    const real x17 = x15 - x16;
    const real x19 = -x17;
    const real x20 = -real(1.0);
    const real x21 = rule_select_positive(x19, x20, x17);
    const real x22 = rule_select_positive(x17, real(1.0), x21);
    const real x23 = x22 * x16;
    const real x24 = one_minus_beta2 * x23;
    const real new_exp_avg_sq = x15 - x24;
    const real x26 = new_exp_avg * m_scale;
    const real x27 = new_exp_avg_sq * v_scale;
    const real x28 = rule_sqrt(x27);
    const real x29 = x28 + eps;
    const real x30 = x26 / x29;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    (void)param;
    return x30;
  }
  RULE_NO_SUMS
};
