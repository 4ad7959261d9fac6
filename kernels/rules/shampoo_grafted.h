// Printed from the rule `shampoo_grafted` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_shampoo_grafted {
  enum { SCALARS = 7, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real m_scale = scalar[4];
    const real v_scale = scalar[5];
    const real is_plain = scalar[6];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x11 = beta2 * exp_avg_sq;
    const real x12 = grad * grad;
    const real x13 = one_minus_beta2 * x12;
    const real new_exp_avg_sq = x11 + x13;
    const real x15 = new_exp_avg_sq * v_scale;
    const real x16 = rule_sqrt(x15);
    const real x17 = x16 + eps;
    const real x18 = grad / x17;
    const real x19 = rule_select_positive(is_plain, grad, x18);
    const real x20 = x19 - exp_avg;
    const real x21 = one_minus_beta1 * x20;
    const real new_exp_avg = exp_avg + x21;
    const real x23 = new_exp_avg * m_scale;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    (void)param;
    return x23;
  }
  RULE_NO_SUMS
};
