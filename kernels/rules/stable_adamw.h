// Printed from the rule `stable_adamw` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_stable_adamw {
  enum { SCALARS = 7, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 0 };
  enum { SUMS = 1, SQUARES = 0, FACTORS = 1, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real weight_decay = scalar[5];
    const real scale = scalar[6];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x11 = grad - exp_avg;
    const real x12 = one_minus_beta1 * x11;
    const real new_exp_avg = exp_avg + x12;
    const real x14 = beta2 * exp_avg_sq;
    const real x15 = grad * grad;
    const real x16 = one_minus_beta2 * x15;
    const real new_exp_avg_sq = x14 + x16;
    const real x18 = rule_sqrt(new_exp_avg_sq);
    const real x19 = x18 + eps;
    const real x20 = new_exp_avg / x19;
    const real x21 = weight_decay * param;
    const real x22 = x20 + x21;
    const real x23 = scale * x22;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    return x23;
  }
  RULE_FUNCTION static void measured(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL const real *slot, RULE_LOCAL real *sum) {
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps_squared = scalar[4];
    const real exp_avg_sq = slot[1];
    const real x11 = beta2 * exp_avg_sq;
    const real x12 = grad * grad;
    const real x13 = one_minus_beta2 * x12;
    const real x14 = x11 + x13;
    const real x15 = rule_max(x14, eps_squared);
    const real x16 = x12 / x15;
    sum[0] = x16;
    (void)param;
  }
  RULE_FUNCTION static void factors(RULE_SCALARS const real *scalar, RULE_LOCAL const real *sum, real len, RULE_LOCAL real *factor) {
    const real sum_0 = sum[0];
    const real x17 = sum_0 / len;
    const real x18 = rule_sqrt(x17);
    const real x19 = rule_max(x18, real(1.0));
    const real x20 = real(1.0) / x19;
    factor[0] = x20;
    (void)scalar;
  }
};
