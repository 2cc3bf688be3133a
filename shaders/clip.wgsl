// Rows of floats scaled to a bound: x <- x min(1, C / |x|) (host plan: device/clip.rs).
//
// A norm is exact but for what is cut off: x = m 2^(e - 150) with m < 2^24, and with E the largest e of the row
// N = sum floor(m^2 2^16 / 4^(E - e)) fits 96 bits for d <= 2^32, is off by less than d + chunks units, and is at least
// 2^62 for a row of normal numbers: a relative error of the norm below 2^-34 at d = 2^28. Integers add up to the same in
// any order, so that the results do not depend on the device.
//
// clip_norms: chunks of 4096 elements to (N, largest |x|) relative to the chunk's own largest e. 4 bytes read an element
//   from memory, 4 from the cache; 40 operations. Rows of half precision (p.element): 2 bytes each, 8 operations more.
// clip_mixed: the same of v(y) = f^2 + (2f + 1) p = y^2 + p - p^2, f and p the integer part and the fraction of |y|,
//   y = x p.factor, with E at least that of 1: the mixed clip is a product by sqrt(C / sum v) and a little more.
// clip_factors: the chunks of a row to its N, and the factor to 24 bits by an integer root and division: 32 steps each
//   whatever the row holds. One group a row.
// clip_scale: in place; 8 bytes an element, one product (and three exact ones by powers of two).
// encode_place: the same into padded rows, with signs; 8 bytes and 1 bit an element, 6 of half precision (for encode).
//
// No subgroup operations, by count: of a chunk's 4096 x 40 operations the sum over the threads takes 255 additions of 96
// bits (12 operations each, in 8 steps), 2 percent, and the greatest one atomic a thread, 0.2 percent. There is no subgroup
// addition with carries: 5 steps of three shuffles would replace 5 barriers and a part of those operations.

// Words of a row in `states`: N (3), bits of the largest |x|, factor, its exponent, shrink, clamped coordinates.
const STATE_WORDS: u32 = 8u;
// The bits of infinity.
const INFINITE: u32 = 0x7f800000u;

@group(0) @binding(0) var<uniform> p: RowsPassParams;
@group(0) @binding(1) var<storage, read> norms_rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> norms_parts: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> factors_parts: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> factors_states: array<u32>;
@group(0) @binding(1) var<storage, read_write> scale_rows: array<u32>;
@group(0) @binding(2) var<storage, read> scale_states: array<u32>;

var<workgroup> sums: array<vec3<u32>, 256>;
var<workgroup> largest: atomic<u32>;

// The word of element i of rows of the type p.element: two halves share one.
fn word_of(i: u32) -> u32 {
    return i >> min(p.element, 1u);
}

// Element i from its word, as the bits of a float. A denormal of half precision is its bits times 2^-24, which f32 holds
// as a normal number: devices that flush denormals keep them.
fn widened(word: u32, i: u32) -> u32 {
    if p.element == 0u {
        return word;
    }
    let half = (word >> ((i & 1u) * 16u)) & 0xffffu;
    if p.element == 2u {
        return half << 16u;
    }
    let m = half & 0x7fffu;
    let small = bitcast<u32>(f32(m) * 0x1p-24f);
    let large = (m << 13u) + select(0x70000000u, 0x38000000u, m < 0x7c00u);
    return select(large, small, m < 0x400u) | ((half & 0x8000u) << 16u);
}

fn biased_exponent(x: u32) -> u32 {
    return max((x >> 23u) & 255u, 1u);
}

// floor(m^2 2^16 / 4^(top - e)) of a float.
fn square(x: u32, top: u32) -> vec3<u32> {
    let m = (x & 0x7fffffu) | select(0x800000u, 0u, (x & INFINITE) == 0u);
    let s = wide_mul(m, m);
    return wide_right(vec3(s.x << 16u, (s.y << 16u) | (s.x >> 16u), 0u), 2u * (top - biased_exponent(x)));
}

// The sum over the threads of a group, in thread 0.
fn total(t: u32, mine: vec3<u32>) -> vec3<u32> {
    sums[t] = mine;
    for (var width = 128u; width > 0u; width >>= 1u) {
        workgroupBarrier();
        if t < width {
            sums[t] = wide_add(sums[t], sums[t + width]);
        }
    }
    return sums[t];
}

// The greatest over the threads of a group, in all of them.
fn greatest(t: u32, mine: u32) -> u32 {
    if t == 0u {
        atomicStore(&largest, 0u);
    }
    workgroupBarrier();
    atomicMax(&largest, mine);
    workgroupBarrier();
    return atomicLoad(&largest);
}

@compute @workgroup_size(256)
fn clip_norms(
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
    let end = min(p.dim, start + 4096u);
    let first = p.offset + row * p.stride;
    var most = 0u;
    for (var j = start + t; j < end; j += 256u) {
        most = max(most, widened(norms_rows[word_of(first + j)], first + j) & 0x7fffffffu);
    }
    let top = greatest(t, most);
    var sum = vec3(0u);
    for (var j = start + t; j < end; j += 256u) {
        let x = widened(norms_rows[word_of(first + j)], first + j);
        sum = wide_add(sum, square(x, biased_exponent(top)));
    }
    sum = total(t, sum);
    if t == 0u {
        norms_parts[(p.first_row + row) * p.chunks + group % p.chunks] = vec4(sum, top);
    }
}

// The bits of |y|, infinity as the largest float.
fn mixed_magnitude(x: u32) -> u32 {
    return min(bitcast<u32>(bitcast<f32>(x) * p.factor) & 0x7fffffffu, INFINITE - 1u);
}

// v of a float, in units of 4^(top - 158).
fn mixed_norm(a: u32, top: u32) -> vec3<u32> {
    let fraction = bitcast<u32>(bitcast<f32>(a) - floor(bitcast<f32>(a)));
    let e = biased_exponent(fraction);
    let m = (fraction & 0x7fffffu) | select(0x800000u, 0u, (fraction & INFINITE) == 0u);
    // p and p^2 in units of 2^-62.
    let once = wide_right(wide_left(vec3(m, 0u, 0u), max(e, 88u) - 88u), 88u - min(e, 88u));
    let twice = square(fraction, 127u);
    let rest = vec3(once.x - twice.x, once.y - twice.y - wide_below(once.x, twice.x), 0u);
    return wide_add(square(a, top), wide_right(rest, 2u * (top - 127u)));
}

@compute @workgroup_size(256)
fn clip_mixed(
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
    let first = row * p.padded;
    // The bits of 1.
    var most = 0x3f800000u;
    for (var j = start + t; j < end; j += 256u) {
        most = max(most, mixed_magnitude(norms_rows[first + j]));
    }
    let top = greatest(t, most);
    var sum = vec3(0u);
    for (var j = start + t; j < end; j += 256u) {
        sum = wide_add(sum, mixed_norm(mixed_magnitude(norms_rows[first + j]), biased_exponent(top)));
    }
    sum = total(t, sum);
    if t == 0u {
        norms_parts[(p.first_row + row) * p.chunks + group % p.chunks] = vec4(sum, top);
    }
}

// floor(sqrt(high 2^32 + low)).
fn root(low: u32, high: u32) -> u32 {
    var r = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let s = wide_mul(r | bit, r | bit);
        let fits = (s.y < high) | ((s.y == high) & (s.x <= low));
        r |= select(0u, bit, fits);
    }
    return r;
}

// floor(b 2^31 / r) for 2^31 <= r, b < 2 r.
fn quotient(b: u32, r: u32) -> u32 {
    var q = select(0u, 1u, b >= r);
    var rest = b - select(0u, r, b >= r);
    for (var i = 0u; i < 31u; i++) {
        let twice = rest << 1u;
        let fits = ((rest >> 31u) != 0u) | (twice >= r);
        rest = twice - select(0u, r, fits);
        q = (q << 1u) | select(0u, 1u, fits);
    }
    return q;
}

// min(1, bound / norm) as f 2^x, f in [1/2, 1] rounded to 24 bits: the bits of f, and x.
fn factor(n: vec3<u32>, top: u32) -> vec2<u32> {
    // Even, so that the root moves by whole bits.
    let zeros = wide_zeros(n) & 0xfffffffeu;
    let high = wide_left(n, zeros);
    let q = quotient(p.bound_mantissa, max(root(high.y, high.z), 0x80000000u));
    let long = q >> 31u;
    let bits = q << (1u - long);
    let f = f32((bits >> 8u) + ((bits >> 7u) & 1u)) * 0x1p-24f;
    // norm = root 2^16 2^(-zeros / 2) 2^(top - 158).
    let x = p.bound_exponent + i32(zeros >> 1u) - i32(top) + 142 + i32(long);
    let one = (x > 0) | ((x == 0) & (f == 1.0)) | (zeros == 96u);
    return vec2(select(bitcast<u32>(f), 0x3f800000u, one), bitcast<u32>(select(x, 0, one)));
}

@compute @workgroup_size(256)
fn clip_factors(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let row = block.x + block.y * grid.x;
    if row >= p.groups {
        return;
    }
    var most = 0u;
    for (var i = t; i < p.chunks; i += 256u) {
        most = max(most, factors_parts[row * p.chunks + i].w);
    }
    let top = greatest(t, most);
    var sum = vec3(0u);
    for (var i = t; i < p.chunks; i += 256u) {
        let part = factors_parts[row * p.chunks + i];
        sum = wide_add(sum, wide_right(part.xyz, 2u * (biased_exponent(top) - biased_exponent(part.w))));
    }
    sum = total(t, sum);
    if t == 0u {
        let f = factor(sum, biased_exponent(top));
        let state = row * STATE_WORDS;
        factors_states[state] = sum.x;
        factors_states[state + 1u] = sum.y;
        factors_states[state + 2u] = sum.z;
        factors_states[state + 3u] = top;
        factors_states[state + 4u] = f.x;
        factors_states[state + 5u] = f.y;
    }
}

// 2^x for -126 <= x <= 0.
fn power(x: i32) -> f32 {
    return bitcast<f32>(u32(x + 127) << 23u);
}

// v f 2^x, rounded once unless the result is denormal.
fn scaled(v: f32, f: u32, x: i32) -> f32 {
    let a = max(x, -126);
    let b = max(x - a, -126);
    let c = max(x - a - b, -126);
    return v * bitcast<f32>(f) * power(a) * power(b) * power(c);
}

@compute @workgroup_size(256)
fn clip_scale(
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
    let end = min(p.dim, start + 4096u);
    let first = p.offset + row * p.stride;
    let state = (p.first_row + row) * STATE_WORDS;
    let f = scale_states[state + 4u];
    let x = bitcast<i32>(scale_states[state + 5u]);
    // A factor 1 leaves the bits as they are, on devices without denormals too.
    let one = f == 0x3f800000u && x == 0;
    for (var j = start + t; j < end; j += 256u) {
        let v = scale_rows[first + j];
        scale_rows[first + j] = select(bitcast<u32>(scaled(bitcast<f32>(v), f, x)), v, one);
    }
}

@group(0) @binding(1) var<storage, read> place_rows: array<u32>;
@group(0) @binding(2) var<storage, read> place_states: array<u32>;
@group(0) @binding(3) var<storage, read> place_signs: array<u32>;
@group(0) @binding(4) var<storage, read_write> place_out: array<u32>;

// Row by row: factor, sign where bit j % 32 of word j / 32 is set, zeros from `dim` on. A row with NaN or an
// infinity becomes zeros.
@compute @workgroup_size(256)
fn encode_place(
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
    let state = (p.first_row + row) * STATE_WORDS;
    let f = place_states[state + 4u];
    let x = bitcast<i32>(place_states[state + 5u]);
    let finite = place_states[state + 3u] < INFINITE;
    let first = p.offset + row * p.stride;
    for (var j = start + t; j < end; j += 256u) {
        var v = 0u;
        if j < p.dim {
            let sign = ((place_signs[(j >> 5u) * p.rotate] >> (j & 31u)) & p.rotate) << 31u;
            let input = widened(place_rows[word_of(first + j)], first + j);
            let y = scaled(bitcast<f32>(input), f, x);
            v = select(0u, bitcast<u32>(y) ^ sign, finite);
        }
        place_out[row * p.padded + j] = v;
    }
}
