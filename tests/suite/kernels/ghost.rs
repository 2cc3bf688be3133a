//! Ghost clipping against the oracle, which builds every sample's gradient.

use proptest::prelude::*;
use veilsum::backend::{Backend, BackendError, Buffer};
use veilsum::params::GhostParams;

use super::*;

fn uneven(len: usize, seed: u32, scale: f32) -> Vec<f32> {
    let mut s = seed | 1;
    let step = |_| {
        s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let v = (s >> 8) as f32 / 16_777_216.0 - 0.5;
        if s.is_multiple_of(17) { 0.0 } else { v * scale }
    };
    (0..len).map(step).collect()
}

struct Layer {
    p: GhostParams,
    a: Vec<f32>,
    g: Vec<f32>,
}

impl Layer {
    fn new(p: GhostParams, seed: u32, scale: f32) -> Self {
        let positions = (p.samples * p.positions) as usize;
        let a = uneven(positions * p.inputs as usize, seed, scale);
        Self { p, a, g: uneven(positions * p.outputs as usize, seed ^ 99, 1.0) }
    }

    fn norms(&self, backend: &dyn Backend) -> Vec<f64> {
        backend.ghost_norms(&self.a.clone().into(), &self.g.clone().into(), &self.p).unwrap()
    }

    fn sum(&self, backend: &dyn Backend, c: &[f32]) -> Vec<f32> {
        backend.ghost_sum(&self.a.clone().into(), &self.g.clone().into(), c, &self.p).unwrap()
    }

    /// `(sum_t |a_t| |g_t|)^2` of every sample.
    fn sizes(&self) -> Vec<f64> {
        let size = |x: &[f32]| x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let (inputs, outputs, t) = (self.p.inputs as usize, self.p.outputs as usize, self.p.positions as usize);
        let rows = self.a.chunks_exact(inputs).zip(self.g.chunks_exact(outputs));
        let each: Vec<f64> = rows.map(|(a, g)| ((size(a) + f64::from(self.p.bias)) * size(g)).sqrt()).collect();
        each.chunks_exact(t).map(|sample| sample.iter().sum::<f64>().powi(2)).collect()
    }

    /// `sum |c a g|` of every entry.
    fn magnitudes(&self, c: &[f32]) -> Vec<f32> {
        let abs = |x: &[f32]| x.iter().map(|v| v.abs()).collect();
        Self { p: self.p, a: abs(&self.a), g: abs(&self.g) }.sum(&oracle(), &abs(c))
    }

    /// Both verbs of a backend against the oracle.
    fn check(&self, backend: &dyn Backend) {
        let what = format!("{:?} {}", self.p, backend.describe());
        let exact = self.norms(&oracle());
        for ((found, exact), size) in self.norms(backend).iter().zip(exact).zip(self.sizes()) {
            assert!((found - exact).abs() <= 2f64.powi(-40) * size && *found >= 0.0, "{what}: {found} {exact}");
        }
        let c = uneven(self.p.samples as usize, 5, 1.0);
        let positions = self.p.samples as usize * self.p.positions as usize;
        let share = (260.0 + positions as f64 / 256.0) * 2f64.powi(-24);
        let exact = self.sum(&oracle(), &c);
        let found = self.sum(backend, &c);
        assert_eq!(found.len(), exact.len());
        for ((found, exact), size) in found.iter().zip(&exact).zip(self.magnitudes(&c)) {
            let bound = share * f64::from(size) * 1.000_001 + positions as f64 * 1e-44;
            assert!((f64::from(*found) - f64::from(*exact)).abs() <= bound, "{what}: {found} {exact} {bound:e}");
        }
    }
}

#[test]
fn a_layer_by_hand() {
    let (a, g) = (vec![1.0, 2.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], vec![3.0, 1.0, 1.0, -1.0]);
    let layer = Layer { p: GhostParams::new(2, 2, 2, 1), a, g };
    let bare = Layer { p: layer.p.without_bias(), a: layer.a.clone(), g: layer.g.clone() };
    for backend in everywhere() {
        assert_eq!(layer.norms(&*backend), [74.0, 1.0]);
        assert_eq!(layer.sum(&*backend, &[2.0, 0.5]), [6.0, 13.5, 8.0]);
        assert_eq!(bare.norms(&*backend), [58.0, 1.0]);
        assert_eq!(bare.sum(&*backend, &[2.0, 0.5]), [6.0, 13.5]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// T = 1, T > 1, and both sides of `p q < 2 T^2`.
    #[test]
    fn ghost_equals_materialized(
        samples in 1u32..9, positions in prop_oneof![Just(1u32), 2u32..40], inputs in 1u32..70, outputs in 1u32..50,
        bias in any::<bool>(), seed in any::<u32>(), scale in prop_oneof![Just(1f32), Just(1e-38), Just(1e15)],
    ) {
        let p = GhostParams::new(samples, positions, inputs, outputs);
        let layer = Layer::new(if bias { p } else { p.without_bias() }, seed, scale);
        let mut first: Option<Vec<f64>> = None;
        for backend in blocked() {
            layer.check(&backend);
            let norms = layer.norms(&backend);
            prop_assert_eq!(&*first.get_or_insert_with(|| norms.clone()), &norms, "{}", backend.describe());
        }
        for backend in devices() {
            layer.check(&backend);
        }
    }
}

#[test]
fn larger_layers_on_several_threads() {
    for (samples, positions, inputs, outputs) in [(70, 9, 130, 75), (600, 1, 90, 40), (3, 150, 300, 170), (1, 64, 5, 3)]
    {
        let layer = Layer::new(GhostParams::new(samples, positions, inputs, outputs), 8, 1.0);
        let c = uneven(samples as usize, 5, 1.0);
        for backend in blocked() {
            layer.check(&backend);
            let one = (layer.norms(&backend), layer.sum(&backend, &c));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
            let five = pool.install(|| (layer.norms(&backend), layer.sum(&backend, &c)));
            assert!(one == five, "{}", backend.describe());
        }
        for backend in devices() {
            layer.check(&backend);
        }
    }
}

/// Opposite positions whose gradient cancels: the norm is not negative and stays within its bound.
#[test]
fn a_gradient_that_cancels() {
    for (positions, width) in [(2, 40), (30, 2)] {
        let mut layer = Layer::new(GhostParams::new(1, positions, width, width).without_bias(), 3, 1.0);
        let (a, g) = (layer.a[..width as usize].to_vec(), layer.g[..width as usize].to_vec());
        for t in 0..positions as usize {
            layer.a[t * width as usize..][..width as usize].copy_from_slice(&a);
            let sign = if t % 2 == 0 { 1.0 } else { -1.0 };
            layer.g[t * width as usize..][..width as usize].iter_mut().zip(&g).for_each(|(x, g)| *x = sign * g);
        }
        for backend in blocked() {
            layer.check(&backend);
        }
        for backend in devices() {
            layer.check(&backend);
        }
    }
}

/// One input and one output: no sum but that of the bias, so a norm has one value. What shaders compute is made in integers.
#[test]
fn doubles_of_devices_are_rounded_as_those_of_the_host() {
    let ends = [0u32, 1, 0x7f_ffff, 0x80_0000, 0x3f7f_ffff, 0x3f80_0001, 0x7f7f_ffff].into_iter();
    let bits = ends.chain((0..3000u32).map(|i| i.wrapping_mul(0x9e37_79b9) & 0xff7f_ffff));
    let near_one = (0..1000u32).map(|i| 0x3e00_0000 + i.wrapping_mul(0x9e37_79b9) % 0x300_0000);
    let a: Vec<f32> = bits.chain(near_one).map(f32::from_bits).collect();
    let g: Vec<f32> = a.iter().rev().copied().collect();
    let p = GhostParams::new(a.len() as u32, 1, 1, 1);
    let squares = |x: f32| f64::from(x) * f64::from(x);
    let expected: Vec<f64> = a.iter().zip(&g).map(|(&a, &g)| (squares(a) + 1.0) * squares(g)).collect();
    for backend in devices() {
        let found = backend.ghost_norms(&a.clone().into(), &g.clone().into(), &p).unwrap();
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{:e} {:e} {}", a[i], g[i], backend.describe());
        }
    }
}

#[test]
fn bad_samples_are_named_and_shapes_refused() {
    for p in [GhostParams::new(3, 1, 4, 2), GhostParams::new(3, 5, 4, 2), GhostParams::new(3, 2, 40, 20)] {
        let mut layer = Layer::new(p, 4, 1.0);
        let width = (p.positions * p.inputs) as usize;
        for backend in everywhere() {
            for poison in [f32::NAN, f32::INFINITY] {
                for (in_gradients, coordinate) in [(false, 3), (true, width + 1)] {
                    let mut bad = Layer { p, a: layer.a.clone(), g: layer.g.clone() };
                    if in_gradients {
                        bad.g[2 * (p.positions * p.outputs) as usize + 1] = poison;
                    } else {
                        bad.a[2 * width + 3] = poison;
                    }
                    let (a, g): (Buffer, Buffer) = (bad.a.into(), bad.g.into());
                    let error = BackendError::NonFinite { row: 2, coordinate };
                    assert_eq!(backend.ghost_norms(&a, &g, &p), Err(error.clone()));
                    assert_eq!(backend.ghost_sum(&a, &g, &[0.0; 3], &p), Err(error));
                }
            }
        }
        layer.a.pop();
        for backend in everywhere() {
            let error = backend.ghost_norms(&layer.a.clone().into(), &layer.g.clone().into(), &p).unwrap_err();
            assert!(matches!(error, BackendError::WrongLength { what: "activations", .. }), "{error}");
        }
    }
}

#[test]
fn edges_of_the_ghost_parameters() {
    let p = GhostParams::new(1, 1, 1, 1);
    let one = |v: f32| Buffer::from(vec![v]);
    for backend in everywhere() {
        for (bad, name) in [
            (GhostParams { positions: 0, ..p }, "positions"),
            (GhostParams { inputs: 0, ..p }, "inputs"),
            (GhostParams { outputs: 0, ..p }, "outputs"),
            (GhostParams { bias: 2, ..p }, "bias"),
            (GhostParams { inputs: u32::MAX, outputs: u32::MAX, samples: 0, ..p }, "(inputs + bias) * outputs"),
        ] {
            let error = backend.ghost_norms(&one(1.0), &one(1.0), &bad).unwrap_err();
            assert!(matches!(error, BackendError::OutOfRange { name: n, .. } if n == name), "{error}");
        }
        let sum = |a: f32, g: f32, c: &[f32]| backend.ghost_sum(&one(a), &one(g), c, &p);
        assert_eq!(sum(1.0, 1.0, &[]), Err(BackendError::WrongLength { what: "coefficients", expected: 1, found: 0 }));
        assert!(matches!(sum(1.0, 1.0, &[f32::NAN]), Err(BackendError::OutOfRange { name: "coefficient", .. })));
        assert!(matches!(sum(1e30, 1e30, &[1.0]), Err(BackendError::OutOfRange { name: "sum", .. })));
        assert_eq!(backend.ghost_norms(&one(1e38), &one(1e38), &p).unwrap().len(), 1);
        let none = GhostParams { samples: 0, ..p };
        let empty = || Buffer::from(Vec::<f32>::new());
        assert!(backend.ghost_norms(&empty(), &empty(), &none).unwrap().is_empty());
        assert_eq!(backend.ghost_sum(&empty(), &empty(), &[], &none).unwrap(), [0.0, 0.0]);
    }
}
