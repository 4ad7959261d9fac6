// Printed from the rule `rmsprop` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_rmsprop {
  enum { SCALARS = 5, SLOTS = 1, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real alpha = scalar[0];
    const real one_minus_alpha = scalar[1];
    const real eps_inside = scalar[2];
    const real eps_outside = scalar[3];
    const real square_avg = slot[0];
    const real x8 = alpha * square_avg;
    const real x9 = grad * grad;
    const real x10 = one_minus_alpha * x9;
    const real new_square_avg = x8 + x10;
    const real x12 = new_square_avg + eps_inside;
    const real x13 = rule_sqrt(x12);
    const real x14 = x13 + eps_outside;
    const real x15 = grad / x14;
    slot[0] = new_square_avg;
    (void)param;
    return x15;
  }
  RULE_NO_SUMS
};
