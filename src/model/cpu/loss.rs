//! The gradient of the cross entropy.

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
}
