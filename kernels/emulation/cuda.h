// CUDA C on a processor: what a kernel file needs to compile as C++ and to run.
//
// A thread of a block is a fiber with its own stack. launch.cpp runs one fiber until it waits (at a barrier or a warp
// operation) or ends, then another one; the order of the fibers, and of the blocks, is shuffled by a seed. Hence a thread
// that reads what another one wrote without a barrier between finds the old value under some seed, also inside a warp.
// Shared memory is filled with a NaN pattern before each block. Errors, not hangs: threads that wait at different
// barriers, or at a barrier that another thread has passed by its end; lanes of a mask that never arrive, a shuffle from a
// lane outside the mask, writes beyond the dynamic shared memory.
//
// Not emulated: time, memory orders, volatile spinning between blocks or warps.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
// All static shared arrays lie in one section, so that they can be filled before each block.
#define __shared__ static __attribute__((section("veilsum_shared"), aligned(16)))

// ---- vectors ----

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
struct alignas(4) ushort2 { unsigned short x, y; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

// ---- the running thread ----

// Set by launch.cpp whenever it resumes a fiber.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulation {

// What the lanes of a warp do together.
enum class WarpOp { Sync, Shuffle, Ballot, Add, Max, Min, Or, And, Xor };

// Waits for all threads of the block; `line` tells barriers apart.
void barrier(const char* file, int line);
// Waits for the lanes of `mask`; the result is that of `op` on their values. `source` is the lane that a shuffle reads.
uint64_t warp(WarpOp op, unsigned mask, uint64_t value, unsigned source, int line);
// The dynamic shared memory of the block.
void* shared_base();

// How a kernel is called: `buffers` as the pointers of its signature.
using Call = void (*)(void (*kernel)(), const void* params, void* const* buffers);
// Notes a kernel under its name and the file that it stands in; called before main.
void enroll(const char* entry, const char* file, void (*kernel)(), Call call, size_t params_len, int buffers);

template <class T>
uint64_t to_word(T value) {
    static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8, "a warp operation moves at most 8 bytes");
    uint64_t word = 0;
    std::memcpy(&word, &value, sizeof(T));
    return word;
}

template <class T>
T from_word(uint64_t word) {
    T value;
    std::memcpy(&value, &word, sizeof(T));
    return value;
}

template <class Params, class... Pointers, size_t... I>
void call_with(void (*kernel)(Params, Pointers...), const void* params, void* const* buffers, std::index_sequence<I...>) {
    (void)buffers;
    std::remove_const_t<Params> p;
    std::memcpy(&p, params, sizeof(p));
    kernel(p, static_cast<Pointers>(buffers[I])...);
}

// Enrolls a kernel by its type: parameters by value first, then pointers only.
struct Registered {
    template <class Params, class... Pointers>
    Registered(const char* entry, const char* file, void (*kernel)(Params, Pointers...)) {
        static_assert((std::is_pointer<Pointers>::value && ...), "after the parameters a kernel takes buffers");
        enroll(
            entry, file, reinterpret_cast<void (*)()>(kernel),
            [](void (*erased)(), const void* params, void* const* buffers) {
                call_with(reinterpret_cast<void (*)(Params, Pointers...)>(erased), params, buffers,
                          std::index_sequence_for<Pointers...>());
            },
            sizeof(Params), sizeof...(Pointers));
    }
};

// The lane of the running thread.
inline unsigned lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }

}  // namespace emulation

#define REGISTER_KERNEL(entry) static const emulation::Registered registered_##entry{#entry, __FILE__, entry};

template <class T>
inline T* dynamic_shared() {
    return static_cast<T*>(emulation::shared_base());
}

// ---- barriers and warps ----

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulation::barrier(file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emulation::warp(emulation::WarpOp::Sync, mask, 0, 0, line);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const unsigned first = emulation::lane() & ~(width - 1u);
    const unsigned from = first + (static_cast<unsigned>(source) & (width - 1u));
    return emulation::from_word<T>(emulation::warp(emulation::WarpOp::Shuffle, mask, emulation::to_word(value), from, line));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = emulation::lane(), other = lane ^ static_cast<unsigned>(bits);
    // Beyond the own and earlier groups a thread reads its own value.
    const unsigned from = other / width > lane / width ? lane : other;
    return emulation::from_word<T>(emulation::warp(emulation::WarpOp::Shuffle, mask, emulation::to_word(value), from, line));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = emulation::lane();
    const unsigned from = lane % width >= delta ? lane - delta : lane;
    return emulation::from_word<T>(emulation::warp(emulation::WarpOp::Shuffle, mask, emulation::to_word(value), from, line));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned lane = emulation::lane();
    const unsigned from = lane % width + delta < static_cast<unsigned>(width) ? lane + delta : lane;
    return emulation::from_word<T>(emulation::warp(emulation::WarpOp::Shuffle, mask, emulation::to_word(value), from, line));
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return static_cast<unsigned>(emulation::warp(emulation::WarpOp::Ballot, mask, predicate != 0, 0, line));
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) == mask;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return static_cast<unsigned>(emulation::warp(emulation::WarpOp::Add, mask, value, 0, line));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return static_cast<unsigned>(emulation::warp(emulation::WarpOp::Max, mask, value, 0, line));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return static_cast<unsigned>(emulation::warp(emulation::WarpOp::Min, mask, value, 0, line));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return static_cast<unsigned>(emulation::warp(emulation::WarpOp::Or, mask, value, 0, line));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return static_cast<unsigned>(emulation::warp(emulation::WarpOp::And, mask, value, 0, line));
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, int line = __builtin_LINE()) {
    return static_cast<unsigned>(emulation::warp(emulation::WarpOp::Xor, mask, value, 0, line));
}

#include "intrinsics.h"
