// The stream cipher ChaCha with 8 rounds (Bernstein 2008), as a generator of the masks of dropout: `dropout.rs` draws the same.
#pragma once
#include "ops/launch.h"

struct Key {
  u32 words[8];
};

RULE_FUNCTION u32 rotated(u32 x, u32 by) { return x << by | x >> (32 - by); }
RULE_FUNCTION void quarter_round(u32 &a, u32 &b, u32 &c, u32 &d) {
  a += b; d = rotated(d ^ a, 16);
  c += d; b = rotated(b ^ c, 12);
  a += b; d = rotated(d ^ a, 8);
  c += d; b = rotated(b ^ c, 7);
}

enum { WORDS = 16 };
// A block of random numbers: those from `WORDS counter` on of a stream.
struct Words {
  u32 x[WORDS];
};
RULE_FUNCTION Words words_at(Key key, u64 counter, u64 stream) {
  const u32 start[WORDS] = {0x61707865u, 0x3320646Eu, 0x79622D32u, 0x6B206574u, key.words[0], key.words[1],
                            key.words[2], key.words[3], key.words[4], key.words[5], key.words[6], key.words[7],
                            u32(counter), u32(counter >> 32), u32(stream), u32(stream >> 32)};
  Words w;
#pragma unroll
  for (u32 k = 0; k < WORDS; k++) w.x[k] = start[k];
#pragma unroll
  for (u32 round = 0; round < 4; round++) {
#pragma unroll
    for (u32 k = 0; k < 4; k++) quarter_round(w.x[k], w.x[4 + k], w.x[8 + k], w.x[12 + k]);
#pragma unroll
    for (u32 k = 0; k < 4; k++)
      quarter_round(w.x[k], w.x[4 + (k + 1) % 4], w.x[8 + (k + 2) % 4], w.x[12 + (k + 3) % 4]);
  }
#pragma unroll
  for (u32 k = 0; k < WORDS; k++) w.x[k] += start[k];
  return w;
}
