// Walsh-Hadamard butterflies on a tile of 2^TILE elements, in registers and dynamic shared memory.
//
// A thread holds 2^R elements. The bits of an element's number in the tile are taken in three phases:
//   1  bits 0, 1 (one 16-byte vector) and the highest R - 2 bits, straight from memory;
//   2  bits 2 .. R + 1, after a first exchange through shared memory;
//   3  bits R + 2 .. TILE - R + 1, after a second one; in vectors again, straight to memory.
// Which of them are transformed is said by a mask: all bits of a block, or those of the rows of a tile of columns.
// Vector f lies in place f ^ ((f >> R) & 7) of shared memory, so that in all phases the lanes of a warp meet different
// banks: in phase 2 a lane's words are 4 2^R apart.
//
// Counts, an element: 8 bytes of shared memory moved an exchange, one addition a transformed bit.
#pragma once

#include "params.cuh"
#include "platform.cuh"

// Threads of a block: 2^(TILE - R).
template <int TILE, int R>
struct FwhtTile {
    static_assert(TILE - R >= 5 && 3 * R - 2 >= TILE && R >= 5, "three phases reach all bits, with whole warps");
    static constexpr uint32_t THREADS = 1u << (TILE - R);
    static constexpr uint32_t VECTORS = 1u << (R - 2);
    // First bit of the highest R - 2.
    static constexpr uint32_t TOP = TILE - R + 2;
    uint32_t active;

    // The vector of the tile that this thread holds r-th in phase 1 is first() + first_step(r), the bits of the two
    // being disjoint; in phase 3 likewise. The second part is the same in all threads: r times a power of two.
    __device__ __forceinline__ static uint32_t first() { return threadIdx.x; }
    __device__ __forceinline__ static uint32_t first_step(uint32_t r) { return r * THREADS; }
    __device__ __forceinline__ static uint32_t last() {
        return (threadIdx.x & ((1u << R) - 1)) | threadIdx.x >> R << (2 * R - 2);
    }
    __device__ __forceinline__ static uint32_t last_step(uint32_t r) { return r << R; }

    __device__ __forceinline__ static void stage(float (&v)[1 << R], int b) {
#pragma unroll
        for (int i = 0; i < 1 << R; i++) {
            if ((i >> b & 1) != 0) continue;
            const float sum = v[i] + v[i | 1 << b], difference = v[i] - v[i | 1 << b];
            v[i] = sum;
            v[i | 1 << b] = difference;
        }
    }

    // Butterflies over the bits of the number in `v` that are in ALL and in `bits`. All of them is a case of its own: a
    // stage that may be left out costs the compiler as many moves as additions.
    template <uint32_t ALL>
    __device__ __forceinline__ static void butterflies(float (&v)[1 << R], uint32_t bits) {
        if ((bits & ALL) == ALL) {
#pragma unroll
            for (int b = 0; b < R; b++)
                if ((ALL >> b & 1) != 0) stage(v, b);
        } else {
#pragma unroll
            for (int b = 0; b < R; b++)
                if ((ALL & bits) >> b & 1) stage(v, b);
        }
    }

    __device__ __forceinline__ static float4 vector_of(const float (&v)[1 << R], uint32_t r) {
        return make_float4(v[4 * r], v[4 * r + 1], v[4 * r + 2], v[4 * r + 3]);
    }
    __device__ __forceinline__ static void set_vector(float (&v)[1 << R], uint32_t r, float4 x) {
        v[4 * r] = x.x;
        v[4 * r + 1] = x.y;
        v[4 * r + 2] = x.z;
        v[4 * r + 3] = x.w;
    }

    // From phase 1 to the end of phase 3. `v` holds the vectors `first(r)`, then the vectors `last(r)`.
    //
    // Places are written as one of few addresses plus a constant, so that they need few registers.
    __device__ __forceinline__ void middle(float (&v)[1 << R]) const {
        float4* vectors = dynamic_shared<float4>();
#pragma unroll
        for (uint32_t r = 0; r < VECTORS; r++) {
            // r THREADS changes the turn of a vector only where it reaches bits R .. R + 2 of its number.
            const uint32_t turn = ((threadIdx.x >> R) + (r << (TILE - 2 * R))) & 7;
            vectors[(threadIdx.x ^ turn) + r * THREADS] = vector_of(v, r);
        }
        __syncthreads();
        const uint32_t group = threadIdx.x >> 2, turn = group & 7;
        float* words = dynamic_shared<float>() + ((threadIdx.x & 3) | group << (R + 2));
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) v[r] = words[((r & 7) ^ turn) * 4 + (r & ~7u) * 4];
        butterflies<(1u << R) - 1>(v, active >> 2);
#pragma unroll
        for (uint32_t r = 0; r < 1u << R; r++) words[((r & 7) ^ turn) * 4 + (r & ~7u) * 4] = v[r];
        __syncthreads();
        const uint32_t low = threadIdx.x & ((1u << R) - 1);
        const float4* columns = vectors + (threadIdx.x >> R << (2 * R - 2));
#pragma unroll
        for (uint32_t r = 0; r < VECTORS; r++) set_vector(v, r, columns[(low ^ (r & 7)) + (r << R)]);
        butterflies<(1u << (TOP - R)) - 4>(v, active >> R);
    }

    // Transforms a tile: vector a + b comes from `memory.load(a, b)` and goes to `memory.store(a, b, x)`.
    template <class Memory>
    __device__ __forceinline__ void run(const Memory& memory) const {
        float v[1 << R];
#pragma unroll
        for (uint32_t r = 0; r < VECTORS; r++) set_vector(v, r, memory.load(first(), first_step(r)));
        butterflies<(1u << R) - 1>(v, (active & 3) | active >> TOP << 2);
        middle(v);
#pragma unroll
        for (uint32_t r = 0; r < VECTORS; r++) memory.store(last(), last_step(r), vector_of(v, r));
    }
};

// Where the elements of a tile lie: 2^(TILE - columns_log2) rows, 2^stride_log2 elements apart, of 2^columns_log2
// neighbours. A tile of neighbours only is one row: columns_log2 = stride_log2 = TILE.
struct FwhtPlace {
    uint32_t base, columns_log2, stride_log2;

    __device__ __forceinline__ FwhtPlace(const FwhtPassParams& p, uint32_t group, uint32_t tile_log2)
        : columns_log2(p.columns_log2), stride_log2(p.stride_log2) {
        const uint32_t across = stride_log2 - columns_log2;
        base = (group >> across) << (stride_log2 + tile_log2 - columns_log2) | (group & ((1u << across) - 1)) << columns_log2;
    }

    // How far the first element of vector f lies from that of the tile; additive over the bits of f.
    __device__ __forceinline__ uint32_t spread(uint32_t f) const {
        const uint32_t i = 4 * f;
        return ((i >> columns_log2) << stride_log2) + (i & ((1u << columns_log2) - 1));
    }

    // The number in memory of the first element of vector a + b, for numbers without a common bit; `b` is known to the
    // compiler, and few sums of its bits' parts need fewer registers than a shift each.
    __device__ __forceinline__ uint32_t index(uint32_t a, uint32_t b) const {
        uint32_t i = base + spread(a);
#pragma unroll
        for (int bit = 0; bit < 14; bit++)
            if ((b >> bit & 1) != 0) i += spread(1u << bit);
        return i;
    }
};
