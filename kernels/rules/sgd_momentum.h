// Printed from the rule `sgd_momentum` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_sgd_momentum {
  enum { SCALARS = 3, SLOTS = 1, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real momentum = scalar[0];
    const real grad_share = scalar[1];
    const real nesterov = scalar[2];
    const real momentum_buffer = slot[0];
    const real x6 = momentum * momentum_buffer;
    const real x7 = grad_share * grad;
    const real new_momentum_buffer = x6 + x7;
    const real x9 = momentum * new_momentum_buffer;
    const real x10 = grad + x9;
    const real x11 = rule_select_positive(nesterov, x10, new_momentum_buffer);
    slot[0] = new_momentum_buffer;
    (void)param;
    return x11;
  }
  RULE_NO_SUMS
};
