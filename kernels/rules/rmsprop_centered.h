// Printed from the rule `rmsprop_centered` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_rmsprop_centered {
  enum { SCALARS = 5, SLOTS = 2, DECAY_IS_L2 = 1, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real alpha = scalar[0];
    const real one_minus_alpha = scalar[1];
    const real eps_inside = scalar[2];
    const real eps_outside = scalar[3];
    const real square_avg = slot[0];
    const real grad_avg = slot[1];
    const real x9 = alpha * square_avg;
    const real x10 = grad * grad;
    const real x11 = one_minus_alpha * x10;
    const real new_square_avg = x9 + x11;
    const real x13 = grad - grad_avg;
    const real x14 = one_minus_alpha * x13;
    const real new_grad_avg = grad_avg + x14;
    const real x16 = new_grad_avg * new_grad_avg;
    const real x17 = new_square_avg - x16;
    const real x19 = rule_max(x17, real(0.0));
    const real x20 = x19 + eps_inside;
    const real x21 = rule_sqrt(x20);
    const real x22 = x21 + eps_outside;
    const real x23 = grad / x22;
    slot[0] = new_square_avg;
    slot[1] = new_grad_avg;
    (void)param;
    return x23;
  }
  RULE_NO_SUMS
};
