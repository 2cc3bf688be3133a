// The low b bits of words side by side, and back; see shaders/pack.wgsl. A thread has one word of the result.
//
// pack: b / 8 bytes written a value and 4 read, some of them twice, from the cache; 5 operations a value read.
// unpack: the other way.
#include "common/params.cuh"
#include "common/platform.cuh"

// Rows of `padded` words to rows of `dim` words.
extern "C" __global__ void __launch_bounds__(256) pack(const RowsPassParams p, const uint32_t* words, uint32_t* packed) {
    const uint32_t group = group_index();
    const uint32_t row = group / p.chunks, w = group % p.chunks * 256 + threadIdx.x;
    if (group >= p.groups || w >= p.dim) return;
    const uint32_t mask = 0xffffffffu >> (32 - p.bits);
    // The first value with a bit in word w, and how many of its bits came before: 32 w = b (32 (w / b)) + 32 (w % b).
    const uint32_t rest = 32 * (w % p.bits), before = rest % p.bits;
    uint32_t j = 32 * (w / p.bits) + rest / p.bits;
    words += row * p.padded;
    uint32_t out = j < p.padded ? (words[j] & mask) >> before : 0;
    for (uint32_t at = p.bits - before; at < 32; at += p.bits) {
        j++;
        if (j < p.padded) out |= (words[j] & mask) << at;
    }
    packed[row * p.dim + w] = out;
}
REGISTER_KERNEL(pack)

// One row: `padded` words from `dim` packed ones.
extern "C" __global__ void __launch_bounds__(256) unpack(const RowsPassParams p, const uint32_t* packed, uint32_t* words) {
    const uint32_t group = group_index(), j = group * 256 + threadIdx.x;
    if (group >= p.groups || j >= p.padded) return;
    // Bit b j, without overflow.
    const uint32_t low = (j & 31) * p.bits, at = (j >> 5) * p.bits + (low >> 5), shift = low & 31;
    uint32_t x = packed[at] >> shift;
    if (shift + p.bits > 32) x |= packed[at + 1] << (32 - shift);
    words[j] = x & (0xffffffffu >> (32 - p.bits));
}
REGISTER_KERNEL(unpack)
