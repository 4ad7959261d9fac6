// Printed from the rule `adan` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_adan {
  enum { SCALARS = 9, SLOTS = 4, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real starts = scalar[0];
    const real one_minus_beta1 = scalar[1];
    const real beta2 = scalar[2];
    const real one_minus_beta2 = scalar[3];
    const real one_minus_beta3 = scalar[4];
    const real eps = scalar[5];
    const real m_scale = scalar[6];
    const real z_scale = scalar[7];
    const real n_scale = scalar[8];
    const real exp_avg = slot[0];
    const real exp_avg_diff = slot[1];
    const real exp_avg_sq = slot[2];
    const real previous_grad = slot[3];
    const real x15 = rule_select_positive(starts, grad, previous_grad);
    const real x16 = grad - x15;
    const real x17 = beta2 * x16;
    const real x18 = grad + x17;
    const real x19 = grad - exp_avg;
    const real x20 = one_minus_beta1 * x19;
    const real new_exp_avg = exp_avg + x20;
    const real x22 = x16 - exp_avg_diff;
    const real x23 = one_minus_beta2 * x22;
    const real new_exp_avg_diff = exp_avg_diff + x23;
    const real x25 = x18 * x18;
    const real x26 = x25 - exp_avg_sq;
    const real x27 = one_minus_beta3 * x26;
    const real new_exp_avg_sq = exp_avg_sq + x27;
    const real x29 = new_exp_avg * m_scale;
    const real x30 = new_exp_avg_diff * z_scale;
    const real x31 = x29 + x30;
    const real x32 = new_exp_avg_sq * n_scale;
    const real x33 = rule_sqrt(x32);
    const real x34 = x33 + eps;
    const real x35 = x31 / x34;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_diff;
    slot[2] = new_exp_avg_sq;
    slot[3] = grad;
    (void)param;
    return x35;
  }
  RULE_NO_SUMS
};
