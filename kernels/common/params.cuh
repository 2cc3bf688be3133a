// The structs of src/params.rs: same names, same members, same layout. A test compares the assertions below with the
// offsets that Rust has.
#pragma once

#include <cstddef>
#include <cstdint>

// `fwht`: in place on each block of 2^block_log2, natural order, scaled by `scale` at the end.
struct FwhtParams {
    uint32_t len;
    uint32_t block_log2;
    float scale;
    uint32_t _pad;
};
static_assert(sizeof(FwhtParams) == 16, "FwhtParams");
static_assert(offsetof(FwhtParams, len) == 0, "FwhtParams");
static_assert(offsetof(FwhtParams, block_log2) == 4, "FwhtParams");
static_assert(offsetof(FwhtParams, scale) == 8, "FwhtParams");

// `clip`: rows of `dim` at a distance of `stride`.
struct ClipParams {
    uint32_t rows;
    uint32_t dim;
    uint32_t stride;
    float bound;
};
static_assert(sizeof(ClipParams) == 16, "ClipParams");
static_assert(offsetof(ClipParams, rows) == 0, "ClipParams");
static_assert(offsetof(ClipParams, dim) == 4, "ClipParams");
static_assert(offsetof(ClipParams, stride) == 8, "ClipParams");
static_assert(offsetof(ClipParams, bound) == 12, "ClipParams");

// `encode`: one row of `dim` floats becomes `padded` integers mod 2^bits.
struct EncodeParams {
    uint32_t dim;
    uint32_t padded;
    uint32_t block_log2;
    uint32_t rotate;
    uint32_t bits;
    uint32_t fraction_bits;
    uint32_t norm;
    uint32_t rounding;
    uint32_t linf;
    float gamma;
    float clip;
    uint32_t _pad;
    uint32_t norm_bound[4];
};
static_assert(sizeof(EncodeParams) == 64, "EncodeParams");
static_assert(offsetof(EncodeParams, dim) == 0, "EncodeParams");
static_assert(offsetof(EncodeParams, padded) == 4, "EncodeParams");
static_assert(offsetof(EncodeParams, block_log2) == 8, "EncodeParams");
static_assert(offsetof(EncodeParams, rotate) == 12, "EncodeParams");
static_assert(offsetof(EncodeParams, bits) == 16, "EncodeParams");
static_assert(offsetof(EncodeParams, fraction_bits) == 20, "EncodeParams");
static_assert(offsetof(EncodeParams, norm) == 24, "EncodeParams");
static_assert(offsetof(EncodeParams, rounding) == 28, "EncodeParams");
static_assert(offsetof(EncodeParams, linf) == 32, "EncodeParams");
static_assert(offsetof(EncodeParams, gamma) == 36, "EncodeParams");
static_assert(offsetof(EncodeParams, clip) == 40, "EncodeParams");
static_assert(offsetof(EncodeParams, norm_bound) == 48, "EncodeParams");

// `decode`: a sum mod 2^bits becomes `dim` floats.
struct DecodeParams {
    uint32_t dim;
    uint32_t padded;
    uint32_t block_log2;
    uint32_t rotate;
    uint32_t bits;
    float unit;
    uint32_t _pad[2];
};
static_assert(sizeof(DecodeParams) == 32, "DecodeParams");
static_assert(offsetof(DecodeParams, dim) == 0, "DecodeParams");
static_assert(offsetof(DecodeParams, padded) == 4, "DecodeParams");
static_assert(offsetof(DecodeParams, block_log2) == 8, "DecodeParams");
static_assert(offsetof(DecodeParams, rotate) == 12, "DecodeParams");
static_assert(offsetof(DecodeParams, bits) == 16, "DecodeParams");
static_assert(offsetof(DecodeParams, unit) == 20, "DecodeParams");

// `encrypt`: slots of a coefficient and the law of the errors.
struct EncryptParams {
    uint32_t slots;
    uint32_t width;
    uint32_t offset;
    uint32_t eta;
};
static_assert(sizeof(EncryptParams) == 16, "EncryptParams");
static_assert(offsetof(EncryptParams, slots) == 0, "EncryptParams");
static_assert(offsetof(EncryptParams, width) == 4, "EncryptParams");
static_assert(offsetof(EncryptParams, offset) == 8, "EncryptParams");
static_assert(offsetof(EncryptParams, eta) == 12, "EncryptParams");

// `ghost_norms`, `ghost_sum`: activations and output gradients of a linear layer.
struct GhostParams {
    uint32_t samples;
    uint32_t positions;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t bias;
    uint32_t _pad[3];
};
static_assert(sizeof(GhostParams) == 32, "GhostParams");
static_assert(offsetof(GhostParams, samples) == 0, "GhostParams");
static_assert(offsetof(GhostParams, positions) == 4, "GhostParams");
static_assert(offsetof(GhostParams, inputs) == 8, "GhostParams");
static_assert(offsetof(GhostParams, outputs) == 12, "GhostParams");
static_assert(offsetof(GhostParams, bias) == 16, "GhostParams");

// One launch of `fwht`: `groups` tiles; see common/fwht.cuh for the place of a tile's elements.
struct FwhtPassParams {
    uint32_t groups;
    uint32_t len;
    uint32_t columns_log2;
    uint32_t stride_log2;
    uint32_t active_bits;
    float scale;
    uint32_t _pad[2];
};
static_assert(sizeof(FwhtPassParams) == 32, "FwhtPassParams");
static_assert(offsetof(FwhtPassParams, groups) == 0, "FwhtPassParams");
static_assert(offsetof(FwhtPassParams, len) == 4, "FwhtPassParams");
static_assert(offsetof(FwhtPassParams, columns_log2) == 8, "FwhtPassParams");
static_assert(offsetof(FwhtPassParams, stride_log2) == 12, "FwhtPassParams");
static_assert(offsetof(FwhtPassParams, active_bits) == 16, "FwhtPassParams");
static_assert(offsetof(FwhtPassParams, scale) == 20, "FwhtPassParams");

// One launch of `ntt` or `intt`: a group has 2^local_log2 residues, or 2048 in the passes across tiles.
struct NttPassParams {
    uint32_t groups;
    uint32_t degree_log2;
    uint32_t limbs;
    uint32_t local_log2;
};
static_assert(sizeof(NttPassParams) == 16, "NttPassParams");
static_assert(offsetof(NttPassParams, groups) == 0, "NttPassParams");
static_assert(offsetof(NttPassParams, degree_log2) == 4, "NttPassParams");
static_assert(offsetof(NttPassParams, limbs) == 8, "NttPassParams");
static_assert(offsetof(NttPassParams, local_log2) == 12, "NttPassParams");

// One launch over residues: `len` words of `degree_log2`, `limbs`; the second factor has `other_len`.
struct ResidueParams {
    uint32_t groups;
    uint32_t len;
    uint32_t other_len;
    uint32_t degree_log2;
    uint32_t limbs;
    uint32_t _pad[3];
};
static_assert(sizeof(ResidueParams) == 32, "ResidueParams");
static_assert(offsetof(ResidueParams, groups) == 0, "ResidueParams");
static_assert(offsetof(ResidueParams, len) == 4, "ResidueParams");
static_assert(offsetof(ResidueParams, other_len) == 8, "ResidueParams");
static_assert(offsetof(ResidueParams, degree_log2) == 12, "ResidueParams");
static_assert(offsetof(ResidueParams, limbs) == 16, "ResidueParams");

// One launch of `encrypt`: `len` is what the kernel runs over (residues, coefficients or values of the message).
struct EncryptPassParams {
    uint32_t groups;
    uint32_t len;
    uint32_t degree_log2;
    uint32_t limbs;
    uint32_t first;
    uint32_t slots;
    uint32_t eta;
    uint32_t values;
};
static_assert(sizeof(EncryptPassParams) == 32, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, groups) == 0, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, len) == 4, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, degree_log2) == 8, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, limbs) == 12, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, first) == 16, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, slots) == 20, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, eta) == 24, "EncryptPassParams");
static_assert(offsetof(EncryptPassParams, values) == 28, "EncryptPassParams");

// One launch of `median` or `trimmed_mean`: a group has 2^columns_log2 coordinates.
struct SelectParams {
    uint32_t groups;
    uint32_t rows;
    uint32_t dim;
    uint32_t offset;
    uint32_t stride;
    uint32_t trim;
    uint32_t rows_log2;
    uint32_t columns_log2;
};
static_assert(sizeof(SelectParams) == 32, "SelectParams");
static_assert(offsetof(SelectParams, groups) == 0, "SelectParams");
static_assert(offsetof(SelectParams, rows) == 4, "SelectParams");
static_assert(offsetof(SelectParams, dim) == 8, "SelectParams");
static_assert(offsetof(SelectParams, offset) == 12, "SelectParams");
static_assert(offsetof(SelectParams, stride) == 16, "SelectParams");
static_assert(offsetof(SelectParams, trim) == 20, "SelectParams");
static_assert(offsetof(SelectParams, rows_log2) == 24, "SelectParams");
static_assert(offsetof(SelectParams, columns_log2) == 28, "SelectParams");

// One launch of `gram`: `tiles` and `pairs` say what a group is, `first` is the first segment.
struct GramParams {
    uint32_t groups;
    uint32_t rows;
    uint32_t dim;
    uint32_t offset;
    uint32_t stride;
    uint32_t tiles;
    uint32_t pairs;
    uint32_t first;
};
static_assert(sizeof(GramParams) == 32, "GramParams");
static_assert(offsetof(GramParams, groups) == 0, "GramParams");
static_assert(offsetof(GramParams, rows) == 4, "GramParams");
static_assert(offsetof(GramParams, dim) == 8, "GramParams");
static_assert(offsetof(GramParams, offset) == 12, "GramParams");
static_assert(offsetof(GramParams, stride) == 16, "GramParams");
static_assert(offsetof(GramParams, tiles) == 20, "GramParams");
static_assert(offsetof(GramParams, pairs) == 24, "GramParams");
static_assert(offsetof(GramParams, first) == 28, "GramParams");

// One launch of the ghost verbs: `tiles` of pairs or columns, or segments to add; `first` segment, or entries.
struct GhostPassParams {
    uint32_t groups;
    uint32_t samples;
    uint32_t positions;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t bias;
    uint32_t tiles;
    uint32_t first;
};
static_assert(sizeof(GhostPassParams) == 32, "GhostPassParams");
static_assert(offsetof(GhostPassParams, groups) == 0, "GhostPassParams");
static_assert(offsetof(GhostPassParams, samples) == 4, "GhostPassParams");
static_assert(offsetof(GhostPassParams, positions) == 8, "GhostPassParams");
static_assert(offsetof(GhostPassParams, inputs) == 12, "GhostPassParams");
static_assert(offsetof(GhostPassParams, outputs) == 16, "GhostPassParams");
static_assert(offsetof(GhostPassParams, bias) == 20, "GhostPassParams");
static_assert(offsetof(GhostPassParams, tiles) == 24, "GhostPassParams");
static_assert(offsetof(GhostPassParams, first) == 28, "GhostPassParams");

// One launch of a kernel on rows: group g works on chunk g % chunks of row g / chunks.
struct RowsPassParams {
    uint32_t groups;
    uint32_t chunks;
    uint32_t first_row;
    uint32_t offset;
    uint32_t stride;
    uint32_t dim;
    uint32_t padded;
    uint32_t first;
    uint32_t bits;
    uint32_t fraction_bits;
    uint32_t norm;
    uint32_t rounding;
    uint32_t linf;
    uint32_t count;
    uint32_t rotate;
    float factor;
    uint32_t bound_mantissa;
    int32_t bound_exponent;
    uint32_t element;
    uint32_t _pad;
    uint32_t norm_bound[4];
};
static_assert(sizeof(RowsPassParams) == 96, "RowsPassParams");
static_assert(offsetof(RowsPassParams, groups) == 0, "RowsPassParams");
static_assert(offsetof(RowsPassParams, chunks) == 4, "RowsPassParams");
static_assert(offsetof(RowsPassParams, first_row) == 8, "RowsPassParams");
static_assert(offsetof(RowsPassParams, offset) == 12, "RowsPassParams");
static_assert(offsetof(RowsPassParams, stride) == 16, "RowsPassParams");
static_assert(offsetof(RowsPassParams, dim) == 20, "RowsPassParams");
static_assert(offsetof(RowsPassParams, padded) == 24, "RowsPassParams");
static_assert(offsetof(RowsPassParams, first) == 28, "RowsPassParams");
static_assert(offsetof(RowsPassParams, bits) == 32, "RowsPassParams");
static_assert(offsetof(RowsPassParams, fraction_bits) == 36, "RowsPassParams");
static_assert(offsetof(RowsPassParams, norm) == 40, "RowsPassParams");
static_assert(offsetof(RowsPassParams, rounding) == 44, "RowsPassParams");
static_assert(offsetof(RowsPassParams, linf) == 48, "RowsPassParams");
static_assert(offsetof(RowsPassParams, count) == 52, "RowsPassParams");
static_assert(offsetof(RowsPassParams, rotate) == 56, "RowsPassParams");
static_assert(offsetof(RowsPassParams, factor) == 60, "RowsPassParams");
static_assert(offsetof(RowsPassParams, bound_mantissa) == 64, "RowsPassParams");
static_assert(offsetof(RowsPassParams, bound_exponent) == 68, "RowsPassParams");
static_assert(offsetof(RowsPassParams, element) == 72, "RowsPassParams");
static_assert(offsetof(RowsPassParams, norm_bound) == 80, "RowsPassParams");

// One launch of a kernel on `len` elements side by side.
struct FlatPassParams {
    uint32_t groups;
    uint32_t len;
    uint32_t first;
    uint32_t bits;
    uint32_t modulus;
    uint32_t count;
    float factor;
    float unit;
};
static_assert(sizeof(FlatPassParams) == 32, "FlatPassParams");
static_assert(offsetof(FlatPassParams, groups) == 0, "FlatPassParams");
static_assert(offsetof(FlatPassParams, len) == 4, "FlatPassParams");
static_assert(offsetof(FlatPassParams, first) == 8, "FlatPassParams");
static_assert(offsetof(FlatPassParams, bits) == 12, "FlatPassParams");
static_assert(offsetof(FlatPassParams, modulus) == 16, "FlatPassParams");
static_assert(offsetof(FlatPassParams, count) == 20, "FlatPassParams");
static_assert(offsetof(FlatPassParams, factor) == 24, "FlatPassParams");
static_assert(offsetof(FlatPassParams, unit) == 28, "FlatPassParams");
