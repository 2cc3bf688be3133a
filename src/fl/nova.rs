//! FedNova (Wang, Liu, Liang, Joshi, Poor 2020): deltas of clients that take different numbers of local steps, made comparable.
//!
//! ```text
//! w <- w + tau_eff sum p_i delta_i / |a_i|_1,    tau_eff = sum p_i |a_i|_1
//! ```
//! `delta_i = -eta G_i a_i` is a client's delta, G_i its gradients by step, `a_i` how often each of them counts in it. Without it a client
//! of many steps pulls the model towards its own minimum as if it had more data (their Theorem 1). Where all take the same number of
//! steps, it is FedAvg.

/// `|a|_1` of `steps` steps of SGD with `momentum` (their equation 32: `a = (1 - m^tau, ..., 1 - m) / (1 - m)`), or pulled towards the start by
/// `pull = learning_rate mu` a step (FedProx: `a = ((1 - pull)^(tau - 1), ..., 1)`); not both.
#[must_use]
pub fn effective_steps(steps: u64, momentum: f64, pull: f64) -> f64 {
    let tau = steps as f64;
    if pull > 0.0 {
        return (1.0 - libm::pow(1.0 - pull, tau)) / pull;
    }
    if momentum > 0.0 {
        return (tau - momentum * (1.0 - libm::pow(momentum, tau)) / (1.0 - momentum)) / (1.0 - momentum);
    }
    tau
}

/// Divides a client's delta by its `|a|_1`; one of no steps stays zero.
pub fn normalize(delta: &mut [f32], steps: f64) {
    let scale = if steps > 0.0 { 1.0 / steps } else { 0.0 };
    delta.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
}

/// `tau_eff` of clients that count `count` times and took `steps`: the mean, 0 of nobody.
pub fn mean_steps(clients: impl Iterator<Item = (u64, f64)>) -> f64 {
    let (sum, count) = clients.fold((0.0, 0.0), |(sum, all), (n, steps)| (sum + n as f64 * steps, all + n as f64));
    if count > 0.0 { sum / count } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the delta of SGD on a loss of constant gradient 1 with rate 1: then `delta = -|a|_1`.
    #[test]
    fn effective_steps_are_those_of_sgd() {
        for (steps, momentum, pull) in
            [(1, 0.0, 0.0), (7, 0.0, 0.0), (1, 0.9, 0.0), (9, 0.9, 0.0), (6, 0.5, 0.0), (8, 0.0, 0.03)]
        {
            let (mut w, mut v) = (0.0f64, 0.0);
            for _ in 0..steps {
                v = momentum * v + 1.0 + pull * w;
                w -= v;
            }
            let found = effective_steps(steps, momentum, pull);
            assert!((found + w).abs() < 1e-9, "{steps} {momentum} {pull}: {found} {w}");
        }
        assert_eq!(effective_steps(0, 0.9, 0.0), 0.0);
    }

    #[test]
    fn nobody_and_no_steps_give_nothing() {
        let mut delta = [1.0, -2.0];
        normalize(&mut delta, 4.0);
        assert_eq!(delta, [0.25, -0.5]);
        normalize(&mut delta, 0.0);
        assert_eq!(delta, [0.0, -0.0]);
        assert_eq!(mean_steps([].into_iter()), 0.0);
        assert_eq!(mean_steps([(1, 4.0), (3, 8.0), (0, 100.0)].into_iter()), 7.0);
    }
}
