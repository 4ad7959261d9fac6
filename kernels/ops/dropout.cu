// Dropout by the first mask: a thread per block of random numbers.
#include "ops/chacha.h"

struct Args {
  u64 len;
  double scale;
  Key key;
  // Numbers below it drop.
  u32 dropped, unused;
};

// x, y.
template <typename T> RULE_FUNCTION void dropout(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const u64 counter = u64(block) * THREADS + thread, start = counter * WORDS;
  if (start >= args.len) return;
  const Words words = words_at(args.key, counter, 0);
  const T *x = (const T *)p.at[0];
  T *y = (T *)p.at[1];
  const bool aligned = is_aligned(x) && is_aligned(y);
#pragma unroll
  for (u32 first = 0; first < WORDS; first += N) {
    const u64 at = start + first;
    if (at >= args.len) break;
    const u32 n = u32(smaller(args.len - at, u64(N)));
    Pack<T, N> pack = read<T, N>(x + at, n, aligned);
#pragma unroll
    // A product, so that what is not a number stays that.
    for (u32 k = 0; k < N; k++) put(&pack.x[k], load(pack.x[k]) * (words.x[first + k] >= args.dropped ? real(args.scale) : real(0)));
    write<T, N>(y + at, pack, n, aligned);
  }
}
KERNELS(dropout)
