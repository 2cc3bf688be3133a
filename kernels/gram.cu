// Inner products of all pairs of n rows, and squared distances of chosen pairs, in double precision. Products of two f32 are
// exact in f64, so fused and separate additions round alike.
//
// Columns are cut into segments of 8192. A sum of one segment is one value of a partial triangle; gram_add adds the
// segments in their order. No sum has more roundings than 1031 a segment and one a segment behind it.
//
// Counts: gram_products reads 4 bytes a value for each of n / 16 tiles in which a row is (from the cache but for the first
// one), makes 2 conversions, and 256 fused multiply-adds a column and tile of 16 x 16 pairs, each with 16 bytes of shared
// memory, most of them broadcasts. 10 rows: 4.3 TB/s read 1.1e11 columns a second, 132 multiprocessors of 64 double lanes
// at 1.8 GHz 6e10: arithmetic is the limit.
#include "common/pairs.cuh"
#include "common/params.cuh"
#include "common/platform.cuh"

constexpr uint32_t GRAM_SEGMENT = 8192;

// Tiles (i, j <= i) of 16 x 16 pairs of one segment: group = segment * tiles + tile, tile i (i + 1) / 2 + j.
// out: a triangle a segment, entry (i, j <= i) at i (i + 1) / 2 + j.
extern "C" __global__ void __launch_bounds__(256) gram_products(const GramParams p, const float* x, double* out) {
    if (group_index() >= p.groups) return;
    const uint32_t segment = group_index() / p.tiles, tile = group_index() % p.tiles;
    const uint32_t high = triangle_row(tile), low = tile - high * (high + 1) / 2;
    const uint32_t start = (p.first + segment) * GRAM_SEGMENT, end = min(p.dim, start + GRAM_SEGMENT);
    const double total = PairsRows{x + p.offset, p.stride, p.rows}.products(high, low, start, end);
    const uint32_t i = 16 * high + (threadIdx.x >> 4), j = 16 * low + (threadIdx.x & 15);
    if (i < p.rows && j <= i) out[static_cast<size_t>(segment) * p.pairs + i * (i + 1) / 2 + j] = total;
}
REGISTER_KERNEL(gram_products)

// Squared distances of pairs of rows (pairs[2 k], pairs[2 k + 1]): group = segment * pairs + k.
extern "C" __global__ void __launch_bounds__(256)
    gram_distances(const GramParams p, const float* x, const uint32_t* pairs, double* out) {
    if (group_index() >= p.groups) return;
    const uint32_t segment = group_index() / p.pairs, pair = group_index() % p.pairs;
    const float* a = x + p.offset + pairs[2 * pair] * p.stride;
    const float* b = x + p.offset + pairs[2 * pair + 1] * p.stride;
    const uint32_t start = (p.first + segment) * GRAM_SEGMENT, end = min(p.dim, start + GRAM_SEGMENT);
    double sum = 0;
    for (uint32_t i = start + threadIdx.x; i < end; i += 256) {
        const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        sum += difference * difference;
    }
    const double total = sum_of_threads(sum);
    if (threadIdx.x == 0) out[static_cast<size_t>(segment) * p.pairs + pair] = total;
}
REGISTER_KERNEL(gram_distances)

// total[k] += parts[0][k] + parts[1][k] + .., in this order, over `tiles` segments of `pairs` values.
extern "C" __global__ void __launch_bounds__(256) gram_add(const GramParams p, double* total, const double* parts) {
    const uint32_t k = group_index() * 256 + threadIdx.x;
    if (group_index() >= p.groups || k >= p.pairs) return;
    double sum = total[k];
    for (uint32_t segment = 0; segment < p.tiles; segment++) sum += parts[static_cast<size_t>(segment) * p.pairs + k];
    total[k] = sum;
}
REGISTER_KERNEL(gram_add)

// first <- max(first, 2^32 - 1 - (row dim + column)) over the floats that are not finite: 0 if there is none. One group a
// segment of a row: group = row * tiles + segment.
extern "C" __global__ void __launch_bounds__(256) gram_check(const GramParams p, const uint32_t* x, uint32_t* first) {
    if (group_index() >= p.groups) return;
    const uint32_t row = group_index() / p.tiles, start = group_index() % p.tiles * GRAM_SEGMENT;
    for (uint32_t i = start + threadIdx.x; i < min(p.dim, start + GRAM_SEGMENT); i += 256) {
        const uint32_t bits = x[p.offset + row * p.stride + i];
        if ((bits & 0x7f800000u) == 0x7f800000u) atomicMax(first, ~(row * p.dim + i));
    }
}
REGISTER_KERNEL(gram_check)
