// Keystreams: the words themselves (for signs), and words plus or minus them in a ring (host plan: device/mask.rs).
// `first` is the number of the first element.
//
// keystream_words: 4 bytes written a word, and 1/16 of a block of ChaCha.
// mask_bits: mod 2^b: 8 bytes a word and 1/64, 1/32 or 1/16 of a block (15, 31 or 61 operations with 20 rounds): b bits of
// keystream, rounded up to 8, 16 or 32.
// mask_prime: mod p < 2^31: 8 bytes a word and 1/4 of a block (244), floor(U p / 2^128) by four products.

@group(0) @binding(0) var<uniform> p: FlatPassParams;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read> key_words: array<u32>;

var<workgroup> stream: array<u32, 4096>;

fn the_key() -> ChachaKey {
    return ChachaKey(
        vec4(key_words[0], key_words[1], key_words[2], key_words[3]),
        vec4(key_words[4], key_words[5], key_words[6], key_words[7]),
        key_words[8],
    );
}

// As in encode.wgsl.
fn place(s: u32, i: u32) -> u32 {
    return 16u * s + (i ^ ((s >> 1u) & 15u));
}

fn put(s: u32, i: u32, row: vec4<u32>) {
    stream[place(s, i)] = row.x;
    stream[place(s, i + 1u)] = row.y;
    stream[place(s, i + 2u)] = row.z;
    stream[place(s, i + 3u)] = row.w;
}

// `count` blocks of the keystream from `block` on, at most one a thread, to group memory.
fn fill(block: u32, count: u32, t: u32) {
    if t < count {
        let bytes = chacha_block(the_key(), block + t);
        put(t, 0u, bytes.a);
        put(t, 4u, bytes.b);
        put(t, 8u, bytes.c);
        put(t, 12u, bytes.d);
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn keystream_words(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    fill((p.first >> 4u) + group * 256u, 256u, t);
    for (var i = t; i < min(4096u, p.len - group * 4096u); i += 256u) {
        words[group * 4096u + i] = stream[place(i >> 4u, i & 15u)];
    }
}

@compute @workgroup_size(256)
fn mask_bits(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    // log2 of the values of a word: 8, 16 or 32 bits each.
    let many = select(0u, 1u, p.bits <= 16u) + select(0u, 1u, p.bits <= 8u);
    fill((p.first >> (4u + many)) + group * (256u >> many), 256u >> many, t);
    let wrap = 0xffffffffu >> (32u - p.bits);
    // All ones to subtract: x - k = ~(~x + k).
    let turn = 0u - p.count;
    for (var i = t; i < min(4096u, p.len - group * 4096u); i += 256u) {
        let x = words[group * 4096u + i];
        let w = i >> many;
        let k = stream[place(w >> 4u, w & 15u)] >> ((32u >> many) * (i & ((1u << many) - 1u)));
        words[group * 4096u + i] = (((x ^ turn) + k) ^ turn) & wrap;
    }
}

// floor(u p / 2^128): p < 2^31.
fn residue(u: vec4<u32>) -> u32 {
    var carry = wide_mul(u.x, p.modulus).y;
    var t = wide_add(vec3(wide_mul(u.y, p.modulus), 0u), vec3(carry, 0u, 0u));
    t = wide_add(vec3(wide_mul(u.z, p.modulus), 0u), vec3(t.y, 0u, 0u));
    t = wide_add(vec3(wide_mul(u.w, p.modulus), 0u), vec3(t.y, 0u, 0u));
    return t.y;
}

fn mask_residue(i: u32, u: vec4<u32>) {
    if i < p.len {
        let k = residue(u);
        let sum = words[i] + select(k, p.modulus - k, p.count != 0u);
        words[i] = min(sum, sum - p.modulus);
    }
}

@compute @workgroup_size(256)
fn mask_prime(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    let i = group * 1024u + 4u * t;
    if group >= p.groups || i >= p.len {
        return;
    }
    let u = chacha_block(the_key(), (p.first + i) >> 2u);
    mask_residue(i, u.a);
    mask_residue(i + 1u, u.b);
    mask_residue(i + 2u, u.c);
    mask_residue(i + 3u, u.d);
}
