// Residues of an RNS basis, [batch x L x N]: the check that they are reduced, and the product entry by entry.
// Counts: 4 bytes read a residue for the check; 8 read (4 and a cached factor, if there is one polynomial for all) and 4
// written for the product, with three 32-bit products, one shift and four additions.
#include "common/modular.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"

// first <- max(first, 2^32 - 1 - index) over the residues that are not below their prime: 0 if there is none. A thread
// has four neighbours.
extern "C" __global__ void __launch_bounds__(256)
    residues_check(const ResidueParams p, const uint4* x, const uint4* primes, uint32_t* first) {
    const uint32_t i = 4 * (group_index() * 256 + threadIdx.x);
    if (group_index() >= p.groups || i >= p.len) return;
    const uint32_t prime = primes[(i >> p.degree_log2) % p.limbs].x;
    const uint4 v = x[i / 4];
    const uint32_t place = v.x >= prime ? 0 : v.y >= prime ? 1 : v.z >= prime ? 2 : v.w >= prime ? 3 : 4;
    if (place < 4) atomicMax(first, ~(i + place));
}
REGISTER_KERNEL(residues_check)  // 16-byte loads

// a <- a b; b has as many residues as a, or those of one polynomial.
extern "C" __global__ void __launch_bounds__(256)
    residues_multiply(const ResidueParams p, uint4* a, const uint4* b, const uint4* primes) {
    const uint32_t i = 4 * (group_index() * 256 + threadIdx.x);
    if (group_index() >= p.groups || i >= p.len) return;
    const uint4 prime = primes[(i >> p.degree_log2) % p.limbs];
    const uint4 x = a[i / 4], y = b[(i % p.other_len) / 4];
    a[i / 4] = make_uint4(mul_prime(x.x, y.x, prime), mul_prime(x.y, y.y, prime), mul_prime(x.z, y.z, prime),
                          mul_prime(x.w, y.w, prime));
}
REGISTER_KERNEL(residues_multiply)  // 16-byte loads
