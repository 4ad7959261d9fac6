// Printed from the rule `rmsprop_momentum` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_rmsprop_momentum {
  enum { SCALARS = 5, SLOTS = 2, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real alpha = scalar[0];
    const real one_minus_alpha = scalar[1];
    const real eps_inside = scalar[2];
    const real eps_outside = scalar[3];
    const real momentum = scalar[4];
    const real square_avg = slot[0];
    const real momentum_buffer = slot[1];
    const real x9 = alpha * square_avg;
    const real x10 = grad * grad;
    const real x11 = one_minus_alpha * x10;
    const real new_square_avg = x9 + x11;
    const real x13 = momentum * momentum_buffer;
    const real x14 = new_square_avg + eps_inside;
    const real x15 = rule_sqrt(x14);
    const real x16 = x15 + eps_outside;
    const real x17 = grad / x16;
    const real new_momentum_buffer = x13 + x17;
    slot[0] = new_square_avg;
    slot[1] = new_momentum_buffer;
    (void)param;
    return new_momentum_buffer;
  }
  RULE_NO_SUMS
};
