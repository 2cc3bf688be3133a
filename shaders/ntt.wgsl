// Negacyclic transforms in place: rows of N = 2^10 .. 2^15 residues, row r modulo prime r mod L.
// primes: p, Barrett's reciprocal, shift, 0 a limb. roots: N pairs (value, quotient) a limb, those of psi for the forward
// entries, of 1/psi for the inverse ones; see kernels/common/ntt.cuh for the heap of nodes that they are.
//
// A tile of 2^10, 2^11 or 2^12 residues is one workgroup and one pass, in at most 16 KiB of workgroup memory. A thread holds
// sixteen residues whose numbers in the tile differ in four bits: the highest, then bits 4 .. 7, then the lowest (the
// other way round for the inverse). Rows above 2^12 take a second pass for their one to three widest stages.
//
// Counts, a residue and pass: 4 bytes read, 4 written, neighbours by neighbouring threads; 3 exchanges of 8 bytes of workgroup
// memory without bank conflicts; a stage half a butterfly, whose product is nine 16- and 32-bit ones here.

struct Lot {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

struct Pair {
    a: vec4<u32>,
    b: vec4<u32>,
}

// Values and quotients of four roots.
struct Roots {
    value: vec4<u32>,
    quotient: vec4<u32>,
}

// The row's prime, where the roots of its limb begin, and N plus the place in the row of the first residue at hand.
struct Place {
    p: u32,
    roots: u32,
    node: u32,
    // Index in `x` of the first residue at hand.
    first: u32,
}

@group(0) @binding(0) var<uniform> params: NttPassParams;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read> primes: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> roots: array<vec2<u32>>;

var<workgroup> tile: array<u32, 4096>;

fn place_of(first: u32) -> Place {
    let limb = (first >> params.degree_log2) % params.limbs;
    let n = 1u << params.degree_log2;
    return Place(primes[limb].x, limb << params.degree_log2, n | (first & (n - 1u)), first);
}

// The place of residue i in workgroup memory: in all rounds 32 neighbouring threads meet different banks.
fn bank(i: u32) -> u32 {
    return i ^ ((i >> 5u) & 15u) ^ (((i >> 8u) & 1u) << 4u);
}

fn get4(first: u32, step: u32) -> vec4<u32> {
    return vec4<u32>(tile[bank(first)], tile[bank(first + step)], tile[bank(first + 2u * step)], tile[bank(first + 3u * step)]);
}

fn put4(first: u32, step: u32, v: vec4<u32>) {
    tile[bank(first)] = v.x;
    tile[bank(first + step)] = v.y;
    tile[bank(first + 2u * step)] = v.z;
    tile[bank(first + 3u * step)] = v.w;
}

fn take(first: u32, step: u32) -> Lot {
    return Lot(get4(first, step), get4(first + 4u * step, step), get4(first + 8u * step, step), get4(first + 12u * step, step));
}

fn give(first: u32, step: u32, v: Lot) {
    put4(first, step, v.a);
    put4(first + 4u * step, step, v.b);
    put4(first + 8u * step, step, v.c);
    put4(first + 12u * step, step, v.d);
}

fn load4(first: u32, step: u32) -> vec4<u32> {
    return vec4<u32>(x[first], x[first + step], x[first + 2u * step], x[first + 3u * step]);
}

fn store4(first: u32, step: u32, v: vec4<u32>) {
    x[first] = v.x;
    x[first + step] = v.y;
    x[first + 2u * step] = v.z;
    x[first + 3u * step] = v.w;
}

fn load(first: u32, step: u32) -> Lot {
    return Lot(load4(first, step), load4(first + 4u * step, step), load4(first + 8u * step, step), load4(first + 12u * step, step));
}

fn store(first: u32, step: u32, v: Lot) {
    store4(first, step, v.a);
    store4(first + 4u * step, step, v.b);
    store4(first + 8u * step, step, v.c);
    store4(first + 12u * step, step, v.d);
}

// One root in all lanes, two roots in two lanes each, four roots.
fn one_root(k: u32) -> Roots {
    let w = roots[k];
    return Roots(vec4<u32>(w.x), vec4<u32>(w.y));
}

fn two_roots(k: u32) -> Roots {
    let w = roots[k];
    let v = roots[k + 1u];
    return Roots(vec4<u32>(w.xx, v.xx), vec4<u32>(w.yy, v.yy));
}

fn four_roots(k: u32) -> Roots {
    let w = roots[k];
    let v = roots[k + 1u];
    let u = roots[k + 2u];
    let t = roots[k + 3u];
    return Roots(vec4<u32>(w.x, v.x, u.x, t.x), vec4<u32>(w.y, v.y, u.y, t.y));
}

// (a + w b, a - w b), from and to [0, 4 p).
fn forward(a: vec4<u32>, b: vec4<u32>, w: Roots, p: u32) -> Pair {
    let low = reduce_once4(a, 2u * p);
    let product = mul_shoup_lazy4(b, w.value, w.quotient, p);
    return Pair(low + product, low + 2u * p - product);
}

// (a + b, w (a - b)), from and to [0, 2 p).
fn inverse(a: vec4<u32>, b: vec4<u32>, w: Roots, p: u32) -> Pair {
    let difference = a + 2u * p - b;
    return Pair(reduce_once4(a + b, 2u * p), mul_shoup_lazy4(difference, w.value, w.quotient, p));
}

// (f (a + b), f w (a - b)), from [0, 2 p) to [0, p): the last stage, whose factors are the limb's first two nodes.
fn last(a: vec4<u32>, b: vec4<u32>, at: Place) -> Pair {
    let sum = one_root(at.roots);
    let difference = one_root(at.roots + 1u);
    return Pair(
        reduce_once4(mul_shoup_lazy4(a + b, sum.value, sum.quotient, at.p), at.p),
        reduce_once4(mul_shoup_lazy4(a + 2u * at.p - b, difference.value, difference.quotient, at.p), at.p),
    );
}

// Stages of distance 2^b, low <= b < low + count, on sixteen residues that differ in bits low .. low + 3, the first of
// them number `first` of the tile.
fn forward_round(lot: Lot, at: Place, first: u32, low: u32, count: u32) -> Lot {
    var v = lot;
    let heap = at.node + first;
    if count > 3u {
        let w = one_root(at.roots + (heap >> (low + 4u)));
        let r = forward(v.a, v.c, w, at.p);
        let s = forward(v.b, v.d, w, at.p);
        v = Lot(r.a, s.a, r.b, s.b);
    }
    if count > 2u {
        let k = at.roots + (heap >> (low + 3u));
        let r = forward(v.a, v.b, one_root(k), at.p);
        let s = forward(v.c, v.d, one_root(k + 1u), at.p);
        v = Lot(r.a, r.b, s.a, s.b);
    }
    if count > 1u {
        let k = at.roots + (heap >> (low + 2u));
        let r = forward(vec4<u32>(v.a.xy, v.b.xy), vec4<u32>(v.a.zw, v.b.zw), two_roots(k), at.p);
        let s = forward(vec4<u32>(v.c.xy, v.d.xy), vec4<u32>(v.c.zw, v.d.zw), two_roots(k + 2u), at.p);
        v = Lot(vec4<u32>(r.a.xy, r.b.xy), vec4<u32>(r.a.zw, r.b.zw), vec4<u32>(s.a.xy, s.b.xy), vec4<u32>(s.a.zw, s.b.zw));
    }
    let k = at.roots + (heap >> (low + 1u));
    let r = forward(vec4<u32>(v.a.xz, v.b.xz), vec4<u32>(v.a.yw, v.b.yw), four_roots(k), at.p);
    let s = forward(vec4<u32>(v.c.xz, v.d.xz), vec4<u32>(v.c.yw, v.d.yw), four_roots(k + 4u), at.p);
    return interleaved(r, s);
}

// (a_0, b_0, a_1, b_1, ..) of two pairs.
fn interleaved(r: Pair, s: Pair) -> Lot {
    return Lot(
        vec4<u32>(r.a.x, r.b.x, r.a.y, r.b.y),
        vec4<u32>(r.a.z, r.b.z, r.a.w, r.b.w),
        vec4<u32>(s.a.x, s.b.x, s.a.y, s.b.y),
        vec4<u32>(s.a.z, s.b.z, s.a.w, s.b.w),
    );
}

// The same backwards; `ends` if the stage of distance 2^(low + 3) is the last one of the row.
fn inverse_round(lot: Lot, at: Place, first: u32, low: u32, count: u32, ends: bool) -> Lot {
    let heap = at.node + first;
    let k = at.roots + (heap >> (low + 1u));
    let t = inverse(vec4<u32>(lot.a.xz, lot.b.xz), vec4<u32>(lot.a.yw, lot.b.yw), four_roots(k), at.p);
    let u = inverse(vec4<u32>(lot.c.xz, lot.d.xz), vec4<u32>(lot.c.yw, lot.d.yw), four_roots(k + 4u), at.p);
    var v = interleaved(t, u);
    if count > 1u {
        let k = at.roots + (heap >> (low + 2u));
        let r = inverse(vec4<u32>(v.a.xy, v.b.xy), vec4<u32>(v.a.zw, v.b.zw), two_roots(k), at.p);
        let s = inverse(vec4<u32>(v.c.xy, v.d.xy), vec4<u32>(v.c.zw, v.d.zw), two_roots(k + 2u), at.p);
        v = Lot(vec4<u32>(r.a.xy, r.b.xy), vec4<u32>(r.a.zw, r.b.zw), vec4<u32>(s.a.xy, s.b.xy), vec4<u32>(s.a.zw, s.b.zw));
    }
    if count > 2u {
        let k = at.roots + (heap >> (low + 3u));
        let r = inverse(v.a, v.b, one_root(k), at.p);
        let s = inverse(v.c, v.d, one_root(k + 1u), at.p);
        v = Lot(r.a, r.b, s.a, s.b);
    }
    if count > 3u {
        if ends {
            let r = last(v.a, v.c, at);
            let s = last(v.b, v.d, at);
            v = Lot(r.a, s.a, r.b, s.b);
        } else {
            let w = one_root(at.roots + (heap >> (low + 4u)));
            let r = inverse(v.a, v.c, w, at.p);
            let s = inverse(v.b, v.d, w, at.p);
            v = Lot(r.a, s.a, r.b, s.b);
        }
    }
    return v;
}

// From [0, 4 p) to [0, p).
fn whole(v: vec4<u32>, p: u32) -> vec4<u32> {
    return reduce_once4(reduce_once4(v, 2u * p), p);
}

// A tile of 2^log2 residues by 2^(log2 - 4) threads, from [0, 4 p) to [0, p).
fn forward_tile(group: u32, thread: u32, log2: u32) {
    let at = place_of(group << log2);
    let step = 1u << (log2 - 4u);
    let middle = ((thread >> 4u) << 8u) | (thread & 15u);
    give(thread, step, forward_round(load(at.first + thread, step), at, thread, log2 - 4u, 4u));
    workgroupBarrier();
    give(middle, 16u, forward_round(take(middle, 16u), at, middle, 4u, log2 - 8u));
    workgroupBarrier();
    give(16u * thread, 1u, forward_round(take(16u * thread, 1u), at, 16u * thread, 0u, 4u));
    workgroupBarrier();
    let v = take(thread, step);
    store(at.first + thread, step, Lot(whole(v.a, at.p), whole(v.b, at.p), whole(v.c, at.p), whole(v.d, at.p)));
}

// From [0, p) to [0, p) if the tile is a whole row, else to [0, 2 p).
fn inverse_tile(group: u32, thread: u32, log2: u32) {
    let at = place_of(group << log2);
    let step = 1u << (log2 - 4u);
    let middle = ((thread >> 4u) << 8u) | (thread & 15u);
    give(thread, step, load(at.first + thread, step));
    workgroupBarrier();
    give(16u * thread, 1u, inverse_round(take(16u * thread, 1u), at, 16u * thread, 0u, 4u, false));
    workgroupBarrier();
    give(middle, 16u, inverse_round(take(middle, 16u), at, middle, 4u, log2 - 8u, false));
    workgroupBarrier();
    let ends = params.degree_log2 == log2;
    store(at.first + thread, step, inverse_round(take(thread, step), at, thread, log2 - 4u, 4u, ends));
}

@compute @workgroup_size(64)
fn ntt_forward_10(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index < params.groups {
        forward_tile(index, thread, 10u);
    }
}

@compute @workgroup_size(128)
fn ntt_forward_11(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index < params.groups {
        forward_tile(index, thread, 11u);
    }
}

@compute @workgroup_size(256)
fn ntt_forward_12(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index < params.groups {
        forward_tile(index, thread, 12u);
    }
}

@compute @workgroup_size(64)
fn ntt_inverse_10(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index < params.groups {
        inverse_tile(index, thread, 10u);
    }
}

@compute @workgroup_size(128)
fn ntt_inverse_11(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index < params.groups {
        inverse_tile(index, thread, 11u);
    }
}

@compute @workgroup_size(256)
fn ntt_inverse_12(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index < params.groups {
        inverse_tile(index, thread, 12u);
    }
}

// Where thread `thread` of the passes across tiles has its eight residues, N/8 apart.
fn outer_place(thread: u32) -> Place {
    let step_log2 = params.degree_log2 - 3u;
    return place_of(((thread >> step_log2) << params.degree_log2) | (thread & ((1u << step_log2) - 1u)));
}

// The stages of distance 2^local_log2 and above, N = 2^13 and above; to [0, 4 p). Their roots are the first nodes.
@compute @workgroup_size(256)
fn ntt_outer_forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= params.groups {
        return;
    }
    let at = outer_place(index * 256u + thread);
    let step = 1u << (params.degree_log2 - 3u);
    var v = Pair(load4(at.first, step), load4(at.first + 4u * step, step));
    let count = params.degree_log2 - params.local_log2;
    v = forward(v.a, v.b, one_root(at.roots + 1u), at.p);
    if count > 1u {
        let r = forward(vec4<u32>(v.a.xy, v.b.xy), vec4<u32>(v.a.zw, v.b.zw), two_roots(at.roots + 2u), at.p);
        v = Pair(vec4<u32>(r.a.xy, r.b.xy), vec4<u32>(r.a.zw, r.b.zw));
    }
    if count > 2u {
        let r = forward(vec4<u32>(v.a.xz, v.b.xz), vec4<u32>(v.a.yw, v.b.yw), four_roots(at.roots + 4u), at.p);
        v = Pair(vec4<u32>(r.a.x, r.b.x, r.a.y, r.b.y), vec4<u32>(r.a.z, r.b.z, r.a.w, r.b.w));
    }
    store4(at.first, step, v.a);
    store4(at.first + 4u * step, step, v.b);
}

// The same backwards, from [0, 2 p) to [0, p).
@compute @workgroup_size(256)
fn ntt_outer_inverse(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= params.groups {
        return;
    }
    let at = outer_place(index * 256u + thread);
    let step = 1u << (params.degree_log2 - 3u);
    var v = Pair(load4(at.first, step), load4(at.first + 4u * step, step));
    let count = params.degree_log2 - params.local_log2;
    if count > 2u {
        let r = inverse(vec4<u32>(v.a.xz, v.b.xz), vec4<u32>(v.a.yw, v.b.yw), four_roots(at.roots + 4u), at.p);
        v = Pair(vec4<u32>(r.a.x, r.b.x, r.a.y, r.b.y), vec4<u32>(r.a.z, r.b.z, r.a.w, r.b.w));
    }
    if count > 1u {
        let r = inverse(vec4<u32>(v.a.xy, v.b.xy), vec4<u32>(v.a.zw, v.b.zw), two_roots(at.roots + 2u), at.p);
        v = Pair(vec4<u32>(r.a.xy, r.b.xy), vec4<u32>(r.a.zw, r.b.zw));
    }
    v = last(v.a, v.b, at);
    store4(at.first, step, v.a);
    store4(at.first + 4u * step, step, v.b);
}
