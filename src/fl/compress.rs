//! Compression that commutes with the sum: one public linear map S for all clients of a round, so that the sum of compressed
//! vectors is the compressed sum, under every protocol and mechanism.
//!
//! ```text
//! client   y_i = S x_i                   m of d values; then clip, encode, protect as without
//! server   lift(mean y_i) = S^T mean y_i
//! ```
//! S is drawn anew in each attempt of a round from public randomness ([`Purpose::Compression`](crate::math::prg::Purpose)):
//!
//! - `random-k`: m = k coordinates chosen without replacement, times `sqrt(d / k)`.
//! - `sketch`: a count sketch (Charikar, Chen, Farach-Colton 2002): each of r rows adds up the coordinates in `columns` buckets by a random
//!   hash, with random signs; m = r columns, times `1 / sqrt(r)`. The estimate is the mean over the rows, which is linear; the
//!   median of the literature is not, and does not commute with a sum of clients.
//!
//! For both `E[S^T S] = I`: what the server gets is unbiased, and `E|S x|^2 = |x|^2`, so that a clip bound means the same with and
//! without. The price is variance, `E|S^T S x - x|^2 = (omega - 1) |x|^2`, with `omega = d / k` for `random-k` and
//! `omega = 1 + (d - 1) / m` for a sketch, **whatever its number of rows**.
//!
//! **Error feedback** (Seide et al. 2014; Karimireddy et al. 2019). A client adds to its vector what it held back before and keeps
//! `e <- u - S^T S u`, `u = x + e`. This needs a map that contracts, which no unbiased one with omega >= 2 does: with feedback S is
//! scaled by `sqrt(1 / omega)`, which is the best factor, and `E|e|^2 = (1 - 1/omega) |u|^2`. For `random-k` S is then the bare choice of
//! coordinates.
//!
//! **Privacy.** The clip bounds S x itself, so that the sensitivity of a round is the clip bound whatever S, x and e are: accounting needs
//! no change. `docs/compression.md` has the argument for feedback, whose vectors depend on rounds before.

pub mod feedback;
pub mod operator;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FlError;
pub use feedback::Residuals;
pub use operator::Operator;

/// Largest number of coordinates d that is compressed.
pub const MAX_DIM: usize = i32::MAX as usize;
/// Most rows of a sketch.
pub const MAX_ROWS: u32 = 16;
/// Most values that all clients may keep together: 8 GiB.
const MAX_KEPT: u64 = 1 << 31;

/// A compression, as a config names it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// The same randomly chosen coordinates of every client of a round.
    RandomK(RandomK),
    /// A count sketch, whose rows are averaged.
    Sketch(Sketch),
}

/// Randomly chosen coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomK {
    /// Share of the coordinates that is sent, in (0, 1]; rounded up to whole coordinates.
    pub keep: f64,
    /// Each client keeps what was not sent, and adds it to its next vector. For clients that come back.
    #[serde(default)]
    pub error_feedback: bool,
}

/// A count sketch. Either `columns` or `ratio` is given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sketch {
    /// Rows: independent hashes, each of `columns` buckets, 1 to 16. At one number of buckets altogether the mean over more rows has the
    /// same variance; its errors are less far apart.
    #[serde(default = "one")]
    pub rows: u32,
    /// Buckets of a row, at least 1; rows x columns is at most the number of parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<u64>,
    /// The same as a share: rows x columns is this share of the number of parameters, rounded down. In (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Each client keeps what the sketch lost, and adds it to its next vector. For clients that come back.
    #[serde(default)]
    pub error_feedback: bool,
}

fn one() -> u32 {
    1
}

fn refuse(name: &'static str, expected: impl Into<String>, found: impl ToString) -> FlError {
    FlError::OutOfRange { name, expected: expected.into(), found: found.to_string() }
}

impl Compression {
    /// Checks the ranges for vectors of `dim` coordinates.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`], which names the key of the config.
    pub fn validate(&self, dim: usize) -> Result<(), FlError> {
        if dim == 0 || dim > MAX_DIM {
            return Err(refuse("number of parameters under `compression`", format!("1 to {MAX_DIM}"), dim));
        }
        match self {
            Self::RandomK(RandomK { keep, .. }) => {
                if !(*keep > 0.0 && *keep <= 1.0) {
                    return Err(refuse("compression.random-k.keep", "in (0, 1]", keep));
                }
                Ok(())
            }
            Self::Sketch(sketch) => sketch.validate(dim),
        }
    }

    /// Checks that clients whose errors are fed back come back, and that what they keep has room.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`].
    pub fn validate_clients(&self, dim: usize, clients: u64, per_sample: bool) -> Result<(), FlError> {
        if !self.error_feedback() {
            return Ok(());
        }
        let name = "compression.*.error_feedback";
        if per_sample {
            let expected = "false with partition `per-sample` (each sample would keep a vector as large as the model); or clients \
                 with more data";
            return Err(refuse(name, expected, true));
        }
        if clients.saturating_mul(dim as u64) > MAX_KEPT {
            let expected = format!("false, or at most {MAX_KEPT} values (clients x parameters) that the clients keep");
            return Err(refuse(name, expected, format!("true with {clients} x {dim}")));
        }
        Ok(())
    }

    /// Number m of values that are left of `dim`; at least 1, at most `dim` for what [`Self::validate`] accepts.
    #[must_use]
    pub fn size(&self, dim: usize) -> usize {
        match self {
            // A product a little above an integer is that integer.
            Self::RandomK(RandomK { keep, .. }) => {
                ((keep * dim as f64 * (1.0 - 1e-12)).ceil() as usize).clamp(1, dim.max(1))
            }
            Self::Sketch(sketch) => sketch.rows as usize * usize::try_from(sketch.width(dim)).unwrap_or(usize::MAX),
        }
    }

    /// Whether clients keep what was lost.
    #[must_use]
    pub const fn error_feedback(&self) -> bool {
        match self {
            Self::RandomK(RandomK { error_feedback, .. }) | Self::Sketch(Sketch { error_feedback, .. }) => {
                *error_feedback
            }
        }
    }

    /// `omega = E|S^T S x|^2 / |x|^2` of the unbiased map.
    #[must_use]
    pub fn omega(&self, dim: usize) -> f64 {
        let (d, m) = (dim as f64, self.size(dim) as f64);
        match self {
            Self::RandomK(_) => d / m,
            Self::Sketch(_) => 1.0 + (d - 1.0) / m,
        }
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RandomK(_) => "random-k",
            Self::Sketch(_) => "sketch",
        }
    }
}

impl Sketch {
    fn validate(&self, dim: usize) -> Result<(), FlError> {
        if !(1..=MAX_ROWS).contains(&self.rows) {
            return Err(refuse("compression.sketch.rows", format!("1 to {MAX_ROWS}"), self.rows));
        }
        match (self.columns, self.ratio) {
            (Some(_), Some(_)) | (None, None) => {
                let found = if self.ratio.is_some() { "both" } else { "neither" };
                return Err(refuse("compression.sketch", "with `columns` or `ratio`", found));
            }
            (None, Some(ratio)) if !(ratio > 0.0 && ratio <= 1.0) => {
                return Err(refuse("compression.sketch.ratio", "in (0, 1]", ratio));
            }
            _ => {}
        }
        let most = (dim / self.rows as usize) as u64;
        let width = self.width(dim);
        if width == 0 || width > most {
            let expected = format!("1 to {most}: {} rows of more would be longer than the {dim} parameters", self.rows);
            return Err(refuse("compression.sketch.columns", expected, width));
        }
        Ok(())
    }

    /// Buckets of a row.
    fn width(&self, dim: usize) -> u64 {
        let share = |ratio: f64| (ratio * dim as f64 / f64::from(self.rows) * (1.0 + 1e-12)).floor().max(1.0) as u64;
        self.columns.unwrap_or_else(|| self.ratio.map_or(1, share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Compression {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn configs_are_read_as_the_field_writes_them() {
        let kept = parse(r#"{"random-k":{"keep":0.1}}"#);
        assert_eq!(kept, Compression::RandomK(RandomK { keep: 0.1, error_feedback: false }));
        // 6361 of 63,610 and not 6362: 0.1 is a little more than a tenth.
        assert_eq!((kept.size(63_610), kept.size(63_611), kept.size(3)), (6361, 6362, 1));
        assert_eq!(parse(r#"{"random-k":{"keep":1}}"#).size(77), 77);
        let sketch = parse(r#"{"sketch":{"rows":5,"ratio":0.1,"error_feedback":true}}"#);
        assert!(sketch.error_feedback());
        assert_eq!((sketch.size(63_610), sketch.size(10)), (6360, 5));
        assert_eq!(parse(r#"{"sketch":{"rows":2,"columns":30}}"#).size(100), 60);
        assert_eq!(parse(r#"{"sketch":{"ratio":1}}"#).size(63_610), 63_610);
        for bad in
            [r#"{"random-k":{}}"#, r#"{"random-k":{"keep":0.1,"k":3}}"#, r#"{"top-k":{"keep":0.1}}"#, r#""sketch""#]
        {
            assert!(serde_json::from_str::<Compression>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_values_say_what_would_be_right() {
        for (text, says) in [
            (r#"{"random-k":{"keep":0}}"#, "keep is 0, expected in (0, 1]"),
            (r#"{"random-k":{"keep":1.5}}"#, "keep is 1.5"),
            (r#"{"random-k":{"keep":-0.1}}"#, "keep is -0.1"),
            (r#"{"sketch":{"rows":0,"ratio":0.1}}"#, "rows is 0, expected 1 to 16"),
            (r#"{"sketch":{"rows":17,"ratio":0.1}}"#, "rows is 17"),
            (r#"{"sketch":{"rows":3,"columns":0}}"#, "columns is 0, expected 1 to 33"),
            (r#"{"sketch":{"rows":3,"columns":34}}"#, "columns is 34, expected 1 to 33"),
            (r#"{"sketch":{"rows":3,"columns":18446744073709551615}}"#, "expected 1 to 33"),
            (r#"{"sketch":{"rows":3,"columns":20,"ratio":0.1}}"#, "is both, expected with `columns` or `ratio`"),
            (r#"{"sketch":{"rows":3}}"#, "is neither"),
            (r#"{"sketch":{"ratio":0}}"#, "ratio is 0"),
            (r#"{"sketch":{"ratio":2}}"#, "ratio is 2"),
        ] {
            let error = parse(text).validate(100).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let nan = Compression::RandomK(RandomK { keep: f64::NAN, error_feedback: false });
        assert!(nan.validate(100).is_err() && nan.size(100) >= 1);
        // More rows than coordinates.
        assert!(parse(r#"{"sketch":{"rows":3,"ratio":1}}"#).validate(2).is_err());
        let fine = parse(r#"{"sketch":{"rows":3,"columns":33}}"#);
        assert!(fine.validate(100).is_ok() && fine.validate(0).is_err() && fine.validate(MAX_DIM + 1).is_err());
    }

    #[test]
    fn feedback_needs_clients_that_keep_something() {
        let feedback = parse(r#"{"random-k":{"keep":0.1,"error_feedback":true}}"#);
        assert!(feedback.validate_clients(63_610, 100, false).is_ok());
        let error = feedback.validate_clients(63_610, 60_000, true).unwrap_err().to_string();
        assert!(error.contains("per-sample"), "{error}");
        let error = feedback.validate_clients(63_610, 60_000, false).unwrap_err().to_string();
        assert!(error.contains("60000 x 63610"), "{error}");
        assert!(parse(r#"{"random-k":{"keep":0.1}}"#).validate_clients(63_610, 60_000, true).is_ok());
    }
}
