// What the printed headers in rules/ use. A kernel includes this first, with RULE_CUDA or RULE_METAL defined; without
// either it is plain C++.
#pragma once

#if defined(RULE_CUDA)
#define RULE_FUNCTION __device__ __forceinline__
#define RULE_SCALARS
#define RULE_LOCAL
#elif defined(RULE_METAL)
#define RULE_FUNCTION inline
#define RULE_SCALARS thread
#define RULE_LOCAL thread
#else
#include <cmath>
#define RULE_FUNCTION inline
#define RULE_SCALARS
#define RULE_LOCAL
using std::sqrt;
#endif

// What a rule without sums has in their place.
#define RULE_NO_SUMS                                                                                              \
  RULE_FUNCTION static void measured(RULE_SCALARS const real *, real, real, RULE_LOCAL const real *, RULE_LOCAL real *) {} \
  RULE_FUNCTION static void factors(RULE_SCALARS const real *, RULE_LOCAL const real *, real, RULE_LOCAL real *) {}

template <typename real> RULE_FUNCTION real rule_sqrt(real x) { return sqrt(x); }

template <typename real> RULE_FUNCTION real rule_abs(real x) { return x < real(0) ? -x : (x == real(0) ? real(0) : x); }

// NaN if either is NaN: fmax would hide it.
template <typename real> RULE_FUNCTION real rule_max(real a, real b) { return a > b || a != a ? a : b; }

// NaN counts as not positive.
template <typename real> RULE_FUNCTION real rule_select_positive(real x, real then, real otherwise) {
  return x > real(0) ? then : otherwise;
}
