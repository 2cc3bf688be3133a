// Keystreams: the words themselves (for signs), and words plus or minus them in a ring; see shaders/mask.wgsl.
//
// keystream_words: 4 bytes a word and 1/16 of a block of ChaCha; mask_bits: 8 bytes and 1/64, 1/32 or 1/16 of a block (15, 31
// or 61 operations with 20 rounds; 61 are 1 cycle of a multiprocessor's 64 integer lanes); mask_prime: 8 bytes and 1/4 of a
// block (244, 3.8 cycles).
#include "common/modular.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"
#include "common/stream.cuh"

// `count` blocks of the keystream from `first` on, at most one a thread, to shared memory.
__device__ __forceinline__ void fill_stream(uint32_t* stream, const uint32_t* key_words, uint32_t first, uint32_t count) {
    if (threadIdx.x < count) {
        const StreamKey key(key_words);
        uint32_t block[16];
        chacha_block(key.words, first + threadIdx.x, key.rounds, block);
        stream_put(stream, threadIdx.x, block);
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(256) keystream_words(const FlatPassParams p, uint32_t* words, const uint32_t* key) {
    __shared__ uint32_t stream[4096];
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    fill_stream(stream, key, (p.first >> 4) + group * 256, 256);
    const uint32_t left = min(4096u, p.len - group * 4096);
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < left; i += 256) words[group * 4096 + i] = stream[stream_place(i >> 4, i & 15)];
}
REGISTER_KERNEL(keystream_words)

extern "C" __global__ void __launch_bounds__(256) mask_bits(const FlatPassParams p, uint32_t* words, const uint32_t* key) {
    __shared__ uint32_t stream[4096];
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    // log2 of the values of a word: 8, 16 or 32 bits each.
    const uint32_t many = (p.bits <= 16) + (p.bits <= 8);
    fill_stream(stream, key, (p.first >> (4 + many)) + group * (256 >> many), 256 >> many);
    // All ones to subtract: x - k = ~(~x + k).
    const uint32_t wrap = 0xffffffffu >> (32 - p.bits), turn = 0 - p.count;
    const uint32_t left = min(4096u, p.len - group * 4096);
    words += group * 4096;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < left; i += 256) {
        const uint32_t w = i >> many;
        const uint32_t k = stream[stream_place(w >> 4, w & 15)] >> ((32 >> many) * (i & ((1u << many) - 1)));
        words[i] = (((words[i] ^ turn) + k) ^ turn) & wrap;
    }
}
REGISTER_KERNEL(mask_bits)

extern "C" __global__ void __launch_bounds__(256) mask_prime(const FlatPassParams p, uint32_t* words, const uint32_t* key_words) {
    const uint32_t group = group_index(), j = group * 1024 + 4 * threadIdx.x;
    if (group >= p.groups || j >= p.len) return;
    const StreamKey key(key_words);
    uint32_t u[16];
    chacha_block(key.words, (p.first + j) >> 2, key.rounds, u);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        if (j + i >= p.len) continue;
        // floor(u p / 2^128): p < 2^31.
        uint64_t carry = static_cast<uint64_t>(u[4 * i]) * p.modulus >> 32;
#pragma unroll
        for (int w = 1; w < 4; w++) carry = (static_cast<uint64_t>(u[4 * i + w]) * p.modulus + carry) >> 32;
        const uint32_t k = static_cast<uint32_t>(carry);
        words[j + i] = reduce_once(words[j + i] + (p.count != 0 ? p.modulus - k : k), p.modulus);
    }
}
REGISTER_KERNEL(mask_prime)
