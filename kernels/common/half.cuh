// Rows of half precision, two elements a word (params::element_kind): the bits of an element as those of a float.
#pragma once

#include "platform.cuh"

struct F16 {
    uint16_t bits;
};

struct Bf16 {
    uint16_t bits;
};

__device__ __forceinline__ uint32_t widened(uint32_t x) { return x; }

__device__ __forceinline__ uint32_t widened(Bf16 x) { return static_cast<uint32_t>(x.bits) << 16; }

// By integers and one exact product: a denormal is its bits times 2^-24. cuda_fp16.h is nothing that the emulation has.
__device__ __forceinline__ uint32_t widened(F16 x) {
    const uint32_t m = x.bits & 0x7fff;
    const uint32_t small = __float_as_uint(static_cast<float>(m) * 5.9604644775390625e-8f);
    const uint32_t large = (m << 13) + (m < 0x7c00 ? 0x38000000 : 0x70000000);
    return (m < 0x400 ? small : large) | static_cast<uint32_t>(x.bits & 0x8000) << 16;
}
