// Printed from the rule `adamax` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_adamax {
  enum { SCALARS = 4, SLOTS = 2, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real eps = scalar[2];
    const real m_scale = scalar[3];
    const real exp_avg = slot[0];
    const real exp_inf = slot[1];
    const real x8 = grad - exp_avg;
    const real x9 = one_minus_beta1 * x8;
    const real new_exp_avg = exp_avg + x9;
    const real x11 = beta2 * exp_inf;
    const real x12 = rule_abs(grad);
    const real x13 = x12 + eps;
    const real new_exp_inf = rule_max(x11, x13);
    const real x15 = new_exp_avg * m_scale;
    const real x16 = x15 / new_exp_inf;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_inf;
    (void)param;
    return x16;
  }
  RULE_NO_SUMS
};
