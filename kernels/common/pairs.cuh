// Inner products in double precision of all pairs of 16 rows and 16 rows, for 256 threads: thread (i, j) = (t / 16, t % 16)
// gets the pair (i, j). Products of two f32 are exact in f64, so fused and separate additions round alike.
//
// A run of 1024 columns has its own accumulator; the runs are added in their order: 1023 roundings, and one a run.
#pragma once

#include "platform.cuh"

// Columns of a panel in shared memory, and doubles between two rows of it: odd, so that rows do not share banks.
constexpr uint32_t PAIRS_PANEL = 32;
constexpr uint32_t PAIRS_STRIDE = PAIRS_PANEL + 1;
constexpr uint32_t PAIRS_RUN = 1024;

// Rows `stride` floats apart, of which there are `count`; those beyond are zeros.
struct PairsRows {
    const float* x;
    size_t stride;
    uint32_t count;

    // Rows 16 tile .. of columns start .. start + PAIRS_PANEL, widened; zeros from column `end` on.
    __device__ __forceinline__ void fill(uint32_t tile, uint32_t start, uint32_t end, double* panel) const {
        const uint32_t k = threadIdx.x % PAIRS_PANEL, column = start + k;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t row = threadIdx.x / PAIRS_PANEL + 8 * half;
            const bool there = 16 * tile + row < count && column < end;
            panel[row * PAIRS_STRIDE + k] = there ? x[(16 * tile + row) * stride + column] : 0.0f;
        }
    }

    // The products over columns start .. end. Uses 2 x 16 x 33 doubles of dynamic shared memory; ends with a barrier.
    __device__ __forceinline__ double products(uint32_t high, uint32_t low, uint32_t start, uint32_t end) const {
        double* a = dynamic_shared<double>();
        double* b = a + 16 * PAIRS_STRIDE;
        const double* row = a + (threadIdx.x >> 4) * PAIRS_STRIDE;
        const double* column = b + (threadIdx.x & 15) * PAIRS_STRIDE;
        double total = 0;
        for (uint32_t run = start; run < end; run += PAIRS_RUN) {
            double sum = 0;
            for (uint32_t panel = run; panel < min(end, run + PAIRS_RUN); panel += PAIRS_PANEL) {
                fill(high, panel, end, a);
                fill(low, panel, end, b);
                __syncthreads();
#pragma unroll 8
                for (uint32_t k = 0; k < PAIRS_PANEL; k++) sum = fma(row[k], column[k], sum);
                __syncthreads();
            }
            total += sum;
        }
        return total;
    }
};

// The row i of tile number i (i + 1) / 2 + j, j <= i, of a triangle of tiles.
__device__ __forceinline__ uint32_t triangle_row(uint32_t tile) {
    uint32_t i = 0;
    while ((i + 1) * (i + 2) / 2 <= tile) i++;
    return i;
}

// The sum over 256 threads, the same tree every time; in thread 0. Uses 256 doubles of dynamic shared memory.
__device__ __forceinline__ double sum_of_threads(double x) {
    double* sums = dynamic_shared<double>();
    sums[threadIdx.x] = x;
    for (uint32_t half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    return threadIdx.x == 0 ? sums[0] : 0.0;
}
