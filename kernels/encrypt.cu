// One-shot encryption: c = a s in the order of the transform, then `intt`, then c += e + 2^o sum_z 2^(w z) m_z.
// No branch and no address depends on the secret, the errors or the message.
// A key is eight words, then the number of rounds.
//
// Counts: a block of ChaCha20 is about 1000 operations for 8 residues of a, or for 32 halfwords of errors, of which a
// coefficient takes h = ceil(2 eta / 16). A residue costs encrypt_expand 125 operations, 8 bytes read (pairs of s, from the
// cache after the first block) and 4 written: 132 multiprocessors of 128 lanes at 1.8 GHz make 2.4e11 residues a second, at
// 4 bytes 1 TB/s: the cipher is the limit. encrypt_finish reads and writes 4 bytes a residue and reads 4 a message value.
#include "common/modular.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"
#include "common/prg.cuh"

// seen <- seen | (all values of the message): whether one is too wide, and nothing else about them.
extern "C" __global__ void __launch_bounds__(256)
    encrypt_width(const EncryptPassParams p, const uint32_t* values, uint32_t* seen) {
    if (group_index() >= p.groups) return;
    uint32_t any = 0;
    for (uint32_t k = 0; k < 8; k++) {
        const uint32_t i = group_index() * 2048 + k * 256 + threadIdx.x;
        if (i < p.len) any |= values[i];
    }
    any = __reduce_or_sync(0xffffffffu, any);
    if ((threadIdx.x & 31) == 0) atomicOr(seen, any);
}
REGISTER_KERNEL(encrypt_width)

// c <- a s: a thread makes the eight residues of one block of `key`. secret: pairs (value, quotient), [L x N].
extern "C" __global__ void __launch_bounds__(256)
    encrypt_expand(const EncryptPassParams p, uint4* c, const uint4* secret, const uint4* primes, const uint32_t* key) {
    const uint32_t block = group_index() * 256 + threadIdx.x;
    if (group_index() >= p.groups || block >= p.len / 8) return;
    const uint32_t row = (8 * block) >> p.degree_log2, limb = row % p.limbs;
    const uint32_t prime = primes[limb].x;
    // Two pairs a vector: residue i of the limb is half of vector i / 2.
    const uint4* s = secret + ((limb << p.degree_log2) + ((8 * block) & ((1u << p.degree_log2) - 1))) / 2;
    uint32_t words[16], products[8];
    chacha_block(key, p.first * (p.limbs << (p.degree_log2 - 3)) + block, key[8], words);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint4 pair = s[i];
        const uint32_t even = scale_word(words[4 * i], words[4 * i + 1], prime);
        const uint32_t odd = scale_word(words[4 * i + 2], words[4 * i + 3], prime);
        products[2 * i] = mul_shoup(even, pair.x, pair.y, prime);
        products[2 * i + 1] = mul_shoup(odd, pair.z, pair.w, prime);
    }
    c[2 * block] = make_uint4(products[0], products[1], products[2], products[3]);
    c[2 * block + 1] = make_uint4(products[4], products[5], products[6], products[7]);
}
REGISTER_KERNEL(encrypt_expand)  // 16-byte loads

// The ones of the counted halfwords of 32 coordinates, two coordinates a word: coordinate 32 line + r in halfword r.
__device__ __forceinline__ void encrypt_ones(const EncryptPassParams& p, const uint32_t* key, uint32_t line, uint32_t (&ones)[16]) {
    const uint32_t halfwords = (2 * p.eta + 15) / 16;
#pragma unroll
    for (int i = 0; i < 16; i++) ones[i] = 0;
    for (uint32_t h = 0; h < halfwords; h++) {
        uint32_t words[16];
        chacha_block(key, halfwords * line + h, key[8], words);
        const uint32_t counted = min(2 * p.eta - 16 * h, 16u), mask = (1u << counted) - 1;
#pragma unroll
        for (int i = 0; i < 16; i++) ones[i] += __popc(words[i] & mask) + (__popc(words[i] >> 16 & mask) << 16);
    }
}

// c += e + m over 4096 coefficients of all limbs. units: pairs (value, quotient) of 2^(o + w z) mod p, [L x k]. A thread
// draws 32 errors; word k of the thread's sixteen lies in place k ^ (thread / 2 mod 16), so that the lanes of a warp meet
// different banks.
extern "C" __global__ void __launch_bounds__(128)
    encrypt_finish(const EncryptPassParams p, uint32_t* c, const uint32_t* message, const uint4* primes, const uint2* units,
                   const uint32_t* key) {
    if (group_index() >= p.groups) return;
    uint32_t* errors = dynamic_shared<uint32_t>();
    uint32_t ones[16];
    encrypt_ones(p, key, (p.first << (p.degree_log2 - 5)) + group_index() * 128 + threadIdx.x, ones);
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) errors[16 * threadIdx.x + (i ^ (threadIdx.x >> 1 & 15))] = ones[i];
    __syncthreads();
    const uint32_t n = 1u << p.degree_log2;
    for (uint32_t k = threadIdx.x; k < 4096; k += 128) {
        const uint32_t coefficient = group_index() * 4096 + k;
        if (coefficient >= p.len) break;
        const uint32_t pair = errors[(k >> 1) ^ (k >> 6 & 15)];
        const uint32_t drawn = (k & 1) != 0 ? pair >> 16 : pair & 0xffff;
        const uint32_t block = coefficient >> p.degree_log2, i = coefficient & (n - 1);
        for (uint32_t limb = 0; limb < p.limbs; limb++) {
            const uint32_t prime = primes[limb].x;
            // 2 eta <= 8192 < p: the smallest prime that is 1 mod 2048 is 12289.
            uint32_t sum = reduce_once(drawn + prime - p.eta, prime);
            for (uint32_t z = 0; z < p.slots; z++) {
                const uint32_t at = ((block * p.slots + z) << p.degree_log2) + i;
                const uint2 unit = units[limb * p.slots + z];
                if (at < p.values) sum = add_mod(sum, mul_shoup(message[at], unit.x, unit.y, prime), prime);
            }
            uint32_t* out = c + ((static_cast<size_t>(block) * p.limbs + limb) << p.degree_log2) + i;
            *out = add_mod(*out, sum, prime);
        }
    }
}
REGISTER_KERNEL(encrypt_finish)
