// Products with a factor f 2^x whose exponent may lie beyond that of floats.
#pragma once

#include "platform.cuh"

// 2^x for -126 <= x <= 0.
__device__ __forceinline__ float power(int32_t x) { return __uint_as_float(static_cast<uint32_t>(x + 127) << 23); }

// v f 2^x, rounded once unless the result is denormal.
__device__ __forceinline__ float scaled(float v, uint32_t f, int32_t x) {
    const int32_t a = max(x, -126), b = max(x - a, -126), c = max(x - a - b, -126);
    return v * __uint_as_float(f) * power(a) * power(b) * power(c);
}
