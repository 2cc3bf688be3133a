// Inner products, as doubles, of all pairs of 16 rows and 16 rows, for 256 threads: thread (i, j) = (t / 16, t % 16) gets the
// pair (i, j). The stage fills panels of 32 columns with the bits of its rows, zeros beyond them.
//
// A run of 1024 columns has its own accumulator; the runs are added in their order: 1023 roundings, and one a run.

const PAIRS_PANEL: u32 = 32u;
// Words between two rows of a panel: odd, so that rows do not share banks.
const PAIRS_STRIDE: u32 = 33u;
const PAIRS_RUN: u32 = 1024u;

// Sixteen rows, and sixteen others.
var<workgroup> pairs_panel: array<u32, 1056>;
var<workgroup> pairs_sums: array<vec2<u32>, 256>;

// sum plus the products of the panel's columns.
fn pairs_add(thread: u32, sum: vec2<u32>) -> vec2<u32> {
    let row = (thread >> 4u) * PAIRS_STRIDE;
    let column = (16u + (thread & 15u)) * PAIRS_STRIDE;
    var total = sum;
    for (var k = 0u; k < PAIRS_PANEL; k++) {
        total = double_add(total, double_product(pairs_panel[row + k], pairs_panel[column + k]));
    }
    return total;
}

// The row i of tile number i (i + 1) / 2 + j, j <= i, of a triangle of tiles.
fn triangle_row(tile: u32) -> u32 {
    var i = 0u;
    for (; (i + 1u) * (i + 2u) / 2u <= tile; i++) {
    }
    return i;
}

// The sum over 256 threads, the same tree every time, in thread 0.
fn sum_of_threads(thread: u32, x: vec2<u32>) -> vec2<u32> {
    pairs_sums[thread] = x;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            pairs_sums[thread] = double_add(pairs_sums[thread], pairs_sums[thread + half]);
        }
    }
    if thread == 0u {
        return pairs_sums[0];
    }
    return DOUBLE_ZERO;
}
