// Functions of one thread: atomics (fibers never run at once, so these are plain), bits, rounded arithmetic.
#pragma once

// ---- atomics on u32, i32, u64, f32 ----

namespace emulation {

template <class T>
T replace(T* at, T value) {
    const T old = *at;
    *at = value;
    return old;
}

// The type of the second argument follows from the first, as with CUDA's overloads.
template <class T>
using Same = std::common_type_t<T>;

}  // namespace emulation

template <class T>
T atomicAdd(T* at, emulation::Same<T> value) { return emulation::replace(at, static_cast<T>(*at + value)); }
template <class T>
T atomicSub(T* at, emulation::Same<T> value) { return emulation::replace(at, static_cast<T>(*at - value)); }
template <class T>
T atomicMax(T* at, emulation::Same<T> value) { return emulation::replace(at, *at < value ? value : *at); }
template <class T>
T atomicMin(T* at, emulation::Same<T> value) { return emulation::replace(at, value < *at ? value : *at); }
template <class T>
T atomicOr(T* at, emulation::Same<T> value) { return emulation::replace(at, static_cast<T>(*at | value)); }
template <class T>
T atomicAnd(T* at, emulation::Same<T> value) { return emulation::replace(at, static_cast<T>(*at & value)); }
template <class T>
T atomicXor(T* at, emulation::Same<T> value) { return emulation::replace(at, static_cast<T>(*at ^ value)); }
template <class T>
T atomicExch(T* at, emulation::Same<T> value) { return emulation::replace(at, static_cast<T>(value)); }
template <class T>
T atomicCAS(T* at, emulation::Same<T> expected, emulation::Same<T> value) {
    return emulation::replace(at, *at == expected ? static_cast<T>(value) : *at);
}

// ---- loads, bits ----

template <class T>
T __ldg(const T* at) { return *at; }

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<int64_t>(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<unsigned long long>((static_cast<Wide>(a) * b) >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= ((x >> i) & 1u) << (31 - i);
    return reversed;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>((((static_cast<uint64_t>(high) << 32) | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32) | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    const uint64_t bytes = (static_cast<uint64_t>(y) << 32) | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= static_cast<unsigned>((bytes >> (8 * ((selector >> (4 * i)) & 7))) & 0xff) << (8 * i);
    return result;
}

// ---- the bits of numbers ----

inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(emulation::to_word(x)); }
inline int __float_as_int(float x) { return static_cast<int>(emulation::to_word(x)); }
inline float __uint_as_float(unsigned x) { return emulation::from_word<float>(x); }
inline float __int_as_float(int x) { return emulation::from_word<float>(static_cast<unsigned>(x)); }
inline long long __double_as_longlong(double x) { return static_cast<long long>(emulation::to_word(x)); }
inline double __longlong_as_double(long long x) { return emulation::from_word<double>(static_cast<uint64_t>(x)); }

// ---- arithmetic with the rounding in its name ----

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

// Toward zero; NaN gives 0, what does not fit the nearest bound: as the instruction does.
inline int __float2int_rz(float x) {
    if (std::isnan(x)) return 0;
    if (x >= 2147483648.0f) return INT32_MAX;
    return x < -2147483648.0f ? INT32_MIN : static_cast<int>(x);
}
inline unsigned __float2uint_rz(float x) {
    if (std::isnan(x) || x <= 0.0f) return 0;
    return x >= 4294967296.0f ? UINT32_MAX : static_cast<unsigned>(x);
}

// ---- what CUDA has in the global namespace ----

template <class A, class B>
std::common_type_t<A, B> min(A a, B b) {
    const std::common_type_t<A, B> x = a, y = b;
    return y < x ? y : x;
}
template <class A, class B>
std::common_type_t<A, B> max(A a, B b) {
    const std::common_type_t<A, B> x = a, y = b;
    return x < y ? y : x;
}
