// The ends of decode: residues to floats before the transform, signs and scale after it (host plan: device/decode.rs).
// Both in place: 8 bytes an element.

@group(0) @binding(0) var<uniform> p: FlatPassParams;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read> signs: array<u32>;

// Residues mod 2^b to floats in (-2^(b-1), 2^(b-1)].
@compute @workgroup_size(256)
fn decode_centre(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let wrap = 0xffffffffu >> (32u - p.bits);
    let end = min(p.len, (group + 1u) * 4096u);
    for (var i = group * 4096u + t; i < end; i += 256u) {
        let residue = x[i] & wrap;
        let negative = residue > (wrap >> 1u) + 1u;
        let v = f32(select(residue, (0u - residue) & wrap, negative));
        x[i] = bitcast<u32>(select(v, -v, negative));
    }
}

// v factor unit, negated where bit i % 32 of word i / 32 of the signs is set; `first` is the number of the first element,
// `count` 0 leaves the signs.
@compute @workgroup_size(256)
fn decode_finish(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    let end = min(p.len, (group + 1u) * 4096u);
    for (var i = group * 4096u + t; i < end; i += 256u) {
        let j = p.first + i;
        let sign = ((signs[(j >> 5u) * p.count] >> (j & 31u)) & p.count) << 31u;
        x[i] = bitcast<u32>(bitcast<f32>(x[i]) * p.factor * p.unit) ^ sign;
    }
}
