//! The gradient of the cross entropy.

use crate::model::architecture::unpadded;

/// `scale * (softmax(z) - e_label)` of every sample: the gradient of `scale` times its cross entropy by its logits.
///
/// All values of a sample are NaN if one of its logits is NaN or plus infinity. Labels must be below `classes`.
pub(super) fn cross_entropy_gradient<'l>(
    logits: &[f32],
    labels: impl Iterator<Item = &'l u32>,
    classes: usize,
    scale: f32,
    out: &mut [f32],
) {
    for ((z, &label), out) in logits.chunks_exact(classes).zip(labels).zip(out.chunks_exact_mut(classes)) {
        row_gradient(z, label, scale, out);
    }
}

/// The gradient of `scale` times the loss of a language model, the mean cross entropy of what follows each position of a sequence, by
/// the logits of its positions, `[positions x tokens]`. Positions that padding follows have no loss.
pub(super) fn next_token_gradient(
    logits: &[f32],
    (sequence, behind): (&[f32], u32),
    padding: Option<u32>,
    scale: f32,
    out: &mut [f32],
) {
    let tokens = logits.len() / sequence.len().max(1);
    let follows = |t: usize| sequence.get(t + 1).map_or(behind, |&token| token as u32);
    let length = unpadded(sequence, padding);
    let counts = |t: usize| t < length && Some(follows(t)) != padding;
    let scale = scale / (0..length).filter(|&t| counts(t)).count().max(1) as f32;
    for (t, (z, out)) in logits.chunks_exact(tokens).zip(out.chunks_exact_mut(tokens)).enumerate() {
        if counts(t) {
            row_gradient(z, follows(t), scale, out);
        } else {
            out.fill(0.0);
        }
    }
}

/// [`cross_entropy_gradient`] of one row.
fn row_gradient(z: &[f32], label: u32, scale: f32, out: &mut [f32]) {
    let largest = z.iter().fold(f32::NEG_INFINITY, |m, &z| m.max(z));
    let mut sum = 0.0;
    for (out, &z) in out.iter_mut().zip(z) {
        *out = libm::expf(z - largest);
        sum += *out;
    }
    for (class, out) in out.iter_mut().enumerate() {
        let hit = if class == label as usize { 1.0 } else { 0.0 };
        *out = scale * (*out / sum - hit);
    }
}
