//! The flat vector as a safetensors file, and back.

use std::collections::BTreeSet;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{ExternalError, TensorError};
use crate::model::ModelError;
use crate::model::architecture::{Architecture, TensorSpan};

/// Most bytes of a file's header: so many, and so many a tensor.
const HEADER: u64 = 64 << 10;
const HEADER_OF_TENSOR: u64 = 512;

/// Where the tensors of a model lie in its flat vector.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    tensors: Vec<TensorSpan>,
    parameters: usize,
}

impl Layout {
    pub(super) fn new(architecture: &Architecture) -> Self {
        Self { tensors: architecture.tensors(), parameters: architecture.parameter_count() }
    }

    /// d.
    pub(super) const fn parameters(&self) -> usize {
        self.parameters
    }

    /// Most bytes of a file with these tensors.
    pub(super) const fn most_bytes(&self) -> u64 {
        HEADER + self.tensors.len() as u64 * HEADER_OF_TENSOR + 4 * self.parameters as u64
    }

    /// The file of a flat vector.
    pub(super) fn file(&self, weights: &[f32]) -> Result<Vec<u8>, ExternalError> {
        if weights.len() != self.parameters {
            let (expected, found) = (self.parameters, weights.len());
            return Err(ModelError::WrongLength { what: "the weight vector", expected, found }.into());
        }
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let view = |t: &TensorSpan| -> Result<_, safetensors::SafeTensorError> {
            let values = &bytes[4 * t.span.start..4 * t.span.end];
            Ok((t.name.clone(), TensorView::new(Dtype::F32, t.shape.clone(), values)?))
        };
        let views = self.tensors.iter().map(view).collect::<Result<Vec<_>, _>>()?;
        Ok(safetensors::serialize(views, None)?)
    }

    /// The flat vector of a file that somebody else wrote; values are taken as they are.
    pub(super) fn flat(&self, file: &[u8]) -> Result<Vec<f32>, TensorError> {
        let container = |source| TensorError::Container { bytes: file.len(), source };
        let tensors = SafeTensors::deserialize(file).map_err(container)?;
        let expected: BTreeSet<&str> = self.tensors.iter().map(|t| t.name.as_str()).collect();
        let found: BTreeSet<&str> = tensors.names().into_iter().collect();
        if expected != found {
            let names = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
                super::printable(&a.difference(b).copied().collect::<Vec<_>>().join(", "))
            };
            return Err(TensorError::Names { missing: names(&expected, &found), besides: names(&found, &expected) });
        }
        let mut flat = Vec::with_capacity(self.parameters);
        for TensorSpan { name, shape, .. } in &self.tensors {
            let view = tensors.tensor(name).map_err(container)?;
            if view.dtype() != Dtype::F32 || view.shape() != shape.as_slice() {
                return Err(TensorError::Shape {
                    name: name.clone(),
                    expected: format!("{:?} {shape:?}", Dtype::F32),
                    found: format!("{:?} {:?}", view.dtype(), view.shape()),
                });
            }
            flat.extend(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        Ok(flat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::ModelConfig;

    fn layout() -> Layout {
        Layout::new(&ModelConfig::Mlp(vec![3, 2]).architecture().unwrap())
    }

    fn file(tensors: &[(&str, Dtype, Vec<usize>)]) -> Vec<u8> {
        let zeros = [0; 64];
        let views = tensors.iter().map(|(name, dtype, shape)| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (*name, TensorView::new(*dtype, shape.clone(), &zeros[..bytes]).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn a_vector_comes_back_bit_by_bit() {
        let weights = [1.0, -0.0, f32::NAN, f32::INFINITY, 1e-45, 6.0, 7.0, -8.0];
        let file = layout().file(&weights).unwrap();
        assert!(file.len() as u64 <= layout().most_bytes());
        let back = layout().flat(&file).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&weights));
        assert!(layout().file(&weights[1..]).is_err());
    }

    #[test]
    fn names_types_and_shapes_are_those_of_the_model() {
        let (weight, bias) = ("layers.0.weight", "layers.0.bias");
        let f32s = Dtype::F32;
        assert!(layout().flat(&file(&[(bias, f32s, vec![2]), (weight, f32s, vec![3, 2])])).is_ok());
        let said = |tensors: &[(&str, Dtype, Vec<usize>)]| layout().flat(&file(tensors)).unwrap_err().to_string();
        let message = said(&[(weight, f32s, vec![3, 2]), ("bias", f32s, vec![2])]);
        assert!(
            message.contains("lacks the tensors [layers.0.bias]") && message.contains("[bias] besides"),
            "{message}"
        );
        let message = said(&[(weight, f32s, vec![2, 3]), (bias, f32s, vec![2])]);
        assert!(message.contains("[2, 3]") && message.contains("[3, 2]"), "{message}");
        assert!(said(&[(weight, f32s, vec![3, 2]), (bias, Dtype::F64, vec![2])]).contains("F64"));
        assert!(said(&[(weight, f32s, vec![3, 2])]).contains(bias));
        assert!(
            said(&[(weight, f32s, vec![3, 2]), (bias, f32s, vec![2]), ("x", f32s, vec![1])]).contains("[x] besides")
        );
    }

    #[test]
    fn files_that_are_none_are_errors() {
        let good = layout().file(&[0.0; 8]).unwrap();
        for cut in 0..good.len() {
            assert!(layout().flat(&good[..cut]).is_err(), "{cut}");
        }
        let mut lying = good;
        lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(layout().flat(&lying).is_err());
    }
}
