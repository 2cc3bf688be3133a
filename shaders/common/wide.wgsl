// Integers of 64 and 96 bits as little-endian words: WGSL has none wider than 32 bits. No branch on an operand.

// a b: low word, high word. By halves of 16 bits, none of whose sums overflows.
fn wide_mul(a: u32, b: u32) -> vec2<u32> {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return vec2(a * b, (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u));
}

// 1 if a < b, else 0.
fn wide_below(a: u32, b: u32) -> u32 {
    return select(0u, 1u, a < b);
}

// a + b mod 2^96.
fn wide_add(a: vec3<u32>, b: vec3<u32>) -> vec3<u32> {
    let x = a.x + b.x;
    let carry = wide_below(x, b.x);
    let y = a.y + b.y;
    let z = y + carry;
    return vec3(x, z, a.z + b.z + wide_below(y, b.y) + wide_below(z, carry));
}

// floor(a / 2^n); 0 from n = 96 on.
fn wide_right(a: vec3<u32>, n: u32) -> vec3<u32> {
    let words = n >> 5u;
    let bits = n & 31u;
    let zero = select(0u, a.z, words == 2u);
    let x = select(select(zero, a.y, words == 1u), a.x, words == 0u);
    let y = select(select(0u, a.z, words == 1u), a.y, words == 0u);
    let z = select(0u, a.z, words == 0u);
    // By two shifts: one of 32 bits is none.
    return vec3((x >> bits) | ((y << (31u - bits)) << 1u), (y >> bits) | ((z << (31u - bits)) << 1u), z >> bits);
}

// a 2^n mod 2^96; 0 from n = 96 on.
fn wide_left(a: vec3<u32>, n: u32) -> vec3<u32> {
    let words = n >> 5u;
    let bits = n & 31u;
    let two = select(0u, a.x, words == 2u);
    let z = select(select(two, a.y, words == 1u), a.z, words == 0u);
    let y = select(select(0u, a.x, words == 1u), a.y, words == 0u);
    let x = select(0u, a.x, words == 0u);
    return vec3(x << bits, (y << bits) | ((x >> (31u - bits)) >> 1u), (z << bits) | ((y >> (31u - bits)) >> 1u));
}

// Zeros above the highest one; 96 for 0.
fn wide_zeros(a: vec3<u32>) -> u32 {
    let low = select(32u + countLeadingZeros(a.y), 64u + countLeadingZeros(a.x), a.y == 0u);
    return select(countLeadingZeros(a.z), low, a.z == 0u);
}
