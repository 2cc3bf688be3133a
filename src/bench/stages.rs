//! The table of stages: what can be measured, at which sizes, and what it costs at least.
//!
//! An entry is data. To add one: name, sizes, the floor of its cost (see [`super::cost`]), and a
//! constructor that makes the buffers once and returns the call that is timed.

mod open;

use std::ops::RangeInclusive;

use super::BenchError;
use super::cost::{CHACHA8, CHACHA20, Cost};
use super::request::Target;

/// The call that is timed.
pub type Body = Box<dyn FnMut() -> Result<(), BenchError> + Send>;

/// Sizes that a stage takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Dims {
    /// `2^k` with `k` in this range.
    PowersOfTwo(RangeInclusive<u32>),
    /// Any number in this range.
    Any(RangeInclusive<usize>),
}

impl Dims {
    /// True if the stage takes `dim`.
    #[must_use]
    pub fn contains(&self, dim: usize) -> bool {
        match self {
            Self::PowersOfTwo(range) => dim.is_power_of_two() && range.contains(&dim.ilog2()),
            Self::Any(range) => range.contains(&dim),
        }
    }

    /// The range in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::PowersOfTwo(range) => format!("a power of two, 2^{} to 2^{}", range.start(), range.end()),
            Self::Any(range) => format!("{} to {}", range.start(), range.end()),
        }
    }
}

/// Rows that a stage takes.
#[derive(Clone, Debug)]
pub struct Rows {
    /// How many without `--rows`, for a dimension.
    pub default: fn(usize) -> usize,
    /// How many at all.
    pub range: RangeInclusive<usize>,
}

/// Always one row.
const ONE: Rows = Rows { default: |_| 1, range: 1..=1 };
/// One row, or as many as one likes.
const MANY: Rows = Rows { default: |_| 1, range: 1..=1 << 20 };
/// Short rows in batches of 2^12 elements, which the first cache holds.
const BATCH: Rows = Rows { default: |dim| ((1 << 12) / dim.max(1)).max(1), range: 1..=1 << 20 };

/// One measurement of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// One of the stage's variants.
    pub variant: &'static str,
    /// Elements a row.
    pub dim: usize,
    /// Rows.
    pub rows: usize,
}

impl Shape {
    /// Elements of all rows.
    #[must_use]
    pub const fn elements(&self) -> usize {
        self.dim * self.rows
    }

    /// log2 of the dimension.
    #[must_use]
    pub fn log2(&self) -> f64 {
        (self.dim as f64).log2()
    }
}

/// A kernel that can be measured.
#[derive(Debug)]
pub struct Stage {
    /// Name, as in [`crate::backend::Backend`].
    pub name: &'static str,
    /// What runs, and what an element is.
    pub about: &'static str,
    /// What else the name can mean; `""` if only one thing.
    pub variants: &'static [&'static str],
    /// Sizes that it takes.
    pub dims: Dims,
    /// Sizes measured by default.
    pub sizes: &'static [usize],
    /// Largest default size for the oracle.
    pub oracle: usize,
    /// True if it is a verb of every backend, false if only the host has it.
    pub devices: bool,
    /// Rows.
    pub rows: Rows,
    /// The floor of a call.
    pub cost: fn(&Shape) -> Cost,
    /// Makes buffers and keys, and returns the call.
    pub open: fn(&Target, &Shape) -> Result<Body, BenchError>,
}

/// Every stage, in the order of the pipeline.
pub static STAGES: &[Stage] = &[
    Stage {
        name: "clip",
        about: "rows of f32 to an L2 bound, in place; every row is over the bound",
        variants: &[""],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 12, 1 << 16, 1 << 20, 1 << 24],
        oracle: 1 << 20,
        devices: true,
        rows: MANY,
        // A multiply-add of the norm and a product.
        cost: |s| Cost::of(s.elements()).update(8.0).float(2.0),
        open: open::clip,
    },
    Stage {
        name: "fwht",
        about: "Walsh-Hadamard transform of f32 in place; a row is a block",
        variants: &[""],
        dims: Dims::PowersOfTwo(0..=27),
        sizes: &[1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 24],
        oracle: 1 << 16,
        devices: true,
        rows: BATCH,
        // An addition an output of each of log2(d) butterflies, and the scale.
        cost: |s| Cost::of(s.elements()).update(8.0).float(s.log2() + 1.0),
        open: open::fwht,
    },
    Stage {
        name: "encode",
        about: "clip, signs, fwht, fixed point, norm check, rounding, noise, wrap; f32 (or f16, bf16) to words mod 2^16",
        variants: &["plain", "packed", "binomial", "skellam", "f16", "bf16"],
        dims: Dims::PowersOfTwo(0..=27),
        sizes: &[1 << 12, 1 << 16, 1 << 20],
        oracle: 1 << 16,
        devices: true,
        rows: MANY,
        cost: |s| {
            // The transform; norm, signs, scale, conversion; fraction, threshold, rounding, norm, wrap; its
            // 16 bits of rounding and one of signs. A noise sample is keystream as in `noise`.
            let noise = match s.variant {
                "skellam" => 16.0,
                "binomial" => 6.0,
                _ => 0.0,
            };
            let bytes = match s.variant {
                "packed" => 4.0 + 2.0,
                "f16" | "bf16" => 2.0 + 4.0,
                _ => 4.0 + 4.0,
            };
            let both = Cost::of(s.elements()).copy(bytes).float(s.log2() + 4.0).word(5.0).product(1.0);
            both.keystream(2.0 + 1.0 / 8.0 + noise, CHACHA20)
        },
        open: open::encode,
    },
    Stage {
        name: "keystream",
        about: "keystream written on one thread; an element is a byte",
        variants: &["chacha20", "chacha8"],
        dims: Dims::Any(1..=1 << 30),
        sizes: &[1 << 14, 1 << 20],
        oracle: 1 << 20,
        devices: false,
        rows: ONE,
        cost: |s| {
            let rounds = if s.variant == "chacha8" { CHACHA8 } else { CHACHA20 };
            Cost::of(s.elements()).write(1.0).keystream(1.0, rounds)
        },
        open: open::keystream,
    },
    Stage {
        name: "noise",
        about: "integer noise added to words; the limit is the keystream's: 16 bytes a sample, 6 for the binomial of variance 12",
        variants: &["binomial-12", "skellam-5.95", "skellam-1428"],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 14, 1 << 20],
        oracle: 1 << 14,
        devices: true,
        rows: ONE,
        cost: |s| {
            let bytes = if s.variant == "binomial-12" { 6.0 } else { 16.0 };
            Cost::of(s.elements()).update(8.0).word(2.0).keystream(bytes, CHACHA20).samples()
        },
        open: open::noise,
    },
    Stage {
        name: "pack",
        about: "words mod 2^16 to the 16 bits that travel",
        variants: &[""],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 12, 1 << 16, 1 << 20],
        oracle: 1 << 20,
        devices: true,
        rows: ONE,
        cost: |s| Cost::of(s.elements()).copy(6.0).word(1.0),
        open: open::pack,
    },
    Stage {
        name: "unpack",
        about: "16 bits a word back to words",
        variants: &[""],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 12, 1 << 16, 1 << 20],
        oracle: 1 << 20,
        devices: true,
        rows: ONE,
        cost: |s| Cost::of(s.elements()).copy(6.0).word(1.0),
        open: open::unpack,
    },
    Stage {
        name: "mask",
        about: "a ChaCha20 keystream added to words, mod 2^16 (2 bytes a word) or mod a prime (16 bytes)",
        variants: &["wrapping", "modular"],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 14, 1 << 20],
        oracle: 1 << 16,
        devices: true,
        rows: ONE,
        cost: |s| match s.variant {
            // Four products of 32 bits by p, an addition with a reduction.
            "modular" => Cost::of(s.elements()).update(8.0).product(4.0).word(3.0).keystream(16.0, CHACHA20),
            _ => Cost::of(s.elements()).update(8.0).word(1.0).keystream(2.0, CHACHA20),
        },
        open: open::mask,
    },
    Stage {
        name: "sum",
        about: "rows of words added to one accumulator, mod 2^16 or mod a prime; elements of all rows",
        variants: &["wrapping", "modular"],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 12, 1 << 16, 1 << 20],
        oracle: 1 << 20,
        devices: true,
        rows: Rows { default: |_| 16, range: 1..=1 << 20 },
        cost: |s| {
            // An addition, or one with a reduction (a difference and a minimum).
            let each = if s.variant == "modular" { 3.0 } else { 1.0 };
            Cost::of(s.elements()).read(4.0).update(8.0 / s.rows as f64).word(each)
        },
        open: open::sum,
    },
    Stage {
        name: "decode",
        about: "centre, inverse fwht, unscale, signs; words mod 2^16 to f32",
        variants: &[""],
        dims: Dims::PowersOfTwo(0..=27),
        sizes: &[1 << 12, 1 << 16, 1 << 20],
        oracle: 1 << 16,
        devices: true,
        rows: ONE,
        // Conversion, transform, unit, sign; centring; one bit of signs.
        cost: |s| Cost::of(s.elements()).copy(8.0).float(s.log2() + 3.0).word(2.0).keystream(1.0 / 8.0, CHACHA20),
        open: open::decode,
    },
    Stage {
        name: "ntt",
        about: "negacyclic transform mod a prime below 2^30 in place; a row is a polynomial",
        variants: &[""],
        dims: Dims::PowersOfTwo(10..=15),
        sizes: DEGREES,
        oracle: 1 << 12,
        devices: true,
        rows: MANY,
        cost: |s| transforms(Cost::of(s.elements()).update(8.0), 1.0, s).ntts(s.rows),
        open: open::ntt,
    },
    Stage {
        name: "intt",
        about: "the inverse of ntt, with its factor 1 / N",
        variants: &[""],
        dims: Dims::PowersOfTwo(10..=15),
        sizes: DEGREES,
        oracle: 1 << 12,
        devices: true,
        rows: MANY,
        // The factor is a product by a constant.
        cost: |s| transforms(Cost::of(s.elements()).update(8.0).product(3.0), 1.0, s).ntts(s.rows),
        open: open::intt,
    },
    Stage {
        name: "polymul",
        about: "a <- a b mod (X^N + 1, p): two transforms, pointwise, one back",
        variants: &[""],
        dims: Dims::PowersOfTwo(10..=15),
        sizes: DEGREES,
        oracle: 1 << 12,
        devices: true,
        rows: MANY,
        // Pointwise: a 64-bit product and its reduction, which is two more.
        cost: |s| transforms(Cost::of(s.elements()).update(8.0).read(4.0).product(6.0), 3.0, s).ntts(3 * s.rows),
        open: open::polymul,
    },
    Stage {
        name: "gram",
        about: "inner products and distances of all pairs of rows, summed in f64; elements of all rows",
        variants: &[""],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 14, 400_000],
        oracle: 1 << 14,
        devices: true,
        rows: Rows { default: |_| 25, range: 1..=1 << 11 },
        // (n + 1) / 2 multiply-adds an element, each on a lane of 64 bits.
        cost: |s| Cost::of(s.elements()).read(4.0).float(s.rows as f64 + 1.0),
        open: open::gram,
    },
    Stage {
        name: "median",
        about: "median of every coordinate over the rows; elements of all rows",
        variants: &[""],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 14, 1_000_000],
        oracle: 1 << 14,
        devices: true,
        rows: Rows { default: |_| 10, range: 1..=1 << 15 },
        cost: selection,
        open: open::median,
    },
    Stage {
        name: "trimmed-mean",
        about: "mean of every coordinate without the least and the greatest fifth of the rows; elements of all rows",
        variants: &[""],
        dims: Dims::Any(1..=1 << 27),
        sizes: &[1 << 14, 1_000_000],
        oracle: 1 << 14,
        devices: true,
        rows: Rows { default: |_| 10, range: 1..=1 << 15 },
        cost: selection,
        open: open::trimmed_mean,
    },
    Stage {
        name: "ghost",
        about: "clipping a square linear layer without its per-sample gradients; rows are samples (32 positions each in norms-32)",
        variants: &["norms", "norms-32", "sum"],
        dims: Dims::Any(1..=1 << 13),
        sizes: &[1 << 8, 1 << 10],
        oracle: 1 << 8,
        devices: true,
        rows: Rows { default: |_| 64, range: 1..=1 << 12 },
        cost: ghost,
        open: open::ghost,
    },
    Stage {
        name: "encrypt",
        about: "one-shot lattice encryption, 2 primes, 2 values of 20 bits a coefficient; elements are values, a row is a block",
        variants: &[""],
        dims: Dims::PowersOfTwo(10..=15),
        sizes: &[1 << 12, 1 << 13, 1 << 14],
        oracle: 1 << 12,
        devices: true,
        rows: MANY,
        // Two limbs for two values: one inverse transform a value, its factor, the product with s, and 8 bytes of
        // keystream that become a residue; the error is 6 bytes for two values.
        cost: |s| {
            let cost = Cost::of(2 * s.elements()).copy(8.0).product(3.0 + 3.0 + 2.0).word(4.0);
            transforms(cost, 1.0, s).keystream(8.0 + 3.0, CHACHA20).ntts(2 * s.rows)
        },
        open: open::encrypt,
    },
];

/// Degrees of the lattice stages.
const DEGREES: &[usize] = &[1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15];

/// A sorting network over n rows (a minimum and a maximum a comparison; Batcher's count, which is close to the
/// least one known where that is known).
fn selection(shape: &Shape) -> Cost {
    let n = shape.rows as f64;
    let comparisons = (n * n.log2() * (n.log2() - 1.0) / 4.0 + n - 1.0).max(0.0);
    Cost::of(shape.elements()).read(4.0).write(4.0 / n).float(2.0 * comparisons / n + 1.0 / n)
}

/// Positions of a sample in a variant of `ghost`.
const fn positions(variant: &str) -> usize {
    if variant.len() == "norms-32".len() { 32 } else { 1 }
}

/// Layer of d inputs and d outputs, elements are activations; a multiply-add in `f64` is two lanes.
fn ghost(shape: &Shape) -> Cost {
    let (d, t) = (shape.dim as f64, positions(shape.variant) as f64);
    let elements = Cost::of(shape.elements() * positions(shape.variant)).read(8.0);
    match shape.variant {
        // d multiply-adds an activation, and d^2 results.
        "sum" => elements.write(4.0 * d / shape.rows as f64).float(d),
        "norms" => elements.float(4.0),
        // (T + 1) / 2 inner products of activations and as many of gradients.
        _ => elements.float(2.0 * (t + 1.0)),
    }
}

/// `count` transforms of log2 N stages of N / 2 butterflies: three products of Shoup's multiplication, its
/// difference, sum and difference of the outputs, and half of a lazy reduction.
fn transforms(cost: Cost, count: f64, shape: &Shape) -> Cost {
    let stages = count * shape.log2();
    cost.product(1.5 * stages).word(2.5 * stages)
}

/// The stage of that name.
///
/// # Errors
/// [`BenchError::UnknownStage`] with the nearest name.
pub fn find(name: &str) -> Result<&'static Stage, BenchError> {
    STAGES.iter().find(|s| s.name == name).ok_or_else(|| unknown(name, STAGES.iter().map(|s| s.name)))
}

/// The error about `name`, with the nearest of `known`.
pub(super) fn unknown(name: &str, known: impl Iterator<Item = &'static str>) -> BenchError {
    let known: Vec<&str> = known.collect();
    let near = |k: &str| strsim::jaro_winkler(&name.to_lowercase(), k);
    let nearest = known.iter().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|k| near(k) > 0.7);
    BenchError::UnknownStage { name: name.to_owned(), nearest: nearest.map(|&k| k.to_owned()), known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::simd::isa::Isa;
    use crate::backend::{BackendKind, open};

    #[test]
    fn the_table_keeps_its_own_rules() {
        for (index, stage) in STAGES.iter().enumerate() {
            assert!(STAGES[..index].iter().all(|s| s.name != stage.name), "{} twice", stage.name);
            assert!(!stage.variants.is_empty() && !stage.sizes.is_empty() && !stage.about.is_empty());
            for &dim in stage.sizes {
                assert!(stage.dims.contains(dim), "{} at {dim}", stage.name);
                assert!(stage.rows.range.contains(&(stage.rows.default)(dim)), "{} at {dim}", stage.name);
                for variant in stage.variants {
                    let cost = (stage.cost)(&Shape { variant, dim, rows: (stage.rows.default)(dim) });
                    assert!(cost.elements > 0.0 && cost.total_bytes() > 0.0, "{} {variant}", stage.name);
                    assert!(cost.total_operations() > 0.0, "{} {variant}", stage.name);
                }
            }
        }
    }

    /// The oracle and the kernels take every entry, at its smallest size, more than once.
    #[test]
    fn every_entry_runs_on_every_backend() {
        for stage in STAGES {
            let dim = *stage.sizes.iter().min().unwrap();
            for kind in [BackendKind::Scalar, BackendKind::Simd] {
                if kind == BackendKind::Scalar && dim > stage.oracle {
                    continue;
                }
                let target = Target { backend: open(Some(kind)).unwrap(), isa: Isa::best() };
                for variant in stage.variants {
                    let shape = Shape { variant, dim, rows: (stage.rows.default)(dim) };
                    let mut body = (stage.open)(&target, &shape).unwrap();
                    body().and_then(|()| body()).unwrap_or_else(|e| panic!("{} {variant}: {e}", stage.name));
                }
            }
        }
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest() {
        assert_eq!(find("fwht").unwrap().name, "fwht");
        let message = find("fwth").unwrap_err().to_string();
        assert!(message.contains("did you mean \"fwht\"") && message.contains("clip, fwht, encode"), "{message}");
        assert!(!find("xyzzy").unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn dims_say_what_they_take() {
        let powers = Dims::PowersOfTwo(10..=15);
        assert!(powers.contains(1024) && !powers.contains(1025) && !powers.contains(512) && !powers.contains(0));
        assert_eq!(powers.describe(), "a power of two, 2^10 to 2^15");
        assert!(Dims::Any(1..=5).contains(5) && !Dims::Any(1..=5).contains(0));
    }
}
