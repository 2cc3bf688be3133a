//! Models that begin with the weights of a file, and of which a part may be trained.

mod bert;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::architecture::{ModelConfig, ParameterSpan, TensorSpan, Trained};
use super::{Architecture, ModelError};

/// Where training begins.
///
/// ```json
/// {"file": "runs/first/model.safetensors"}
/// {"file": "minilm/model.safetensors", "train": {"lora": {"rank": 8}}}
/// ```
///
/// The file holds a model of veilsum's with the layers of `model`, or, for `bert_mini` and `bert`, the tensors that the library transformers
/// writes for BERT. The last layer begins at random where the file has none, or one of another size.
/// Relative paths start at the folder of the config file. What is trained is what clients send: a model of which a tenth is trained
/// has vectors of a tenth. The model that a run leaves is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartConfig {
    /// A safetensors file with numbers of 32 bits.
    pub file: PathBuf,
    /// SHA-256 of the file in hex: another file is an error. The config of a run has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Which parameters are trained.
    #[serde(default)]
    pub train: Trained,
}

impl StartConfig {
    /// The same with a relative path starting at `base`.
    #[must_use]
    pub fn rebased(&self, base: &Path) -> Self {
        Self { file: base.join(&self.file), ..self.clone() }
    }
}

/// The weights that a model begins with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The model with its parameters in the places of a run: the trained ones first.
    architecture: Architecture,
    /// Their values there.
    values: Vec<f32>,
    /// Places of trained parameters that begin at random.
    fresh: Vec<Range<usize>>,
    /// For each span of the whole model, in its order, its places there and here, and those of its low-rank map.
    moves: Vec<Move>,
    sha256: String,
}

/// Where a layer's parameters are in the model that is saved, and in a run.
#[derive(Clone, Debug)]
struct Move {
    saved: Range<usize>,
    here: Range<usize>,
    low: Option<(ParameterSpan, ParameterSpan)>,
}

/// A weight with its bias.
fn places(span: &ParameterSpan) -> Range<usize> {
    span.weight.start..span.bias.as_ref().map_or(span.weight.end, |bias| bias.end)
}

impl Start {
    /// Reads a file for a model.
    ///
    /// # Errors
    /// See [`trainer_from`](super::trainer_from).
    pub fn read(model: &ModelConfig, config: &StartConfig) -> Result<Self, ModelError> {
        let path = &config.file;
        let whole = model.architecture()?;
        let architecture = whole.tuned(config.train)?;
        let io = |source| ModelError::Io { path: path.clone(), source };
        // A party reads the name that a server says: a device would never end.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file")));
        }
        let bytes = fs::read(path).map_err(io)?;
        let found = hex::encode(Sha256::digest(&bytes));
        if let Some(expected) = config.sha256.as_ref().filter(|expected| !expected.eq_ignore_ascii_case(&found)) {
            return Err(ModelError::StartHash { path: path.clone(), expected: expected.clone(), found });
        }
        let container = |source| ModelError::Container { path: path.clone(), bytes: bytes.len(), source };
        let file = File { path, model, tensors: SafeTensors::deserialize(&bytes).map_err(container)? };
        let known = match (model.bert(), bert::prefix(&file)) {
            (Some(sizes), Some(prefix)) => bert::read(&file, prefix, &sizes)?,
            _ => own(&file, &whole)?,
        };
        Ok(Self::assembled(&whole, architecture, &known, found))
    }

    /// `known`: the weights of the whole model, as far as the file has them.
    fn assembled(whole: &Architecture, architecture: Architecture, known: &[f32], sha256: String) -> Self {
        let mut values = vec![0.0; architecture.parameter_count() + architecture.frozen_count()];
        let (mut moves, mut fresh) = (Vec::new(), Vec::new());
        let mut spans = architecture.spans().iter();
        let low_rank = architecture.lora().is_some();
        for layer in whole.layers() {
            let count = layer.tensors().len();
            let first = moves.len();
            for span in spans.by_ref().take(count) {
                let (saved, here) = (places(&whole.spans()[moves.len()]), places(span));
                match known.get(saved.clone()) {
                    Some(known) => values[here.clone()].copy_from_slice(known),
                    None => fresh.push(here.clone()),
                }
                moves.push(Move { saved, here, low: None });
            }
            if low_rank && layer.is_attention() {
                // Beside the query and the value, which are the first and the third of four.
                for at in [first, first + 2] {
                    let (Some(a), Some(b)) = (spans.next(), spans.next()) else { continue };
                    fresh.extend([places(a), places(b)]);
                    moves[at].low = Some((a.clone(), b.clone()));
                }
            }
        }
        Self { architecture, values, fresh, moves, sha256 }
    }

    /// SHA-256 of the file, in hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The model, with its trained parameters first.
    pub(super) const fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The weights that are not trained.
    pub(super) fn frozen(&self) -> &[f32] {
        &self.values[self.architecture.parameter_count()..]
    }

    /// Brings what the file has into trained weights that were drawn at random.
    pub(super) fn copy_known(&self, weights: &mut [f32]) {
        let drawn: Vec<Vec<f32>> = self.fresh.iter().map(|places| weights[places.clone()].to_vec()).collect();
        let count = weights.len();
        weights.copy_from_slice(&self.values[..count]);
        for (places, drawn) in self.fresh.iter().zip(drawn) {
            weights[places.clone()].copy_from_slice(&drawn);
        }
    }

    /// All weights of the model, in the places of its own architecture, with the low-rank maps multiplied out.
    pub(super) fn merged(&self, weights: &[f32]) -> Vec<f32> {
        let here = [weights, self.frozen()].concat();
        let mut out = vec![0.0; self.moves.iter().map(|step| step.saved.end).max().unwrap_or(0)];
        let scale = self.architecture.lora().map_or(0.0, |lora| lora.scale());
        for step in &self.moves {
            let out = &mut out[step.saved.clone()];
            out.copy_from_slice(&here[step.here.clone()]);
            let Some((a, b)) = &step.low else { continue };
            let (rank, width) = (a.outputs, b.outputs);
            let (a, b) = (&here[a.weight.clone()], &here[b.weight.clone()]);
            for (a, out) in a.chunks_exact(rank).zip(out.chunks_exact_mut(width)) {
                for (&a, b) in a.iter().zip(b.chunks_exact(width)) {
                    out.iter_mut().zip(b).for_each(|(w, &b)| *w += scale * a * b);
                }
            }
        }
        out
    }
}

/// An opened file, and for which model.
struct File<'a> {
    path: &'a Path,
    model: &'a ModelConfig,
    tensors: SafeTensors<'a>,
}

impl File<'_> {
    fn has(&self, name: &str) -> bool {
        self.tensors.tensor(name).is_ok()
    }

    /// A tensor of that shape, all finite.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let missing = || ModelError::StartTensor {
            path: self.path.to_owned(),
            name: name.to_owned(),
            model: self.model.to_string(),
        };
        let view = self.tensors.tensor(name).map_err(|_| missing())?;
        let span = TensorSpan { name: name.to_owned(), shape: shape.to_vec(), span: 0..0 };
        let mut values = Vec::new();
        super::weights::read_tensor(self.path, &span, &view, &mut values)?;
        Ok(values)
    }

    /// Whether a tensor has another shape, or is not there.
    fn differs(&self, span: &TensorSpan) -> bool {
        self.tensors.tensor(&span.name).map_or(true, |view| view.dtype() == Dtype::F32 && view.shape() != span.shape)
    }
}

/// The tensors of a model of veilsum's; without those of the last layer, if they differ.
fn own(file: &File<'_>, whole: &Architecture) -> Result<Vec<f32>, ModelError> {
    let last = whole.spans().last().map_or(0, |span| span.weight.start);
    let tensors = whole.tensors();
    let other_head = tensors.iter().any(|t| t.span.start >= last && file.differs(t));
    let mut values = Vec::with_capacity(whole.parameter_count());
    for t in tensors.iter().filter(|t| !other_head || t.span.start < last) {
        values.extend(file.tensor(&t.name, &t.shape)?);
    }
    Ok(values)
}
