//! From passages to samples.

use super::source::{Corpus, Passage};
use super::{Rest, TextConfig, TextProblem, Tokenizer};
use crate::data::{DataError, Dataset, Features, idx};

/// Passages of one side of the split, and which side it is.
pub(super) struct Side<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) passages: Vec<&'a Passage>,
    /// `training` or `test`.
    pub(super) part: &'static str,
}

/// Samples as they are made.
struct Samples {
    features: Vec<f32>,
    labels: Vec<u32>,
    authors: Vec<u32>,
}

impl Samples {
    /// Room for `samples` of `length` ids.
    fn with_room(side: &Side<'_>, samples: usize, length: usize) -> Result<Self, DataError> {
        let bytes = samples.checked_mul(length).and_then(|n| n.checked_mul(size_of::<f32>()));
        if bytes.is_none_or(|bytes| bytes as u64 > idx::MAX_BYTES) {
            let problem = TextProblem::TooManySamples { samples, length, limit: idx::MAX_BYTES };
            return Err(side.problem(problem));
        }
        let (features, labels) = (Vec::with_capacity(samples * length), Vec::with_capacity(samples));
        Ok(Self { features, labels, authors: Vec::with_capacity(samples) })
    }

    fn push(&mut self, ids: impl Iterator<Item = u32>, label: u32, author: u32) {
        // Exact: a vocabulary has at most 2^24 ids.
        self.features.extend(ids.map(|id| id as f32));
        self.labels.push(label);
        self.authors.push(author);
    }

    fn into_dataset(self, name: &str, side: &Side<'_>, dim: usize, classes: usize) -> Dataset {
        Dataset {
            name: name.to_owned(),
            features: Features::Floats(self.features),
            mean: 0.0,
            std: 1.0,
            labels: self.labels,
            dim,
            classes,
            natural_ids: side.corpus.authors.as_ref().map(|_| self.authors),
            class_names: None,
        }
    }
}

impl Side<'_> {
    fn problem(&self, problem: TextProblem) -> DataError {
        DataError::Text { path: self.corpus.paths.first().cloned().unwrap_or_default(), problem }
    }

    fn encode(&self, tokenizer: &Tokenizer, passage: &Passage, column: &str) -> Result<Vec<u32>, DataError> {
        tokenizer.encode(&passage.text).map_err(|problem| self.corpus.error(passage, column, problem))
    }

    /// The tokens of every author, by number: their passages in order, with the separator between them.
    fn streams(&self, tokenizer: &Tokenizer, column: &str) -> Result<Vec<(u32, Vec<u32>)>, DataError> {
        let separator = tokenizer.separator();
        let mut passages = self.passages.clone();
        // Stable: what an author says stays in its order.
        passages.sort_by_key(|p| p.author);
        let mut streams: Vec<(u32, Vec<u32>)> = Vec::new();
        for passage in passages {
            let ids = self.encode(tokenizer, passage, column)?;
            match streams.last_mut() {
                _ if ids.is_empty() => {}
                Some((author, stream)) if *author == passage.author => {
                    stream.extend_from_slice(&separator);
                    stream.extend(ids);
                }
                _ => streams.push((passage.author, ids)),
            }
        }
        Ok(streams)
    }

    /// Windows of `length` tokens every `stride`, each with the token that follows as its label.
    pub(super) fn windows(
        &self,
        name: &str,
        config: &TextConfig,
        tokenizer: &Tokenizer,
        stride: usize,
        column: &str,
    ) -> Result<Dataset, DataError> {
        let length = config.length;
        let streams = self.streams(tokenizer, column)?;
        let counts: Vec<usize> = streams.iter().map(|(_, s)| count(s.len(), length, stride, config.rest)).collect();
        let total = counts.iter().sum();
        if total == 0 {
            let longest = streams.iter().map(|(_, s)| s.len()).max().unwrap_or(0);
            return Err(self.problem(TextProblem::TooShort { part: self.part, length, longest }));
        }
        let mut samples = Samples::with_room(self, total, length)?;
        let padding = tokenizer.padding();
        for ((author, stream), &count) in streams.iter().zip(&counts) {
            let at = |i: usize| stream.get(i).copied().unwrap_or(padding);
            for start in (0..count).map(|k| k * stride) {
                samples.push((start..start + length).map(at), at(start + length), *author);
            }
        }
        let classes = match config.rest {
            Rest::Drop => tokenizer.symbols(),
            Rest::Pad => tokenizer.vocabulary(),
        };
        Ok(samples.into_dataset(name, self, length, classes))
    }

    /// A passage a sample, with the class that `class` gives; passages without one are left out.
    pub(super) fn labelled(
        &self,
        name: &str,
        length: usize,
        tokenizer: &Tokenizer,
        classes: usize,
        column: &str,
        class: impl Fn(&Passage) -> Result<Option<u32>, DataError>,
    ) -> Result<Dataset, DataError> {
        let mut samples = Samples::with_room(self, self.passages.len(), length)?;
        for passage in &self.passages {
            let Some(label) = class(passage)? else { continue };
            let ids = self.encode(tokenizer, passage, column)?;
            // Nothing was said: an attention over padding alone has no value.
            if !ids.is_empty() {
                samples.push(tokenizer.frame(&ids, length).into_iter(), label, passage.author);
            }
        }
        if samples.labels.is_empty() {
            let path = self.corpus.paths.first().cloned().unwrap_or_default();
            let what = if self.part == "test" { "test sample of a class" } else { "training sample of a class" };
            return Err(DataError::Empty { path, what });
        }
        Ok(samples.into_dataset(name, self, length, classes))
    }
}

/// Windows of `length` tokens and a label, one every `stride`, of a text of `tokens`. Without padding a window ends before
/// the last token; with it windows go on until the last token has been a label or stood behind another one.
fn count(tokens: usize, length: usize, stride: usize, rest: Rest) -> usize {
    let full = tokens.checked_sub(length + 1).map_or(0, |spare| spare / stride + 1);
    let predicted = if full == 0 { 1 } else { (full - 1) * stride + length + 1 };
    full + usize::from(rest == Rest::Pad && predicted < tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_counted() {
        // Five tokens, windows of two: 01>2, 23>4; six leave one token over.
        assert_eq!([3, 4, 5, 6, 7].map(|n| count(n, 2, 2, Rest::Drop)), [1, 1, 2, 2, 3]);
        assert_eq!([3, 4, 5, 6, 7].map(|n| count(n, 2, 2, Rest::Pad)), [1, 2, 2, 3, 3]);
        assert_eq!([0, 1, 2].map(|n| count(n, 2, 2, Rest::Drop)), [0, 0, 0]);
        assert_eq!([0, 1, 2].map(|n| count(n, 2, 2, Rest::Pad)), [0, 0, 1]);
        // With stride 1 every token from the third on is a label once.
        assert_eq!([3, 4, 5].map(|n| count(n, 2, 1, Rest::Drop)), [1, 2, 3]);
        assert_eq!([3, 4, 5].map(|n| count(n, 2, 1, Rest::Pad)), [1, 2, 3]);
        // A window of three, moved by two, of seven tokens: 012>3, 234>5, and token 6 behind.
        assert_eq!((count(7, 3, 2, Rest::Drop), count(7, 3, 2, Rest::Pad)), (2, 3));
    }
}
