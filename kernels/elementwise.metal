// Built when a rule is first used on a device, without fast-math, so that the bits are those of the CPU.
#define RULE_METAL
#include <metal_stdlib>
using namespace metal;
#pragma METAL fp contract(off)
#include "elementwise.h"
