// Arithmetic modulo p < 2^30 without 64-bit integers: the functions of kernels/common/modular.cuh. No branch on an operand.

struct Wide {
    low: u32,
    high: u32,
}

// The 64-bit product, from 16-bit halves.
fn mul_wide(a: u32, b: u32) -> Wide {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    // No sum overflows: (2^16 - 1)^2 + 2 (2^16 - 1) = 2^32 - 1.
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let cross = a0 * b1 + (middle & 0xffffu);
    return Wide(a * b, a1 * b1 + (middle >> 16u) + (cross >> 16u));
}

// floor(a b / 2^32).
fn mul_high(a: u32, b: u32) -> u32 {
    return mul_wide(a, b).high;
}

// floor(a_i b / 2^32) in each lane.
fn mul_high4(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    let a0 = a & vec4<u32>(0xffffu);
    let a1 = a >> vec4<u32>(16u);
    let b0 = b & vec4<u32>(0xffffu);
    let b1 = b >> vec4<u32>(16u);
    let middle = a1 * b0 + ((a0 * b0) >> vec4<u32>(16u));
    let cross = a0 * b1 + (middle & vec4<u32>(0xffffu));
    return a1 * b1 + (middle >> vec4<u32>(16u)) + (cross >> vec4<u32>(16u));
}

// x or x - p, whichever is in [0, p), for x < 2 p: x - p wraps to a large number where x < p.
fn reduce_once(x: u32, p: u32) -> u32 {
    return min(x, x - p);
}

fn reduce_once4(x: vec4<u32>, p: u32) -> vec4<u32> {
    return min(x, x - vec4<u32>(p));
}

// a + b mod p and a - b mod p of residues.
fn add_mod(a: u32, b: u32, p: u32) -> u32 {
    return reduce_once(a + b, p);
}

fn sub_mod(a: u32, b: u32, p: u32) -> u32 {
    return reduce_once(a + p - b, p);
}

// w x - q p with q = floor(quotient x / 2^32), quotient = floor(w 2^32 / p) (Shoup): in [0, 2 p) and congruent to w x,
// for any x.
fn mul_shoup_lazy(x: u32, w: u32, quotient: u32, p: u32) -> u32 {
    return x * w - mul_high(x, quotient) * p;
}

fn mul_shoup_lazy4(x: vec4<u32>, w: vec4<u32>, quotient: vec4<u32>, p: u32) -> vec4<u32> {
    return x * w - mul_high4(x, quotient) * p;
}

// w x mod p.
fn mul_shoup(x: u32, w: u32, quotient: u32, p: u32) -> u32 {
    return reduce_once(mul_shoup_lazy(x, w, quotient, p), p);
}

// a b mod p of residues, both unknown beforehand (Barrett): prime = (p, reciprocal, shift, _) with n the bits of p,
// shift = n - 1, reciprocal = floor(2^2n / p) 2^(31 - n). The quotient is short by at most 2.
fn mul_prime(a: u32, b: u32, prime: vec4<u32>) -> u32 {
    let product = mul_wide(a, b);
    // floor(a b / 2^shift) < 2^(n + 1), shift in 1..=29.
    let top = (product.low >> prime.z) | (product.high << (32u - prime.z));
    let rest = product.low - mul_high(top, prime.y) * prime.x;
    return reduce_once(reduce_once(rest, prime.x), prime.x);
}

// floor(u p / 2^64) for the 64-bit number u = low + 2^32 high.
fn scale_word(low: u32, high: u32, p: u32) -> u32 {
    let product = mul_wide(high, p);
    let sum = product.low + mul_high(low, p);
    return product.high + select(0u, 1u, sum < product.low);
}
