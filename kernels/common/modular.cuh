// Arithmetic modulo p < 2^30, as src/math/modular.rs has it: no branch on an operand.
#pragma once

#include "platform.cuh"

// x or x - p, whichever is in [0, p), for x < 2 p.
__device__ __forceinline__ uint32_t reduce_once(uint32_t x, uint32_t p) {
    // x - p wraps to a large number where x < p.
    return min(x, x - p);
}

// a + b mod p and a - b mod p of residues.
__device__ __forceinline__ uint32_t add_mod(uint32_t a, uint32_t b, uint32_t p) { return reduce_once(a + b, p); }
__device__ __forceinline__ uint32_t sub_mod(uint32_t a, uint32_t b, uint32_t p) { return reduce_once(a + p - b, p); }

// w x - q p with q = floor(quotient x / 2^32), quotient = floor(w 2^32 / p) (Shoup): in [0, 2 p) and congruent to w x,
// for any x.
__device__ __forceinline__ uint32_t mul_shoup_lazy(uint32_t x, uint32_t w, uint32_t quotient, uint32_t p) {
    return x * w - __umulhi(x, quotient) * p;
}

// w x mod p.
__device__ __forceinline__ uint32_t mul_shoup(uint32_t x, uint32_t w, uint32_t quotient, uint32_t p) {
    return reduce_once(mul_shoup_lazy(x, w, quotient, p), p);
}

// x mod p for any x; reciprocal = floor((2^64 - 1) / p), so that the quotient is short by at most 1 (Barrett).
__device__ __forceinline__ uint32_t reduce_wide(uint64_t x, uint32_t p, uint64_t reciprocal) {
    const uint64_t quotient = __umul64hi(x, reciprocal);
    return reduce_once(static_cast<uint32_t>(x - quotient * p), p);
}

// a b mod p of residues, both unknown beforehand.
__device__ __forceinline__ uint32_t mul_mod(uint32_t a, uint32_t b, uint32_t p, uint64_t reciprocal) {
    return reduce_wide(static_cast<uint64_t>(a) * b, p, reciprocal);
}

// a b mod p of residues, both unknown beforehand, in 32-bit words (Barrett): prime = (p, reciprocal, shift, _) with n the
// bits of p, shift = n - 1, reciprocal = floor(2^2n / p) 2^(31 - n). The quotient is short by at most 2.
__device__ __forceinline__ uint32_t mul_prime(uint32_t a, uint32_t b, uint4 prime) {
    const uint32_t high = __umulhi(a, b), low = a * b;
    // floor(a b / 2^shift) < 2^(n + 1), shift in 1..=29.
    const uint32_t quotient = __umulhi(__funnelshift_r(low, high, prime.z), prime.y);
    const uint32_t rest = low - quotient * prime.x;
    return reduce_once(reduce_once(rest, prime.x), prime.x);
}

// floor(u p / 2^64) for the 64-bit number u = low + 2^32 high.
__device__ __forceinline__ uint32_t scale_word(uint32_t low, uint32_t high, uint32_t p) {
    return static_cast<uint32_t>((static_cast<uint64_t>(high) * p + __umulhi(low, p)) >> 32);
}
