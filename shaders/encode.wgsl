// The end of the float width of encode, and the integer width but for the noise (host plan: device/encode.rs).
//
// encode_truncate: floats in place to fixed point, and their norm: 8 bytes an element. With the mixed norm the records of
//   rows are those of clip_mixed.
// encode_norms: the norm alone, of fixed point from elsewhere: 4 bytes an element.
// encode_settle: where the norm is that of the rounded integers: clamp and rounding in place, and their norm; then
//   encode_shrink, and encode_round to shrink and wrap. 8 bytes and 1/32 of a block of ChaCha an element.
// encode_shrink: the chunks of a row to the exact norm and to the largest num <= 2^30 with which x num / 2^30 keeps the
//   bound: 31 steps whatever the row holds, so that nothing has to go to the host. One group a row.
// encode_round: in place: clamp, shrink, rounding with 16 keystream bits an element, wrap. 8 bytes and 1/32 of a block of
//   ChaCha an element: 30 operations of some 60; with noise to follow, that is what takes the time.
//
// Norms are sums of integers below 2^63 over at most 2^32 elements: exact in 96 bits.

const STATE_WORDS: u32 = 8u;
const SHRINK_BITS: u32 = 30u;

@group(0) @binding(0) var<uniform> p: RowsPassParams;
@group(0) @binding(1) var<storage, read_write> truncate_x: array<u32>;
@group(0) @binding(2) var<storage, read_write> truncate_parts: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> truncate_states: array<u32>;
@group(0) @binding(1) var<storage, read> norms_fixed: array<u32>;
@group(0) @binding(2) var<storage, read_write> norms_parts: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> settle_words: array<u32>;
@group(0) @binding(2) var<storage, read_write> settle_parts: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> settle_keys: array<u32>;
@group(0) @binding(1) var<storage, read> shrink_parts: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> shrink_states: array<u32>;
@group(0) @binding(1) var<storage, read_write> round_words: array<u32>;
@group(0) @binding(2) var<storage, read> round_states: array<u32>;
@group(0) @binding(3) var<storage, read> round_keys: array<u32>;

var<workgroup> sums: array<vec4<u32>, 256>;
var<workgroup> halves: array<u32, 2048>;

fn add_parts(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
    return vec4(wide_add(a.xyz, b.xyz), a.w + b.w);
}

// The sum over the threads of a group, in thread 0.
fn total(t: u32, mine: vec4<u32>) -> vec4<u32> {
    sums[t] = mine;
    for (var width = 128u; width > 0u; width >>= 1u) {
        workgroupBarrier();
        if t < width {
            sums[t] = add_parts(sums[t], sums[t + width]);
        }
    }
    return sums[t];
}

// |x| of a fixed-point coordinate.
fn magnitude(x: u32) -> u32 {
    return select(x, 0u - x, (x >> 31u) != 0u);
}

// The norm of a coordinate (norm_kind) after the clamp, and whether it was clamped.
fn norm_of(x: u32) -> vec4<u32> {
    let unclamped = magnitude(x);
    let a = min(unclamped, p.linf);
    let whole = a >> p.fraction_bits;
    let rest = a & ((1u << p.fraction_bits) - 1u);
    let l2 = wide_mul(a, a);
    let w = wide_mul(whole, whole);
    let mixed = wide_add(wide_left(vec3(w, 0u), p.fraction_bits), vec3(wide_mul(2u * whole + 1u, rest), 0u));
    return vec4(select(mixed, vec3(l2, 0u), p.norm == 0u), wide_below(p.linf, unclamped));
}

// Toward zero; what does not fit becomes the nearest bound, NaN 0.
fn truncated(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    let negative = (bits >> 31u) != 0u;
    let least = bits & 0x7fffffffu;
    let inside = bitcast<u32>(i32(select(0.0, v, least < 0x4f000000u)));
    let beyond = select(0u, select(0x7fffffffu, 0x80000000u, negative), least <= 0x7f800000u);
    return select(beyond, inside, least < 0x4f000000u);
}

// 2^x for -126 <= x <= 0.
fn power(x: i32) -> f32 {
    return bitcast<f32>(u32(x + 127) << 23u);
}

// v f 2^x.
fn scaled(v: f32, f: u32, x: i32) -> f32 {
    let a = max(x, -126);
    let b = max(x - a, -126);
    let c = max(x - a - b, -126);
    return v * bitcast<f32>(f) * power(a) * power(b) * power(c);
}

// The mixed clip of a coordinate: with s^2 the ratio, w = s^2 v(y) = (s |y|)^2 + s^2 (p - p^2), g = floor(sqrt(w)), the
// result g + (w - g^2) / (1 + 2g), with the sign of y. It is continuous in w, so that a root that is off by its last bit
// does no harm.
fn mixed_clip(y: f32, f: u32, x: i32) -> f32 {
    let bits = bitcast<u32>(y);
    let a = bitcast<f32>(min(bits & 0x7fffffffu, 0x7f7fffffu));
    let fraction = a - floor(a);
    let z = scaled(a, f, x);
    let s = scaled(1.0, f, x);
    let w = z * z + s * s * (fraction - fraction * fraction);
    let g = floor(sqrt(w));
    let clipped = bitcast<u32>(g + (w - g * g) / (1.0 + 2.0 * g)) | (bits & 0x80000000u);
    return bitcast<f32>(select(clipped, bits, f == 0x3f800000u && x == 0));
}

@compute @workgroup_size(256)
fn encode_truncate(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let row = group / p.chunks;
    let start = group % p.chunks * 4096u;
    let end = min(p.padded, start + 4096u);
    // Two products: one factor may exceed the largest float where the coordinate does not. 2^F is exact.
    let unit = f32(1u << p.fraction_bits);
    let state = (p.first_row + row) * STATE_WORDS;
    let f = truncate_states[state + 4u];
    let exponent = bitcast<i32>(truncate_states[state + 5u]);
    var sum = vec4(0u);
    for (var j = start + t; j < end; j += 256u) {
        var y = bitcast<f32>(truncate_x[row * p.padded + j]) * p.factor;
        if p.norm == 1u {
            y = mixed_clip(y, f, exponent);
        }
        let x = truncated(y * unit);
        truncate_x[row * p.padded + j] = x;
        sum = add_parts(sum, norm_of(x));
    }
    sum = total(t, sum);
    if t == 0u {
        truncate_parts[(p.first_row + row) * p.chunks + group % p.chunks] = sum;
    }
}

@compute @workgroup_size(256)
fn encode_norms(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let row = group / p.chunks;
    let start = group % p.chunks * 4096u;
    let end = min(p.padded, start + 4096u);
    var sum = vec4(0u);
    for (var j = start + t; j < end; j += 256u) {
        sum = add_parts(sum, norm_of(norms_fixed[row * p.padded + j]));
    }
    sum = total(t, sum);
    if t == 0u {
        norms_parts[(p.first_row + row) * p.chunks + group % p.chunks] = sum;
    }
}

// True if n c <= bound 2^s: s = 60 and c a square for the L2 norm, s = 30 for the mixed one.
fn within(n: vec3<u32>, num: u32) -> bool {
    let squared = wide_mul(num, num);
    let low = select(num, squared.x, p.norm == 0u);
    let high = select(0u, squared.y, p.norm == 0u);
    // n low + n high 2^32, five words.
    let a = wide_mul(n.x, low);
    let b = wide_mul(n.y, low);
    let c = wide_mul(n.z, low);
    let d = wide_mul(n.x, high);
    let e = wide_mul(n.y, high);
    let f = wide_mul(n.z, high);
    let first = wide_add(vec3(a.y, b.y, c.y), vec3(b.x, c.x, 0u));
    // Words 1 .. 4 of the products with `high`; they and `first` end below 2^160.
    let second = wide_add(vec3(d.y, e.y, f.y), vec3(e.x, f.x, 0u));
    let x1 = first.x + d.x;
    let carry = wide_below(x1, d.x);
    let above = wide_add(wide_add(vec3(first.y, first.z, 0u), second), vec3(carry, 0u, 0u));
    // bound 2^s, six words: by 32 bits for the L2 norm and by 28 or 30 more.
    let bits = select(30u, 28u, p.norm == 0u);
    let n0 = p.norm_bound.x << bits;
    let n1 = (p.norm_bound.y << bits) | (p.norm_bound.x >> (32u - bits));
    let n2 = (p.norm_bound.z << bits) | (p.norm_bound.y >> (32u - bits));
    let n3 = (p.norm_bound.w << bits) | (p.norm_bound.z >> (32u - bits));
    let n4 = p.norm_bound.w >> (32u - bits);
    let l2 = p.norm == 0u;
    let r0 = select(n0, 0u, l2);
    let r1 = select(n1, n0, l2);
    let r2 = select(n2, n1, l2);
    let r3 = select(n3, n2, l2);
    let r4 = select(n4, n3, l2);
    let r5 = select(0u, n4, l2);
    // Word by word from the lowest: whether the left side is greater.
    var greater = a.x > r0;
    greater = (x1 > r1) | ((x1 == r1) & greater);
    greater = (above.x > r2) | ((above.x == r2) & greater);
    greater = (above.y > r3) | ((above.y == r3) & greater);
    greater = (above.z > r4) | ((above.z == r4) & greater);
    return (r5 != 0u) | !greater;
}

@compute @workgroup_size(256)
fn encode_shrink(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let row = block.x + block.y * grid.x;
    if row >= p.groups {
        return;
    }
    var sum = vec4(0u);
    for (var i = t; i < p.chunks; i += 256u) {
        sum = add_parts(sum, shrink_parts[row * p.chunks + i]);
    }
    sum = total(t, sum);
    if t == 0u {
        var num = 0u;
        for (var bit = 1u << SHRINK_BITS; bit > 0u; bit >>= 1u) {
            num |= select(0u, bit, within(sum.xyz, num | bit));
        }
        // A row within the bound leaves the search with all 31 bits set.
        shrink_states[row * STATE_WORDS + 6u] = min(num, 1u << SHRINK_BITS);
        shrink_states[row * STATE_WORDS + 7u] = sum.w;
    }
}

// Where word i of 16 of superblock s lies in group memory: threads that write word i of 32 superblocks meet 32 banks.
fn place(s: u32, i: u32) -> u32 {
    return 16u * s + (i ^ ((s >> 1u) & 15u));
}

fn put(s: u32, i: u32, row: vec4<u32>) {
    halves[place(s, i)] = row.x;
    halves[place(s, i + 1u)] = row.y;
    halves[place(s, i + 2u)] = row.z;
    halves[place(s, i + 3u)] = row.w;
}

// A group has 4096 elements, each of its first 128 threads the keystream of 32 neighbours.
@compute @workgroup_size(256)
fn encode_settle(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let row = group / p.chunks;
    let start = group % p.chunks * 4096u;
    let end = min(p.padded, start + 4096u);
    if p.rounding == 0u && t < 128u {
        let at = (p.first_row + row) * KEY_WORDS;
        let key = ChachaKey(
            vec4(settle_keys[at], settle_keys[at + 1u], settle_keys[at + 2u], settle_keys[at + 3u]),
            vec4(settle_keys[at + 4u], settle_keys[at + 5u], settle_keys[at + 6u], settle_keys[at + 7u]),
            settle_keys[at + 8u],
        );
        let bytes = chacha_block(key, ((p.first + start) >> 5u) + t);
        put(t, 0u, bytes.a);
        put(t, 4u, bytes.b);
        put(t, 8u, bytes.c);
        put(t, 12u, bytes.d);
    }
    workgroupBarrier();
    let fraction = (1u << p.fraction_bits) - 1u;
    var sum = vec4(0u);
    for (var j = start + t; j < end; j += 256u) {
        let x = settle_words[row * p.padded + j];
        let unclamped = magnitude(x);
        let a = min(unclamped, p.linf);
        let v = select(a, 0u - a, (x >> 31u) != 0u);
        let i = j - start;
        let uniform16 = (halves[place(i >> 5u, (i >> 1u) & 15u)] >> (16u * (i & 1u))) & 0xffffu;
        let up = wide_below(uniform16 >> (16u - p.fraction_bits), v & fraction);
        let rounded = bitcast<u32>(bitcast<i32>(v) >> p.fraction_bits) + up;
        let value = select(v, rounded, p.rounding == 0u);
        settle_words[row * p.padded + j] = value;
        let size = magnitude(value);
        sum = add_parts(sum, vec4(wide_mul(size, size), 0u, wide_below(p.linf, unclamped)));
    }
    sum = total(t, sum);
    if t == 0u {
        settle_parts[(p.first_row + row) * p.chunks + group % p.chunks] = sum;
    }
}

// A group has 4096 elements, a thread the keystream of 32 neighbours; `first` is the number of a row's first element here.
@compute @workgroup_size(128)
fn encode_round(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let row = group / p.chunks;
    let start = group % p.chunks * 4096u;
    let end = min(p.padded, start + 4096u);
    if p.rounding == 0u {
        let at = (p.first_row + row) * KEY_WORDS;
        let key = ChachaKey(
            vec4(round_keys[at], round_keys[at + 1u], round_keys[at + 2u], round_keys[at + 3u]),
            vec4(round_keys[at + 4u], round_keys[at + 5u], round_keys[at + 6u], round_keys[at + 7u]),
            round_keys[at + 8u],
        );
        let bytes = chacha_block(key, ((p.first + start) >> 5u) + t);
        put(t, 0u, bytes.a);
        put(t, 4u, bytes.b);
        put(t, 8u, bytes.c);
        put(t, 12u, bytes.d);
    }
    workgroupBarrier();
    let num = round_states[(p.first_row + row) * STATE_WORDS + 6u];
    let wrap = 0xffffffffu >> (32u - p.bits);
    let fraction = (1u << p.fraction_bits) - 1u;
    for (var j = start + t; j < end; j += 128u) {
        let x = round_words[row * p.padded + j];
        let product = wide_mul(min(magnitude(x), p.linf), num);
        let a = (product.x >> SHRINK_BITS) | (product.y << (32u - SHRINK_BITS));
        let v = select(a, 0u - a, (x >> 31u) != 0u);
        let i = j - start;
        let uniform16 = (halves[place(i >> 5u, (i >> 1u) & 15u)] >> (16u * (i & 1u))) & 0xffffu;
        let up = wide_below(uniform16 >> (16u - p.fraction_bits), v & fraction);
        let rounded = bitcast<u32>(bitcast<i32>(v) >> p.fraction_bits) + up;
        round_words[row * p.padded + j] = select(v, rounded, p.rounding == 0u) & wrap;
    }
}
