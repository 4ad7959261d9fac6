// Printed from the rule `muon_momentum` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_muon_momentum {
  enum { SCALARS = 3, SLOTS = 1, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 1 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real one_minus_momentum = scalar[0];
    const real grad_share = scalar[1];
    const real momentum_share = scalar[2];
    const real momentum_buffer = slot[0];
    const real x6 = grad - momentum_buffer;
    const real x7 = one_minus_momentum * x6;
    const real new_momentum_buffer = momentum_buffer + x7;
    const real x9 = grad_share * grad;
    const real x10 = momentum_share * new_momentum_buffer;
    const real x11 = x9 + x10;
    slot[0] = new_momentum_buffer;
    (void)param;
    return x11;
  }
  RULE_NO_SUMS
};
