//! The state of a run after a round, as one safetensors file: weights, optimizer, counters.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::FlError;

/// Everything that the next round needs, apart from the config and the secret of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Last finished round.
    pub round: u32,
    /// Steps that the server optimizer has taken.
    pub steps: u64,
    /// [`super::plan::Plan::digest`] of the run that wrote it.
    pub plan: [u8; 32],
    /// Model weights.
    pub weights: Vec<f32>,
    /// State of the server optimizer.
    pub optimizer: Vec<(String, Vec<f32>)>,
    /// Clip bound of the next round, where it adapts.
    pub clip: Option<f64>,
    /// State of correlated noise, masked and with its tag; empty where there is none.
    pub noise: Vec<u8>,
    /// The last aggregate of a robust rule, where the next one begins; empty where there is none.
    pub aggregate: Vec<f32>,
    /// The server's control variate, where there is one.
    pub control: Vec<f32>,
    /// Older models, by version, that clients of asynchronous rounds began from.
    pub versions: Vec<(u32, Vec<f32>)>,
    /// What the clients of a simulation keep between rounds ([`super::compress::Residuals::seal`]); empty where they keep nothing. The
    /// coordinator knows nothing of it: its driver puts it here.
    pub residuals: Vec<u8>,
}

const FORMAT: &str = "veilsum checkpoint v1";
/// The clip bound; decimal digits that read back to the same number.
const CLIP: &str = "clip";
/// The tensor of the server's control variate.
const CONTROL: &str = "control";
/// The tensor of the last aggregate of a robust rule.
const AGGREGATE: &str = "aggregate";
/// The tensor of the state of correlated noise.
const NOISE: &str = "noise.state";
/// What the names of older models begin with.
const VERSION: &str = "version.";
/// The tensor of what clients keep.
const RESIDUALS: &str = "clients.residuals";

impl Checkpoint {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FlError> {
        let mut metadata = HashMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("round".to_string(), self.round.to_string()),
            ("steps".to_string(), self.steps.to_string()),
            ("plan".to_string(), hex::encode(self.plan)),
        ]);
        if let Some(clip) = self.clip {
            metadata.insert(CLIP.to_string(), clip.to_string());
        }
        let mut tensors = vec![("weights".to_string(), &self.weights)];
        tensors.extend(self.optimizer.iter().map(|(n, v)| (format!("optimizer.{n}"), v)));
        tensors.extend(self.versions.iter().map(|(n, v)| (format!("{VERSION}{n}"), v)));
        if !self.control.is_empty() {
            tensors.push((CONTROL.to_string(), &self.control));
        }
        if !self.aggregate.is_empty() {
            tensors.push((AGGREGATE.to_string(), &self.aggregate));
        }
        let mut views = tensors
            .iter()
            .map(|(n, v)| Ok((n.clone(), TensorView::new(Dtype::F32, vec![v.len()], bytemuck::cast_slice(v))?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| damaged("tensors", &e))?;
        for (name, bytes) in [(NOISE, &self.noise), (RESIDUALS, &self.residuals)] {
            if !bytes.is_empty() {
                let view = TensorView::new(Dtype::U8, vec![bytes.len()], bytes).map_err(|e| damaged("tensors", &e))?;
                views.push((name.to_string(), view));
            }
        }
        safetensors::serialize(views, Some(metadata)).map_err(|e| damaged("file", &e))
    }

    /// Reads a file written by [`Checkpoint::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FlError> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged("file", &e))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let field = |name: &'static str| {
            metadata.get(name).cloned().ok_or(FlError::Checkpoint {
                what: name,
                expected: "present".into(),
                found: "absent".into(),
            })
        };
        let format = field("format")?;
        if format != FORMAT {
            return Err(FlError::Checkpoint { what: "format", expected: FORMAT.into(), found: format });
        }
        let number = |name| -> Result<u64, FlError> {
            let text = field(name)?;
            text.parse().map_err(|_| FlError::Checkpoint { what: name, expected: "a number".into(), found: text })
        };
        let clip = match metadata.get(CLIP) {
            Some(text) => Some(text.parse::<f64>().map_err(|_| FlError::Checkpoint {
                what: CLIP,
                expected: "a number".into(),
                found: text.clone(),
            })?),
            None => None,
        };
        let mut plan = [0u8; 32];
        let text = field("plan")?;
        hex::decode_to_slice(&text, &mut plan).map_err(|_| FlError::Checkpoint {
            what: "plan",
            expected: "64 hexadecimal digits".into(),
            found: text.clone(),
        })?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| damaged("file", &e))?;
        let mut weights = None;
        let (mut optimizer, mut versions) = (Vec::new(), Vec::new());
        let (mut noise, mut residuals, mut aggregate, mut control) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, view) in tensors.iter() {
            match (name, view.dtype()) {
                (NOISE, Dtype::U8) => noise = view.data().to_vec(),
                (RESIDUALS, Dtype::U8) => residuals = view.data().to_vec(),
                _ => {}
            }
            if matches!(name, NOISE | RESIDUALS) && view.dtype() == Dtype::U8 {
                continue;
            }
            if view.dtype() != Dtype::F32 {
                return Err(FlError::Checkpoint {
                    what: "dtype",
                    expected: "F32".into(),
                    found: format!("{:?}", view.dtype()),
                });
            }
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
            if let Some(number) = name.strip_prefix(VERSION) {
                let found =
                    || FlError::Checkpoint { what: "version", expected: "a number".into(), found: number.to_owned() };
                versions.push((number.parse::<u32>().map_err(|_| found())?, values));
                continue;
            }
            match name.strip_prefix("optimizer.") {
                Some(rest) => optimizer.push((rest.to_string(), values)),
                None if name == AGGREGATE => aggregate = values,
                None if name == CONTROL => control = values,
                None => weights = Some(values),
            }
        }
        let weights = weights.ok_or(FlError::Checkpoint {
            what: "weights",
            expected: "present".into(),
            found: "absent".into(),
        })?;
        optimizer.sort_by(|a, b| a.0.cmp(&b.0));
        versions.sort_by_key(|(number, _)| *number);
        Ok(Self {
            round: number("round")? as u32,
            steps: number("steps")?,
            plan,
            weights,
            optimizer,
            clip,
            noise,
            residuals,
            aggregate,
            versions,
            control,
        })
    }
}

fn damaged(what: &'static str, e: &safetensors::SafeTensorError) -> FlError {
    FlError::Checkpoint { what, expected: "a checkpoint of veilsum".into(), found: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_damage() {
        let c = Checkpoint {
            round: 7,
            steps: 9,
            plan: [5; 32],
            weights: vec![1.0, -2.5, f32::MIN_POSITIVE],
            optimizer: vec![("a".into(), vec![1.0]), ("b".into(), vec![])],
            clip: Some(0.1 + 0.2),
            noise: vec![1, 2, 255],
            aggregate: vec![0.5, -0.25],
            residuals: vec![7; 70],
            control: vec![-1.0, 4.0, 0.0],
            versions: vec![(3, vec![0.25]), (11, vec![1.5, 2.5])],
        };
        let bytes = c.to_bytes().unwrap();
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), c);
        for cut in [0, 4, 20, bytes.len() - 1] {
            assert!(Checkpoint::from_bytes(&bytes[..cut]).is_err());
        }
        let foreign = String::from_utf8_lossy(&bytes).replace("checkpoint v1", "checkpoint v9");
        assert!(Checkpoint::from_bytes(foreign.as_bytes()).is_err());
    }
}
