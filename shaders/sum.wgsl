// acc <- acc + sum of rows, mod 2^b or mod p (host plan: device/sum.rs). `count` rows of `len` words.
//
// 4 bytes an element of the rows, 8 of the accumulator; one addition, and mod p a subtraction and a minimum.

@group(0) @binding(0) var<uniform> p: FlatPassParams;
@group(0) @binding(1) var<storage, read_write> acc: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;

@compute @workgroup_size(256)
fn sum_bits(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    for (var j = group * 1024u + t; j < min(p.len, (group + 1u) * 1024u); j += 256u) {
        var sum = acc[j];
        for (var i = 0u; i < p.count; i++) {
            sum += rows[i * p.len + j];
        }
        acc[j] = sum & (0xffffffffu >> (32u - p.bits));
    }
}

@compute @workgroup_size(256)
fn sum_prime(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    for (var j = group * 1024u + t; j < min(p.len, (group + 1u) * 1024u); j += 256u) {
        var sum = acc[j];
        for (var i = 0u; i < p.count; i++) {
            sum += rows[i * p.len + j];
            sum = min(sum, sum - p.modulus);
        }
        acc[j] = sum;
    }
}

@group(0) @binding(1) var<storage, read> residues: array<u32>;
@group(0) @binding(2) var<storage, read_write> first_bad: array<atomic<u32>>;

// The first place in `residues` that holds no number below `modulus`, or what was there: 4 bytes an element.
@compute @workgroup_size(256)
fn sum_residues(
    @builtin(workgroup_id) block: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let group = block.x + block.y * grid.x;
    if group >= p.groups {
        return;
    }
    var bad = 0xffffffffu;
    let end = min(p.len, (group + 1u) * 4096u);
    for (var i = group * 4096u + t; i < end; i += 256u) {
        bad = min(bad, select(i, 0xffffffffu, residues[i] < p.modulus));
    }
    if bad != 0xffffffffu {
        atomicMin(&first_bad[0], bad);
    }
}
