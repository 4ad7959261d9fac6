// Printed from the rule `gradient` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_gradient {
  enum { SCALARS = 0, SLOTS = 0, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 1 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    (void)scalar;
    (void)slot;
    (void)param;
    return grad;
  }
  RULE_NO_SUMS
};
