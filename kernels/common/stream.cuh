// Keystream of 32-bit or 16-bit addresses through shared memory: a thread makes one block, all read it by neighbours.
#pragma once

#include "prg.cuh"

// Words of a key in memory: eight of the key, the number of rounds (8 or 20), three zeros.
constexpr uint32_t KEY_WORDS = 12;

struct StreamKey {
    uint32_t words[8], rounds;

    __device__ __forceinline__ explicit StreamKey(const uint32_t* at) {
#pragma unroll
        for (int i = 0; i < 8; i++) words[i] = at[i];
        rounds = at[8];
    }
};

// Where word i of 16 of block s lies in shared memory: threads that write word i of 32 blocks meet 32 banks.
__device__ __forceinline__ uint32_t stream_place(uint32_t s, uint32_t i) { return 16 * s + (i ^ ((s >> 1) & 15)); }

// Writes the sixteen words of block s.
__device__ __forceinline__ void stream_put(uint32_t* stream, uint32_t s, const uint32_t (&block)[16]) {
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) stream[stream_place(s, i)] = block[i];
}

// Halfword i of the stream from the start of block 0 on.
__device__ __forceinline__ uint32_t stream_half(const uint32_t* stream, uint32_t i) {
    return (stream[stream_place(i >> 5, (i >> 1) & 15)] >> (16 * (i & 1))) & 0xffff;
}
