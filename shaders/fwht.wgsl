// Walsh-Hadamard transform in place: y = H (scale x) on blocks of 2^k, natural order (host plan: device/fwht.rs).
//
// A tile of 2^12 elements (16 KiB of workgroup memory) is held by 256 threads, 16 elements each, in three phases of
// four bits: bits 8..11 of an element's number straight from memory, bits 4..7 and 0..3 after an exchange through
// workgroup memory each, and a third exchange so that the way back is by neighbours too.
//
// Counts, an element and pass: 4 bytes read, 4 written, neighbours by neighbouring threads; one addition a transformed
// bit, one product; 24 bytes of workgroup memory moved. Passes: one to 2^12, two to 2^21, three to 2^27.
// A pass over columns reads pieces of at least 8 neighbours, 32 bytes.
//
// No subgroup operations, by count: to exchange four bits among 16 lanes takes 4 steps of 8 shuffles a thread, 2 shuffles
// or 8 bytes an element, as much as a write and a read of workgroup memory, by the same path on most cards; two barriers
// would go. Workgroup memory is not the limit: 24 bytes an element at 128 bytes a cycle and core take less time than the
// 8 bytes of a pass in memory (H200, counted: 1.2e12 elements/s against 5.4e11).

@group(0) @binding(0) var<uniform> p: FwhtPassParams;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

var<workgroup> tile: array<f32, 4096>;

// Element r = 4 q + c of a thread is component c of vector q.
struct Sixteen {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

// The butterflies over those of the four bits of r that are set in `bits`; products with 1 and -1 are exact.
fn butterflies(input: Sixteen, bits: u32) -> Sixteen {
    var v = input;
    if (bits & 1u) != 0u {
        v.a = v.a.xxzz + vec4(v.a.y, -v.a.y, v.a.w, -v.a.w);
        v.b = v.b.xxzz + vec4(v.b.y, -v.b.y, v.b.w, -v.b.w);
        v.c = v.c.xxzz + vec4(v.c.y, -v.c.y, v.c.w, -v.c.w);
        v.d = v.d.xxzz + vec4(v.d.y, -v.d.y, v.d.w, -v.d.w);
    }
    if (bits & 2u) != 0u {
        v.a = v.a.xyxy + vec4(v.a.zw, -v.a.zw);
        v.b = v.b.xyxy + vec4(v.b.zw, -v.b.zw);
        v.c = v.c.xyxy + vec4(v.c.zw, -v.c.zw);
        v.d = v.d.xyxy + vec4(v.d.zw, -v.d.zw);
    }
    if (bits & 4u) != 0u {
        v = Sixteen(v.a + v.b, v.a - v.b, v.c + v.d, v.c - v.d);
    }
    if (bits & 8u) != 0u {
        v = Sixteen(v.a + v.c, v.b + v.d, v.a - v.c, v.b - v.d);
    }
    return v;
}

// Where element i of the tile lies in workgroup memory: in every phase, neighbouring threads meet different banks.
fn place(i: u32) -> u32 {
    return i ^ ((i >> 5u) & 31u) ^ (((i >> 8u) & 1u) << 4u);
}

// Elements base, base + step, .. of the tile.
fn gather(base: u32, step: u32) -> vec4<f32> {
    return vec4(
        tile[place(base)],
        tile[place(base + step)],
        tile[place(base + 2u * step)],
        tile[place(base + 3u * step)],
    );
}

fn gather_all(base: u32, step: u32) -> Sixteen {
    return Sixteen(
        gather(base, step),
        gather(base + 4u * step, step),
        gather(base + 8u * step, step),
        gather(base + 12u * step, step),
    );
}

fn scatter(base: u32, step: u32, v: vec4<f32>) {
    tile[place(base)] = v.x;
    tile[place(base + step)] = v.y;
    tile[place(base + 2u * step)] = v.z;
    tile[place(base + 3u * step)] = v.w;
}

fn scatter_all(base: u32, step: u32, v: Sixteen) {
    scatter(base, step, v.a);
    scatter(base + 4u * step, step, v.b);
    scatter(base + 8u * step, step, v.c);
    scatter(base + 12u * step, step, v.d);
}

// The number in memory of the first element of tile `group`.
fn first_of(group: u32) -> u32 {
    let across = p.stride_log2 - p.columns_log2;
    return ((group >> across) << (p.stride_log2 + 12u - p.columns_log2))
        | ((group & ((1u << across) - 1u)) << p.columns_log2);
}

// How far element i of a tile lies from the first.
fn spread(i: u32) -> u32 {
    return ((i >> p.columns_log2) << p.stride_log2) + (i & ((1u << p.columns_log2) - 1u));
}

fn load(i: u32) -> f32 {
    if i < p.len {
        return x[i] * p.scale;
    }
    return 0.0;
}

fn load_four(first: u32, i: u32) -> vec4<f32> {
    return vec4(
        load(first + spread(i)),
        load(first + spread(i + 256u)),
        load(first + spread(i + 512u)),
        load(first + spread(i + 768u)),
    );
}

fn store(i: u32, v: f32) {
    if i < p.len {
        x[i] = v;
    }
}

@compute @workgroup_size(256)
fn fwht_12(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let first = first_of(group);
    var v = Sixteen(
        load_four(first, t),
        load_four(first, t + 1024u),
        load_four(first, t + 2048u),
        load_four(first, t + 3072u),
    );
    v = butterflies(v, p.active_bits >> 8u);
    if (p.active_bits & 0xf0u) != 0u {
        scatter_all(t, 256u, v);
        workgroupBarrier();
        let base = (t & 15u) | ((t >> 4u) << 8u);
        v = butterflies(gather_all(base, 16u), p.active_bits >> 4u);
        // Each thread writes the places that it alone has read.
        scatter_all(base, 16u, v);
        workgroupBarrier();
    } else {
        scatter_all(t, 256u, v);
        workgroupBarrier();
    }
    v = butterflies(gather_all(16u * t, 1u), p.active_bits);
    scatter_all(16u * t, 1u, v);
    workgroupBarrier();
    for (var i = t; i < 4096u; i += 256u) {
        store(first + spread(i), tile[place(i)]);
    }
}

// Blocks of two elements (`active_bits` 1), or only the scale (0): thread t has elements 2 t and 2 t + 1.
@compute @workgroup_size(256)
fn fwht_small(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let i = 2u * ((block.x + block.y * grid.x) * 256u + t);
    let a = load(i);
    let b = load(i + 1u);
    if p.active_bits != 0u {
        store(i, a + b);
        store(i + 1u, a - b);
    } else {
        store(i, a);
        store(i + 1u, b);
    }
}

// The last stage of a block that is longer than a slice: x + y and x - y, two elements a thread.
@compute @workgroup_size(256)
fn fwht_pair(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    for (var i = group * 512u + t; i < min(p.len, (group + 1u) * 512u); i += 256u) {
        let a = x[i];
        let b = y[i];
        x[i] = a + b;
        y[i] = a - b;
    }
}
