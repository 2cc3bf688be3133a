// Inner products of all pairs of n rows, and squared distances of chosen pairs, as doubles in integers (common/double.wgsl).
//
// Columns are cut into segments of 8192. A sum of one segment is one value of a partial triangle; gram_add adds the
// segments in their order. No sum has more roundings than 1031 a segment and one a segment behind it.
//
// Counts: gram_products reads 4 bytes a value for each of n / 16 tiles in which a row is, and makes 256 products and sums a
// column and tile of 16 x 16 pairs, 125 integer operations each. At 3e13 operations a second 10 rows are 9e8 columns a
// second: arithmetic is the limit, some 65 times below that of f64 where a card has it.

@group(0) @binding(0) var<uniform> p: GramParams;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> products: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> distances: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> total: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> parts: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> first: array<atomic<u32>>;

const SEGMENT: u32 = 8192u;

// Rows 16 tile .. of columns start .. start + PAIRS_PANEL, zeros from column `end` on, to row `place` of the panel on.
fn fill(thread: u32, tile: u32, start: u32, end: u32, place: u32) {
    let k = thread % PAIRS_PANEL;
    let column = start + k;
    for (var row = thread / PAIRS_PANEL; row < 16u; row += 8u) {
        var bits = 0u;
        if 16u * tile + row < p.rows && column < end {
            bits = x[p.offset + (16u * tile + row) * p.stride + column];
        }
        pairs_panel[(place + row) * PAIRS_STRIDE + k] = bits;
    }
}

// Tiles (i, j <= i) of 16 x 16 pairs of one segment: group = segment * tiles + tile, tile i (i + 1) / 2 + j.
// products: a triangle a segment, entry (i, j <= i) at i (i + 1) / 2 + j.
@compute @workgroup_size(256)
fn gram_products(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= p.groups {
        return;
    }
    let segment = index / p.tiles;
    let tile = index % p.tiles;
    let high = triangle_row(tile);
    let low = tile - high * (high + 1u) / 2u;
    let start = (p.first + segment) * SEGMENT;
    let end = min(p.dim, start + SEGMENT);
    var sum = DOUBLE_ZERO;
    for (var run = start; run < end; run += PAIRS_RUN) {
        var run_sum = DOUBLE_ZERO;
        for (var panel = run; panel < min(end, run + PAIRS_RUN); panel += PAIRS_PANEL) {
            fill(thread, high, panel, end, 0u);
            fill(thread, low, panel, end, 16u);
            workgroupBarrier();
            run_sum = pairs_add(thread, run_sum);
            workgroupBarrier();
        }
        sum = double_add(sum, run_sum);
    }
    let i = 16u * high + (thread >> 4u);
    let j = 16u * low + (thread & 15u);
    if i < p.rows && j <= i {
        products[segment * p.pairs + i * (i + 1u) / 2u + j] = sum;
    }
}

// Squared distances of pairs of rows: group = segment * pairs + k.
@compute @workgroup_size(256)
fn gram_distances(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= p.groups {
        return;
    }
    let segment = index / p.pairs;
    let pair = index % p.pairs;
    let a = p.offset + pairs[pair].x * p.stride;
    let b = p.offset + pairs[pair].y * p.stride;
    let start = (p.first + segment) * SEGMENT;
    let end = min(p.dim, start + SEGMENT);
    var sum = DOUBLE_ZERO;
    for (var i = start + thread; i < end; i += 256u) {
        let difference = double_add(double_of(x[a + i]), double_negate(double_of(x[b + i])));
        sum = double_add(sum, double_multiply(difference, difference));
    }
    let of_all = sum_of_threads(thread, sum);
    if thread == 0u {
        distances[segment * p.pairs + pair] = of_all;
    }
}

// total[k] += parts[0][k] + parts[1][k] + .., in this order, over `tiles` segments of `pairs` values.
@compute @workgroup_size(256)
fn gram_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    let k = index * 256u + thread;
    if index >= p.groups || k >= p.pairs {
        return;
    }
    var sum = total[k];
    for (var segment = 0u; segment < p.tiles; segment++) {
        sum = double_add(sum, parts[segment * p.pairs + k]);
    }
    total[k] = sum;
}

// first <- max(first, 2^32 - 1 - (row dim + column)) over the floats that are not finite: 0 if there is none. One group a
// segment of a row: group = row * tiles + segment.
@compute @workgroup_size(256)
fn gram_check(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= p.groups {
        return;
    }
    let row = index / p.tiles;
    let start = index % p.tiles * SEGMENT;
    for (var i = start + thread; i < min(p.dim, start + SEGMENT); i += 256u) {
        let bits = x[p.offset + row * p.stride + i];
        if (bits & 0x7f800000u) == 0x7f800000u {
            atomicMax(&first[0], ~(row * p.dim + i));
        }
    }
}
