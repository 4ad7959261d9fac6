// Built by nvcc with -fmad=false, so that the bits are those of the CPU.
#define RULE_CUDA
#include <cuda_fp16.h>
#include "norm.h"
