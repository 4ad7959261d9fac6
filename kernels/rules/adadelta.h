// Printed from the rule `adadelta` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_adadelta {
  enum { SCALARS = 3, SLOTS = 2, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real rho = scalar[0];
    const real one_minus_rho = scalar[1];
    const real eps = scalar[2];
    const real square_avg = slot[0];
    const real acc_delta = slot[1];
    const real x7 = rho * square_avg;
    const real x8 = grad * grad;
    const real x9 = one_minus_rho * x8;
    const real new_square_avg = x7 + x9;
    const real x11 = acc_delta + eps;
    const real x12 = rule_sqrt(x11);
    const real x13 = new_square_avg + eps;
    const real x14 = rule_sqrt(x13);
    const real x15 = x12 / x14;
    const real x16 = x15 * grad;
    const real x17 = rho * acc_delta;
    const real x18 = x16 * x16;
    const real x19 = one_minus_rho * x18;
    const real new_acc_delta = x17 + x19;
    slot[0] = new_square_avg;
    slot[1] = new_acc_delta;
    (void)param;
    return x16;
  }
  RULE_NO_SUMS
};
