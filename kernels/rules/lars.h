// Printed from the rule `lars` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_lars {
  enum { SCALARS = 7, SLOTS = 1, DECAY_IS_L2 = 0, DECAY_IS_OWN = 1, GIVES_PARAMETER = 0 };
  enum { SUMS = 2, SQUARES = 3, FACTORS = 1, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real momentum = scalar[0];
    const real nesterov = scalar[1];
    const real weight_decay = scalar[4];
    const real ratio = scalar[6];
    const real momentum_buffer = slot[0];
    const real x10 = weight_decay * param;
    const real x11 = grad + x10;
    const real x12 = ratio * x11;
    const real x13 = momentum * momentum_buffer;
    const real new_momentum_buffer = x13 + x12;
    const real x15 = momentum * new_momentum_buffer;
    const real x16 = x12 + x15;
    const real x17 = rule_select_positive(nesterov, x16, new_momentum_buffer);
    slot[0] = new_momentum_buffer;
    return x17;
  }
  RULE_FUNCTION static void measured(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL const real *slot, RULE_LOCAL real *sum) {
    sum[0] = param;
    sum[1] = grad;
    (void)scalar;
    (void)slot;
  }
  RULE_FUNCTION static void factors(RULE_SCALARS const real *scalar, RULE_LOCAL const real *sum, real len, RULE_LOCAL real *factor) {
    const real trust_coefficient = scalar[2];
    const real eps = scalar[3];
    const real weight_decay = scalar[4];
    const real adapts = scalar[5];
    const real sum_0 = sum[0];
    const real sum_1 = sum[1];
    const real x16 = rule_sqrt(sum_0);
    const real x17 = rule_sqrt(sum_1);
    const real x18 = trust_coefficient * x16;
    const real x19 = weight_decay * x16;
    const real x20 = x17 + x19;
    const real x21 = x20 + eps;
    const real x22 = x18 / x21;
    const real x23 = real(0.0) * sum_1;
    const real x24 = real(1.0) + x23;
    const real x25 = rule_select_positive(sum_1, x22, x24);
    const real x26 = real(0.0) * sum_0;
    const real x27 = real(1.0) + x26;
    const real x28 = rule_select_positive(sum_0, x25, x27);
    const real x29 = rule_select_positive(adapts, x28, real(1.0));
    factor[0] = x29;
    (void)len;
  }
};
