// Printed from the rule `signum` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_signum {
  enum { SCALARS = 1, SLOTS = 1, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_momentum = scalar[0];
    const real momentum_buffer = slot[0];
    const real x4 = grad - momentum_buffer;
    const real x5 = one_minus_momentum * x4;
    const real new_momentum_buffer = momentum_buffer + x5;
    const real x8 = -new_momentum_buffer;
    const real x9 = -real(1.0);
    const real x10 = rule_select_positive(x8, x9, new_momentum_buffer);
    const real x11 = rule_select_positive(new_momentum_buffer, real(1.0), x10);
    slot[0] = new_momentum_buffer;
    (void)param;
    return x11;
  }
  RULE_NO_SUMS
};
