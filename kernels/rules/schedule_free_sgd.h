// Printed from the rule `schedule_free_sgd` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_schedule_free_sgd {
  enum { SCALARS = 5, SLOTS = 1, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 1 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real lr = scalar[0];
    const real share = scalar[1];
    const real y_step = scalar[2];
    const real weight_decay = scalar[3];
    const real starts = scalar[4];
    const real z = slot[0];
    const real x8 = rule_select_positive(starts, param, z);
    const real x9 = weight_decay * param;
    const real x10 = grad + x9;
    const real x11 = x8 - param;
    const real x12 = share * x11;
    const real x13 = param + x12;
    const real x14 = y_step * x10;
    const real x15 = x13 + x14;
    const real x16 = lr * x10;
    const real new_z = x8 - x16;
    slot[0] = new_z;
    return x15;
  }
  RULE_NO_SUMS
};
