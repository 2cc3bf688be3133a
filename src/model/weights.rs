//! Models on disk: safetensors, one tensor a weight or bias, the model described in the metadata.
//!
//! The metadata hold one entry, `veilsum`: a JSON object with `model` (a [`ModelConfig`]), `layout`
//! and `info` (the caller's own strings). One entry, because the container writes several in hash
//! order and the same model would not give the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::architecture::{ModelConfig, TensorSpan};
use super::{Architecture, ModelError};
use crate::files::write_atomic;

/// Key of the one metadata entry.
const KEY: &str = "veilsum";
/// How a weight tensor is to be read.
const LAYOUT: &str = "z = a W + b; W is [inputs, outputs], row major (the transpose of PyTorch's)";
/// How the weight of a convolution is to be read, behind [`LAYOUT`].
const CONV_LAYOUT: &str =
    "; a convolution's W is [channels, input channels, rows, columns], as PyTorch's; a map is read channel by channel";

/// A model read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedModel {
    /// Which model.
    pub config: ModelConfig,
    /// Its flat weight vector, all finite.
    pub weights: Vec<f32>,
    /// The strings given to [`save`].
    pub info: BTreeMap<String, String>,
}

/// The metadata entry.
#[derive(Serialize, Deserialize)]
struct Description {
    model: ModelConfig,
    layout: String,
    #[serde(default)]
    info: BTreeMap<String, String>,
}

/// Writes `weights` to `path`: first to a temporary file beside it, flushed to the disk, then renamed,
/// so that `path` holds the old or the new model and never half of one. The same arguments give the
/// same bytes. `info` goes into the metadata.
///
/// # Errors
/// [`ModelError::WrongLength`] if `weights` are not those of `config`, [`ModelError::Io`],
/// and what [`ModelConfig::architecture`] returns.
pub fn save(
    path: &Path,
    config: &ModelConfig,
    weights: &[f32],
    info: &BTreeMap<String, String>,
) -> Result<(), ModelError> {
    let architecture = config.architecture()?;
    let expected = architecture.parameter_count();
    if weights.len() != expected {
        return Err(ModelError::WrongLength { what: "the weight vector", expected, found: weights.len() });
    }
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    let container = |source| ModelError::Container { path: path.to_owned(), bytes: bytes.len(), source };
    let layout = if architecture.is_mlp() { LAYOUT.to_owned() } else { [LAYOUT, CONV_LAYOUT].concat() };
    let description = Description { model: config.clone(), layout, info: info.clone() };
    let text = serde_json::to_string(&description)
        .map_err(|source| ModelError::Description { path: path.to_owned(), source })?;
    let mut views = Vec::new();
    for TensorSpan { name, shape, span } in architecture.tensors() {
        let view = TensorView::new(Dtype::F32, shape, &bytes[4 * span.start..4 * span.end]).map_err(container)?;
        views.push((name, view));
    }
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(container)?;
    Ok(write_atomic(path, &file)?)
}

/// Reads a model that [`save`] wrote.
///
/// # Errors
/// A file that cannot be read, is truncated or no safetensors file, has no description, names, shapes
/// or types other than the described model's, or values that are not finite. Each names the place.
pub fn load(path: &Path) -> Result<SavedModel, ModelError> {
    let bytes = fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    let container = |source| ModelError::Container { path: path.to_owned(), bytes: bytes.len(), source };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(container)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(container)?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|entries| entries.get(KEY))
        .ok_or(ModelError::NoDescription { path: path.to_owned(), key: KEY })?;
    let description: Description =
        serde_json::from_str(text).map_err(|source| ModelError::Description { path: path.to_owned(), source })?;
    let architecture = description.model.architecture()?;
    check_names(path, &description.model, &architecture, &tensors)?;
    let mut weights = Vec::with_capacity(bytes.len() / 4);
    for span in architecture.tensors() {
        let view = tensors.tensor(&span.name).map_err(container)?;
        read_tensor(path, &span, &view, &mut weights)?;
    }
    Ok(SavedModel { config: description.model, weights, info: description.info })
}

/// The file's tensors are the model's, none missing and none besides.
fn check_names(
    path: &Path,
    model: &ModelConfig,
    architecture: &Architecture,
    tensors: &SafeTensors<'_>,
) -> Result<(), ModelError> {
    let mut expected: Vec<String> = architecture.tensors().into_iter().map(|t| t.name).collect();
    let mut found: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
    expected.sort();
    found.sort();
    if expected == found {
        return Ok(());
    }
    Err(ModelError::TensorNames {
        path: path.to_owned(),
        model: model.to_string(),
        expected: expected.join(", "),
        found: found.join(", "),
    })
}

/// Appends one tensor to `weights` after checking its type, shape and values.
pub(super) fn read_tensor(
    path: &Path,
    span: &TensorSpan,
    view: &TensorView<'_>,
    weights: &mut Vec<f32>,
) -> Result<(), ModelError> {
    let (path, name) = (path.to_owned(), span.name.clone());
    if view.dtype() != Dtype::F32 || view.shape() != span.shape {
        return Err(ModelError::Tensor {
            path,
            name,
            expected: format!("{:?} {:?}", Dtype::F32, span.shape),
            found: format!("{:?} {:?}", view.dtype(), view.shape()),
        });
    }
    let start = weights.len();
    weights.extend(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    let values = &weights[start..];
    match values.iter().position(|w| !w.is_finite()) {
        None => Ok(()),
        Some(first) => Err(ModelError::NonFinite {
            path,
            name,
            count: values.iter().filter(|w| !w.is_finite()).count(),
            total: values.len(),
            first,
        }),
    }
}
