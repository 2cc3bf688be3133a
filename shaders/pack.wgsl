// The low b bits of words side by side, and back (host plan: device/pack.rs). A thread has one word of the result.
//
// pack: b / 8 bytes written a value and 4 read, some of them twice, from the cache; 5 operations a value read.
// unpack: the other way.

@group(0) @binding(0) var<uniform> p: RowsPassParams;
@group(0) @binding(1) var<storage, read> pack_words: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed_words: array<u32>;
@group(0) @binding(1) var<storage, read> unpack_words: array<u32>;
@group(0) @binding(2) var<storage, read_write> unpacked_words: array<u32>;

// Rows of `padded` words to rows of `dim` words.
@compute @workgroup_size(256)
fn pack(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    let row = group / p.chunks;
    let w = group % p.chunks * 256u + t;
    if group >= p.groups || w >= p.dim {
        return;
    }
    let mask = 0xffffffffu >> (32u - p.bits);
    // The first value with a bit in word w, and how many of its bits came before: 32 w = b (32 (w / b)) + 32 (w % b).
    let rest = 32u * (w % p.bits);
    var j = 32u * (w / p.bits) + rest / p.bits;
    let before = rest % p.bits;
    var packed = 0u;
    if j < p.padded {
        packed = (pack_words[row * p.padded + j] & mask) >> before;
    }
    for (var at = p.bits - before; at < 32u; at += p.bits) {
        j++;
        if j < p.padded {
            packed |= (pack_words[row * p.padded + j] & mask) << at;
        }
    }
    packed_words[row * p.dim + w] = packed;
}

// One row: `padded` words from `dim` packed ones.
@compute @workgroup_size(256)
fn unpack(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    let j = group * 256u + t;
    if group >= p.groups || j >= p.padded {
        return;
    }
    // Bit b j, without overflow.
    let low = (j & 31u) * p.bits;
    let at = (j >> 5u) * p.bits + (low >> 5u);
    let shift = low & 31u;
    var x = unpack_words[at] >> shift;
    if shift + p.bits > 32u {
        x |= unpack_words[at + 1u] << (32u - shift);
    }
    unpacked_words[j] = x & (0xffffffffu >> (32u - p.bits));
}
