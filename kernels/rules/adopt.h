// Printed from the rule `adopt` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_adopt {
  enum { SCALARS = 5, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real eps = scalar[3];
    const real bound = scalar[4];
    const real exp_avg = slot[0];
    const real exp_avg_sq = slot[1];
    const real x9 = rule_sqrt(exp_avg_sq);
    const real x10 = rule_max(x9, eps);
    const real x11 = grad / x10;
    const real x12 = -bound;
    const real x13 = rule_max(x11, x12);
    const real x14 = -x13;
    const real x15 = rule_max(x14, x12);
    const real x16 = -x15;
    const real x17 = x16 - exp_avg;
    const real x18 = one_minus_beta1 * x17;
    const real new_exp_avg = exp_avg + x18;
    const real x20 = beta2 * exp_avg_sq;
    const real x21 = grad * grad;
    const real x22 = one_minus_beta2 * x21;
    const real new_exp_avg_sq = x20 + x22;
    slot[0] = new_exp_avg;
    slot[1] = new_exp_avg_sq;
    (void)param;
    return new_exp_avg;
  }
  RULE_NO_SUMS
};
