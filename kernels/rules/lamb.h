// Printed from the rule `lamb` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_lamb {
  enum { SCALARS = 10, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 0 };
  enum { SUMS = 2, SQUARES = 3, FACTORS = 1, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real v_scale = scalar[5];
    const real weight_decay = scalar[6];
    const real ratio = scalar[9];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x14 = grad - exp_avg;
    const real x15 = one_minus_beta1 * x14;
    const real new_exp_avg = exp_avg + x15;
    const real x17 = beta2 * exp_avg_sq;
    const real x18 = grad * grad;
    const real x19 = one_minus_beta2 * x18;
    const real new_exp_avg_sq = x17 + x19;
    const real x21 = new_exp_avg * m_scale;
    const real x22 = new_exp_avg_sq * v_scale;
    const real x23 = rule_sqrt(x22);
    const real x24 = x23 + eps;
    const real x25 = x21 / x24;
    const real x26 = weight_decay * param;
    const real x27 = x25 + x26;
    const real x28 = ratio * x27;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    return x28;
  }
  RULE_FUNCTION static void measured(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL const real *slot, RULE_LOCAL real *sum) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real v_scale = scalar[5];
    const real weight_decay = scalar[6];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x14 = grad - exp_avg;
    const real x15 = one_minus_beta1 * x14;
    const real x16 = exp_avg + x15;
    const real x17 = beta2 * exp_avg_sq;
    const real x18 = grad * grad;
    const real x19 = one_minus_beta2 * x18;
    const real x20 = x17 + x19;
    const real x21 = x16 * m_scale;
    const real x22 = x20 * v_scale;
    const real x23 = rule_sqrt(x22);
    const real x24 = x23 + eps;
    const real x25 = x21 / x24;
    const real x26 = weight_decay * param;
    const real x27 = x25 + x26;
    sum[0] = param;
    sum[1] = x27;
  }
  RULE_FUNCTION static void factors(RULE_SCALARS const real *scalar, RULE_LOCAL const real *sum, real len, RULE_LOCAL real *factor) {
    const real adapts = scalar[7];
    const real most = scalar[8];
    const real sum_0 = sum[0];
    const real sum_1 = sum[1];
    const real x20 = rule_sqrt(sum_0);
    const real x21 = rule_sqrt(sum_1);
    const real x22 = x20 / x21;
    const real x23 = -x22;
    const real x24 = -most;
    const real x25 = rule_max(x23, x24);
    const real x26 = -x25;
    const real x27 = real(0.0) * sum_1;
    const real x28 = real(1.0) + x27;
    const real x29 = rule_select_positive(sum_1, x26, x28);
    const real x30 = real(0.0) * sum_0;
    const real x31 = real(1.0) + x30;
    const real x32 = rule_select_positive(sum_0, x29, x31);
    const real x33 = rule_select_positive(adapts, x32, real(1.0));
    factor[0] = x33;
    (void)len;
  }
};
