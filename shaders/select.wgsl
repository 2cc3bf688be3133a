// Median of every coordinate over n rows. A group sorts 2^columns_log2 coordinates of 2^rows_log2 rows (n, then values
// above all others) in workgroup memory by a bitonic network, as words whose order is that of the floats; -0 counts as 0.
// Floats are handled as their bits: a GPU may flush denormals. The trimmed mean adds doubles made in integers
// (common/double.wgsl), which takes 80 operations a value.
//
// Counts, a value: 4 bytes read (pieces of 2^columns_log2 neighbours a row), r (r + 1) / 2 steps of 16 bytes of workgroup
// memory for two values and 6 operations, r = rows_log2; neighbouring threads have neighbouring coordinates.

@group(0) @binding(0) var<uniform> params: SelectParams;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;
@group(0) @binding(3) var<storage, read_write> first: array<atomic<u32>>;

const SIGN: u32 = 0x80000000u;

var<workgroup> keys: array<u32, 4096>;

// The word whose order as an integer is that of the float with these bits; 0 and -0 are one.
fn key_of(bits: u32) -> u32 {
    let plain = select(bits, 0u, bits == SIGN);
    return select(plain | SIGN, ~plain, (plain & SIGN) != 0u);
}

fn bits_of(key: u32) -> u32 {
    return select(~key, key ^ SIGN, (key & SIGN) != 0u);
}

// Half the sum of two finite floats, rounded once, to nearest and to even: what f64 gives.
//
// The greater magnitude is M 2^(e - 156) with six bits below its mantissa; the smaller one is shifted to it, and what falls
// off leaves a one in the last bit, far enough below the bit that rounding looks at.
fn half_sum(a: u32, b: u32) -> u32 {
    let swap = (a & ~SIGN) < (b & ~SIGN);
    let great = select(a, b, swap);
    let small = select(b, a, swap);
    let field = (great >> 23u) & 255u;
    let small_field = (small >> 23u) & 255u;
    let exponent = max(field, 1u);
    let distance = min(exponent - max(small_field, 1u), 31u);
    let mantissa = ((great & 0x7fffffu) | select(0u, 0x800000u, field != 0u)) << 6u;
    let other = ((small & 0x7fffffu) | select(0u, 0x800000u, small_field != 0u)) << 6u;
    let lost = select(0u, 1u, (other & ((1u << distance) - 1u)) != 0u);
    let shifted = (other >> distance) | lost;
    let sum = select(mantissa + shifted, mantissa - shifted, ((great ^ small) & SIGN) != 0u);
    if sum == 0u {
        return 0u;
    }
    // sum 2^(exponent - 157), 24 bits of which stay, fewer where the result is denormal.
    let top = 31 - i32(countLeadingZeros(sum));
    let field_out = i32(exponent) + top - 30;
    let drop = top - 23 + max(1 - field_out, 0);
    var kept = sum;
    if drop > 0 {
        let unit = 1u << u32(drop);
        let rest = sum & (unit - 1u);
        kept = sum >> u32(drop);
        let up = 2u * rest > unit || (2u * rest == unit && (kept & 1u) != 0u);
        kept += select(0u, 1u, up);
    } else {
        kept = sum << u32(-drop);
    }
    // The leading one of a normal mantissa, or a carry out of it, adds one to the exponent.
    return (great & SIGN) | ((u32(max(field_out, 1) - 1) << 23u) + kept);
}

fn load_keys(group: u32, thread: u32) {
    let words = 1u << (params.rows_log2 + params.columns_log2);
    for (var i = thread; i < words; i += 256u) {
        let row = i >> params.columns_log2;
        let coordinate = (group << params.columns_log2) + (i & ((1u << params.columns_log2) - 1u));
        var key = 0xffffffffu;
        if row < params.rows && coordinate < params.dim {
            let bits = x[params.offset + row * params.stride + coordinate];
            if (bits & 0x7f800000u) == 0x7f800000u {
                atomicMax(&first[0], ~(row * params.dim + coordinate));
            }
            key = key_of(bits);
        }
        keys[i] = key;
    }
}

// Compares rows at distance 2^j, in runs of 2^k that ascend and descend in turn.
fn compare(thread: u32, k: u32, j: u32) {
    let pairs = 1u << (params.rows_log2 + params.columns_log2 - 1u);
    for (var i = thread; i < pairs; i += 256u) {
        let pair = i >> params.columns_log2;
        let row = ((pair >> j) << (j + 1u)) | (pair & ((1u << j) - 1u));
        let low = (row << params.columns_log2) + (i & ((1u << params.columns_log2) - 1u));
        let high = low + (1u << (j + params.columns_log2));
        let a = keys[low];
        let b = keys[high];
        let ascending = ((row >> k) & 1u) == 0u;
        keys[low] = select(max(a, b), min(a, b), ascending);
        keys[high] = select(min(a, b), max(a, b), ascending);
    }
}

// Puts the group's keys in order: row r of coordinate c in word r 2^columns_log2 + c.
fn sort(group: u32, thread: u32) {
    load_keys(group, thread);
    for (var k = 1u; k <= params.rows_log2; k++) {
        for (var j = k; j > 0u; j--) {
            workgroupBarrier();
            compare(thread, k, j - 1u);
        }
    }
    workgroupBarrier();
}

// first <- max(first, 2^32 - 1 - (row dim + coordinate)) over the floats that are not finite: 0 if there is none.
@compute @workgroup_size(256)
fn median_12(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= params.groups {
        return;
    }
    sort(index, thread);
    for (var column = thread; column < (1u << params.columns_log2); column += 256u) {
        let coordinate = (index << params.columns_log2) + column;
        if coordinate < params.dim {
            let low = bits_of(keys[(((params.rows - 1u) / 2u) << params.columns_log2) + column]);
            let high = bits_of(keys[((params.rows / 2u) << params.columns_log2) + column]);
            out[coordinate] = half_sum(low, high);
        }
    }
}

@compute @workgroup_size(256)
fn trimmed_mean_12(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= params.groups {
        return;
    }
    sort(index, thread);
    for (var column = thread; column < (1u << params.columns_log2); column += 256u) {
        let coordinate = (index << params.columns_log2) + column;
        if coordinate < params.dim {
            var sum = DOUBLE_ZERO;
            for (var row = params.trim; row < params.rows - params.trim; row++) {
                sum = double_add(sum, double_of(bits_of(keys[(row << params.columns_log2) + column])));
            }
            out[coordinate] = double_to_float(double_quotient(sum, params.rows - 2u * params.trim));
        }
    }
}
