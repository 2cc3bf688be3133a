//! What the server does with the aggregate: `w <- w - step(pseudo_gradient)`.
//!
//! The pseudo-gradient is the mean gradient (FedSGD) or minus the mean delta (FedAvg), so that FedAvg
//! is `sgd` with learning rate 1, FedAvgM the same with momentum (Hsu et al. 2019), and FedAdagrad, FedAdam and FedYogi are
//! `adagrad`, `adam` and `yogi` (Reddi et al. 2021, Algorithm 2).

/// A server optimizer with its state.
pub trait ServerOptimizer: Send {
    /// The name in configs.
    fn name(&self) -> &'static str;

    /// One step in place. `gradient` has the length of `weights`.
    fn step(&mut self, weights: &mut [f32], gradient: &[f32]);

    /// State vectors for a checkpoint, by name, in a fixed order.
    fn state(&self) -> Vec<(&'static str, Vec<f32>)>;

    /// Puts back what [`ServerOptimizer::state`] gave after `steps` steps. False if the shapes differ.
    fn restore(&mut self, steps: u64, state: &[(String, Vec<f32>)]) -> bool;
}

/// Which optimizer, from a config.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, tag = "optimizer", rename_all = "kebab-case")]
pub enum OptimizerConfig {
    /// `m <- momentum m + g; w <- w - learning_rate m`.
    Sgd {
        /// Step size, > 0.
        learning_rate: f32,
        /// Heavy-ball momentum, in `[0, 1)`.
        #[serde(default)]
        momentum: f32,
    },
    /// Adam with bias correction.
    Adam {
        /// Step size, > 0.
        learning_rate: f32,
        /// Decay of the first moment, in `[0, 1)`.
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// Decay of the second moment, in `[0, 1)`.
        #[serde(default = "default_beta2")]
        beta2: f32,
        /// Added to the root of the second moment, > 0.
        #[serde(default = "default_tau")]
        tau: f32,
    },
    /// `m <- beta1 m + (1 - beta1) g; v <- v + g^2; w <- w - learning_rate m / (sqrt(v) + tau)`, v from `tau^2`.
    Adagrad {
        /// Step size, > 0.
        learning_rate: f32,
        /// Decay of the first moment, in `[0, 1)`.
        #[serde(default)]
        beta1: f32,
        /// Added to the root of the second moment, > 0.
        #[serde(default = "default_adaptivity")]
        tau: f32,
    },
    /// The same with `v <- v - (1 - beta2) g^2 sign(v - g^2)`, which forgets large gradients more slowly than Adam.
    Yogi {
        /// Step size, > 0.
        learning_rate: f32,
        /// Decay of the first moment, in `[0, 1)`.
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// Decay of the second moment, in `[0, 1)`.
        #[serde(default = "default_reddi_beta2")]
        beta2: f32,
        /// Added to the root of the second moment, > 0.
        #[serde(default = "default_adaptivity")]
        tau: f32,
    },
}

fn default_adaptivity() -> f32 {
    1e-3
}

fn default_reddi_beta2() -> f32 {
    0.99
}

fn default_beta1() -> f32 {
    0.9
}

fn default_beta2() -> f32 {
    0.999
}

fn default_tau() -> f32 {
    1e-8
}

impl OptimizerConfig {
    /// The first parameter outside its range, as `(name, allowed range, value)`.
    #[must_use]
    pub fn out_of_range(&self) -> Option<(&'static str, &'static str, f32)> {
        let unit = |v: f32| (0.0..1.0).contains(&v);
        let positive = |v: f32| v.is_finite() && v > 0.0;
        match *self {
            Self::Sgd { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::Adagrad { learning_rate, .. }
            | Self::Yogi { learning_rate, .. }
                if !positive(learning_rate) =>
            {
                Some(("server.learning_rate", "finite and > 0", learning_rate))
            }
            Self::Sgd { momentum, .. } if !unit(momentum) => Some(("server.momentum", "in [0, 1)", momentum)),
            Self::Adam { beta1, .. } | Self::Adagrad { beta1, .. } | Self::Yogi { beta1, .. } if !unit(beta1) => {
                Some(("server.beta1", "in [0, 1)", beta1))
            }
            Self::Adam { beta2, .. } | Self::Yogi { beta2, .. } if !unit(beta2) => {
                Some(("server.beta2", "in [0, 1)", beta2))
            }
            Self::Adam { tau, .. } | Self::Adagrad { tau, .. } | Self::Yogi { tau, .. } if !positive(tau) => {
                Some(("server.tau", "finite and > 0", tau))
            }
            _ => None,
        }
    }

    /// A fresh optimizer for `dim` weights.
    #[must_use]
    pub fn build(&self, dim: usize) -> Box<dyn ServerOptimizer> {
        match *self {
            Self::Sgd { learning_rate, momentum } => {
                Box::new(Sgd { learning_rate, momentum, velocity: vec![0.0; dim] })
            }
            Self::Adam { learning_rate, beta1, beta2, tau } => Box::new(Adam {
                learning_rate,
                beta1,
                beta2,
                tau,
                steps: 0,
                first: vec![0.0; dim],
                second: vec![0.0; dim],
            }),
            Self::Adagrad { learning_rate, beta1, tau } => {
                Box::new(Adaptive::new(Second::Sum, dim, (learning_rate, beta1, tau)))
            }
            Self::Yogi { learning_rate, beta1, beta2, tau } => {
                Box::new(Adaptive::new(Second::Yogi { beta2 }, dim, (learning_rate, beta1, tau)))
            }
        }
    }
}

/// Gradient descent with heavy-ball momentum.
struct Sgd {
    learning_rate: f32,
    momentum: f32,
    velocity: Vec<f32>,
}

impl ServerOptimizer for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn step(&mut self, weights: &mut [f32], gradient: &[f32]) {
        for ((w, v), &g) in weights.iter_mut().zip(&mut self.velocity).zip(gradient) {
            *v = self.momentum * *v + g;
            *w -= self.learning_rate * *v;
        }
    }

    fn state(&self) -> Vec<(&'static str, Vec<f32>)> {
        vec![("velocity", self.velocity.clone())]
    }

    fn restore(&mut self, _steps: u64, state: &[(String, Vec<f32>)]) -> bool {
        take(state, "velocity", &mut self.velocity)
    }
}

/// Adam.
struct Adam {
    learning_rate: f32,
    beta1: f32,
    beta2: f32,
    tau: f32,
    steps: u64,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl ServerOptimizer for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn step(&mut self, weights: &mut [f32], gradient: &[f32]) {
        self.steps += 1;
        let correct1 = (1.0 - libm::pow(f64::from(self.beta1), self.steps as f64)) as f32;
        let correct2 = (1.0 - libm::pow(f64::from(self.beta2), self.steps as f64)) as f32;
        for (((w, m), v), &g) in weights.iter_mut().zip(&mut self.first).zip(&mut self.second).zip(gradient) {
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            *w -= self.learning_rate * (*m / correct1) / ((*v / correct2).sqrt() + self.tau);
        }
    }

    fn state(&self) -> Vec<(&'static str, Vec<f32>)> {
        vec![("first_moment", self.first.clone()), ("second_moment", self.second.clone())]
    }

    fn restore(&mut self, steps: u64, state: &[(String, Vec<f32>)]) -> bool {
        self.steps = steps;
        take(state, "first_moment", &mut self.first) && take(state, "second_moment", &mut self.second)
    }
}

/// How the second moment of [`Adaptive`] is made.
#[derive(Clone, Copy)]
enum Second {
    /// Adagrad: the sum of squares.
    Sum,
    /// Yogi.
    Yogi { beta2: f32 },
}

/// The adaptive optimizers of Reddi et al. 2021, Algorithm 2, as they stand there: no correction of the bias, v from `tau^2`.
struct Adaptive {
    kind: Second,
    learning_rate: f32,
    beta1: f32,
    tau: f32,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Adaptive {
    fn new(kind: Second, dim: usize, (learning_rate, beta1, tau): (f32, f32, f32)) -> Self {
        Self { kind, learning_rate, beta1, tau, first: vec![0.0; dim], second: vec![tau * tau; dim] }
    }
}

impl ServerOptimizer for Adaptive {
    fn name(&self) -> &'static str {
        match self.kind {
            Second::Sum => "adagrad",
            Second::Yogi { .. } => "yogi",
        }
    }

    fn step(&mut self, weights: &mut [f32], gradient: &[f32]) {
        for (((w, m), v), &g) in weights.iter_mut().zip(&mut self.first).zip(&mut self.second).zip(gradient) {
            *m = self.beta1 * *m + (1.0 - self.beta1) * g;
            let square = g * g;
            *v = match self.kind {
                Second::Sum => *v + square,
                // The sign of 0 is 0: there the step is 0 too.
                Second::Yogi { beta2 } if *v > square => *v - (1.0 - beta2) * square,
                Second::Yogi { beta2 } if *v < square => *v + (1.0 - beta2) * square,
                Second::Yogi { .. } => *v,
            };
            *w -= self.learning_rate * *m / (v.max(0.0).sqrt() + self.tau);
        }
    }

    fn state(&self) -> Vec<(&'static str, Vec<f32>)> {
        vec![("first_moment", self.first.clone()), ("second_moment", self.second.clone())]
    }

    fn restore(&mut self, _steps: u64, state: &[(String, Vec<f32>)]) -> bool {
        take(state, "first_moment", &mut self.first) && take(state, "second_moment", &mut self.second)
    }
}

fn take(state: &[(String, Vec<f32>)], name: &str, into: &mut Vec<f32>) -> bool {
    match state.iter().find(|(n, v)| n == name && v.len() == into.len()) {
        Some((_, v)) => {
            into.clone_from(v);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sgd_follows_its_formula() {
        let mut o = OptimizerConfig::Sgd { learning_rate: 0.5, momentum: 0.5 }.build(1);
        let mut w = [1.0f32];
        o.step(&mut w, &[2.0]);
        assert_eq!(w, [0.0]);
        o.step(&mut w, &[2.0]);
        assert_eq!(w, [-1.5]);
    }

    #[test]
    fn the_first_step_of_adam_is_the_learning_rate() {
        let config = OptimizerConfig::Adam { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, tau: 1e-8 };
        let mut o = config.build(2);
        let mut w = [0.0f32, 0.0];
        o.step(&mut w, &[3.0, -0.01]);
        assert!((w[0] + 0.1).abs() < 1e-5 && (w[1] - 0.1).abs() < 1e-5, "{w:?}");
    }

    #[test]
    fn adagrad_and_yogi_follow_their_formulas() {
        let (tau, gradients) = (0.5f32, [2.0f32, -1.0, 0.25]);
        let yogi = OptimizerConfig::Yogi { learning_rate: 0.1, beta1: 0.9, beta2: 0.75, tau };
        let adagrad = OptimizerConfig::Adagrad { learning_rate: 0.1, beta1: 0.5, tau };
        for (config, beta1) in [(yogi, 0.9), (adagrad, 0.5)] {
            let mut optimizer = config.build(1);
            let mut found = [1.0f32];
            let (mut w, mut m, mut v) = (1.0f64, 0.0f64, 0.25f64);
            for g in gradients {
                optimizer.step(&mut found, &[g]);
                let g = f64::from(g);
                m = beta1 * m + (1.0 - beta1) * g;
                v = if beta1 == 0.5 { v + g * g } else { v - 0.25 * g * g * (v - g * g).signum() };
                w -= 0.1 * m / (v.sqrt() + 0.5);
                assert!((f64::from(found[0]) - w).abs() < 1e-6, "{config:?}: {found:?} {w}");
            }
        }
        for wrong in [
            OptimizerConfig::Adagrad { learning_rate: 0.0, beta1: 0.5, tau },
            OptimizerConfig::Adagrad { learning_rate: 1.0, beta1: 1.0, tau },
            OptimizerConfig::Yogi { learning_rate: 1.0, beta1: 0.0, beta2: -0.1, tau },
            OptimizerConfig::Yogi { learning_rate: 1.0, beta1: 0.0, beta2: 0.1, tau: 0.0 },
        ] {
            assert!(wrong.out_of_range().is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn restored_state_continues_bit_for_bit() {
        for config in [
            OptimizerConfig::Sgd { learning_rate: 0.1, momentum: 0.9 },
            OptimizerConfig::Adam { learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-6 },
            OptimizerConfig::Adagrad { learning_rate: 0.1, beta1: 0.9, tau: 1e-3 },
            OptimizerConfig::Yogi { learning_rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 },
        ] {
            let mut a = config.build(3);
            let mut w = vec![1.0f32, 2.0, 3.0];
            for i in 0..5 {
                a.step(&mut w, &[0.1 * i as f32, -0.2, 0.3]);
            }
            let saved: Vec<(String, Vec<f32>)> = a.state().into_iter().map(|(n, v)| (n.to_string(), v)).collect();
            let mut b = config.build(3);
            assert!(b.restore(5, &saved));
            let mut w2 = w.clone();
            a.step(&mut w, &[1.0, 1.0, 1.0]);
            b.step(&mut w2, &[1.0, 1.0, 1.0]);
            assert_eq!(w, w2);
            assert!(!config.build(4).restore(5, &saved));
        }
    }
}
