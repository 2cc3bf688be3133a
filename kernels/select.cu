// Median and trimmed mean of every coordinate over n rows. A group sorts 2^columns_log2 coordinates of 2^rows_log2 rows
// (n, then values above all others) in shared memory by a bitonic network, as words whose order is that of the floats; -0
// counts as 0.
//
// Counts, a value: 4 bytes read (pieces of 2^columns_log2 neighbours a row), r (r + 1) / 2 steps of 16 bytes of shared memory
// for two values and 6 operations, r = rows_log2; neighbouring threads have neighbouring coordinates, so that no two meet
// in a bank. n = 16: 80 bytes a value, at 128 bytes a cycle, 132 multiprocessors and 1.8 GHz 3.8e11 values a second:
// shared memory is the limit (4 bytes at 4.3 TB/s are 1.1e12).
//
// Up to 32 rows are sorted in the registers of one thread a coordinate (the kernels _rows_N): n = 10 takes 80 comparators of
// 2 operations and 6 a value, 220 for 44 bytes: 1.4e11 coordinates a second by arithmetic, 1.0e11 by memory, the limit.
#include "common/params.cuh"
#include "common/platform.cuh"

// The word whose order as an integer is that of the float with these bits; 0 and -0 are one.
__device__ __forceinline__ uint32_t select_key(uint32_t bits) {
    const uint32_t x = bits == 0x80000000u ? 0 : bits;
    return (x & 0x80000000u) != 0 ? ~x : x | 0x80000000u;
}

__device__ __forceinline__ float select_value(uint32_t key) {
    return __uint_as_float((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
}

// first <- max(first, 2^32 - 1 - (row dim + coordinate)) if the float is not finite.
__device__ __forceinline__ void select_check(const SelectParams& p, uint32_t bits, uint32_t row, uint32_t coordinate, uint32_t* first) {
    if ((bits & 0x7f800000u) == 0x7f800000u) atomicMax(first, ~(row * p.dim + coordinate));
}

// Puts the group's keys in order: row r of coordinate c in word r 2^columns_log2 + c.
__device__ __forceinline__ void select_sort(const SelectParams& p, const uint32_t* x, uint32_t* first) {
    uint32_t* keys = dynamic_shared<uint32_t>();
    const uint32_t columns = 1u << p.columns_log2, words = 1u << (p.rows_log2 + p.columns_log2);
    for (uint32_t i = threadIdx.x; i < words; i += blockDim.x) {
        const uint32_t row = i >> p.columns_log2, coordinate = (group_index() << p.columns_log2) + (i & (columns - 1));
        uint32_t key = 0xffffffffu;
        if (row < p.rows && coordinate < p.dim) {
            const uint32_t bits = x[p.offset + row * p.stride + coordinate];
            select_check(p, bits, row, coordinate, first);
            key = select_key(bits);
        }
        keys[i] = key;
    }
    for (uint32_t k = 1; k <= p.rows_log2; k++) {
        for (uint32_t j = k; j-- > 0;) {
            __syncthreads();
            for (uint32_t i = threadIdx.x; i < words / 2; i += blockDim.x) {
                const uint32_t pair = i >> p.columns_log2, column = i & (columns - 1);
                const uint32_t row = (pair >> j) << (j + 1) | (pair & ((1u << j) - 1));
                uint32_t* const low = keys + (row << p.columns_log2) + column;
                uint32_t* const high = low + (1u << (j + p.columns_log2));
                const uint32_t a = *low, b = *high;
                const bool ascending = (row >> k & 1) == 0;
                *low = ascending ? min(a, b) : max(a, b);
                *high = ascending ? max(a, b) : min(a, b);
            }
        }
    }
    __syncthreads();
}

__device__ __forceinline__ void median(const SelectParams& p, const uint32_t* x, float* out, uint32_t* first) {
    if (group_index() >= p.groups) return;
    select_sort(p, x, first);
    for (uint32_t column = threadIdx.x; column < 1u << p.columns_log2; column += blockDim.x) {
        const uint32_t coordinate = (group_index() << p.columns_log2) + column;
        if (coordinate >= p.dim) break;
        const uint32_t* keys = dynamic_shared<uint32_t>() + column;
        const double low = select_value(keys[((p.rows - 1) / 2) << p.columns_log2]);
        const double high = select_value(keys[(p.rows / 2) << p.columns_log2]);
        out[coordinate] = static_cast<float>((low + high) / 2);
    }
}

__device__ __forceinline__ void trimmed_mean(const SelectParams& p, const uint32_t* x, float* out, uint32_t* first) {
    if (group_index() >= p.groups) return;
    select_sort(p, x, first);
    for (uint32_t column = threadIdx.x; column < 1u << p.columns_log2; column += blockDim.x) {
        const uint32_t coordinate = (group_index() << p.columns_log2) + column;
        if (coordinate >= p.dim) break;
        const uint32_t* keys = dynamic_shared<uint32_t>() + column;
        double sum = 0;
        for (uint32_t row = p.trim; row < p.rows - p.trim; row++) sum += select_value(keys[row << p.columns_log2]);
        out[coordinate] = static_cast<float>(sum / static_cast<double>(p.rows - 2 * p.trim));
    }
}

// The steps of the network from distance J of runs of K on. Templates, so that every index is a constant and `v` stays in
// registers.
template <int N, int K, int J>
__device__ __forceinline__ void select_network(uint32_t (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        if ((i & J) != 0) continue;
        const uint32_t low = min(v[i], v[i | J]), high = max(v[i], v[i | J]);
        v[i] = (i & K) == 0 ? low : high;
        v[i | J] = (i & K) == 0 ? high : low;
    }
    if constexpr (J > 1)
        select_network<N, K, J / 2>(v);
    else if constexpr (K < N)
        select_network<N, 2 * K, K>(v);
}

// The sorted keys of the thread's coordinate, those beyond the last row above all others.
template <int N>
__device__ __forceinline__ void select_registers(const SelectParams& p, const uint32_t* x, uint32_t coordinate, uint32_t* first, uint32_t (&v)[N]) {
#pragma unroll
    for (uint32_t row = 0; row < N; row++) v[row] = row < p.rows ? x[p.offset + row * p.stride + coordinate] : 0;
#pragma unroll
    for (uint32_t row = 0; row < N; row++) {
        select_check(p, v[row], row, coordinate, first);
        v[row] = row < p.rows ? select_key(v[row]) : 0xffffffffu;
    }
    select_network<N, 2, 1>(v);
}

template <int N>
__device__ __forceinline__ void median_rows(const SelectParams& p, const uint32_t* x, float* out, uint32_t* first) {
    const uint32_t coordinate = group_index() * 256 + threadIdx.x;
    if (group_index() >= p.groups || coordinate >= p.dim) return;
    uint32_t v[N], low = 0, high = 0;
    select_registers<N>(p, x, coordinate, first, v);
#pragma unroll
    for (uint32_t row = 0; row < N; row++) {
        low = row == (p.rows - 1) / 2 ? v[row] : low;
        high = row == p.rows / 2 ? v[row] : high;
    }
    out[coordinate] = static_cast<float>((static_cast<double>(select_value(low)) + static_cast<double>(select_value(high))) / 2);
}

template <int N>
__device__ __forceinline__ void trimmed_mean_rows(const SelectParams& p, const uint32_t* x, float* out, uint32_t* first) {
    const uint32_t coordinate = group_index() * 256 + threadIdx.x;
    if (group_index() >= p.groups || coordinate >= p.dim) return;
    uint32_t v[N];
    select_registers<N>(p, x, coordinate, first, v);
    double sum = 0;
#pragma unroll
    for (uint32_t row = 0; row < N; row++)
        if (row >= p.trim && row < p.rows - p.trim) sum += select_value(v[row]);
    out[coordinate] = static_cast<float>(sum / static_cast<double>(p.rows - 2 * p.trim));
}

#define SELECT_KERNELS(n)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        median_rows_##n(const SelectParams p, const uint32_t* x, float* out, uint32_t* first) {                        \
        median_rows<n>(p, x, out, first);                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        trimmed_mean_rows_##n(const SelectParams p, const uint32_t* x, float* out, uint32_t* first) {                  \
        trimmed_mean_rows<n>(p, x, out, first);                                                                        \
    }

SELECT_KERNELS(8)
REGISTER_KERNEL(median_rows_8)
REGISTER_KERNEL(trimmed_mean_rows_8)
SELECT_KERNELS(16)
REGISTER_KERNEL(median_rows_16)
REGISTER_KERNEL(trimmed_mean_rows_16)
SELECT_KERNELS(32)
REGISTER_KERNEL(median_rows_32)
REGISTER_KERNEL(trimmed_mean_rows_32)

extern "C" __global__ void __launch_bounds__(256)
    median_12(const SelectParams p, const uint32_t* x, float* out, uint32_t* first) { median(p, x, out, first); }
REGISTER_KERNEL(median_12)

extern "C" __global__ void __launch_bounds__(1024)
    median_15(const SelectParams p, const uint32_t* x, float* out, uint32_t* first) { median(p, x, out, first); }
REGISTER_KERNEL(median_15)

extern "C" __global__ void __launch_bounds__(256)
    trimmed_mean_12(const SelectParams p, const uint32_t* x, float* out, uint32_t* first) { trimmed_mean(p, x, out, first); }
REGISTER_KERNEL(trimmed_mean_12)

extern "C" __global__ void __launch_bounds__(1024)
    trimmed_mean_15(const SelectParams p, const uint32_t* x, float* out, uint32_t* first) { trimmed_mean(p, x, out, first); }
REGISTER_KERNEL(trimmed_mean_15)
