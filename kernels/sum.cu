// acc <- acc + sum of rows, mod 2^b or mod p; see shaders/sum.wgsl. `count` rows of `len` words.
//
// 4 bytes an element of the rows, 8 of the accumulator; one addition, and mod p a subtraction and a minimum. A thread has
// four columns in 16-byte vectors where the rows are made of those.
#include "common/modular.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"

// Columns [j, j + 4), by vectors if `len` is a multiple of 4.
template <class Add>
__device__ __forceinline__ uint4 sum_columns(const FlatPassParams& p, uint4 sum, const uint32_t* rows, uint32_t j, const Add& add) {
    const size_t vectors = p.len / 4;
    const uint4* row = reinterpret_cast<const uint4*>(rows) + j / 4;
#pragma unroll 4
    for (uint32_t i = 0; i < p.count; i++) {
        const uint4 x = row[i * vectors];
        sum = make_uint4(add(sum.x, x.x), add(sum.y, x.y), add(sum.z, x.z), add(sum.w, x.w));
    }
    return sum;
}

template <class Add, class End>
__device__ __forceinline__ void sum_rows(const FlatPassParams& p, uint32_t* acc, const uint32_t* rows, const Add& add, const End& end) {
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    if (p.len % 4 == 0) {
        const uint32_t j = group * 1024 + 4 * threadIdx.x;
        if (j >= p.len) return;
        uint4* at = reinterpret_cast<uint4*>(acc + j);
        const uint4 sum = sum_columns(p, *at, rows, j, add);
        *at = make_uint4(end(sum.x), end(sum.y), end(sum.z), end(sum.w));
        return;
    }
    const uint32_t last = min(p.len, (group + 1) * 1024);
    for (uint32_t j = group * 1024 + threadIdx.x; j < last; j += 256) {
        uint32_t sum = acc[j];
        for (uint32_t i = 0; i < p.count; i++) sum = add(sum, rows[static_cast<size_t>(i) * p.len + j]);
        acc[j] = end(sum);
    }
}

extern "C" __global__ void __launch_bounds__(256) sum_bits(const FlatPassParams p, uint32_t* acc, const uint32_t* rows) {
    const uint32_t wrap = 0xffffffffu >> (32 - p.bits);
    sum_rows(p, acc, rows, [](uint32_t a, uint32_t b) { return a + b; }, [wrap](uint32_t a) { return a & wrap; });
}
REGISTER_KERNEL(sum_bits)  // 16-byte loads

extern "C" __global__ void __launch_bounds__(256) sum_prime(const FlatPassParams p, uint32_t* acc, const uint32_t* rows) {
    const uint32_t modulus = p.modulus;
    sum_rows(p, acc, rows, [modulus](uint32_t a, uint32_t b) { return reduce_once(a + b, modulus); }, [](uint32_t a) { return a; });
}
REGISTER_KERNEL(sum_prime)  // 16-byte loads

// The first place in `residues` that holds no number below `modulus`, or what was there: 4 bytes an element.
extern "C" __global__ void __launch_bounds__(256) sum_residues(const FlatPassParams p, const uint32_t* residues, uint32_t* first_bad) {
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t end = min(p.len, (group + 1) * 4096);
    uint32_t bad = 0xffffffff;
#pragma unroll 8
    for (uint32_t i = group * 4096 + threadIdx.x; i < end; i += 256) bad = min(bad, residues[i] < p.modulus ? 0xffffffff : i);
    if (bad != 0xffffffff) atomicMin(first_bad, bad);
}
REGISTER_KERNEL(sum_residues)
