// Printed from the rule `rprop` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_rprop {
  enum { SCALARS = 5, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 1 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real first = scalar[0];
    const real etaminus = scalar[1];
    const real etaplus = scalar[2];
    const real step_min = scalar[3];
    const real step_max = scalar[4];
    const real prev = slot[0];
    const real step_size = slot[1];
    const real x10 = -grad;
    const real x11 = -real(1.0);
    const real x12 = rule_select_positive(x10, x11, grad);
    const real x13 = rule_select_positive(grad, real(1.0), x12);
    const real x14 = x13 * prev;
    const real x15 = -x14;
    const real x16 = rule_select_positive(x15, etaminus, real(1.0));
    const real x17 = rule_select_positive(x14, etaplus, x16);
    const real x18 = step_size + first;
    const real x19 = x18 * x17;
    const real x20 = rule_max(x19, step_min);
    const real x21 = -x20;
    const real x22 = -step_max;
    const real x23 = rule_max(x21, x22);
    const real new_step_size = -x23;
    const real new_prev = rule_select_positive(x15, real(0.0), grad);
    const real x27 = -new_prev;
    const real x28 = rule_select_positive(x27, x11, new_prev);
    const real x29 = rule_select_positive(new_prev, real(1.0), x28);
    const real x30 = x29 * new_step_size;
    const real x31 = param - x30;
    slot[0] = new_prev;
    slot[1] = new_step_size;
    return x31;
  }
  RULE_NO_SUMS
};
