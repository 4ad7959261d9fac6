// Stands in for CUDA's header, so that a C++ compiler builds the kernels: run.h runs them on the CPU.
#pragma once
#include <cmath>
#include <cstring>
#define __device__
#define __forceinline__ inline
#define __global__
#define __shared__ static
#define __launch_bounds__(...)
using std::sqrt;

struct Index {
  unsigned x;
};
static Index blockIdx, threadIdx;
void at_barrier();
static void __syncthreads() { at_barrier(); }

// Between the threads of a warp, which here wait for the whole block: all threads of it have to come here as often.
unsigned this_thread();
template <typename T> T __shfl_xor_sync(unsigned, T mine, unsigned mask) {
  static T values[1024];
  const unsigned thread = this_thread();
  values[thread] = mine;
  at_barrier();
  const T other = values[thread ^ mask];
  at_barrier();
  return other;
}
template <typename T> T __syncthreads_or(T mine) {
  static T values[1024];
  values[this_thread()] = mine;
  at_barrier();
  T any = 0;
  for (T value : values) any |= value;
  at_barrier();
  return any;
}

template <typename To, typename From> static To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "of one size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
static unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
static float __uint_as_float(unsigned x) { return same_bits<float>(x); }
static _Float16 __ushort_as_half(unsigned short x) { return same_bits<_Float16>(x); }
static unsigned short __half_as_ushort(_Float16 x) { return same_bits<unsigned short>(x); }
static float __half2float(_Float16 x) { return float(x); }
static _Float16 __float2half_rn(float x) { return _Float16(x); }
