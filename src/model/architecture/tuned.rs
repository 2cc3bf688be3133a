//! Models of which a part is trained.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Architecture, Initial, Layer, MAX_PARAMETERS, ModelError, ParameterSpan};

/// Which parameters of a model are trained; the others stay as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trained {
    /// All of them.
    #[default]
    All,
    /// Those of the last layers that have any, a residual branch being one: `{"last": 1}` is the linear layer of the classes, of
    /// `bert_mini` `{"last": 5}` the last block besides.
    Last(usize),
    /// The last layer, and low-rank maps beside the queries and values of every attention: `{"lora": {"rank": 8}}`.
    Lora(LoraConfig),
}

/// Low-rank maps (Hu et al. 2022, LoRA): the query and the value of every attention become `a W + b + (alpha / rank) (a A) B`, A being
/// `[width x rank]` and at first random, B `[rank x width]` and at first 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank, >= 1, below the width.
    pub rank: usize,
    /// What the maps are multiplied by, times the rank; finite, > 0.
    #[serde(default = "alpha")]
    pub alpha: f32,
}

const fn alpha() -> f32 {
    16.0
}

impl LoraConfig {
    /// `alpha / rank`.
    pub(in crate::model) fn scale(self) -> f32 {
        self.alpha / self.rank as f32
    }
}

impl Architecture {
    /// The same layers where `trained` is trained: those parameters come first in the flat vector, in the order of the layers, and
    /// the others behind them. The spans stay in the order of the layers; behind the four of an attention stand those of its
    /// low-rank maps: A and B of the query, A and B of the value.
    ///
    /// # Errors
    /// [`ModelError::Layers`] for no or too many layers, a rank of 0 or not below the width, an alpha that is not finite and > 0, a
    /// model without attention.
    pub fn tuned(&self, trained: Trained) -> Result<Self, ModelError> {
        let bad = |found: String, expected: String| {
            Err(ModelError::Layers { place: "`start.train`".into(), found, expected })
        };
        let (last, lora) = match trained {
            Trained::All => return Ok(self.clone()),
            Trained::Last(last) => (last, None),
            Trained::Lora(lora) => (1, Some(lora)),
        };
        let groups = self.groups();
        let count = groups.last().map_or(0, |group| group + 1);
        if last == 0 || last > count {
            return bad(format!("{{\"last\": {last}}}"), format!("1 to {count}, the layers with parameters"));
        }
        let mut spans: Vec<(ParameterSpan, bool)> = Vec::new();
        let mut own = self.spans.iter().cloned().zip(groups).map(|(span, group)| (span, group + last >= count));
        for layer in &self.layers {
            spans.extend(own.by_ref().take(layer.tensors().len()));
            if let (Some(LoraConfig { rank, alpha }), Layer::Attention { width, .. }) = (lora, *layer) {
                if rank == 0 || rank >= width || !(alpha.is_finite() && alpha > 0.0) {
                    let found = format!("{{\"lora\": {{\"rank\": {rank}, \"alpha\": {alpha}}}}}");
                    return bad(found, format!("a rank from 1 to {}, and a finite alpha > 0", width - 1));
                }
                for _ in 0..2 {
                    spans.push((map(width, rank, Initial::Fan), true));
                    spans.push((map(rank, width, Initial::Uniform(0.0)), true));
                }
            }
        }
        if lora.is_some() && !self.layers.iter().any(|layer| matches!(layer, Layer::Attention { .. })) {
            return bad("lora".into(), "`all` or {\"last\": layers} for a model without attention".into());
        }
        let mut start = 0;
        let mut move_to = |span: &mut ParameterSpan| {
            let mut next = |range: &mut Range<usize>| {
                *range = start..start + range.len();
                start = range.end;
            };
            next(&mut span.weight);
            span.bias.iter_mut().for_each(&mut next);
            start
        };
        let trained = spans.iter_mut().filter(|(_, trained)| *trained).map(|(span, _)| move_to(span)).last();
        let end = spans.iter_mut().filter(|(_, trained)| !trained).map(|(span, _)| move_to(span)).last();
        if trained.max(end).unwrap_or(0) > MAX_PARAMETERS {
            return bad("maps".into(), format!("a rank with which there are at most {MAX_PARAMETERS} parameters"));
        }
        let spans = spans.into_iter().map(|(span, _)| span).collect();
        Ok(Self { spans, trained: trained.unwrap_or(0), lora, ..self.clone() })
    }

    /// For every span the layer that it belongs to, counted from 0 among those with parameters, a residual branch being one.
    fn groups(&self) -> Vec<usize> {
        let (mut groups, mut depth, mut next, mut open) = (Vec::new(), 0usize, 0, false);
        for layer in &self.layers {
            match layer {
                Layer::Fork => depth += 1,
                Layer::Join => depth = depth.saturating_sub(1),
                _ => {
                    let count = layer.tensors().len();
                    groups.extend(std::iter::repeat_n(next, count));
                    open |= count > 0;
                }
            }
            if depth == 0 && open {
                (next, open) = (next + 1, false);
            }
        }
        groups
    }
}

/// A low-rank map that has no place yet.
fn map(inputs: usize, outputs: usize, initial: Initial) -> ParameterSpan {
    ParameterSpan { inputs, outputs, shape: vec![inputs, outputs], weight: 0..inputs * outputs, bias: None, initial }
}
