// Ghost clipping of a linear layer: squared norms of the samples' gradients sum_t a_t g_t^T, and their weighted sum, without
// the gradients. The norms are doubles, and the sum keeps denormals.
//
// Counts: ghost_norms_single reads 4 bytes a value once and makes one double multiply-add. ghost_norms_pairs makes (p + q)
// of them a pair of positions, in tiles of 16 x 16 pairs. ghost_sum makes K p q multiply-adds in tiles of 64 x 64 entries:
// a thread has 16 entries and reads 8 values of shared memory for 16 multiply-adds, a value of memory serves 64.
#include "common/pairs.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"

// The sum of squares of `len` values, in thread 0.
__device__ __forceinline__ double sum_of_squares(const float* x, uint32_t len) {
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < len; i += 256) sum = fma(static_cast<double>(x[i]), static_cast<double>(x[i]), sum);
    return sum_of_threads(sum);
}

// One position a sample: out[s] = (|a|^2 + bias) |g|^2.
extern "C" __global__ void __launch_bounds__(256)
    ghost_norms_single(const GhostPassParams p, const float* a, const float* g, double* out) {
    const uint32_t sample = group_index();
    if (sample >= p.groups) return;
    const double activations = sum_of_squares(a + static_cast<size_t>(sample) * p.inputs, p.inputs);
    __syncthreads();
    const double gradients = sum_of_squares(g + static_cast<size_t>(sample) * p.outputs, p.outputs);
    if (threadIdx.x == 0) out[sample] = (activations + p.bias) * gradients;
}
REGISTER_KERNEL(ghost_norms_single)

// Tile `group % tiles` of the pairs of positions (t, t' <= t) of sample `group / tiles`:
// out[group] = sum of (<a_t, a_t'> + bias) <g_t, g_t'>, twice where t' < t.
extern "C" __global__ void __launch_bounds__(256)
    ghost_norms_pairs(const GhostPassParams p, const float* a, const float* g, double* out) {
    if (group_index() >= p.groups) return;
    const uint32_t sample = group_index() / p.tiles, tile = group_index() % p.tiles;
    const uint32_t high = triangle_row(tile), low = tile - high * (high + 1) / 2;
    const size_t first = static_cast<size_t>(sample) * p.positions;
    const double activations = PairsRows{a + first * p.inputs, p.inputs, p.positions}.products(high, low, 0, p.inputs);
    const double gradients = PairsRows{g + first * p.outputs, p.outputs, p.positions}.products(high, low, 0, p.outputs);
    const uint32_t i = 16 * high + (threadIdx.x >> 4), j = 16 * low + (threadIdx.x & 15);
    const double weight = i >= p.positions || j > i ? 0.0 : j < i ? 2.0 : 1.0;
    const double sum = sum_of_threads(weight * ((activations + p.bias) * gradients));
    if (threadIdx.x == 0) out[group_index()] = sum;
}
REGISTER_KERNEL(ghost_norms_pairs)

// Positions of a panel, of a run (one accumulator), and of a segment (one partial sum of every entry).
constexpr uint32_t GHOST_PANEL = 16;
constexpr uint32_t GHOST_RUN = 256;
constexpr uint32_t GHOST_SEGMENT = 4096;

// Sixteen positions of 64 columns of the activations (a one behind the last input) and of 64 of the weighted gradients.
__device__ __forceinline__ void ghost_fill(const GhostPassParams& p, const float* a, const float* g, const float* c, uint32_t k0,
                                           uint32_t row, uint32_t column, float* panel) {
    const uint32_t positions = p.samples * p.positions;
    for (uint32_t i = threadIdx.x; i < GHOST_PANEL * 64; i += 256) {
        const uint32_t k = k0 + i / 64, at = row + i % 64;
        const bool there = k < positions;
        panel[i] = !there ? 0.0f : at < p.inputs ? a[static_cast<size_t>(k) * p.inputs + at] : at == p.inputs ? 1.0f : 0.0f;
        const uint32_t to = column + i % 64;
        panel[GHOST_PANEL * 64 + i] =
            there && to < p.outputs ? c[k / p.positions] * g[static_cast<size_t>(k) * p.outputs + to] : 0.0f;
    }
}

// group = (segment * row tiles + row tile) * tiles + column tile. out: [segments x (inputs + bias) x outputs].
extern "C" __global__ void __launch_bounds__(256)
    ghost_sum(const GhostPassParams p, const float* a, const float* g, const float* c, float* out) {
    if (group_index() >= p.groups) return;
    const uint32_t rows = p.inputs + p.bias, row_tiles = (rows + 63) / 64;
    const uint32_t column = group_index() % p.tiles * 64, rest = group_index() / p.tiles;
    const uint32_t row = rest % row_tiles * 64, segment = rest / row_tiles;
    const uint32_t start = (p.first + segment) * GHOST_SEGMENT;
    const uint32_t end = min(p.samples * p.positions, start + GHOST_SEGMENT);
    float* panel = dynamic_shared<float>();
    // Entry (x, y) of a thread is 16 x + its own place: neighbours read neighbours.
    const uint32_t i = threadIdx.x >> 4, j = threadIdx.x & 15;
    float total[4][4] = {};
    for (uint32_t run = start; run < end; run += GHOST_RUN) {
        float sum[4][4] = {};
        for (uint32_t k0 = run; k0 < min(end, run + GHOST_RUN); k0 += GHOST_PANEL) {
            ghost_fill(p, a, g, c, k0, row, column, panel);
            __syncthreads();
#pragma unroll 4
            for (uint32_t k = 0; k < GHOST_PANEL; k++) {
                float left[4], right[4];
#pragma unroll
                for (int x = 0; x < 4; x++) {
                    left[x] = panel[64 * k + 16 * x + i];
                    right[x] = panel[64 * (GHOST_PANEL + k) + 16 * x + j];
                }
#pragma unroll
                for (int x = 0; x < 4; x++)
#pragma unroll
                    for (int y = 0; y < 4; y++) sum[x][y] = fmaf(left[x], right[y], sum[x][y]);
            }
            __syncthreads();
        }
#pragma unroll
        for (int x = 0; x < 4; x++)
#pragma unroll
            for (int y = 0; y < 4; y++) total[x][y] += sum[x][y];
    }
#pragma unroll
    for (uint32_t x = 0; x < 4; x++)
#pragma unroll
        for (uint32_t y = 0; y < 4; y++) {
            const uint32_t r = row + 16 * x + i, s = column + 16 * y + j;
            if (r < rows && s < p.outputs) out[(static_cast<size_t>(segment) * rows + r) * p.outputs + s] = total[x][y];
        }
}
REGISTER_KERNEL(ghost_sum)

// total[k] += parts[0][k] + parts[1][k] + .., in this order, over `tiles` segments of `first` entries.
extern "C" __global__ void __launch_bounds__(256) ghost_add(const GhostPassParams p, float* total, const float* parts) {
    const uint32_t k = group_index() * 256 + threadIdx.x;
    if (group_index() >= p.groups || k >= p.first) return;
    float sum = total[k];
    for (uint32_t segment = 0; segment < p.tiles; segment++) sum += parts[static_cast<size_t>(segment) * p.first + k];
    total[k] = sum;
}
REGISTER_KERNEL(ghost_add)
