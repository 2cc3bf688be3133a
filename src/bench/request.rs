//! From what a user asks for to the list of cases.

use std::sync::Arc;

use super::BenchError;
use super::cost::Cost;
use super::stages::{Body, STAGES, Shape, Stage, find, unknown};
use crate::backend::simd::Simd;
use crate::backend::simd::isa::Isa;
use crate::backend::{self, Backend, BackendError, BackendKind, Buffer, OpenOptions};

/// Most elements of a case: 4 GiB of floats.
const MOST_ELEMENTS: usize = 1 << 30;

/// What to measure; an empty list means the default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// `fwht` or, for one variant, `encode/skellam`; default: all.
    pub stages: Vec<String>,
    /// `scalar`, `simd`, `wgpu`, `cuda`; default: `simd`.
    pub backends: Vec<String>,
    /// Instruction sets of `simd`, or `all`; default: the best, or what `VEILSUM_ISA` says.
    pub isas: Vec<String>,
    /// How a GPU is picked.
    pub devices: OpenOptions,
    /// Elements a row; default: those of each stage.
    pub sizes: Vec<usize>,
    /// Rows; default: those of each stage.
    pub rows: Option<usize>,
}

/// Something that runs kernels.
#[derive(Clone, Debug)]
pub struct Target {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// What its code was compiled for; the oracle is portable, and so is the host side of a GPU.
    pub isa: Isa,
}

impl Target {
    /// What the limits are measured for: the instruction set, or the backend of a GPU.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.backend.device().is_some() { self.backend.kind().name() } else { self.isa.name() }
    }

    /// The buffer where the backend's verbs run.
    ///
    /// # Errors
    /// No room on a device.
    pub fn place(&self, x: impl Into<Buffer>) -> Result<Buffer, BackendError> {
        let x = x.into();
        if self.backend.device().is_some() { self.backend.upload(&x) } else { Ok(x) }
    }
}

/// One line of the table to be.
#[derive(Clone, Debug)]
pub struct Case {
    /// The stage.
    pub stage: &'static Stage,
    /// Variant, size, rows.
    pub shape: Shape,
    /// Backend and instruction set.
    pub target: Target,
}

impl Case {
    /// `stage/backend/size`, with the variant behind a dash: the names of the criterion benches.
    #[must_use]
    pub fn id(&self) -> String {
        let (stage, backend) = (self.stage.name, self.target.backend.kind().name());
        format!("{stage}/{backend}/{}", self.parameter())
    }

    /// The last part of [`Case::id`].
    #[must_use]
    pub fn parameter(&self) -> String {
        match self.shape.variant {
            "" => self.shape.dim.to_string(),
            variant => format!("{}-{variant}", self.shape.dim),
        }
    }

    /// The floor of a call.
    #[must_use]
    pub fn cost(&self) -> Cost {
        (self.stage.cost)(&self.shape)
    }

    /// Buffers, keys, and the call.
    ///
    /// # Errors
    /// What a kernel or a table refuses.
    pub fn open(&self) -> Result<Body, BenchError> {
        (self.stage.open)(&self.target, &self.shape)
    }
}

/// The cases of a request: stages in the order of the table, then variants, sizes, backends.
///
/// # Errors
/// Unknown names, sizes and rows that a named stage does not take, instruction sets that are absent. With
/// all stages, a size is left out where a stage does not take it, and an error if none does.
pub fn plan(request: &Request) -> Result<Vec<Case>, BenchError> {
    let targets = targets(request)?;
    let chosen = choose(&request.stages)?;
    let mut cases = Vec::new();
    for (stage, variants) in &chosen {
        for variant in variants {
            for &dim in if request.sizes.is_empty() { stage.sizes } else { &request.sizes } {
                let rows = request.rows.unwrap_or_else(|| (stage.rows.default)(dim));
                match fits(stage, dim, rows) {
                    Ok(()) => {}
                    Err(_) if request.stages.is_empty() => continue,
                    Err(error) => return Err(error),
                }
                let shape = Shape { variant, dim, rows };
                let default = request.sizes.is_empty();
                let wanted = |t: &&Target| {
                    (t.backend.kind() != BackendKind::Scalar || !default || dim <= stage.oracle)
                        && (stage.devices || t.backend.device().is_none())
                };
                cases.extend(targets.iter().filter(wanted).map(|t| Case { stage, shape, target: t.clone() }));
            }
        }
    }
    if cases.is_empty() {
        let refused = |(stage, _): &(&'static Stage, _)| {
            let sizes = if request.sizes.is_empty() { stage.sizes } else { &request.sizes };
            sizes.iter().find_map(|&d| fits(stage, d, request.rows.unwrap_or((stage.rows.default)(d))).err())
        };
        if let Some(error) = chosen.iter().find_map(refused) {
            return Err(error);
        }
        if let (Some((stage, _)), Some(target)) = (chosen.iter().find(|(s, _)| !s.devices), targets.first()) {
            return Err(BackendError::Unsupported { stage: stage.name, backend: target.backend.kind().name() }.into());
        }
    }
    Ok(cases)
}

/// Stages with their variants, in the order of the table.
fn choose(names: &[String]) -> Result<Vec<(&'static Stage, Vec<&'static str>)>, BenchError> {
    if names.is_empty() {
        return Ok(STAGES.iter().map(|s| (s, s.variants.to_vec())).collect());
    }
    let mut wanted: Vec<(&'static Stage, Option<&str>)> = Vec::new();
    for name in names {
        let (stage, variant) = match name.split_once('/') {
            Some((stage, variant)) => (find(stage)?, Some(variant)),
            None => (find(name)?, None),
        };
        if let Some(variant) = variant.filter(|v| !stage.variants.contains(v)) {
            return Err(unknown(variant, stage.variants.iter().copied()));
        }
        wanted.push((stage, variant));
    }
    let chosen = STAGES.iter().map(|stage| {
        let named = |v: &&&'static str| wanted.iter().any(|(s, w)| s.name == stage.name && w.is_none_or(|w| w == **v));
        (stage, stage.variants.iter().filter(named).copied().collect::<Vec<_>>())
    });
    Ok(chosen.filter(|(_, variants)| !variants.is_empty()).collect())
}

/// Checks a size and a number of rows.
fn fits(stage: &'static Stage, dim: usize, rows: usize) -> Result<(), BenchError> {
    let wrong = |what, expected, found| Err(BenchError::Shape { stage: stage.name, what, expected, found });
    if !stage.dims.contains(dim) {
        return wrong("a size that is", stage.dims.describe(), dim);
    }
    let range = &stage.rows.range;
    if !range.contains(&rows) {
        let expected = match range.start() == range.end() {
            true => format!("{}", range.start()),
            false => format!("{} to {}", range.start(), range.end()),
        };
        return wrong("a number of rows that is", expected, rows);
    }
    match dim.checked_mul(rows) {
        Some(elements) if elements <= MOST_ELEMENTS => Ok(()),
        _ => wrong("a number of rows that is", format!("at most {} at size {dim}", MOST_ELEMENTS / dim), rows),
    }
}

/// Backends with their instruction sets.
fn targets(request: &Request) -> Result<Vec<Target>, BenchError> {
    let Request { backends, isas, devices, .. } = request;
    let known = [BackendKind::Scalar, BackendKind::Simd, BackendKind::Wgpu, BackendKind::Cuda];
    let mut kinds = Vec::new();
    for name in backends {
        let kind = known.into_iter().find(|k| k.name() == name).ok_or_else(|| BackendError::Unavailable {
            name: name.clone(),
            reason: format!("this build has {}", known.map(BackendKind::name).join(", ")),
        })?;
        kinds.push(kind);
    }
    if kinds.is_empty() {
        kinds.push(BackendKind::Simd);
    }
    if let (Some(isa), false) = (isas.first(), kinds.contains(&BackendKind::Simd)) {
        let backends = kinds.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ");
        return Err(BenchError::NoIsa { isa: isa.clone(), backends });
    }
    let mut targets: Vec<Target> = Vec::new();
    for kind in kinds {
        match kind {
            BackendKind::Scalar | BackendKind::Wgpu | BackendKind::Cuda => {
                targets.push(Target { backend: backend::open_with(Some(kind), devices)?, isa: Isa::Portable });
            }
            BackendKind::Simd => {
                for isa in instruction_sets(isas)? {
                    targets.push(Target { backend: Arc::new(Simd::with_isa(isa)?), isa });
                }
            }
        }
    }
    let mut unique: Vec<Target> = Vec::new();
    for target in targets {
        let same = |t: &Target| t.backend.kind() == target.backend.kind() && t.isa == target.isa;
        if !unique.iter().any(same) {
            unique.push(target);
        }
    }
    Ok(unique)
}

fn instruction_sets(names: &[String]) -> Result<Vec<Isa>, BenchError> {
    if names.is_empty() {
        return Ok(vec![Simd::new().isa()]);
    }
    let mut isas = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => isas.extend(Isa::ALL.into_iter().filter(|isa| isa.available())),
            name => isas.push(Isa::from_name(name)?),
        }
    }
    Ok(isas)
}

/// Elements: `65536`, `2^16`, `64k` (times 1024), `1M`, `4e5`.
///
/// # Errors
/// [`BenchError::OutOfRange`] with the forms that are read.
pub fn size(text: &str) -> Result<usize, BenchError> {
    let number = |t: &str| t.trim().parse::<usize>().ok();
    let scaled = |t: &str, by: usize| number(t)?.checked_mul(by);
    let text = text.trim();
    let value = if let Some((base, power)) = text.split_once('^') {
        number(base).and_then(|b| b.checked_pow(power.trim().parse().ok()?))
    } else if let Some((mantissa, power)) = text.split_once('e') {
        power.trim().parse().ok().and_then(|p| 10usize.checked_pow(p)).and_then(|p| scaled(mantissa, p))
    } else if let Some(t) = text.strip_suffix(['k', 'K']) {
        scaled(t, 1 << 10)
    } else if let Some(t) = text.strip_suffix(['m', 'M']) {
        scaled(t, 1 << 20)
    } else {
        number(text)
    };
    value.filter(|&v| v > 0).ok_or_else(|| BenchError::OutOfRange {
        name: "--size",
        expected: "numbers of elements such as 65536, 2^16, 64k or 4e5, with commas between them".into(),
        found: format!("{text:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(stages: &[&str], sizes: &[usize]) -> Request {
        Request { stages: stages.iter().map(ToString::to_string).collect(), sizes: sizes.into(), ..Request::default() }
    }

    fn error(request: &Request) -> String {
        plan(request).unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_every_stage_on_one_target() {
        let cases = plan(&Request::default()).unwrap();
        assert!(STAGES.iter().all(|s| cases.iter().any(|c| c.stage.name == s.name)));
        assert!(cases.iter().all(|c| c.target.backend.kind() == BackendKind::Simd));
        let ids: Vec<String> = cases.iter().map(Case::id).collect();
        assert!(ids.contains(&"fwht/simd/4096".into()) && ids.contains(&"encode/simd/65536-skellam".into()), "{ids:?}");
        assert!(ids.iter().enumerate().all(|(i, id)| !ids[..i].contains(id)));
    }

    #[test]
    fn stages_variants_sizes_backends() {
        let mut r = request(&["encode/skellam", "fwht", "fwht"], &[1024]);
        r.backends = vec!["scalar".into(), "simd".into(), "simd".into()];
        r.isas = vec!["portable".into(), "all".into()];
        let cases = plan(&r).unwrap();
        let isas = Isa::ALL.into_iter().filter(|i| i.available()).count();
        assert_eq!(cases.len(), 2 * (1 + isas));
        assert_eq!((cases[0].stage.name, cases[0].shape.rows, cases[0].target.isa), ("fwht", 4, Isa::Portable));
        assert_eq!(cases.last().unwrap().shape.variant, "skellam");
    }

    #[test]
    fn wrong_requests_say_what_is_right() {
        assert!(error(&request(&["fwth"], &[])).contains("did you mean \"fwht\""));
        assert!(error(&request(&["encode/skelam"], &[])).contains("did you mean \"skellam\""));
        let message = error(&request(&["fwht"], &[1000]));
        assert_eq!(message, "fwht takes a size that is a power of two, 2^0 to 2^27, found 1000");
        assert!(error(&request(&[], &[0])).contains("found 0"));
        let mut r = request(&["decode"], &[]);
        r.rows = Some(2);
        assert_eq!(error(&r), "decode takes a number of rows that is 1, found 2");
        r = request(&["fwht"], &[1 << 27]);
        r.rows = Some(9);
        assert!(error(&r).contains("at most 8 at size 134217728, found 9"));
        for (backend, isa, word) in [
            ("opencl", "", "this build has scalar, simd, wgpu, cuda"),
            ("simd", "sse9", "portable"),
            ("scalar", "avx2", "--isa avx2 is for the backend simd, and only scalar was asked for"),
        ] {
            let isas = [isa].iter().filter(|i| !i.is_empty()).map(ToString::to_string).collect();
            let r = Request { backends: vec![backend.into()], isas, ..Request::default() };
            assert!(error(&r).contains(word), "{}", error(&r));
        }
    }

    #[test]
    fn a_size_for_all_goes_where_it_fits() {
        let cases = plan(&request(&[], &[1000])).unwrap();
        assert!(cases.iter().any(|c| c.stage.name == "sum") && cases.iter().all(|c| c.stage.name != "fwht"));
    }

    #[test]
    fn sizes_are_read_in_the_usual_forms() {
        for (text, value) in [("4096", 4096), ("2^12", 4096), ("4k", 4096), (" 1M ", 1 << 20), ("4e5", 400_000)] {
            assert_eq!(size(text).unwrap(), value, "{text}");
        }
        for text in ["", "0", "-1", "2^", "2^99", "1.5", "e5", "9e99", "x", "99999999999999999999"] {
            assert!(size(text).unwrap_err().to_string().contains("2^16"), "{text}");
        }
    }
}
