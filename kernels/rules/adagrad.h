// Printed from the rule `adagrad` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_adagrad {
  enum { SCALARS = 2, SLOTS = 1, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real eps = scalar[0];
    const real initial = scalar[1];
    const real sum = slot[0];
    const real x5 = sum + initial;
    const real x6 = grad * grad;
    const real new_sum = x5 + x6;
    const real x8 = rule_sqrt(new_sum);
    const real x9 = x8 + eps;
    const real x10 = grad / x9;
    slot[0] = new_sum;
    (void)param;
    return x10;
  }
  RULE_NO_SUMS
};
