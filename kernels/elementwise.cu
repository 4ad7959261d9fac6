// Built by nvcc once per rule, with -fmad=false, so that the bits are those of the CPU. A rule of another crate is built by NVRTC when
// it is first used on a device.
#define RULE_CUDA
#if !defined(__CUDACC_RTC__)
#include <cuda_fp16.h>
#endif
#include "elementwise.h"
