// Integers of 96 bits as little-endian words, and the sum of such numbers over a block; as in shaders/common/wide.wgsl.
// No branch on an operand.
#pragma once

#include "platform.cuh"

struct Wide {
    uint32_t x, y, z;
};

__device__ __forceinline__ Wide wide_of(uint64_t a) { return {static_cast<uint32_t>(a), static_cast<uint32_t>(a >> 32), 0}; }

// a + b mod 2^96.
__device__ __forceinline__ Wide wide_add(Wide a, Wide b) {
    const uint64_t x = static_cast<uint64_t>(a.x) + b.x;
    const uint64_t y = static_cast<uint64_t>(a.y) + b.y + (x >> 32);
    return {static_cast<uint32_t>(x), static_cast<uint32_t>(y), a.z + b.z + static_cast<uint32_t>(y >> 32)};
}

// a / 2^n without the fraction, for n < 64 of the low 64 bits; 0 from n = 64 on.
__device__ __forceinline__ uint64_t right64(uint64_t a, uint32_t n) { return n < 64 ? a >> n : 0; }

// floor(a / 2^n); 0 from n = 96 on.
__device__ __forceinline__ Wide wide_right(Wide a, uint32_t n) {
    const uint32_t words = n >> 5, bits = n & 31;
    const uint32_t x = words == 0 ? a.x : words == 1 ? a.y : words == 2 ? a.z : 0;
    const uint32_t y = words == 0 ? a.y : words == 1 ? a.z : 0;
    const uint32_t z = words == 0 ? a.z : 0;
    return {__funnelshift_r(x, y, bits), __funnelshift_r(y, z, bits), z >> bits};
}

// a 2^n mod 2^96; 0 from n = 96 on.
__device__ __forceinline__ Wide wide_left(Wide a, uint32_t n) {
    const uint32_t words = n >> 5, bits = n & 31;
    const uint32_t z = words == 0 ? a.z : words == 1 ? a.y : words == 2 ? a.x : 0;
    const uint32_t y = words == 0 ? a.y : words == 1 ? a.x : 0;
    const uint32_t x = words == 0 ? a.x : 0;
    return {x << bits, __funnelshift_l(x, y, bits), __funnelshift_l(y, z, bits)};
}

// Zeros above the highest one; 96 for 0.
__device__ __forceinline__ uint32_t wide_zeros(Wide a) {
    const uint32_t low = a.y == 0 ? 64 + __clz(static_cast<int>(a.x)) : 32 + __clz(static_cast<int>(a.y));
    return a.z == 0 ? low : __clz(static_cast<int>(a.z));
}

// The sum over a block of 256 threads, in thread 0: (x, y, z) as one number, w for itself. By warps: 5 exchanges of four
// words each, then one warp for the eight sums. `warps` is shared memory for this alone.
__device__ __forceinline__ uint4 wide_total(uint4 (&warps)[8], uint4 mine) {
    const auto add = [](uint4 a, uint4 b) {
        const Wide sum = wide_add({a.x, a.y, a.z}, {b.x, b.y, b.z});
        return make_uint4(sum.x, sum.y, sum.z, a.w + b.w);
    };
    const auto across = [&add](uint4 a, int lanes) {
        for (int bit = lanes / 2; bit > 0; bit /= 2) {
            const uint4 other = make_uint4(__shfl_xor_sync(0xffffffffu, a.x, bit), __shfl_xor_sync(0xffffffffu, a.y, bit),
                                           __shfl_xor_sync(0xffffffffu, a.z, bit), __shfl_xor_sync(0xffffffffu, a.w, bit));
            a = add(a, other);
        }
        return a;
    };
    const uint4 warp = across(mine, 32);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = warp;
    __syncthreads();
    return threadIdx.x < 32 ? across(warps[threadIdx.x % 8], 8) : mine;
}

// The greatest over a block of 256 threads, in all of them. `greatest` is shared memory for this alone.
__device__ __forceinline__ uint32_t block_greatest(uint32_t (&greatest)[8], uint32_t mine) {
    const uint32_t warp = __reduce_max_sync(0xffffffffu, mine);
    if (threadIdx.x % 32 == 0) greatest[threadIdx.x / 32] = warp;
    __syncthreads();
    uint32_t most = 0;
    for (int i = 0; i < 8; i++) most = max(most, greatest[i]);
    return most;
}
