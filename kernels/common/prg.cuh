// The addressed keystream of src/math/prg.rs: ChaCha (RFC 8439) with a zero nonce. Block `counter` holds bytes
// [64 counter, 64 counter + 64) of the stream as sixteen little-endian words.
//
// A block of ChaCha20 takes 10 double rounds of 8 quarter rounds of 4 additions, 4 xors, 4 rotations: 960 operations,
// and 16 additions at the end; ChaCha8 takes 384 + 16. No branch and no address depends on the key.
#pragma once

#include "platform.cuh"

__device__ __forceinline__ uint32_t rotate_left(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

__device__ __forceinline__ void quarter_round(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
    a += b;
    d = rotate_left(d ^ a, 16);
    c += d;
    b = rotate_left(b ^ c, 12);
    a += b;
    d = rotate_left(d ^ a, 8);
    c += d;
    b = rotate_left(b ^ c, 7);
}

// Writes block `counter` of the stream under the eight words of `key`; `rounds` is 8 or 20, the same in all threads.
__device__ __forceinline__ void chacha_block(const uint32_t* key, uint32_t counter, uint32_t rounds, uint32_t (&out)[16]) {
    const uint32_t constants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    uint32_t x[16];
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = i < 4 ? constants[i] : i < 12 ? key[i - 4] : i == 12 ? counter : 0;
#pragma unroll 1
    for (uint32_t round = 0; round < rounds; round += 2) {
        quarter_round(x[0], x[4], x[8], x[12]);
        quarter_round(x[1], x[5], x[9], x[13]);
        quarter_round(x[2], x[6], x[10], x[14]);
        quarter_round(x[3], x[7], x[11], x[15]);
        quarter_round(x[0], x[5], x[10], x[15]);
        quarter_round(x[1], x[6], x[11], x[12]);
        quarter_round(x[2], x[7], x[8], x[13]);
        quarter_round(x[3], x[4], x[9], x[14]);
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
        out[i] = x[i] + (i < 4 ? constants[i] : i < 12 ? key[i - 4] : i == 12 ? counter : 0);
}
