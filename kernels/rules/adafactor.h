// Printed from the rule `adafactor` of the crate optim by `cargo run --release --example generate`; not edited by hand.
template <typename real> struct rule_adafactor {
  enum { SCALARS = 6, SLOTS = 1, DECAY_IS_L2 = 0, DECAY_IS_OWN = 0, GIVES_PARAMETER = 0 };
  enum { SUMS = 2, SQUARES = 3, FACTORS = 1, SUMS_OVER_ALL = 0 };
  RULE_FUNCTION static real direction(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL real *slot) {
    const real share = scalar[0];
    const real eps1 = scalar[1];
    const real length = scalar[5];
    const real variance = slot[0];
    const real x9 = grad * grad;
    const real x10 = x9 - variance;
    const real x11 = share * x10;
    const real new_variance = variance + x11;
    const real x13 = rule_sqrt(new_variance);
    const real x14 = rule_max(x13, eps1);
    const real x15 = grad / x14;
    const real x16 = length * x15;
    slot[0] = new_variance;
    (void)param;
    return x16;
  }
  RULE_FUNCTION static void measured(RULE_SCALARS const real *scalar, real grad, real param, RULE_LOCAL const real *slot, RULE_LOCAL real *sum) {
    const real share = scalar[0];
    const real eps1 = scalar[1];
    const real variance = slot[0];
    const real x9 = grad * grad;
    const real x10 = x9 - variance;
    const real x11 = share * x10;
    const real x12 = variance + x11;
    const real x13 = rule_sqrt(x12);
    const real x14 = rule_max(x13, eps1);
    const real x15 = grad / x14;
    sum[0] = param;
    sum[1] = x15;
  }
  RULE_FUNCTION static void factors(RULE_SCALARS const real *scalar, RULE_LOCAL const real *sum, real len, RULE_LOCAL real *factor) {
    const real eps2 = scalar[2];
    const real d = scalar[3];
    const real step = scalar[4];
    const real sum_0 = sum[0];
    const real sum_1 = sum[1];
    const real x15 = sum_0 / len;
    const real x16 = rule_sqrt(x15);
    const real x17 = rule_max(x16, eps2);
    const real x18 = step * x17;
    const real x19 = sum_1 / len;
    const real x20 = rule_sqrt(x19);
    const real x21 = x20 / d;
    const real x22 = rule_max(x21, real(1.0));
    const real x23 = x18 / x22;
    factor[0] = x23;
  }
};
