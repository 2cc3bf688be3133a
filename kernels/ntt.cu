// Negacyclic transforms in place: rows of N = 2^10 .. 2^15 residues, row r modulo prime r mod L; see common/ntt.cuh.
// primes: p, Barrett's reciprocal, shift, 0 a limb. roots: N pairs (value, quotient) a limb, those of psi for the forward
// kernels, of 1/psi for the inverse ones.
//
// A tile of 2^10 .. 2^14 is one block of threads and one pass. For a longer row, or where shared memory holds no whole row,
// the stages of distance 2^local_log2 and above are a pass of their own (ntt_outer_*), at most three, before or after the
// tiles. A tile of 2^15 would leave 1024 threads 64 registers each, of which 32 are residues: it spills.
//
// Counts, a residue and pass: 4 bytes read, 4 written, a warp 128 contiguous bytes; 3 exchanges of 8 bytes of shared memory
// without bank conflicts; a stage half a butterfly, that is 4 operations of which 1.5 are products, and 3/4 .. 15/16 of a
// pair of roots in 4 stages, 8 bytes from the cache (a limb's roots are 8 N bytes, the same for all rows of it).
// N = 4096: 12 / 2 butterflies of 8 operations are 48 a residue, 196 608 a row, 1536 cycles of a multiprocessor with 128
// lanes; with 132 of them at 1.8 GHz 6.5 ns a row, 8 bytes a residue at 4.3 TB/s 7.6 ns: memory and arithmetic are level.
#include "common/ntt.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"

// The ring of the row in which residue `first` lies.
__device__ __forceinline__ NttRing ntt_ring(const NttPassParams& p, uint32_t first, const uint4* primes, const uint2* roots) {
    const uint32_t limb = (first >> p.degree_log2) % p.limbs;
    return NttRing{primes[limb].x, roots + (static_cast<size_t>(limb) << p.degree_log2)};
}

template <int TILE, int R>
__device__ __forceinline__ NttTile<TILE, R> ntt_tile(const NttPassParams& p, const uint4* primes, const uint2* roots) {
    const uint32_t first = group_index() << TILE, n = 1u << p.degree_log2;
    return NttTile<TILE, R>{ntt_ring(p, first, primes, roots), n | (first & (n - 1))};
}

template <int TILE, int R>
__device__ __forceinline__ void ntt_forward(const NttPassParams& p, uint32_t* x, const uint4* primes, const uint2* roots) {
    if (group_index() >= p.groups) return;
    ntt_tile<TILE, R>(p, primes, roots).forward(x, group_index() << TILE);
}

template <int TILE, int R>
__device__ __forceinline__ void ntt_inverse(const NttPassParams& p, uint32_t* x, const uint4* primes, const uint2* roots) {
    if (group_index() >= p.groups) return;
    ntt_tile<TILE, R>(p, primes, roots).inverse(x, group_index() << TILE, p.degree_log2 == TILE);
}

#define NTT_KERNELS(tile, r, forward_blocks, inverse_blocks)                                                           \
    extern "C" __global__ void __launch_bounds__(1 << (tile - r), forward_blocks)                                      \
        ntt_forward_##tile(const NttPassParams p, uint32_t* x, const uint4* primes, const uint2* roots) {              \
        ntt_forward<tile, r>(p, x, primes, roots);                                                                     \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(1 << (tile - r), inverse_blocks)                                      \
        ntt_inverse_##tile(const NttPassParams p, uint32_t* x, const uint4* primes, const uint2* roots) {              \
        ntt_inverse<tile, r>(p, x, primes, roots);                                                                     \
    }

NTT_KERNELS(10, 4, 16, 16)
REGISTER_KERNEL(ntt_forward_10)
REGISTER_KERNEL(ntt_inverse_10)
NTT_KERNELS(11, 4, 8, 8)
REGISTER_KERNEL(ntt_forward_11)
REGISTER_KERNEL(ntt_inverse_11)
NTT_KERNELS(12, 4, 4, 3)
REGISTER_KERNEL(ntt_forward_12)
REGISTER_KERNEL(ntt_inverse_12)
NTT_KERNELS(13, 5, 2, 2)
REGISTER_KERNEL(ntt_forward_13)
REGISTER_KERNEL(ntt_inverse_13)
NTT_KERNELS(14, 5, 1, 1)
REGISTER_KERNEL(ntt_forward_14)
REGISTER_KERNEL(ntt_inverse_14)

// What one thread of a pass across tiles holds: eight residues of a row, N/8 apart.
struct NttOuter {
    NttRing ring;
    uint32_t* x;
    uint32_t step;

    __device__ __forceinline__ NttOuter(const NttPassParams& p, uint32_t* all, const uint4* primes, const uint2* roots)
        : ring{0, nullptr}, x(nullptr), step(1u << (p.degree_log2 - 3)) {
        const uint32_t thread = group_index() * 256 + threadIdx.x, row = thread >> (p.degree_log2 - 3);
        ring = ntt_ring(p, row << p.degree_log2, primes, roots);
        x = all + (static_cast<size_t>(row) << p.degree_log2) + (thread & (step - 1));
    }
    __device__ __forceinline__ void get(uint32_t (&v)[8]) const {
#pragma unroll
        for (uint32_t r = 0; r < 8; r++) v[r] = x[r * step];
    }
    __device__ __forceinline__ void put(const uint32_t (&v)[8]) const {
#pragma unroll
        for (uint32_t r = 0; r < 8; r++) x[r * step] = v[r];
    }
};

// The stages of distance 2^local_log2 and above, N = 2^13 and above; to [0, 4 p).
extern "C" __global__ void __launch_bounds__(256)
    ntt_outer_forward(const NttPassParams p, uint32_t* x, const uint4* primes, const uint2* roots) {
    if (group_index() >= p.groups) return;
    const NttOuter outer(p, x, primes, roots);
    uint32_t v[8];
    outer.get(v);
#pragma unroll
    for (int d = 2; d >= 0; d--) {
        if (p.degree_log2 + d < p.local_log2 + 3) break;
#pragma unroll
        for (uint32_t k = 0; k < 4u >> d; k++) {
            const uint2 w = outer.ring.roots[(4u >> d) + k];
#pragma unroll
            for (uint32_t j = 0; j < 1u << d; j++) outer.ring.forward(v[k << (d + 1) | j], v[k << (d + 1) | 1u << d | j], w);
        }
    }
    outer.put(v);
}
REGISTER_KERNEL(ntt_outer_forward)

// The same backwards, from [0, 2 p) to [0, p).
extern "C" __global__ void __launch_bounds__(256)
    ntt_outer_inverse(const NttPassParams p, uint32_t* x, const uint4* primes, const uint2* roots) {
    if (group_index() >= p.groups) return;
    const NttOuter outer(p, x, primes, roots);
    uint32_t v[8];
    outer.get(v);
#pragma unroll
    for (int d = 0; d < 2; d++) {
        if (p.degree_log2 + d < p.local_log2 + 3) continue;
#pragma unroll
        for (uint32_t k = 0; k < 4u >> d; k++) {
            const uint2 w = outer.ring.roots[(4u >> d) + k];
#pragma unroll
            for (uint32_t j = 0; j < 1u << d; j++) outer.ring.inverse(v[k << (d + 1) | j], v[k << (d + 1) | 1u << d | j], w);
        }
    }
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) outer.ring.last(v[j], v[4 | j]);
    outer.put(v);
}
REGISTER_KERNEL(ntt_outer_inverse)
