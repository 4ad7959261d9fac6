// Runs the kernels that stand before it.
#include "fibers.h"

#if defined(RULE_METAL)
typedef void (*Kernel)(const Tensor *, const Chunk *, const wide *, const wide *, Sum *, wide *, const Args &, u32, u32);
#else
typedef void (*Kernel)(const Tensor *, const Chunk *, const wide *, const wide *, Sum *, wide *, Args);
#endif

struct Call {
  Kernel function;
  void **buffers;
  const Args *args;
  unsigned block;
};
static Call call;

static void run_thread(unsigned index) {
  void **b = call.buffers;
  const Tensor *tensors = (const Tensor *)b[0];
  const Chunk *chunks = (const Chunk *)b[1];
  const wide *rows = (const wide *)b[2], *norm = (const wide *)b[3];
  Sum *sums = (Sum *)b[4];
  wide *out = (wide *)b[5];
#if defined(RULE_METAL)
  call.function(tensors, chunks, rows, norm, sums, out, *call.args, call.block, index);
#else
  blockIdx.x = call.block;
  threadIdx.x = index;
  call.function(tensors, chunks, rows, norm, sums, out, *call.args);
#endif
}

extern "C" void run_kernel(Kernel function, unsigned blocks, int has_barriers, void **buffers, const Args *args) {
  for (unsigned block = 0; block < blocks; block++) {
    call = Call{function, buffers, args, block};
    run_block(block, has_barriers);
  }
}
