//! Transformers as lists of layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list::{AttentionConfig, EmbeddingConfig, LayerConfig, LayerList};
use super::{ModelError, PositionPool};

/// A language model: blocks of causal attention and two position-wise layers, norms before each (Radford et al. 2019, GPT-2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Tokens that there are.
    pub tokens: usize,
    /// Length of a sequence.
    pub length: usize,
    /// Length of a vector.
    pub width: usize,
    /// Blocks.
    pub blocks: usize,
    /// Heads of an attention; their number divides `width`.
    pub heads: usize,
    /// Share of the values that each branch drops in training.
    #[serde(default)]
    pub dropout: f32,
}

/// Most blocks: a list of layers has to be written down.
const MAX_BLOCKS: usize = 1000;

impl TransformerConfig {
    /// `char_gpt`: 96 characters, 64 of them at a time, four blocks of width 128 with four heads.
    pub(super) const CHAR_GPT: Self = Self { tokens: 96, length: 64, width: 128, blocks: 4, heads: 4, dropout: 0.0 };

    /// Its layers.
    pub(super) fn list(&self) -> Result<LayerList, ModelError> {
        let Self { tokens, length, width, blocks, heads, dropout } = *self;
        if blocks > MAX_BLOCKS {
            return Err(ModelError::Layers {
                place: "`blocks`".into(),
                found: blocks.to_string(),
                expected: format!("at most {MAX_BLOCKS}"),
            });
        }
        let norm = || LayerConfig::LayerNorm(1e-5);
        let branch = |mut layers: Vec<LayerConfig>| {
            layers.insert(0, norm());
            layers.extend((dropout != 0.0).then_some(LayerConfig::Dropout(dropout)));
            LayerConfig::Residual(layers)
        };
        let mut layers = vec![LayerConfig::Embedding(EmbeddingConfig { tokens, width, padding: None })];
        for _ in 0..blocks {
            layers.push(branch(vec![LayerConfig::Attention(AttentionConfig { heads, causal: true })]));
            layers.push(branch(vec![
                LayerConfig::PositionWise(width.saturating_mul(4)),
                LayerConfig::Gelu,
                LayerConfig::PositionWise(width),
            ]));
        }
        layers.extend([norm(), LayerConfig::PositionWise(tokens)]);
        Ok(LayerList { input: [1, 1, length], layers })
    }
}

/// A classifier on BERT (Devlin et al. 2019): norms behind each branch, and a linear layer on the mean of the positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Word pieces of the vocabulary; number 0 fills short sequences.
    pub tokens: usize,
    /// Positions that the weights to start from know.
    pub positions: usize,
    /// Word pieces of a sequence, at most `positions`.
    pub length: usize,
    /// Length of a vector.
    pub width: usize,
    /// Blocks.
    pub blocks: usize,
    /// Heads of an attention; their number divides `width`.
    pub heads: usize,
    /// Values between the two position-wise layers of a block.
    pub hidden: usize,
    /// Classes, >= 1.
    pub classes: usize,
}

/// MiniLM (Wang et al. 2020): BERT of six blocks of width 384 with twelve heads, 30,522 word pieces and 512 positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BertMiniConfig {
    /// Classes, >= 1.
    pub classes: usize,
    /// Word pieces of a sequence, 1 to 512; shorter ones are filled up with number 0.
    #[serde(default = "bert_length")]
    pub length: usize,
}

const fn bert_length() -> usize {
    128
}

impl BertMiniConfig {
    pub(super) const fn sizes(&self) -> BertConfig {
        let Self { classes, length } = *self;
        let (tokens, positions, width, blocks, heads, hidden) = (30_522, 512, 384, 6, 12, 1536);
        BertConfig { tokens, positions, length, width, blocks, heads, hidden, classes }
    }
}

impl BertConfig {
    /// Its layers.
    pub(super) fn list(&self) -> Result<LayerList, ModelError> {
        let Self { tokens, positions, length, width, blocks, heads, hidden, classes } = *self;
        for (place, found, most) in [("`length`", length, positions), ("`blocks`", blocks, MAX_BLOCKS)] {
            if found > most {
                let expected = format!("at most {most}");
                return Err(ModelError::Layers { place: place.into(), found: found.to_string(), expected });
            }
        }
        let norm = || LayerConfig::LayerNorm(1e-12);
        let mut layers = vec![LayerConfig::Embedding(EmbeddingConfig { tokens, width, padding: Some(0) }), norm()];
        for _ in 0..blocks {
            let attention = LayerConfig::Attention(AttentionConfig { heads, causal: false });
            let apart = vec![LayerConfig::PositionWise(hidden), LayerConfig::Gelu, LayerConfig::PositionWise(width)];
            layers.extend([LayerConfig::Residual(vec![attention]), norm(), LayerConfig::Residual(apart), norm()]);
        }
        layers.extend([LayerConfig::Positions(PositionPool::Mean), LayerConfig::Linear(classes)]);
        Ok(LayerList { input: [1, 1, length], layers })
    }
}
