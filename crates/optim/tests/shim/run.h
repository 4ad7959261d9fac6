// Runs the kernels that stand before it: block after block, the threads of a block as fibers that take turns at barriers,
// in another order each time.
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>

static ucontext_t scheduler, fibers[THREADS];
static char stacks[THREADS][1 << 16];
static unsigned current;
static bool is_done[THREADS];

void at_barrier() { swapcontext(&fibers[current], &scheduler); }

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

static void run_fiber() {
  run_thread(current);
  is_done[current] = true;
}

// Whether memory is out of bounds, where AddressSanitizer looks after it.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
extern "C" void guard(const void *memory, size_t len, int is_on) {
  if (is_on) __asan_poison_memory_region(memory, len);
  else __asan_unpoison_memory_region(memory, len);
}
#else
extern "C" void guard(const void *, size_t, int) {}
#endif

// Without barriers the threads run one after another, which is faster.
extern "C" void run_kernel(Kernel function, unsigned blocks, int has_barriers, void **buffers, const Args *args) {
  for (unsigned block = 0; block < blocks; block++) {
    call = Call{function, buffers, args, block};
    if (!has_barriers) {
      for (unsigned k = 0; k < THREADS; k++) run_thread((k * 97 + block) % THREADS);
      continue;
    }
    for (unsigned k = 0; k < THREADS; k++) {
      is_done[k] = false;
      getcontext(&fibers[k]);
      fibers[k].uc_stack.ss_sp = stacks[k];
      fibers[k].uc_stack.ss_size = sizeof stacks[k];
      fibers[k].uc_link = &scheduler;
      makecontext(&fibers[k], run_fiber, 0);
    }
    for (unsigned round = 0, done = 0; done == 0; round++) {
      for (unsigned k = 0; k < THREADS; k++) {
        current = (k * 97 + round * 31 + block) % THREADS;
        swapcontext(&scheduler, &fibers[current]);
      }
      for (unsigned k = 0; k < THREADS; k++) done += is_done[k];
      if (done != 0 && done != THREADS) {
        fprintf(stderr, "%u threads of a block ended while the others wait at a barrier\n", done);
        abort();
      }
    }
  }
}
