// Built by nvcc with -fmad=false, so that the bits are those of the CPU.
#define RULE_CUDA
#if !defined(__CUDACC_RTC__)
#include <cuda_fp16.h>
#endif
#include "norm.h"
