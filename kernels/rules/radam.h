// Printed from the rule `radam` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_radam {
  enum { SCALARS = 8, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real rectified = scalar[5];
    const real l2 = scalar[6];
    const real decoupled = scalar[7];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x12 = l2 * param;
    const real x13 = grad + x12;
    const real x14 = x13 - exp_avg;
    const real x15 = one_minus_beta1 * x14;
    const real new_exp_avg = exp_avg + x15;
    const real x17 = beta2 * exp_avg_sq;
    const real x18 = x13 * x13;
    const real x19 = one_minus_beta2 * x18;
    const real new_exp_avg_sq = x17 + x19;
    const real x21 = new_exp_avg * m_scale;
    const real x22 = x21 * rectified;
    const real x23 = rule_sqrt(new_exp_avg_sq);
    const real x24 = x23 + eps;
    const real x25 = x22 / x24;
    const real x26 = rule_select_positive(rectified, x25, x21);
    const real x27 = decoupled * param;
    const real x28 = x26 + x27;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    return x28;
  }
  RULE_NO_SUMS
};
