// Integer noise added to words mod 2^b (host plan: device/noise.rs). Rows of `padded` words, a key each; `first` is the
// number of a row's first coordinate.
//
// noise_table: 16 keystream bytes a coordinate, U; |X| = #{k : U >= 2 T_k} with the `count` thresholds 2 T_k, sign from
//   bit 0. All of them are compared: 12 operations each, and 1/4 of a block of ChaCha (244 operations with 20 rounds):
//   the 8 bytes of memory a coordinate are nothing beside it.
// noise_binomial: popcount of 2k = `count` bits, less k; h = ceil(2k / 16) blocks of ChaCha for 32 neighbours.

@group(0) @binding(0) var<uniform> p: RowsPassParams;
@group(0) @binding(1) var<storage, read_write> table_words: array<u32>;
@group(0) @binding(2) var<storage, read> table_keys: array<u32>;
@group(0) @binding(3) var<storage, read> thresholds: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> binomial_words: array<u32>;
@group(0) @binding(2) var<storage, read> binomial_keys: array<u32>;

var<workgroup> counts: array<u32, 2048>;

// 1 if u >= t, else 0: no borrow out of the highest word of u - t.
fn at_least(u: vec4<u32>, t: vec4<u32>) -> u32 {
    var below = u.x < t.x;
    below = (u.y < t.y) | ((u.y == t.y) & below);
    below = (u.z < t.z) | ((u.z == t.z) & below);
    below = (u.w < t.w) | ((u.w == t.w) & below);
    return select(1u, 0u, below);
}

fn add_noise(at: u32, end: u32, magnitude: u32, u: vec4<u32>, wrap: u32) {
    let negative = 0u - (u.x & 1u);
    if at < end {
        table_words[at] = (table_words[at] + (magnitude ^ negative) - negative) & wrap;
    }
}

// A group has 1024 words, a thread four neighbours: one block.
@compute @workgroup_size(256)
fn noise_table(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let row = group / p.chunks;
    let j = group % p.chunks * 1024u + 4u * t;
    if j >= p.padded {
        return;
    }
    let key = (p.first_row + row) * KEY_WORDS;
    let u = chacha_block(
        ChachaKey(
            vec4(table_keys[key], table_keys[key + 1u], table_keys[key + 2u], table_keys[key + 3u]),
            vec4(table_keys[key + 4u], table_keys[key + 5u], table_keys[key + 6u], table_keys[key + 7u]),
            table_keys[key + 8u],
        ),
        (p.first + j) >> 2u,
    );
    var m = vec4(0u);
    for (var k = 0u; k < p.count; k++) {
        let threshold = thresholds[k];
        m += vec4(
            at_least(u.a, threshold),
            at_least(u.b, threshold),
            at_least(u.c, threshold),
            at_least(u.d, threshold),
        );
    }
    let wrap = 0xffffffffu >> (32u - p.bits);
    let at = row * p.padded + j;
    let end = (row + 1u) * p.padded;
    add_noise(at, end, m.x, u.a, wrap);
    add_noise(at + 1u, end, m.y, u.b, wrap);
    add_noise(at + 2u, end, m.z, u.c, wrap);
    add_noise(at + 3u, end, m.w, u.d, wrap);
}

// The ones of both halves of each word, in its halves.
fn ones(x: vec4<u32>) -> vec4<u32> {
    let two = x - ((x >> vec4(1u)) & vec4(0x55555555u));
    let four = (two & vec4(0x33333333u)) + ((two >> vec4(2u)) & vec4(0x33333333u));
    let eight = (four + (four >> vec4(4u))) & vec4(0x0f0f0f0fu);
    return (eight + (eight >> vec4(8u))) & vec4(0x00ff00ffu);
}

// As in encode.wgsl.
fn place(s: u32, i: u32) -> u32 {
    return 16u * s + (i ^ ((s >> 1u) & 15u));
}

fn put(s: u32, i: u32, row: vec4<u32>) {
    counts[place(s, i)] = row.x;
    counts[place(s, i + 1u)] = row.y;
    counts[place(s, i + 2u)] = row.z;
    counts[place(s, i + 3u)] = row.w;
}

// A group has 4096 words, a thread the h blocks of 32 neighbours. A count is at most 2k = 8192: 16 bits hold it.
@compute @workgroup_size(128)
fn noise_binomial(
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
    let at = (p.first_row + row) * KEY_WORDS;
    let key = ChachaKey(
        vec4(binomial_keys[at], binomial_keys[at + 1u], binomial_keys[at + 2u], binomial_keys[at + 3u]),
        vec4(binomial_keys[at + 4u], binomial_keys[at + 5u], binomial_keys[at + 6u], binomial_keys[at + 7u]),
        binomial_keys[at + 8u],
    );
    let lines = (p.count + 15u) >> 4u;
    let block_number = lines * (((p.first + start) >> 5u) + t);
    var sum = ChachaBlock(vec4(0u), vec4(0u), vec4(0u), vec4(0u));
    for (var i = 0u; i < lines; i++) {
        let bytes = chacha_block(key, block_number + i);
        let counted = vec4((0xffffu >> (16u - min(16u, p.count - 16u * i))) * 0x10001u);
        sum.a += ones(bytes.a & counted);
        sum.b += ones(bytes.b & counted);
        sum.c += ones(bytes.c & counted);
        sum.d += ones(bytes.d & counted);
    }
    put(t, 0u, sum.a);
    put(t, 4u, sum.b);
    put(t, 8u, sum.c);
    put(t, 12u, sum.d);
    workgroupBarrier();
    let wrap = 0xffffffffu >> (32u - p.bits);
    for (var j = start + t; j < end; j += 128u) {
        let i = j - start;
        let count = (counts[place(i >> 5u, (i >> 1u) & 15u)] >> (16u * (i & 1u))) & 0xffffu;
        binomial_words[row * p.padded + j] = (binomial_words[row * p.padded + j] + count - (p.count >> 1u)) & wrap;
    }
}
