// Printed from the rule `rmsprop_centered_momentum` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_rmsprop_centered_momentum {
  enum { SCALARS = 5, SLOTS = 3, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real alpha = scalar[0];
    const real one_minus_alpha = scalar[1];
    const real eps_inside = scalar[2];
    const real eps_outside = scalar[3];
    const real momentum = scalar[4];
    const real square_avg = slot[0];
    const real grad_avg = slot[1];
    const real momentum_buffer = slot[2];
    const real x10 = alpha * square_avg;
    const real x11 = grad * grad;
    const real x12 = one_minus_alpha * x11;
    const real new_square_avg = x10 + x12;
    const real x14 = grad - grad_avg;
    const real x15 = one_minus_alpha * x14;
    const real new_grad_avg = grad_avg + x15;
    const real x17 = new_grad_avg * new_grad_avg;
    const real x18 = new_square_avg - x17;
    const real x20 = rule_max(x18, real(0.0));
    const real x21 = momentum * momentum_buffer;
    const real x22 = x20 + eps_inside;
    const real x23 = rule_sqrt(x22);
    const real x24 = x23 + eps_outside;
    const real x25 = grad / x24;
    const real new_momentum_buffer = x21 + x25;
    slot[0] = new_square_avg;
    slot[1] = new_grad_avg;
    slot[2] = new_momentum_buffer;
    (void)param;
    return new_momentum_buffer;
  }
  RULE_NO_SUMS
};
