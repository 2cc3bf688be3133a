// Negacyclic butterflies on a tile of 2^TILE residues of one row, in registers and dynamic shared memory.
//
// A thread holds 2^R residues whose numbers in the tile differ in R bits: the highest R, then bits R .. 2 R - 1, then the
// lowest R (the other way round for the inverse); between the rounds they are exchanged through shared memory. The stage
// of distance 2^b multiplies by roots[(N + place) >> (b + 1)], `place` the number in the row: a heap of nodes, table entry
// k = psi^brv(k) with its Shoup quotient.
//
// Residues stay below 4 p forward and below 2 p backward (Harvey 2014); p < 2^30.
#pragma once

#include "modular.cuh"
#include "platform.cuh"

struct NttRing {
    uint32_t p;
    // Value and quotient of each node of the row's limb.
    const uint2* roots;

    // (a, b) <- (a + w b, a - w b), from and to [0, 4 p).
    __device__ __forceinline__ void forward(uint32_t& a, uint32_t& b, uint2 w) const {
        const uint32_t low = reduce_once(a, 2 * p), product = mul_shoup_lazy(b, w.x, w.y, p);
        a = low + product;
        b = low + 2 * p - product;
    }

    // (a, b) <- (a + b, w (a - b)), from and to [0, 2 p).
    __device__ __forceinline__ void inverse(uint32_t& a, uint32_t& b, uint2 w) const {
        const uint32_t difference = a + 2 * p - b;
        a = reduce_once(a + b, 2 * p);
        b = mul_shoup_lazy(difference, w.x, w.y, p);
    }

    // (a, b) <- (f (a + b), f w (a - b)), from [0, 2 p) to [0, p): the last stage, whose two factors (1/N among them)
    // stand in the two nodes that no other stage uses.
    __device__ __forceinline__ void last(uint32_t& a, uint32_t& b) const {
        const uint2 sum = roots[0], difference = roots[1];
        const uint32_t s = a + b, d = a + 2 * p - b;
        a = mul_shoup(s, sum.x, sum.y, p);
        b = mul_shoup(d, difference.x, difference.y, p);
    }

    // From [0, 4 p) to [0, p).
    __device__ __forceinline__ uint32_t whole(uint32_t x) const { return reduce_once(reduce_once(x, 2 * p), p); }
};

template <int TILE, int R>
struct NttTile {
    static_assert(3 * R >= TILE && 2 * R <= TILE && (R == 4 || R == 5), "three rounds reach all bits");
    NttRing ring;
    // N plus the place of the tile's first residue in its row.
    uint32_t node;

    // The number in the tile of what a thread holds first in the three rounds; entry r is r << (TILE - R), r << R, r later.
    __device__ __forceinline__ static uint32_t high() { return threadIdx.x; }
    __device__ __forceinline__ static uint32_t middle() {
        return (threadIdx.x >> R) << (2 * R) | (threadIdx.x & ((1u << R) - 1));
    }
    __device__ __forceinline__ static uint32_t low() { return threadIdx.x << R; }

    // The place of residue i in shared memory: in all rounds the lanes of a warp meet different banks.
    __device__ __forceinline__ static uint32_t place(uint32_t i) {
        return R == 5 ? i ^ (i >> 5 & 31) : i ^ (i >> 5 & 15) ^ (i >> 8 & 1) << 4;
    }

    __device__ __forceinline__ static void put(const uint32_t (&v)[1 << R], uint32_t first, int step_log2) {
        uint32_t* shared = dynamic_shared<uint32_t>();
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) shared[place(first + (r << step_log2))] = v[r];
    }
    __device__ __forceinline__ static void get(uint32_t (&v)[1 << R], uint32_t first, int step_log2) {
        const uint32_t* shared = dynamic_shared<uint32_t>();
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) v[r] = shared[place(first + (r << step_log2))];
    }

    // The stage of distance 2^B on residues that differ in bits LOW .. LOW + R - 1. The bounds of the loops are constants of
    // their own: else they are not unrolled, and `v` falls into memory.
    template <int LOW, int B, bool FORWARD>
    __device__ __forceinline__ void stage(uint32_t (&v)[1 << R], uint32_t first) const {
        constexpr uint32_t D = B - LOW, HALF = 1u << D, NODES = 1u << (R - 1 - D);
#pragma unroll
        for (uint32_t k = 0; k < NODES; k++) {
            const uint2 w = ring.roots[((node + first) >> (B + 1)) + k];
#pragma unroll
            for (uint32_t j = 0; j < HALF; j++) {
                if constexpr (FORWARD)
                    ring.forward(v[2 * HALF * k + j], v[2 * HALF * k + HALF + j], w);
                else
                    ring.inverse(v[2 * HALF * k + j], v[2 * HALF * k + HALF + j], w);
            }
        }
    }

    // The stages of distance 2^b, LOW <= b < HIGH.
    template <int LOW, int HIGH>
    __device__ __forceinline__ void forward_round(uint32_t (&v)[1 << R], uint32_t first) const {
        if constexpr (HIGH - 1 >= LOW) stage<LOW, HIGH - 1, true>(v, first);
        if constexpr (HIGH - 2 >= LOW) stage<LOW, HIGH - 2, true>(v, first);
        if constexpr (HIGH - 3 >= LOW) stage<LOW, HIGH - 3, true>(v, first);
        if constexpr (HIGH - 4 >= LOW) stage<LOW, HIGH - 4, true>(v, first);
        if constexpr (HIGH - 5 >= LOW) stage<LOW, HIGH - 5, true>(v, first);
    }

    // The same backwards.
    template <int LOW, int HIGH>
    __device__ __forceinline__ void inverse_round(uint32_t (&v)[1 << R], uint32_t first) const {
        if constexpr (LOW < HIGH) stage<LOW, LOW, false>(v, first);
        if constexpr (LOW + 1 < HIGH) stage<LOW, LOW + 1, false>(v, first);
        if constexpr (LOW + 2 < HIGH) stage<LOW, LOW + 2, false>(v, first);
        if constexpr (LOW + 3 < HIGH) stage<LOW, LOW + 3, false>(v, first);
        if constexpr (LOW + 4 < HIGH) stage<LOW, LOW + 4, false>(v, first);
    }

    // The stage of the greatest distance backwards: the last one of a row that is one tile.
    __device__ __forceinline__ void inverse_top(uint32_t (&v)[1 << R], bool whole_row) const {
        constexpr uint32_t HALF = 1u << (R - 1);
        if (whole_row) {
#pragma unroll
            for (uint32_t j = 0; j < HALF; j++) ring.last(v[j], v[HALF | j]);
        } else {
            const uint2 w = ring.roots[node >> TILE];
#pragma unroll
            for (uint32_t j = 0; j < HALF; j++) ring.inverse(v[j], v[HALF | j], w);
        }
    }

    // The 2^(R + 5) residues that a warp holds in the round of the lowest bits, from 128 contiguous bytes a step.
    __device__ __forceinline__ static uint32_t warp_first() { return (threadIdx.x >> 5) << (R + 5) | (threadIdx.x & 31); }

    // The tile that begins at x[first], from [0, 4 p) to [0, p). An index is one register, a pointer two.
    __device__ __forceinline__ void forward(uint32_t* x, uint32_t first) const {
        uint32_t v[1 << R];
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) v[r] = x[first + high() + (r << (TILE - R))];
        forward_round<TILE - R, TILE>(v, high());
        put(v, high(), TILE - R);
        __syncthreads();
        get(v, middle(), R);
        forward_round<R, TILE - R>(v, middle());
        put(v, middle(), R);
        __syncthreads();
        get(v, low(), 0);
        forward_round<0, R>(v, low());
        put(v, low(), 0);
        __syncwarp();
        get(v, warp_first(), 5);
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) x[first + warp_first() + (r << 5)] = ring.whole(v[r]);
    }

    // From [0, p) to [0, p) if the tile is a whole row, else to [0, 2 p).
    __device__ __forceinline__ void inverse(uint32_t* x, uint32_t first, bool whole_row) const {
        uint32_t v[1 << R];
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) v[r] = x[first + warp_first() + (r << 5)];
        put(v, warp_first(), 5);
        __syncwarp();
        get(v, low(), 0);
        inverse_round<0, R>(v, low());
        // What a thread writes here only it has read.
        put(v, low(), 0);
        __syncthreads();
        get(v, middle(), R);
        inverse_round<R, TILE - R>(v, middle());
        put(v, middle(), R);
        __syncthreads();
        get(v, high(), TILE - R);
        inverse_round<TILE - R, TILE - 1>(v, high());
        inverse_top(v, whole_row);
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) x[first + high() + (r << (TILE - R))] = v[r];
    }
};
