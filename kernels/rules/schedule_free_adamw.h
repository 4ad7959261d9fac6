// Printed from the rule `schedule_free_adamw` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_schedule_free_adamw {
  enum { SCALARS = 9, SLOTS = 2, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 1 };
  enum { SUMS = 0, SQUARES = 0, FACTORS = 0, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real lr = scalar[0];
    const real share = scalar[1];
    const real y_step = scalar[2];
    const real weight_decay = scalar[3];
    const real beta2 = scalar[4];
    const real one_minus_beta2 = scalar[5];
    const real v_scale = scalar[6];
    const real eps = scalar[7];
    const real starts = scalar[8];
    const real z = slot[0];
    const real exp_avg_sq = slot[1];
    const real x13 = rule_select_positive(starts, param, z);
    const real x14 = beta2 * exp_avg_sq;
    const real x15 = grad * grad;
    const real x16 = one_minus_beta2 * x15;
    const real new_exp_avg_sq = x14 + x16;
    const real x18 = new_exp_avg_sq * v_scale;
    const real x19 = rule_sqrt(x18);
    const real x20 = x19 + eps;
    const real x21 = grad / x20;
    const real x22 = weight_decay * param;
    const real x23 = x21 + x22;
    const real x24 = x13 - param;
    const real x25 = share * x24;
    const real x26 = param + x25;
    const real x27 = y_step * x23;
    const real x28 = x26 + x27;
    const real x29 = lr * x23;
    const real new_z = x13 - x29;
    slot[0] = new_z;
    slot[1] = new_exp_avg_sq;
    return x28;
  }
  RULE_NO_SUMS
};
