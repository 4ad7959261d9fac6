// Rows of a table by their indices.
#include "ops/launch.h"

struct Args {
  u64 places;
  u32 rows, width, per_row;
  // Blocks of columns, for the gradient.
  u32 blocks;
};

// weight, indices, y: a warp or a block per index. One that names no row gives NaN.
template <typename T> RULE_FUNCTION void embedding(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const Row place = row_of(block, thread, args.per_row, args.places);
  if (!place.is_real) return;
  const u32 index = ((const u32 *)p.at[1])[place.index];
  T *y = (T *)p.at[2] + place.index * args.width;
  const T *row = (const T *)p.at[0] + u64(index) * args.width;
  const bool is_row = index < args.rows, y_aligned = is_aligned(y), row_aligned = is_aligned(row);
  for_each_vector<N>(args.width, place.lane, args.per_row, [&](u32 at, u32 n) {
    Pack<T, N> pack;
    if (is_row) {
      pack = read<T, N>(row + at, n, row_aligned);
    } else {
#pragma unroll
      for (u32 k = 0; k < N; k++) put(&pack.x[k], not_a_number<real>());
    }
    write<T, N>(y + at, pack, n, y_aligned);
  });
}
KERNELS(embedding)

// indices, dy, the gradient: a block per row and THREADS of its columns looks through the indices and adds up in their order.
template <typename T> RULE_FUNCTION void embedding_backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = 4, TILE = N * THREADS };
  __shared__ bool is_here[TILE];
  const u32 row = block / args.blocks, column = block % args.blocks * THREADS + thread;
  const u32 *indices = (const u32 *)p.at[0];
  const T *dy = (const T *)p.at[1];
  real sum = real(0);
  for (u64 start = 0; start < args.places; start += TILE) {
    const u32 len = u32(smaller(args.places - start, u64(TILE)));
    int any = 0;
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      const u32 at = k * THREADS + thread;
      const bool here = at < len && indices[start + at] == row;
      is_here[at] = here;
      any |= here;
    }
    if (__syncthreads_or(any) && column < args.width) {
      for (u32 at = 0; at < len; at++)
        if (is_here[at]) sum += load(dy[(start + at) * args.width + column]);
    }
    BARRIER();
  }
  if (column < args.width) put((T *)p.at[2] + u64(row) * args.width + column, sum);
}
KERNELS(embedding_backward)
