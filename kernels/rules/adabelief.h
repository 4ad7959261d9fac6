// Printed from the rule `adabelief` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_adabelief {
  enum { SCALARS = 6, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real s_scale = scalar[5];
    const real exp_avg = slot[0];
    const real exp_avg_var = slot[1];
    const real x10 = grad - exp_avg;
    const real x11 = one_minus_beta1 * x10;
    const real new_exp_avg = exp_avg + x11;
    const real x13 = grad - new_exp_avg;
    const real x14 = beta2 * exp_avg_var;
    const real x15 = x13 * x13;
    const real x16 = one_minus_beta2 * x15;
    const real x17 = x14 + x16;
    const real new_exp_avg_var = x17 + eps;
    const real x19 = new_exp_avg * m_scale;
    const real x20 = new_exp_avg_var * s_scale;
    const real x21 = rule_sqrt(x20);
    const real x22 = x21 + eps;
    const real x23 = x19 / x22;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_var;
    (void)param;
    return x23;
  }
  RULE_NO_SUMS
};
