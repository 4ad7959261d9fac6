// Printed from the rule `asgd` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_asgd {
  enum { SCALARS = 3, SLOTS = 1, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 1 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real eta = scalar[0];
    const real decay = scalar[1];
    const real share = scalar[2];
    const real ax = slot[0];
    const real x6 = decay * param;
    const real x7 = grad + x6;
    const real x8 = eta * x7;
    const real x9 = param - x8;
    const real x11 = real(1.0) - share;
    const real x12 = x9 - ax;
    const real x13 = share * x12;
    const real x14 = ax + x13;
    const real new_ax = rule_select_positive(x11, x14, x9);
    slot[0] = new_ax;
    return x9;
  }
  RULE_NO_SUMS
};
