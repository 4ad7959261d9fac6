// Printed from the rule `sophia` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_sophia {
  enum { SCALARS = 6, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_beta1 = scalar[0];
    const real beta2 = scalar[1];
    const real one_minus_beta2 = scalar[2];
    const real rho = scalar[3];
    const real eps = scalar[4];
    const real is_curvature = scalar[5];
    const real exp_avg = slot[0];
    const real hessian = slot[1];
    const real x12 = beta2 * hessian;
    const real x13 = grad * grad;
    const real x14 = one_minus_beta2 * x13;
    const real x15 = x12 + x14;
    const real new_hessian = rule_select_positive(is_curvature, x15, hessian);
    const real x17 = grad - exp_avg;
    const real x18 = one_minus_beta1 * x17;
    const real x19 = exp_avg + x18;
    const real new_exp_avg = rule_select_positive(is_curvature, exp_avg, x19);
    const real x21 = -new_exp_avg;
    const real x22 = -real(1.0);
    const real x23 = rule_select_positive(x21, x22, new_exp_avg);
    const real x24 = rule_select_positive(new_exp_avg, real(1.0), x23);
    const real x25 = rule_abs(new_exp_avg);
    const real x26 = rho * new_hessian;
    const real x27 = x26 + eps;
    const real x28 = x25 / x27;
    const real x29 = -x28;
    const real x30 = rule_max(x29, x22);
    const real x31 = -x30;
    const real x32 = x24 * x31;
    const real x33 = rule_select_positive(is_curvature, real(0.0), x32);
    slot[0] = new_exp_avg;
    slot[1] = new_hessian;
    (void)param;
    return x33;
  }
  RULE_NO_SUMS
};
