// Walsh-Hadamard transform in place: y = H (scale x) on blocks of 2^k, natural order.
//
// One pass for k <= 15, two above: the blocks of 2^l first, then the columns that run across them (device/fwht.rs plans).
// The three kernels differ in the tile that a block of threads holds: 2^13, 2^14 or 2^15 elements, 32, 64 and 128 KiB of
// shared memory.
//
// Counts, an element and pass: 4 bytes read, 4 written, all in 16-byte vectors, a warp 512 contiguous bytes; one addition
// a transformed bit, one product; 16 bytes of shared memory moved (none for k <= 2). A multiprocessor that moves 128 bytes
// of shared memory and makes 128 additions a cycle needs 16 / 128 + 15 / 128 = 0.24 cycles an element of a block of 2^15,
// while 8 bytes of device memory at 4.3 TB/s, 132 multiprocessors and 1.8 GHz take 0.44: memory is the limit.
// fwht_small serves k <= 1, where the number of elements need not be a multiple of 4. Columns read pieces of 2^columns_log2 elements, at least 32 bytes, one sector.
#include "common/fwht.cuh"
#include "common/platform.cuh"

// The vectors of a tile in memory; those from `len` on, a multiple of 4, are zeros and are not written.
struct FwhtMemory {
    float* x;
    uint32_t len;
    float scale;
    FwhtPlace place;

    __device__ __forceinline__ float4 load(uint32_t a, uint32_t b) const {
        const uint32_t i = place.index(a, b);
        const float4 v = i < len ? *reinterpret_cast<const float4*>(x + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        return make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
    }

    __device__ __forceinline__ void store(uint32_t a, uint32_t b, float4 v) const {
        const uint32_t i = place.index(a, b);
        if (i < len) *reinterpret_cast<float4*>(x + i) = v;
    }
};

template <int TILE, int R>
__device__ __forceinline__ void fwht_pass(const FwhtPassParams& p, float* x) {
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    FwhtTile<TILE, R>{p.active_bits}.run(FwhtMemory{x, p.len, p.scale, FwhtPlace(p, group, TILE)});
}

// Pairs for k = 1 (`active_bits` 1), only the scale for k = 0: thread t has elements 2 t and 2 t + 1.
extern "C" __global__ void __launch_bounds__(256) fwht_small(const FwhtPassParams p, float* x) {
    const uint32_t i = 2 * (group_index() * blockDim.x + threadIdx.x);
    if (group_index() >= p.groups || i >= p.len) return;
    const float a = x[i] * p.scale, b = i + 1 < p.len ? x[i + 1] * p.scale : 0.0f;
    x[i] = p.active_bits != 0 ? a + b : a;
    if (i + 1 < p.len) x[i + 1] = p.active_bits != 0 ? a - b : b;
}
REGISTER_KERNEL(fwht_small)

// The last stage of a block whose halves are two slices, x and y of `len` elements each: thread t has elements 2 t and
// 2 t + 1 of both. 16 bytes moved an element of x, two additions.
extern "C" __global__ void __launch_bounds__(256) fwht_pair(const FwhtPassParams p, float* x, float* y) {
    const uint32_t i = group_index() * blockDim.x + threadIdx.x;
    if (group_index() >= p.groups || 2 * i >= p.len) return;
    const float2 a = reinterpret_cast<const float2*>(x)[i], b = reinterpret_cast<const float2*>(y)[i];
    reinterpret_cast<float2*>(x)[i] = make_float2(a.x + b.x, a.y + b.y);
    reinterpret_cast<float2*>(y)[i] = make_float2(a.x - b.x, a.y - b.y);
}
REGISTER_KERNEL(fwht_pair)

extern "C" __global__ void __launch_bounds__(256, 3) fwht_13(const FwhtPassParams p, float* x) { fwht_pass<13, 5>(p, x); }
REGISTER_KERNEL(fwht_13)  // 16-byte loads

extern "C" __global__ void __launch_bounds__(256, 2) fwht_14(const FwhtPassParams p, float* x) { fwht_pass<14, 6>(p, x); }
REGISTER_KERNEL(fwht_14)  // 16-byte loads

extern "C" __global__ void __launch_bounds__(512, 1) fwht_15(const FwhtPassParams p, float* x) { fwht_pass<15, 6>(p, x); }
REGISTER_KERNEL(fwht_15)  // 16-byte loads
