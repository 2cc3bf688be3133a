// Rows of floats scaled to a bound: x <- x min(1, C / |x|). The numbers are those of shaders/clip.wgsl, bit by bit: see
// there for the arithmetic and its error.
//
// clip_norms: 4 bytes read an element (2 of half precision); a thread keeps its 16 elements in registers between maximum
// and sum.
// clip_mixed: the same, for the mixed clip. clip_factors: one block a row; clip_scale, encode_place: 8 bytes an element (6 of half precision), neighbours by
// neighbouring threads.
// Rows start anywhere, so that loads are of 4 bytes: a warp has 16 of them in flight a thread, 2 KiB.
#include "common/half.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"
#include "common/scaled.cuh"
#include "common/wide.cuh"

// Words of a row in `states`: N (3), bits of the largest |x|, factor, its exponent, shrink, clamped coordinates.
constexpr uint32_t STATE_WORDS = 8;
// The bits of infinity.
constexpr uint32_t INFINITE = 0x7f800000;

__device__ __forceinline__ uint32_t biased_exponent(uint32_t x) { return max((x >> 23) & 255, 1u); }

// floor(m^2 2^16 / 4^(top - e)) of a float.
__device__ __forceinline__ Wide square(uint32_t x, uint32_t top) {
    const uint64_t m = (x & 0x7fffff) | ((x & INFINITE) == 0 ? 0 : 0x800000);
    return wide_of(right64(m * m << 16, 2 * (top - biased_exponent(x))));
}

// |x| of the elements t, t + 256, .. of a chunk, zeros behind its `left` elements.
template <class T>
__device__ __forceinline__ void magnitudes(uint32_t (&v)[16], const T* x, uint32_t left) {
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t j = threadIdx.x + 256 * i;
        v[i] = j < left ? widened(x[j]) & 0x7fffffff : 0;
    }
}

extern "C" __global__ void __launch_bounds__(256) clip_norms(const RowsPassParams p, const uint32_t* rows, uint4* parts) {
    __shared__ uint32_t greatest[8];
    __shared__ uint4 warps[8];
    const uint32_t group = group_index(), t = threadIdx.x;
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, chunk = group % p.chunks;
    const uint32_t first = p.offset + row * p.stride + chunk * 4096;
    const uint32_t left = min(p.dim - chunk * 4096, 4096u);
    uint32_t v[16], most = 0;
    // Outside of the loops, so that all loads of a thread are on their way at once.
    if (p.element == 0) magnitudes(v, rows + first, left);
    else if (p.element == 1) magnitudes(v, reinterpret_cast<const F16*>(rows) + first, left);
    else magnitudes(v, reinterpret_cast<const Bf16*>(rows) + first, left);
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) most = max(most, v[i]);
    const uint32_t top = block_greatest(greatest, most);
    Wide sum = {0, 0, 0};
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) sum = wide_add(sum, square(v[i], biased_exponent(top)));
    const uint4 part = wide_total(warps, make_uint4(sum.x, sum.y, sum.z, 0));
    if (t == 0) parts[(p.first_row + row) * p.chunks + chunk] = make_uint4(part.x, part.y, part.z, top);
}
REGISTER_KERNEL(clip_norms)

// The bits of |y|, infinity as the largest float.
__device__ __forceinline__ uint32_t mixed_magnitude(uint32_t x, float factor) {
    return min(__float_as_uint(__uint_as_float(x) * factor) & 0x7fffffff, INFINITE - 1);
}

// v of a float, in units of 4^(top - 158).
__device__ __forceinline__ Wide mixed_norm(uint32_t a, uint32_t top) {
    const uint32_t fraction = __float_as_uint(__uint_as_float(a) - floorf(__uint_as_float(a)));
    const uint32_t e = biased_exponent(fraction);
    const uint64_t m = (fraction & 0x7fffff) | ((fraction & INFINITE) == 0 ? 0 : 0x800000);
    // p and p^2 in units of 2^-62.
    const uint64_t once = right64(m << (max(e, 88u) - 88), 88 - min(e, 88u));
    const Wide twice = square(fraction, 127);
    const uint64_t rest = once - (static_cast<uint64_t>(twice.y) << 32 | twice.x);
    return wide_add(square(a, top), wide_of(right64(rest, 2 * (top - 127))));
}

extern "C" __global__ void __launch_bounds__(256) clip_mixed(const RowsPassParams p, const uint32_t* rows, uint4* parts) {
    __shared__ uint32_t greatest[8];
    __shared__ uint4 warps[8];
    const uint32_t group = group_index(), t = threadIdx.x;
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, chunk = group % p.chunks;
    const uint32_t* x = rows + row * p.padded + chunk * 4096;
    const uint32_t left = min(p.padded - chunk * 4096, 4096u);
    // From the bits of 1 on.
    uint32_t v[16], most = 0x3f800000;
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) v[i] = t + 256 * i < left ? mixed_magnitude(x[t + 256 * i], p.factor) : 0;
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) most = max(most, v[i]);
    const uint32_t top = block_greatest(greatest, most);
    Wide sum = {0, 0, 0};
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) sum = wide_add(sum, mixed_norm(v[i], biased_exponent(top)));
    const uint4 part = wide_total(warps, make_uint4(sum.x, sum.y, sum.z, 0));
    if (t == 0) parts[(p.first_row + row) * p.chunks + chunk] = make_uint4(part.x, part.y, part.z, top);
}
REGISTER_KERNEL(clip_mixed)

// floor(sqrt(n)).
__device__ __forceinline__ uint32_t root(uint64_t n) {
    uint32_t r = 0;
    for (uint32_t bit = 0x80000000u; bit > 0; bit >>= 1) {
        const uint64_t s = static_cast<uint64_t>(r | bit) * (r | bit);
        r |= s <= n ? bit : 0;
    }
    return r;
}

// floor(b 2^31 / r) for 2^31 <= r, b < 2 r.
__device__ __forceinline__ uint32_t quotient(uint32_t b, uint32_t r) {
    uint32_t q = b >= r ? 1 : 0, rest = b - (b >= r ? r : 0);
    for (int i = 0; i < 31; i++) {
        const uint64_t twice = static_cast<uint64_t>(rest) << 1;
        const bool fits = twice >= r;
        rest = static_cast<uint32_t>(twice - (fits ? r : 0));
        q = q << 1 | (fits ? 1 : 0);
    }
    return q;
}

extern "C" __global__ void __launch_bounds__(256) clip_factors(const RowsPassParams p, const uint4* parts, uint32_t* states) {
    __shared__ uint32_t greatest[8];
    __shared__ uint4 warps[8];
    const uint32_t row = group_index(), t = threadIdx.x;
    if (row >= p.groups) return;
    parts += row * p.chunks;
    uint32_t most = 0;
    for (uint32_t i = t; i < p.chunks; i += 256) most = max(most, parts[i].w);
    const uint32_t top = block_greatest(greatest, most);
    Wide sum = {0, 0, 0};
    for (uint32_t i = t; i < p.chunks; i += 256) {
        const uint4 part = parts[i];
        const uint32_t shift = 2 * (biased_exponent(top) - biased_exponent(part.w));
        sum = wide_add(sum, wide_right({part.x, part.y, part.z}, shift));
    }
    const uint4 all = wide_total(warps, make_uint4(sum.x, sum.y, sum.z, 0));
    if (t != 0) return;
    const Wide n = {all.x, all.y, all.z};
    // min(1, bound / norm) as f 2^x, f in [1/2, 1] rounded to 24 bits. An even shift, so that the root moves by whole bits.
    const uint32_t zeros = wide_zeros(n) & ~1u;
    const Wide high = wide_left(n, zeros);
    const uint32_t q = quotient(p.bound_mantissa, max(root(static_cast<uint64_t>(high.z) << 32 | high.y), 0x80000000u));
    const uint32_t whole = q >> 31;
    const uint32_t bits = q << (1 - whole);
    const float f = static_cast<float>((bits >> 8) + ((bits >> 7) & 1)) * 5.9604644775390625e-8f;
    // norm = root 2^16 2^(-zeros / 2) 2^(top - 158).
    const int32_t x = p.bound_exponent + static_cast<int32_t>(zeros >> 1) - static_cast<int32_t>(biased_exponent(top)) + 142 +
                      static_cast<int32_t>(whole);
    const bool one = (x > 0) | ((x == 0) & (f == 1.0f)) | (zeros == 96);
    uint32_t* state = states + row * STATE_WORDS;
    state[0] = n.x;
    state[1] = n.y;
    state[2] = n.z;
    state[3] = top;
    state[4] = one ? 0x3f800000 : __float_as_uint(f);
    state[5] = one ? 0 : static_cast<uint32_t>(x);
}
REGISTER_KERNEL(clip_factors)

extern "C" __global__ void __launch_bounds__(256) clip_scale(const RowsPassParams p, uint32_t* rows, const uint32_t* states) {
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, start = group % p.chunks * 4096;
    const uint32_t end = min(p.dim, start + 4096);
    uint32_t* x = rows + p.offset + row * p.stride;
    const uint32_t* state = states + (p.first_row + row) * STATE_WORDS;
    const uint32_t f = state[4];
    const int32_t exponent = static_cast<int32_t>(state[5]);
    // A factor 1 leaves the bits as they are.
    const bool one = f == 0x3f800000 && exponent == 0;
#pragma unroll 8
    for (uint32_t j = start + threadIdx.x; j < end; j += 256) {
        const uint32_t v = x[j];
        const float y = scaled(__uint_as_float(v), f, exponent);
        x[j] = one ? v : __float_as_uint(y);
    }
}
REGISTER_KERNEL(clip_scale)

struct Placing {
    uint32_t dim, rotate, f, finite;
    int32_t exponent;
};

template <class T>
__device__ __forceinline__ void place(const Placing& p, const T* x, const uint32_t* signs, uint32_t* out, uint32_t start, uint32_t end) {
#pragma unroll 8
    for (uint32_t j = start + threadIdx.x; j < end; j += 256) {
        uint32_t v = 0;
        if (j < p.dim) {
            const uint32_t sign = ((signs[(j >> 5) * p.rotate] >> (j & 31)) & p.rotate) << 31;
            v = (__float_as_uint(scaled(__uint_as_float(widened(x[j])), p.f, p.exponent)) ^ sign) & p.finite;
        }
        out[j] = v;
    }
}

// Row by row: factor, sign where bit j % 32 of word j / 32 is set, zeros from `dim` on. A row with NaN or an
// infinity becomes zeros.
extern "C" __global__ void __launch_bounds__(256)
    encode_place(const RowsPassParams p, const uint32_t* rows, const uint32_t* states, const uint32_t* signs, uint32_t* out) {
    const uint32_t group = group_index();
    if (group >= p.groups) return;
    const uint32_t row = group / p.chunks, start = group % p.chunks * 4096;
    const uint32_t end = min(p.padded, start + 4096), first = p.offset + row * p.stride;
    const uint32_t* state = states + (p.first_row + row) * STATE_WORDS;
    const uint32_t finite = state[3] < INFINITE ? 0xffffffff : 0;
    const Placing placing = {p.dim, p.rotate, state[4], finite, static_cast<int32_t>(state[5])};
    out += row * p.padded;
    if (p.element == 0) place(placing, rows + first, signs, out, start, end);
    else if (p.element == 1) place(placing, reinterpret_cast<const F16*>(rows) + first, signs, out, start, end);
    else place(placing, reinterpret_cast<const Bf16*>(rows) + first, signs, out, start, end);
}
REGISTER_KERNEL(encode_place)
