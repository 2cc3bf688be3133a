//! Local SGD: the order of a client's samples, and a step along a gradient.
//!
//! Clients that train one after another and clients that train as one batch go through both, so that they do the same.

use std::mem::take;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::Linear;
use crate::math::prg::{StreamKey, StreamReader};
use crate::model::LocalConfig;

/// The mini-batches of one client: every epoch reshuffles its samples, and cuts them into `batch_size` at a time; the last
/// mini-batch of an epoch may be smaller.
pub(super) struct MiniBatches {
    reader: StreamReader,
    order: Vec<usize>,
    /// First sample of the next mini-batch, in this epoch's order.
    next: usize,
    /// Epochs that have not begun.
    epochs: u32,
    size: usize,
}

impl MiniBatches {
    /// Those of a shard of `samples`. `key` serves one call: another round or client takes another key.
    pub(super) fn new(samples: usize, config: &LocalConfig, key: &StreamKey) -> Self {
        Self {
            reader: key.reader(0),
            order: (0..samples).collect(),
            next: samples,
            epochs: config.epochs,
            size: config.batch_size.max(1),
        }
    }

    /// The samples of the next one; nothing after the last.
    pub(super) fn advance(&mut self) -> Option<&[usize]> {
        if self.next == self.order.len() {
            if self.epochs == 0 || self.order.is_empty() {
                return None;
            }
            (self.epochs, self.next) = (self.epochs - 1, 0);
            self.reader.shuffle(&mut self.order);
        }
        let from = self.next;
        self.next = from.saturating_add(self.size).min(self.order.len());
        Some(&self.order[from..self.next])
    }
}

/// Parameters on their way down: `v <- momentum v + g + weight_decay w + proximal (w - w_0)`, `w <- w - learning_rate v`
/// (PyTorch's SGD, v from 0; FedProx), elementwise, in any number of dimensions.
pub(super) struct Descent<'a, B: Backend, const D: usize> {
    parameters: Vec<Linear<B, D>>,
    velocity: Option<Vec<Linear<B, D>>>,
    /// `w_0`, where something holds on to it.
    start: Option<Vec<Linear<B, D>>>,
    config: &'a LocalConfig,
}

impl<'a, B: Backend, const D: usize> Descent<'a, B, D> {
    /// From `parameters` on.
    pub(super) fn new(parameters: Vec<Linear<B, D>>, config: &'a LocalConfig) -> Self {
        let start = (config.proximal > 0.0).then(|| parameters.clone());
        Self { parameters, velocity: None, start, config }
    }

    /// `w`.
    pub(super) fn parameters(&self) -> &[Linear<B, D>] {
        &self.parameters
    }

    /// `w`, at the end.
    pub(super) fn finish(self) -> Vec<Linear<B, D>> {
        self.parameters
    }

    /// One step along the gradient `g`.
    pub(super) fn step(&mut self, gradient: Vec<Linear<B, D>>) {
        let config = self.config;
        let mut step = gradient;
        if config.weight_decay > 0.0 {
            let decayed = |g, w: Tensor<B, D>| g + w.mul_scalar(config.weight_decay);
            step = paired(step, &self.parameters, decayed);
        }
        if let Some(start) = &self.start {
            let away = |w: Tensor<B, D>, w0: Tensor<B, D>| (w - w0).mul_scalar(config.proximal);
            let pulls = paired(self.parameters.clone(), start, away);
            step = paired(step, &pulls, |g, p| g + p);
        }
        if let Some(previous) = self.velocity.take().filter(|_| config.momentum > 0.0) {
            let carried = |g, v: Tensor<B, D>| g + v.mul_scalar(config.momentum);
            step = paired(step, &previous, carried);
        }
        let moved = |w, v: Tensor<B, D>| w - v.mul_scalar(config.learning_rate);
        self.parameters = paired(take(&mut self.parameters), &step, moved);
        self.velocity = Some(step);
    }

    /// One step; the parameters become `settle(after, before)`.
    pub(super) fn step_and(
        &mut self,
        gradient: Vec<Linear<B, D>>,
        settle: impl Fn(Tensor<B, D>, Tensor<B, D>) -> Tensor<B, D>,
    ) {
        let before = self.parameters.clone();
        self.step(gradient);
        self.parameters = paired(take(&mut self.parameters), &before, settle);
    }
}

/// `f` of every tensor of `a` and its counterpart in `b`.
pub(super) fn paired<B: Backend, const D: usize>(
    a: Vec<Linear<B, D>>,
    b: &[Linear<B, D>],
    f: impl Fn(Tensor<B, D>, Tensor<B, D>) -> Tensor<B, D>,
) -> Vec<Linear<B, D>> {
    a.into_iter().zip(b).map(|(a, b)| a.zip(b, &f)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    const LOCAL: LocalConfig =
        LocalConfig { epochs: 3, batch_size: 4, learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0, proximal: 0.0 };

    #[test]
    fn every_epoch_visits_every_sample_once_in_an_order_of_its_own() {
        let key = StreamKey::from_bytes([1; 32], Cipher::ChaCha20);
        let mut batches = MiniBatches::new(10, &LOCAL, &key);
        let mut orders = Vec::new();
        for _ in 0..3 {
            let mut order = Vec::new();
            for len in [4, 4, 2] {
                let indices = batches.advance().unwrap();
                assert_eq!(indices.len(), len);
                order.extend_from_slice(indices);
            }
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
            orders.push(order);
        }
        assert!(batches.advance().is_none() && batches.advance().is_none());
        assert!(orders[0] != orders[1] && orders[1] != orders[2]);
        // The keystream's own shuffles.
        let (mut reader, mut order) = (key.reader(0), (0..10).collect::<Vec<usize>>());
        for expected in orders {
            reader.shuffle(&mut order);
            assert_eq!(order, expected);
        }
    }

    #[test]
    fn no_samples_are_no_mini_batches_and_a_large_one_holds_them_all() {
        let key = StreamKey::from_bytes([1; 32], Cipher::ChaCha20);
        assert!(MiniBatches::new(0, &LOCAL, &key).advance().is_none());
        let config = LocalConfig { epochs: 1, batch_size: usize::MAX, ..LOCAL };
        let mut batches = MiniBatches::new(7, &config, &key);
        assert_eq!(batches.advance().unwrap().len(), 7);
        assert!(batches.advance().is_none());
    }
}
