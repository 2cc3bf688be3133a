//! The tensors of BERT as the library transformers names them.

use super::File;
use crate::model::ModelError;
use crate::model::architecture::BertConfig;

const WORDS: &str = "embeddings.word_embeddings.weight";

/// What stands before the names, of a file that holds BERT.
pub(super) fn prefix(file: &File<'_>) -> Option<&'static str> {
    ["", "bert."].into_iter().find(|prefix| file.has(&format!("{prefix}{WORDS}")))
}

/// The weights of the model up to the layer of the classes.
pub(super) fn read(file: &File<'_>, prefix: &str, sizes: &BertConfig) -> Result<Vec<f32>, ModelError> {
    let BertConfig { tokens, positions, length, width, blocks, hidden, .. } = *sizes;
    let name = |rest: &str| format!("{prefix}{rest}");
    let mut values = file.tensor(&name(WORDS), &[tokens, width])?;
    let mut place = file.tensor(&name("embeddings.position_embeddings.weight"), &[positions, width])?;
    place.truncate(length * width);
    // One segment: its vector is added everywhere.
    let segment = file.tensor(&name("embeddings.token_type_embeddings.weight"), &[2, width])?;
    for row in place.chunks_exact_mut(width) {
        row.iter_mut().zip(&segment).for_each(|(p, s)| *p += s);
    }
    values.extend(place);
    let norm = |values: &mut Vec<f32>, part: &str| -> Result<(), ModelError> {
        // Older files say gamma and beta.
        let old = file.has(&name(&format!("{part}.LayerNorm.gamma")));
        for kind in if old { ["gamma", "beta"] } else { ["weight", "bias"] } {
            values.extend(file.tensor(&name(&format!("{part}.LayerNorm.{kind}")), &[width])?);
        }
        Ok(())
    };
    let linear = |values: &mut Vec<f32>, part: &str, (inputs, outputs): (usize, usize)| -> Result<(), ModelError> {
        let turned = file.tensor(&name(&format!("{part}.weight")), &[outputs, inputs])?;
        values.extend((0..inputs * outputs).map(|k| turned[k % outputs * inputs + k / outputs]));
        values.extend(file.tensor(&name(&format!("{part}.bias")), &[outputs])?);
        Ok(())
    };
    norm(&mut values, "embeddings")?;
    for block in 0..blocks {
        let part = |rest: &str| format!("encoder.layer.{block}.{rest}");
        for map in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            linear(&mut values, &part(map), (width, width))?;
        }
        norm(&mut values, &part("attention.output"))?;
        linear(&mut values, &part("intermediate.dense"), (width, hidden))?;
        linear(&mut values, &part("output.dense"), (hidden, width))?;
        norm(&mut values, &part("output"))?;
    }
    Ok(values)
}
