// Runs the kernels that stand before it.
#include "fibers.h"

typedef void (*Kernel)(Pointers, Args);

struct Call {
  Kernel function;
  const Pointers *pointers;
  const Args *args;
  unsigned block;
};
static Call call;

static void run_thread(unsigned index) {
  blockIdx.x = call.block;
  threadIdx.x = index;
  call.function(*call.pointers, *call.args);
}

extern "C" void run_kernel(Kernel function, unsigned blocks, int has_barriers, const Pointers *pointers, const Args *args) {
  for (unsigned block = 0; block < blocks; block++) {
    call = Call{function, pointers, args, block};
    run_block(block, has_barriers);
  }
}

// The host's structure has to be as long.
extern "C" size_t size_of_args() { return sizeof(Args); }
