// Number formats and the memory that they are in, for all kernels of both backends.
#pragma once
#include "rule.h"

#if defined(RULE_METAL)
#define DEVICE device
#define SHARED threadgroup
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
typedef ulong u64;
typedef uint u32;
typedef ushort u16;
typedef uchar u8;
// Scalars and the results of sums. Metal has no double.
typedef float wide;
#else
#define DEVICE
#define SHARED
#define BARRIER() __syncthreads()
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef double wide;
#endif

// ---- numbers ----

struct Bf16 {
  u16 bits;
};
struct F16 {
  u16 bits;
};

#if defined(RULE_METAL)
RULE_FUNCTION u32 float_bits(float x) { return as_type<u32>(x); }
RULE_FUNCTION float bits_float(u32 x) { return as_type<float>(x); }
RULE_FUNCTION float half_float(u16 x) { return float(as_type<half>(x)); }
RULE_FUNCTION u16 float_half(float x) { return as_type<u16>(half(x)); }
#else
RULE_FUNCTION u32 float_bits(float x) { return __float_as_uint(x); }
RULE_FUNCTION float bits_float(u32 x) { return __uint_as_float(x); }
#if defined(__CUDACC_RTC__)
// NVRTC has no headers: the instructions that cuda_fp16.h has.
RULE_FUNCTION float half_float(u16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
RULE_FUNCTION u16 float_half(float x) {
  u16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#else
RULE_FUNCTION float half_float(u16 x) { return __half2float(__ushort_as_half(x)); }
RULE_FUNCTION u16 float_half(float x) { return __half_as_ushort(__float2half_rn(x)); }
#endif
RULE_FUNCTION void store(double x, double *to, u32) { *to = x; }
RULE_FUNCTION double load(double x) { return x; }
#endif

RULE_FUNCTION float load(float x) { return x; }
RULE_FUNCTION float load(Bf16 x) { return bits_float(u32(x.bits) << 16); }
RULE_FUNCTION float load(F16 x) { return half_float(x.bits); }

// `noise` is 16 random bits, or NEAREST.
enum { NEAREST = 0x10000 };
RULE_FUNCTION void store(float x, RULE_LOCAL float *to, u32) { *to = x; }
RULE_FUNCTION void store(float x, RULE_LOCAL F16 *to, u32) { to->bits = float_half(x); }
RULE_FUNCTION void store(float x, RULE_LOCAL Bf16 *to, u32 noise) {
  const u32 bits = float_bits(x);
  const bool is_finite = (bits & 0x7F800000u) != 0x7F800000u;
  // Half of the last place rounds to nearest, a tie to even; a uniform number rounds up as often as it is close.
  const u32 half_place = 0x7FFFu + (bits >> 16 & 1u);
  const u32 rounded = bits + (noise == NEAREST ? half_place : noise);
  const u32 nan = (bits & 0x007FFFFFu) != 0 ? 0x00400000u : 0u;
  to->bits = u16((is_finite ? rounded : bits | nan) >> 16);
}

// An element's master copy, or the parameter's own value where that is not the copy's rounding: someone else has written it.
RULE_FUNCTION bool is_same(Bf16 a, Bf16 b) { return a.bits == b.bits; }
RULE_FUNCTION bool is_same(F16 a, F16 b) { return a.bits == b.bits; }
RULE_FUNCTION float adopt_written(float, float param) { return param; }
#if !defined(RULE_METAL)
RULE_FUNCTION double adopt_written(double, double param) { return param; }
#endif
template <typename P> RULE_FUNCTION float adopt_written(float master, P param) {
  P rounded;
  store(master, &rounded, u32(NEAREST));
  return is_same(rounded, param) ? master : load(param);
}

// ---- memory ----

// Moved in accesses of 16 bytes.
template <typename T, int N> struct alignas(16) Pack {
  T x[N];
};

template <typename T, int N> RULE_FUNCTION Pack<T, N> read(DEVICE const T *from, u32 n, bool aligned) {
  if (aligned && n == N) return *(DEVICE const Pack<T, N> *)from;
  Pack<T, N> pack;
#pragma unroll
  for (u32 k = 0; k < N; k++) pack.x[k] = from[k < n ? k : 0];
  return pack;
}

template <typename T, int N> RULE_FUNCTION void write(DEVICE T *to, Pack<T, N> pack, u32 n, bool aligned) {
  if (aligned && n == N) {
    *(DEVICE Pack<T, N> *)to = pack;
  } else {
#pragma unroll
    for (u32 k = 0; k < N; k++)
      if (k < n) to[k] = pack.x[k];
  }
}

// Elements that a thread moves at a time.
template <typename A, typename B> struct Width {
  enum { N = 16 / (sizeof(A) < sizeof(B) ? sizeof(A) : sizeof(B)) };
};
