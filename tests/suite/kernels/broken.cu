// Kernels with a mistake that the emulation has to notice, and what they would be without it.
#include "common/platform.cuh"

struct BrokenParams {
    uint32_t mistake;
    uint32_t _pad[3];
};

// Each thread reads what its mirror image wrote.
extern "C" __global__ void __launch_bounds__(64) mirror(const BrokenParams p, uint32_t* out, const uint32_t* in) {
    __shared__ uint32_t shared[64];
    shared[threadIdx.x] = in[threadIdx.x];
    if (p.mistake == 0) __syncthreads();
    out[threadIdx.x] = shared[63 - threadIdx.x];
}
REGISTER_KERNEL(mirror)

// The same within a warp, where threads in step would hide the mistake.
extern "C" __global__ void __launch_bounds__(32) mirror_warp(const BrokenParams p, uint32_t* out, const uint32_t* in) {
    uint32_t* shared = dynamic_shared<uint32_t>();
    shared[threadIdx.x] = in[threadIdx.x];
    if (p.mistake == 0) __syncwarp();
    out[threadIdx.x] = shared[31 - threadIdx.x];
}
REGISTER_KERNEL(mirror_warp)

// 1: half of the threads wait at another barrier; 2: one is gone; 3: a shuffle without one of its lanes; 4: a shuffle from
// outside its mask; 5: a word too far.
extern "C" __global__ void __launch_bounds__(64) divergent(const BrokenParams p, uint32_t* out) {
    if (p.mistake == 2 && threadIdx.x == 7) return;
    if (p.mistake == 1 && threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    uint32_t sum = threadIdx.x;
    if (p.mistake == 4) {
        if (threadIdx.x % 32 < 16) sum = __shfl_sync(0x0000ffffu, sum, 20);
    } else if (p.mistake != 3 || threadIdx.x != 40) {
        for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    }
    dynamic_shared<uint32_t>()[p.mistake == 5 ? 64 : threadIdx.x] = sum;
    out[threadIdx.x] = sum;
}
REGISTER_KERNEL(divergent)

// What a warp does together.
extern "C" __global__ void __launch_bounds__(96) together(const BrokenParams p, uint32_t* out) {
    const uint32_t x = threadIdx.x + p.mistake, lane = threadIdx.x % 32;
    out[threadIdx.x] = __reduce_add_sync(0xffffffffu, x);
    out[threadIdx.x + 96] = __ballot_sync(0xffffffffu, x % 3 == 0);
    out[threadIdx.x + 192] = __shfl_down_sync(0xffffffffu, x, 1);
    out[threadIdx.x + 288] = __shfl_up_sync(0xffffffffu, x, 3, 8);
    if (lane % 2 == 0) out[threadIdx.x + 384] = __shfl_sync(0x55555555u, x, 4);
    atomicAdd(out + 480, x);
    atomicMax(out + 481, x);
}
REGISTER_KERNEL(together)
