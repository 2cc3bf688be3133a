// Integer noise added to words mod 2^b; see shaders/noise.wgsl.
//
// noise_table: 1/4 of a block of ChaCha (244 operations with 20 rounds) and 6 operations a threshold a coordinate: with 40
// thresholds 7.6 cycles of a multiprocessor's 64 integer lanes, where 8 bytes of memory take 0.44. A threshold is read by
// all threads at once, from the first-level cache.
// noise_binomial: h = ceil(2k / 16) blocks for 32 neighbours, 31 h operations a coordinate.
#include "common/params.cuh"
#include "common/platform.cuh"
#include "common/stream.cuh"

// A block has 1024 words, a thread four neighbours: one block of the keystream.
// Four blocks a multiprocessor: left alone, the compiler aims at five on sm_120 and spills.
extern "C" __global__ void __launch_bounds__(256, 4)
    noise_table(const RowsPassParams p, uint32_t* words, const uint32_t* keys, const uint4* thresholds) {
    const uint32_t group = group_index();
    const uint32_t row = group / p.chunks, j = group % p.chunks * 1024 + 4 * threadIdx.x;
    if (group >= p.groups || j >= p.padded) return;
    const StreamKey key(keys + (p.first_row + row) * KEY_WORDS);
    uint32_t u[16], magnitude[4] = {0, 0, 0, 0};
    chacha_block(key.words, (p.first + j) >> 2, key.rounds, u);
    for (uint32_t k = 0; k < p.count; k++) {
        const uint4 t = __ldg(thresholds + k);
        const uint64_t low = static_cast<uint64_t>(t.y) << 32 | t.x, high = static_cast<uint64_t>(t.w) << 32 | t.z;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint64_t ul = static_cast<uint64_t>(u[4 * i + 1]) << 32 | u[4 * i];
            const uint64_t uh = static_cast<uint64_t>(u[4 * i + 3]) << 32 | u[4 * i + 2];
            magnitude[i] += ((uh > high) | ((uh == high) & (ul >= low))) ? 1 : 0;
        }
    }
    const uint32_t wrap = 0xffffffffu >> (32 - p.bits);
    words += row * p.padded;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t negative = 0 - (u[4 * i] & 1);
        if (j + i < p.padded) words[j + i] = (words[j + i] + (magnitude[i] ^ negative) - negative) & wrap;
    }
}
REGISTER_KERNEL(noise_table)

// The ones of both halves of a word, in its halves.
__device__ __forceinline__ uint32_t ones(uint32_t x) {
    x -= (x >> 1) & 0x55555555;
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f;
    return (x + (x >> 8)) & 0x00ff00ff;
}

// A block has 4096 words, a thread the h blocks of 32 neighbours. A count is at most 2k = 8192: 16 bits hold it.
extern "C" __global__ void __launch_bounds__(128)
    noise_binomial(const RowsPassParams p, uint32_t* words, const uint32_t* keys) {
    __shared__ uint32_t counts[2048];
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, start = group % p.chunks * 4096;
    const uint32_t end = min(p.padded, start + 4096);
    const StreamKey key(keys + (p.first_row + row) * KEY_WORDS);
    const uint32_t lines = (p.count + 15) >> 4;
    const uint32_t first = lines * (((p.first + start) >> 5) + threadIdx.x);
    uint32_t sum[16];
#pragma unroll
    for (int i = 0; i < 16; i++) sum[i] = 0;
    for (uint32_t line = 0; line < lines; line++) {
        uint32_t block[16];
        chacha_block(key.words, first + line, key.rounds, block);
        const uint32_t counted = (0xffffu >> (16 - min(16u, p.count - 16 * line))) * 0x10001u;
#pragma unroll
        for (int i = 0; i < 16; i++) sum[i] += ones(block[i] & counted);
    }
    stream_put(counts, threadIdx.x, sum);
    __syncthreads();
    const uint32_t wrap = 0xffffffffu >> (32 - p.bits);
    words += row * p.padded;
#pragma unroll 4
    for (uint32_t j = start + threadIdx.x; j < end; j += 128)
        words[j] = (words[j] + stream_half(counts, j - start) - (p.count >> 1)) & wrap;
}
REGISTER_KERNEL(noise_binomial)
