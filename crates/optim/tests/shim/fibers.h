// Runs blocks of threads on the CPU: block after block, the threads of a block as fibers that take turns at barriers, in
// another order each time. What includes it has the enum THREADS.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <ucontext.h>

static ucontext_t scheduler, fibers[THREADS];
static char stacks[THREADS][1 << 16];
static unsigned current;
static bool is_done[THREADS];
// What a thread of the present block does.
static void run_thread(unsigned index);

unsigned this_thread() { return current; }
void at_barrier() { swapcontext(&fibers[current], &scheduler); }

static void run_fiber() {
  run_thread(current);
  is_done[current] = true;
}

// Without barriers the threads run one after another, which is faster.
static void run_block(unsigned block, bool has_barriers) {
  if (!has_barriers) {
    for (unsigned k = 0; k < THREADS; k++) {
      current = (k * 97 + block) % THREADS;
      run_thread(current);
    }
    return;
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
