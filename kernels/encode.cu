// The end of the float half of encode, and the integer half but for the noise; see shaders/encode.wgsl.
//
// encode_truncate: 8 bytes an element; encode_norms: 4; encode_settle: 8, and the keystream of encode_round, which then makes
// none. encode_round: 8 bytes and 1/32 of a block of ChaCha an element,
// 30 operations of some 60: at 64 integer operations a cycle and multiprocessor 0.9 cycles an element, where 8 bytes of
// memory take 0.44. Rows of any length start anywhere, so that loads are of 4 bytes, neighbours by neighbouring threads.
#include "common/params.cuh"
#include "common/platform.cuh"
#include "common/scaled.cuh"
#include "common/stream.cuh"
#include "common/wide.cuh"

constexpr uint32_t STATE_WORDS = 8, SHRINK_BITS = 30;

__device__ __forceinline__ uint4 add_parts(uint4 a, uint4 b) {
    const Wide sum = wide_add({a.x, a.y, a.z}, {b.x, b.y, b.z});
    return make_uint4(sum.x, sum.y, sum.z, a.w + b.w);
}

// |x| of a fixed-point coordinate.
__device__ __forceinline__ uint32_t magnitude(uint32_t x) { return x >> 31 != 0 ? 0 - x : x; }

// The norm of a coordinate (norm_kind) after the clamp, and whether it was clamped.
__device__ __forceinline__ uint4 norm_of(uint32_t x, const RowsPassParams& p) {
    const uint32_t unclamped = magnitude(x), a = min(unclamped, p.linf);
    const uint32_t whole = a >> p.fraction_bits, rest = a & ((1u << p.fraction_bits) - 1);
    const uint64_t l2 = static_cast<uint64_t>(a) * a;
    const uint64_t mixed =
        (static_cast<uint64_t>(whole) * whole << p.fraction_bits) + static_cast<uint64_t>(2 * whole + 1) * rest;
    const Wide norm = wide_of(p.norm == 0 ? l2 : mixed);
    return make_uint4(norm.x, norm.y, norm.z, unclamped > p.linf ? 1 : 0);
}

// The mixed clip of a coordinate: with s^2 the ratio, w = s^2 v(y) = (s |y|)^2 + s^2 (p - p^2), g = floor(sqrt(w)), the
// result g + (w - g^2) / (1 + 2g), with the sign of y. It is continuous in w, so that a root that is off by its last bit
// does no harm.
__device__ __forceinline__ float mixed_clip(float y, uint32_t f, int32_t x) {
    const float a = fminf(fabsf(y), 3.40282347e38f), fraction = a - floorf(a);
    const float z = scaled(a, f, x), s = scaled(1.0f, f, x);
    const float w = z * z + s * s * (fraction - fraction * fraction);
    const float g = floorf(__fsqrt_rn(w));
    const float clipped = copysignf(g + (w - g * g) / (1.0f + 2.0f * g), y);
    return f == 0x3f800000 && x == 0 ? y : clipped;
}

// Toward zero; what does not fit becomes the nearest bound, NaN 0: so the instruction does it.
extern "C" __global__ void __launch_bounds__(256)
    encode_truncate(const RowsPassParams p, uint32_t* x, uint4* parts, const uint32_t* states) {
    __shared__ uint4 warps[8];
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, chunk = group % p.chunks;
    const uint32_t end = min(p.padded, chunk * 4096 + 4096);
    const float unit = static_cast<float>(1u << p.fraction_bits);
    const uint32_t* state = states + (p.first_row + row) * STATE_WORDS;
    const uint32_t f = state[4];
    const int32_t exponent = static_cast<int32_t>(state[5]);
    uint4 sum = make_uint4(0, 0, 0, 0);
    x += row * p.padded;
#pragma unroll 8
    for (uint32_t j = chunk * 4096 + threadIdx.x; j < end; j += 256) {
        // Two products: one factor may exceed the largest float where the coordinate does not. 2^F is exact.
        float y = __uint_as_float(x[j]) * p.factor;
        if (p.norm != 0) y = mixed_clip(y, f, exponent);
        const uint32_t v = static_cast<uint32_t>(__float2int_rz(y * unit));
        x[j] = v;
        sum = add_parts(sum, norm_of(v, p));
    }
    sum = wide_total(warps, sum);
    if (threadIdx.x == 0) parts[(p.first_row + row) * p.chunks + chunk] = sum;
}
REGISTER_KERNEL(encode_truncate)

extern "C" __global__ void __launch_bounds__(256) encode_norms(const RowsPassParams p, const uint32_t* fixed, uint4* parts) {
    __shared__ uint4 warps[8];
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, chunk = group % p.chunks;
    const uint32_t end = min(p.padded, chunk * 4096 + 4096);
    uint4 sum = make_uint4(0, 0, 0, 0);
#pragma unroll 8
    for (uint32_t j = chunk * 4096 + threadIdx.x; j < end; j += 256) sum = add_parts(sum, norm_of(fixed[row * p.padded + j], p));
    sum = wide_total(warps, sum);
    if (threadIdx.x == 0) parts[(p.first_row + row) * p.chunks + chunk] = sum;
}
REGISTER_KERNEL(encode_norms)

// True if n c <= bound 2^s: s = 60 and c = num^2 for the L2 norm, s = 30 and c = num for the mixed one.
__device__ __forceinline__ bool within(Wide n, uint32_t num, const RowsPassParams& p) {
    const bool l2 = p.norm == 0;
    const uint64_t c = l2 ? static_cast<uint64_t>(num) * num : num;
    const uint64_t low = c & 0xffffffff, high = c >> 32;
    // Five words of n c, from the lowest; no sum exceeds 64 bits.
    uint32_t left[6], right[6];
    uint64_t carry = n.x * low;
    left[0] = static_cast<uint32_t>(carry);
    carry = (carry >> 32) + n.y * low;
    uint64_t t = n.x * high + (carry & 0xffffffff);
    left[1] = static_cast<uint32_t>(t);
    carry = (carry >> 32) + n.z * low;
    t = (t >> 32) + n.y * high + (carry & 0xffffffff);
    left[2] = static_cast<uint32_t>(t);
    t = (t >> 32) + n.z * high + (carry >> 32);
    left[3] = static_cast<uint32_t>(t);
    left[4] = static_cast<uint32_t>(t >> 32);
    left[5] = 0;
    const uint32_t bits = l2 ? 28 : 30;
    uint32_t shifted[6];
    shifted[0] = p.norm_bound[0] << bits;
#pragma unroll
    for (int i = 1; i < 4; i++) shifted[i] = p.norm_bound[i] << bits | p.norm_bound[i - 1] >> (32 - bits);
    shifted[4] = p.norm_bound[3] >> (32 - bits);
    shifted[5] = 0;
    right[0] = l2 ? 0 : shifted[0];
#pragma unroll
    for (int i = 1; i < 6; i++) right[i] = l2 ? shifted[i - 1] : shifted[i];
    bool greater = false;
#pragma unroll
    for (int i = 0; i < 6; i++) greater = (left[i] > right[i]) | ((left[i] == right[i]) & greater);
    return !greater;
}

extern "C" __global__ void __launch_bounds__(256) encode_shrink(const RowsPassParams p, const uint4* parts, uint32_t* states) {
    __shared__ uint4 warps[8];
    const uint32_t row = group_index();
    if (row >= p.groups) return;
    uint4 sum = make_uint4(0, 0, 0, 0);
    for (uint32_t i = threadIdx.x; i < p.chunks; i += 256) sum = add_parts(sum, parts[row * p.chunks + i]);
    sum = wide_total(warps, sum);
    if (threadIdx.x != 0) return;
    uint32_t num = 0;
    for (uint32_t bit = 1u << SHRINK_BITS; bit > 0; bit >>= 1) num |= within({sum.x, sum.y, sum.z}, num | bit, p) ? bit : 0;
    // A row within the bound leaves the search with all 31 bits set.
    states[row * STATE_WORDS + 6] = min(num, 1u << SHRINK_BITS);
    states[row * STATE_WORDS + 7] = sum.w;
}
REGISTER_KERNEL(encode_shrink)

// A block has 4096 elements, each of its first 128 threads the keystream of 32 neighbours.
extern "C" __global__ void __launch_bounds__(256)
    encode_settle(const RowsPassParams p, uint32_t* words, uint4* parts, const uint32_t* keys) {
    __shared__ uint32_t stream[2048];
    __shared__ uint4 warps[8];
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, chunk = group % p.chunks, start = chunk * 4096;
    const uint32_t end = min(p.padded, start + 4096);
    const bool stochastic = p.rounding == 0;
    if (stochastic && threadIdx.x < 128) {
        const StreamKey key(keys + (p.first_row + row) * KEY_WORDS);
        uint32_t block[16];
        chacha_block(key.words, ((p.first + start) >> 5) + threadIdx.x, key.rounds, block);
        stream_put(stream, threadIdx.x, block);
    }
    __syncthreads();
    const uint32_t fraction = (1u << p.fraction_bits) - 1;
    uint4 sum = make_uint4(0, 0, 0, 0);
    words += row * p.padded;
#pragma unroll 4
    for (uint32_t j = start + threadIdx.x; j < end; j += 256) {
        const uint32_t x = words[j], unclamped = magnitude(x), a = min(unclamped, p.linf);
        uint32_t v = x >> 31 != 0 ? 0 - a : a;
        if (stochastic) {
            const uint32_t uniform = stream_half(stream, j - start) >> (16 - p.fraction_bits);
            v = static_cast<uint32_t>(static_cast<int32_t>(v) >> p.fraction_bits) + (uniform < (v & fraction) ? 1 : 0);
        }
        words[j] = v;
        const uint32_t size = magnitude(v);
        const Wide norm = wide_of(static_cast<uint64_t>(size) * size);
        sum = add_parts(sum, make_uint4(norm.x, norm.y, norm.z, unclamped > p.linf ? 1 : 0));
    }
    sum = wide_total(warps, sum);
    if (threadIdx.x == 0) parts[(p.first_row + row) * p.chunks + chunk] = sum;
}
REGISTER_KERNEL(encode_settle)

// A block has 4096 elements, a thread the keystream of 32 neighbours; `first` is the number of a row's first element here.
extern "C" __global__ void __launch_bounds__(128)
    encode_round(const RowsPassParams p, uint32_t* words, const uint32_t* states, const uint32_t* keys) {
    __shared__ uint32_t stream[2048];
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, start = group % p.chunks * 4096;
    const uint32_t end = min(p.padded, start + 4096);
    const bool stochastic = p.rounding == 0;
    if (stochastic) {
        const StreamKey key(keys + (p.first_row + row) * KEY_WORDS);
        uint32_t block[16];
        chacha_block(key.words, ((p.first + start) >> 5) + threadIdx.x, key.rounds, block);
        stream_put(stream, threadIdx.x, block);
    }
    __syncthreads();
    const uint32_t num = states[(p.first_row + row) * STATE_WORDS + 6];
    const uint32_t wrap = 0xffffffffu >> (32 - p.bits), fraction = (1u << p.fraction_bits) - 1;
    words += row * p.padded;
#pragma unroll 4
    for (uint32_t j = start + threadIdx.x; j < end; j += 128) {
        const uint32_t x = words[j];
        const uint32_t a = static_cast<uint32_t>(static_cast<uint64_t>(min(magnitude(x), p.linf)) * num >> SHRINK_BITS);
        const uint32_t v = x >> 31 != 0 ? 0 - a : a;
        uint32_t out = v;
        if (stochastic) {
            const uint32_t uniform = stream_half(stream, j - start) >> (16 - p.fraction_bits);
            out = static_cast<uint32_t>(static_cast<int32_t>(v) >> p.fraction_bits) + (uniform < (v & fraction) ? 1 : 0);
        }
        words[j] = out & wrap;
    }
}
REGISTER_KERNEL(encode_round)
