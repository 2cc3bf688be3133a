// Doubles in integers, as their bits (low word, high word): WGSL has no f64, and its f32 may lose denormals. Every result is
// that of IEEE 754, to nearest and to even, where neither it nor an operand but zero is below 2^-1022, and none overflows:
// what comes from a few products of f32 does not. Infinities and NaN give NaN. Zero has no sign.
//
// Counts, integer operations: product of two f32 about 45, sum about 80, product of two doubles about 110.

const DOUBLE_SIGN: u32 = 0x80000000u;
const DOUBLE_NAN: vec2<u32> = vec2<u32>(0u, 0x7ff80000u);
const DOUBLE_ZERO: vec2<u32> = vec2<u32>(0u, 0u);

// a 2^n mod 2^64, n < 64.
fn pair_left(a: vec2<u32>, n: u32) -> vec2<u32> {
    let bits = n & 31u;
    // By two shifts: one of 32 bits is none.
    let high = (a.y << bits) | ((a.x >> (31u - bits)) >> 1u);
    return select(vec2(a.x << bits, high), vec2(0u, a.x << bits), n >= 32u);
}

// floor(a / 2^n), n < 64.
fn pair_right(a: vec2<u32>, n: u32) -> vec2<u32> {
    let bits = n & 31u;
    let low = (a.x >> bits) | ((a.y << (31u - bits)) << 1u);
    return select(vec2(low, a.y >> bits), vec2(a.y >> bits, 0u), n >= 32u);
}

// floor(a / 2^n), and a one in the last bit if anything falls off, n < 64.
fn pair_right_sticky(a: vec2<u32>, n: u32) -> vec2<u32> {
    let kept = pair_right(a, n);
    return vec2(kept.x | select(0u, 1u, any(pair_left(kept, n) != a)), kept.y);
}

fn pair_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + wide_below(low, b.x));
}

fn pair_subtract(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2(a.x - b.x, a.y - b.y - wide_below(a.x, b.x));
}

fn pair_is_below(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// Zeros above the highest one; 64 for 0.
fn pair_zeros(a: vec2<u32>) -> u32 {
    return select(countLeadingZeros(a.y), 32u + countLeadingZeros(a.x), a.y == 0u);
}

// The exponent's eleven bits.
fn double_field(a: vec2<u32>) -> u32 {
    return (a.y >> 20u) & 0x7ffu;
}

// The 53 bits of a number that is not zero.
fn double_mantissa(a: vec2<u32>) -> vec2<u32> {
    return vec2(a.x, (a.y & 0xfffffu) | 0x100000u);
}

fn double_negate(a: vec2<u32>) -> vec2<u32> {
    return vec2(a.x, a.y ^ DOUBLE_SIGN);
}

// m 2^(field - 1078), m in [2^55, 2^56) with a last bit that stands for all below it.
fn double_round(sign: u32, field: u32, m: vec2<u32>) -> vec2<u32> {
    let rest = m.x & 7u;
    let kept = pair_right(m, 3u);
    let up = select(0u, 1u, rest > 4u || (rest == 4u && (kept.x & 1u) != 0u));
    let rounded = pair_add(kept, vec2(up, 0u));
    // The leading one, or a carry beyond it, adds one to the exponent.
    return vec2(rounded.x, sign | (((field - 1u) << 20u) + rounded.y));
}

// a + b.
fn double_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let a_size = vec2(a.x, a.y & ~DOUBLE_SIGN);
    let b_size = vec2(b.x, b.y & ~DOUBLE_SIGN);
    let swap = pair_is_below(a_size, b_size);
    let great = select(a, b, swap);
    let small = select(b, a, swap);
    let field = double_field(great);
    let small_field = double_field(small);
    if field == 0x7ffu {
        return DOUBLE_NAN;
    }
    if small_field == 0u {
        return select(great, DOUBLE_ZERO, field == 0u);
    }
    // Three bits below the mantissa: two for a shift by one to the left and for rounding, one for all the rest.
    let m = pair_left(double_mantissa(great), 3u);
    let other = pair_right_sticky(pair_left(double_mantissa(small), 3u), min(field - small_field, 63u));
    let opposite = ((great.y ^ small.y) & DOUBLE_SIGN) != 0u;
    let sum = select(pair_add(m, other), pair_subtract(m, other), opposite);
    let zeros = pair_zeros(sum);
    if zeros == 64u {
        return DOUBLE_ZERO;
    }
    // The leading one is to be bit 55.
    let carried = zeros < 8u;
    let shifted = select(pair_left(sum, max(zeros, 8u) - 8u), pair_right_sticky(sum, 1u), carried);
    return double_round(great.y & DOUBLE_SIGN, field + 8u - zeros, shifted);
}

// The exact product of two f32, given as their bits.
fn double_product(a: u32, b: u32) -> vec2<u32> {
    let a_field = (a >> 23u) & 255u;
    let b_field = (b >> 23u) & 255u;
    if a_field == 255u || b_field == 255u {
        return DOUBLE_NAN;
    }
    let a_mantissa = (a & 0x7fffffu) | select(0u, 0x800000u, a_field != 0u);
    let b_mantissa = (b & 0x7fffffu) | select(0u, 0x800000u, b_field != 0u);
    // At most 48 bits, times 2^(a_field + b_field - 300).
    let product = wide_mul(a_mantissa, b_mantissa);
    let zeros = pair_zeros(product);
    if zeros == 64u {
        return DOUBLE_ZERO;
    }
    let m = pair_left(product, zeros - 11u);
    let field = max(a_field, 1u) + max(b_field, 1u) + 786u - zeros;
    return vec2(m.x, ((a ^ b) & DOUBLE_SIGN) | (((field - 1u) << 20u) + m.y));
}

// An f32, given as its bits.
fn double_of(a: u32) -> vec2<u32> {
    return double_product(a, 0x3f800000u);
}

// a b.
fn double_multiply(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let a_field = double_field(a);
    let b_field = double_field(b);
    if a_field == 0x7ffu || b_field == 0x7ffu {
        return DOUBLE_NAN;
    }
    if a_field == 0u || b_field == 0u {
        return DOUBLE_ZERO;
    }
    let x = pair_left(double_mantissa(a), 11u);
    let y = pair_left(double_mantissa(b), 11u);
    let low = wide_mul(x.x, y.x);
    let one = wide_mul(x.x, y.y);
    let other = wide_mul(x.y, y.x);
    let top = wide_mul(x.y, y.y);
    let upper = wide_add(wide_add(vec3(low.y, top), vec3(one, 0u)), vec3(other, 0u));
    // In [2^126, 2^128): the upper 64 bits, and whether there is anything below.
    let high = upper.yz;
    let zeros = pair_zeros(high);
    let kept = pair_right_sticky(high, 8u - zeros);
    let m = vec2(kept.x | select(0u, 1u, (upper.x | low.x) != 0u), kept.y);
    return double_round((a.y ^ b.y) & DOUBLE_SIGN, a_field + b_field - 1022u - zeros, m);
}

// a / n, 1 <= n <= 2^15. Bit by bit: for what is divided once a result.
fn double_quotient(a: vec2<u32>, n: u32) -> vec2<u32> {
    let field = double_field(a);
    if field == 0u || field == 0x7ffu {
        return select(DOUBLE_NAN, DOUBLE_ZERO, field == 0u);
    }
    let m = double_mantissa(a);
    var quotient = DOUBLE_ZERO;
    var rest = 0u;
    var steps = 0u;
    // 56 bits of the quotient: those of m and the one of a^0 give 38 at least, so 71 steps at most.
    for (; steps < 71u && quotient.y < 0x800000u; steps++) {
        let bit = select(0u, pair_right(m, 52u - min(steps, 52u)).x & 1u, steps < 53u);
        rest = 2u * rest + bit;
        let fits = rest >= n;
        rest = select(rest, rest - n, fits);
        quotient = pair_left(quotient, 1u);
        quotient.x |= select(0u, 1u, fits);
    }
    quotient.x |= select(0u, 1u, rest != 0u);
    return double_round(a.y & DOUBLE_SIGN, field + 56u - steps, quotient);
}

// The bits of the nearest f32, even among two; denormals too, and infinity beyond the largest.
fn double_to_float(a: vec2<u32>) -> u32 {
    let sign = a.y & DOUBLE_SIGN;
    let field = double_field(a);
    if field == 0u || field == 0x7ffu {
        return select(0x7fc00000u, 0u, field == 0u);
    }
    let to = i32(field) - 896;
    if to > 254 {
        return sign | 0x7f800000u;
    }
    let drop = u32(min(29 + max(1 - to, 0), 60));
    let m = double_mantissa(a);
    let kept = pair_right(m, drop);
    let rest = pair_subtract(m, pair_left(kept, drop));
    let half = pair_left(vec2(1u, 0u), drop - 1u);
    let up = pair_is_below(half, rest) || (all(half == rest) && (kept.x & 1u) != 0u);
    return sign | ((u32(max(to, 1) - 1) << 23u) + kept.x + select(0u, 1u, up));
}
