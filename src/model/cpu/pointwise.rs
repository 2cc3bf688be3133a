//! Dropout, from the addressed keystream.

use super::network::{Layout, Scratch};
use crate::math::prg::{STREAM_BYTES, StreamKey};

/// Where the words of dropout begin in a keystream; before it lies the order of the mini-batches.
const FIRST_BYTE: u64 = 1 << 37;
/// Bytes of a word.
const WORD: u64 = 4;

/// What a pass in training draws from.
#[derive(Clone, Copy)]
pub(super) struct Draws<'a> {
    key: &'a StreamKey,
    /// The visit of the pass's first sample.
    visit: u64,
}

impl<'a> Draws<'a> {
    /// From the `visit`-th sample of a call on.
    pub(super) const fn new(key: &'a StreamKey, visit: u64) -> Self {
        Self { key, visit }
    }
}

/// Visits that one key serves, of samples that draw for `drawn` values each.
pub(super) const fn most_visits(drawn: usize) -> u64 {
    match drawn as u64 {
        0 => u64::MAX,
        drawn => (STREAM_BYTES - FIRST_BYTE) / (WORD * drawn),
    }
}

/// A dropout layer.
#[derive(Clone, Debug)]
pub(super) struct Dropout {
    /// A value is kept if its word is below.
    threshold: u64,
    /// What kept values are multiplied by.
    scale: f32,
    /// Values of the dropout layers before.
    first: usize,
    layout: Layout,
}

impl Dropout {
    pub(super) fn new(share: f32, first: usize, layout: Layout) -> Self {
        let kept = 1.0 - f64::from(share);
        let threshold = (kept * (1u64 << 32) as f64).round() as u64;
        Self { threshold, scale: (1.0 / kept) as f32, first, layout }
    }

    /// What every value was multiplied by.
    pub(super) fn scratch(&self, samples: usize) -> Scratch {
        Scratch { first: vec![0.0; samples * self.layout.sample], ..Scratch::default() }
    }

    /// Multiplies, in training; a NaN stays one.
    pub(super) fn forward(&self, values: &mut [f32], draws: Option<&Draws<'_>>, drawn: usize, scratch: &mut Scratch) {
        let Some(draws) = draws else { return };
        let (layout, width) = (self.layout, self.layout.shape.width);
        let mut bytes = vec![0u8; layout.shape.len() * WORD as usize];
        let samples = values.chunks_exact_mut(layout.sample).zip(scratch.first.chunks_exact_mut(layout.sample));
        for (visit, (values, factors)) in (draws.visit..).zip(samples) {
            draws.key.fill(FIRST_BYTE + WORD * (visit * drawn as u64 + self.first as u64), &mut bytes);
            let (words, _) = bytes.as_chunks::<4>();
            for (start, words) in layout.rows().zip(words.chunks_exact(width)) {
                let places = start..start + width;
                for ((value, factor), word) in values[places.clone()].iter_mut().zip(&mut factors[places]).zip(words) {
                    let kept = u64::from(u32::from_le_bytes(*word)) < self.threshold;
                    *factor = if kept { self.scale } else { 0.0 };
                    *value *= *factor;
                }
            }
        }
    }

    /// The gradient goes where the values came from; only after a pass in training.
    pub(super) fn backward(&self, given: &mut [f32], scratch: &Scratch) {
        given.iter_mut().zip(&scratch.first).for_each(|(g, factor)| *g *= factor);
    }
}
