// Printed from the rule `sgd` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_sgd {
  enum { SCALARS = 0, SLOTS = 0, DECAY_IS_L2 = 1 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    (void)scalar;
    (void)slot;
    (void)param;
    return grad;
  }
};
