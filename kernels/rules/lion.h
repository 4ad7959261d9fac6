// Printed from the rule `lion` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_lion {
  enum { SCALARS = 2, SLOTS = 1, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real one_minus_beta2 = scalar[1];
    const real exp_avg = slot[0];
    const real x5 = grad - exp_avg;
    const real x6 = one_minus_beta1 * x5;
    const real x7 = exp_avg + x6;
    const real x9 = -x7;
    const real x10 = -real(1.0);
    const real x11 = rule_select_positive(x9, x10, x7);
    const real x12 = rule_select_positive(x7, real(1.0), x11);
    const real x13 = one_minus_beta2 * x5;
    const real new_exp_avg = exp_avg + x13;
    slot[0] = new_exp_avg;
    (void)param;
    return x12;
  }
  RULE_NO_SUMS
};
