// The ends of decode: residues to floats before the transform, signs and scale after it; see shaders/decode.wgsl. Both in
// place: 8 bytes an element, 16 elements a thread.
#include "common/params.cuh"
#include "common/platform.cuh"

// Residues mod 2^b to floats in (-2^(b-1), 2^(b-1)].
extern "C" __global__ void __launch_bounds__(256) decode_centre(const FlatPassParams p, uint32_t* x) {
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t wrap = 0xffffffffu >> (32 - p.bits), end = min(p.len, (group + 1) * 4096);
#pragma unroll 8
    for (uint32_t i = group * 4096 + threadIdx.x; i < end; i += 256) {
        const uint32_t residue = x[i] & wrap;
        const bool negative = residue > (wrap >> 1) + 1;
        const float v = __uint2float_rn(negative ? (0 - residue) & wrap : residue);
        x[i] = __float_as_uint(negative ? -v : v);
    }
}
REGISTER_KERNEL(decode_centre)

// v factor unit, negated where bit i % 32 of word i / 32 of the signs is set; `first` is the number of the first element,
// `count` 0 leaves the signs.
extern "C" __global__ void __launch_bounds__(256) decode_finish(const FlatPassParams p, uint32_t* x, const uint32_t* signs) {
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t end = min(p.len, (group + 1) * 4096);
#pragma unroll 8
    for (uint32_t i = group * 4096 + threadIdx.x; i < end; i += 256) {
        const uint32_t j = p.first + i;
        const uint32_t sign = ((signs[(j >> 5) * p.count] >> (j & 31)) & p.count) << 31;
        x[i] = __float_as_uint(__uint_as_float(x[i]) * p.factor * p.unit) ^ sign;
    }
}
REGISTER_KERNEL(decode_finish)
