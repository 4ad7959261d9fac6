// Printed from the rule `mars` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_mars {
  enum { SCALARS = 8, SLOTS = 3, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 1, SQUARES = 1, FACTORS = 1, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real v_scale = scalar[5];
    const real correction = scalar[6];
    const real clip = scalar[7];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real previous_grad = slot[2];
    const real x13 = grad - previous_grad;
    const real x14 = correction * x13;
    const real x15 = grad + x14;
    const real x16 = x15 * clip;
    const real x17 = x16 - exp_avg;
    const real x18 = one_minus_beta1 * x17;
    const real new_exp_avg = exp_avg + x18;
    const real x20 = beta2 * exp_avg_sq;
    const real x21 = x16 * x16;
    const real x22 = one_minus_beta2 * x21;
    const real new_exp_avg_sq = x20 + x22;
    const real x24 = new_exp_avg * m_scale;
    const real x25 = new_exp_avg_sq * v_scale;
    const real x26 = rule_sqrt(x25);
    const real x27 = x26 + eps;
    const real x28 = x24 / x27;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    slot[2] = grad;
    (void)param;
    return x28;
  }
  RULE_FUNCTION static void measured(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL const real *slot, RULE_LOCAL real *sum) {
    const real correction = scalar[6];
    const real previous_grad = slot[2];
    const real x13 = grad - previous_grad;
    const real x14 = correction * x13;
    const real x15 = grad + x14;
    sum[0] = x15;
    (void)param;
  }
  RULE_FUNCTION static void factors(RULE_SCALARS const real *scalar, RULE_LOCAL const real *sum, real len, RULE_LOCAL real *factor) {
    const real sum_0 = sum[0];
    const real x19 = rule_sqrt(sum_0);
    const real x20 = rule_max(x19, real(1.0));
    const real x21 = real(1.0) / x20;
    factor[0] = x21;
    (void)scalar;
    (void)len;
  }
};
