// Ghost clipping of a linear layer: squared norms of the samples' gradients sum_t a_t g_t^T, and their weighted sum, without
// the gradients. Doubles and floats alike are made in integers (common/double.wgsl): no denormal is lost.
//
// Counts: ghost_norms_single reads 4 bytes a value once and makes one product and sum, 125 integer operations.
// ghost_norms_pairs makes (p + q) of them a pair of positions, in tiles of 16 x 16 pairs. ghost_sum makes K p q of them in
// tiles of 64 x 64 entries: a thread has 16 entries and reads 8 words of group memory for 16. Sums are doubles to the end of
// a segment, where they become f32.

@group(0) @binding(0) var<uniform> p: GhostPassParams;
@group(0) @binding(1) var<storage, read> a: array<u32>;
@group(0) @binding(2) var<storage, read> g: array<u32>;
@group(0) @binding(3) var<storage, read_write> norms: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> c: array<u32>;
@group(0) @binding(4) var<storage, read_write> sums: array<u32>;
@group(0) @binding(1) var<storage, read_write> total: array<u32>;
@group(0) @binding(2) var<storage, read> parts: array<u32>;

// One position a sample: norms[s] = (|a|^2 + bias) |g|^2.
@compute @workgroup_size(256)
fn ghost_norms_single(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                      @builtin(local_invocation_index) thread: u32) {
    let sample = group.x + group.y * groups.x;
    if sample >= p.groups {
        return;
    }
    var sum = DOUBLE_ZERO;
    for (var i = thread; i < p.inputs; i += 256u) {
        let value = a[sample * p.inputs + i];
        sum = double_add(sum, double_product(value, value));
    }
    let activations = sum_of_threads(thread, sum);
    workgroupBarrier();
    sum = DOUBLE_ZERO;
    for (var i = thread; i < p.outputs; i += 256u) {
        let value = g[sample * p.outputs + i];
        sum = double_add(sum, double_product(value, value));
    }
    let gradients = sum_of_threads(thread, sum);
    if thread == 0u {
        norms[sample] = double_multiply(double_add(activations, bias()), gradients);
    }
}

// The bias as a number: 0 or 1.
fn bias() -> vec2<u32> {
    return double_of(p.bias * 0x3f800000u);
}

// Positions 16 tile .. of a sample, columns start .. start + PAIRS_PANEL of its activations, to row `place` of the panel on.
fn fill_activations(thread: u32, sample: u32, tile: u32, start: u32, place: u32) {
    let k = thread % PAIRS_PANEL;
    for (var row = thread / PAIRS_PANEL; row < 16u; row += 8u) {
        let t = 16u * tile + row;
        var bits = 0u;
        if t < p.positions && start + k < p.inputs {
            bits = a[(sample * p.positions + t) * p.inputs + start + k];
        }
        pairs_panel[(place + row) * PAIRS_STRIDE + k] = bits;
    }
}

// The same of its gradients.
fn fill_gradients(thread: u32, sample: u32, tile: u32, start: u32, place: u32) {
    let k = thread % PAIRS_PANEL;
    for (var row = thread / PAIRS_PANEL; row < 16u; row += 8u) {
        let t = 16u * tile + row;
        var bits = 0u;
        if t < p.positions && start + k < p.outputs {
            bits = g[(sample * p.positions + t) * p.outputs + start + k];
        }
        pairs_panel[(place + row) * PAIRS_STRIDE + k] = bits;
    }
}

// Tile `group % tiles` of the pairs of positions (t, t' <= t) of sample `group / tiles`:
// norms[group] = sum of (<a_t, a_t'> + bias) <g_t, g_t'>, twice where t' < t.
@compute @workgroup_size(256)
fn ghost_norms_pairs(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= p.groups {
        return;
    }
    let sample = index / p.tiles;
    let tile = index % p.tiles;
    let high = triangle_row(tile);
    let low = tile - high * (high + 1u) / 2u;
    var activations = DOUBLE_ZERO;
    for (var run = 0u; run < p.inputs; run += PAIRS_RUN) {
        var sum = DOUBLE_ZERO;
        for (var panel = run; panel < min(p.inputs, run + PAIRS_RUN); panel += PAIRS_PANEL) {
            fill_activations(thread, sample, high, panel, 0u);
            fill_activations(thread, sample, low, panel, 16u);
            workgroupBarrier();
            sum = pairs_add(thread, sum);
            workgroupBarrier();
        }
        activations = double_add(activations, sum);
    }
    var gradients = DOUBLE_ZERO;
    for (var run = 0u; run < p.outputs; run += PAIRS_RUN) {
        var sum = DOUBLE_ZERO;
        for (var panel = run; panel < min(p.outputs, run + PAIRS_RUN); panel += PAIRS_PANEL) {
            fill_gradients(thread, sample, high, panel, 0u);
            fill_gradients(thread, sample, low, panel, 16u);
            workgroupBarrier();
            sum = pairs_add(thread, sum);
            workgroupBarrier();
        }
        gradients = double_add(gradients, sum);
    }
    let i = 16u * high + (thread >> 4u);
    let j = 16u * low + (thread & 15u);
    var value = double_multiply(double_add(activations, bias()), gradients);
    if j < i {
        value = double_add(value, value);
    }
    if i >= p.positions || j > i {
        value = DOUBLE_ZERO;
    }
    let of_all = sum_of_threads(thread, value);
    if thread == 0u {
        norms[index] = of_all;
    }
}

// Positions of a panel, and of a segment (one partial sum of every entry).
const PANEL: u32 = 16u;
const SEGMENT: u32 = 4096u;

// Sixteen positions of 64 columns of the activations (a one behind the last input), and of 64 of the weighted gradients.
var<workgroup> panels: array<u32, 2048>;

fn fill_panels(thread: u32, start: u32, row: u32, column: u32) {
    for (var i = thread; i < PANEL * 64u; i += 256u) {
        let k = start + i / 64u;
        let at = row + i % 64u;
        let to = column + i % 64u;
        var left = 0u;
        var right = 0u;
        if k < p.samples * p.positions {
            if at < p.inputs {
                left = a[k * p.inputs + at];
            } else if at == p.inputs {
                left = 0x3f800000u;
            }
            if to < p.outputs {
                right = double_to_float(double_product(c[k / p.positions], g[k * p.outputs + to]));
            }
        }
        panels[i] = left;
        panels[PANEL * 64u + i] = right;
    }
}

// group = (segment * row tiles + row tile) * tiles + column tile. sums: [segments x (inputs + bias) x outputs].
@compute @workgroup_size(256)
fn ghost_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    if index >= p.groups {
        return;
    }
    let rows = p.inputs + p.bias;
    let row_tiles = (rows + 63u) / 64u;
    let column = index % p.tiles * 64u;
    let row = index / p.tiles % row_tiles * 64u;
    let segment = index / p.tiles / row_tiles;
    let start = (p.first + segment) * SEGMENT;
    let end = min(p.samples * p.positions, start + SEGMENT);
    // Entry (x, y) of a thread is 16 x + its own place: neighbours read neighbours.
    let i = thread >> 4u;
    let j = thread & 15u;
    var sum: array<vec2<u32>, 16>;
    for (var first = start; first < end; first += PANEL) {
        fill_panels(thread, first, row, column);
        workgroupBarrier();
        for (var k = 0u; k < PANEL; k++) {
            for (var e = 0u; e < 16u; e++) {
                let left = panels[64u * k + 16u * (e >> 2u) + i];
                let right = panels[64u * (PANEL + k) + 16u * (e & 3u) + j];
                sum[e] = double_add(sum[e], double_product(left, right));
            }
        }
        workgroupBarrier();
    }
    for (var e = 0u; e < 16u; e++) {
        let r = row + 16u * (e >> 2u) + i;
        let s = column + 16u * (e & 3u) + j;
        if r < rows && s < p.outputs {
            sums[(segment * rows + r) * p.outputs + s] = double_to_float(sum[e]);
        }
    }
}

// total[k] += parts[0][k] + parts[1][k] + .., in this order, over `tiles` segments of `first` entries.
@compute @workgroup_size(256)
fn ghost_add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) thread: u32) {
    let index = group.x + group.y * groups.x;
    let k = index * 256u + thread;
    if index >= p.groups || k >= p.first {
        return;
    }
    var sum = double_of(total[k]);
    for (var segment = 0u; segment < p.tiles; segment++) {
        sum = double_add(sum, double_of(parts[segment * p.first + k]));
    }
    total[k] = double_to_float(sum);
}
