// Printed from the rule `nadam` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_nadam {
  enum { SCALARS = 9, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real v_scale = scalar[4];
    const real grad_share = scalar[5];
    const real m_share = scalar[6];
    const real l2 = scalar[7];
    const real decoupled = scalar[8];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x13 = l2 * param;
    const real x14 = grad + x13;
    const real x15 = x14 - exp_avg;
    const real x16 = one_minus_beta1 * x15;
    const real new_exp_avg = exp_avg + x16;
    const real x18 = beta2 * exp_avg_sq;
    const real x19 = x14 * x14;
    const real x20 = one_minus_beta2 * x19;
    const real new_exp_avg_sq = x18 + x20;
    const real x22 = grad_share * x14;
    const real x23 = m_share * new_exp_avg;
    const real x24 = x22 + x23;
    const real x25 = new_exp_avg_sq * v_scale;
    const real x26 = rule_sqrt(x25);
    const real x27 = x26 + eps;
    const real x28 = x24 / x27;
    const real x29 = decoupled * param;
    const real x30 = x28 + x29;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    return x30;
  }
  RULE_NO_SUMS
};
