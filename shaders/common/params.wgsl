// The structs of src/params.rs: same names, same members, same layout; a test compares the offsets.

struct ClipParams {
    rows: u32,
    dim: u32,
    stride: u32,
    bound: f32,
}

struct EncryptParams {
    slots: u32,
    width: u32,
    offset: u32,
    eta: u32,
}

struct FwhtParams {
    len: u32,
    block_log2: u32,
    scale: f32,
    _pad: u32,
}

// One launch of a kernel of `fwht`.
struct FwhtPassParams {
    groups: u32,
    len: u32,
    columns_log2: u32,
    stride_log2: u32,
    active_bits: u32,
    scale: f32,
    _pad0: u32,
    _pad1: u32,
}

struct EncodeParams {
    dim: u32,
    padded: u32,
    block_log2: u32,
    rotate: u32,
    bits: u32,
    fraction_bits: u32,
    norm: u32,
    rounding: u32,
    linf: u32,
    gamma: f32,
    clip: f32,
    _pad: u32,
    norm_bound: vec4<u32>,
}

struct DecodeParams {
    dim: u32,
    padded: u32,
    block_log2: u32,
    rotate: u32,
    bits: u32,
    unit: f32,
    _pad0: u32,
    _pad1: u32,
}

struct GhostParams {
    samples: u32,
    positions: u32,
    inputs: u32,
    outputs: u32,
    bias: u32,
    _pad0: u32,
    _pad1: u32,
    _pad2: u32,
}

// One launch of `ntt` or `intt`.
struct NttPassParams {
    groups: u32,
    degree_log2: u32,
    limbs: u32,
    local_log2: u32,
}

// One launch over residues.
struct ResidueParams {
    groups: u32,
    len: u32,
    other_len: u32,
    degree_log2: u32,
    limbs: u32,
    _pad0: u32,
    _pad1: u32,
    _pad2: u32,
}

// One launch of `encrypt`.
struct EncryptPassParams {
    groups: u32,
    len: u32,
    degree_log2: u32,
    limbs: u32,
    first: u32,
    slots: u32,
    eta: u32,
    values: u32,
}

// One launch of `median` or `trimmed_mean`.
struct SelectParams {
    groups: u32,
    rows: u32,
    dim: u32,
    offset: u32,
    stride: u32,
    trim: u32,
    rows_log2: u32,
    columns_log2: u32,
}

// One launch of a kernel on rows: group g works on chunk g % chunks of row g / chunks.
struct RowsPassParams {
    groups: u32,
    chunks: u32,
    first_row: u32,
    offset: u32,
    stride: u32,
    dim: u32,
    padded: u32,
    first: u32,
    bits: u32,
    fraction_bits: u32,
    norm: u32,
    rounding: u32,
    linf: u32,
    count: u32,
    rotate: u32,
    factor: f32,
    bound_mantissa: u32,
    bound_exponent: i32,
    element: u32,
    _pad0: u32,
    norm_bound: vec4<u32>,
}

// One launch of a kernel on `len` elements side by side.
struct FlatPassParams {
    groups: u32,
    len: u32,
    first: u32,
    bits: u32,
    modulus: u32,
    count: u32,
    factor: f32,
    unit: f32,
}

// One launch of `gram`.
struct GramParams {
    groups: u32,
    rows: u32,
    dim: u32,
    offset: u32,
    stride: u32,
    tiles: u32,
    pairs: u32,
    first: u32,
}

// One launch of the ghost verbs.
struct GhostPassParams {
    groups: u32,
    samples: u32,
    positions: u32,
    inputs: u32,
    outputs: u32,
    bias: u32,
    tiles: u32,
    first: u32,
}
