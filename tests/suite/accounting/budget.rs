//! Runs whose rounds differ in noise, what they are calibrated to, and how bounds move with every parameter.

use proptest::prelude::*;
use veilsum::privacy::DpEvent;
use veilsum::privacy::accountant::Rule;
use veilsum::privacy::accountant::meter::{Course, Meter};
use veilsum::privacy::calibrate::{
    GammaRequest, SkellamKind, Uses, calibrate_gamma, calibrate_noise, discrete_gaussian,
};
use veilsum::privacy::stages::{Decay, Stage, Stages};

fn gaussian(noise_multiplier: f64) -> DpEvent {
    DpEvent::Gaussian { noise_multiplier }
}

fn uses(stages: Stages, rule: Rule) -> Uses {
    Uses { rate: 0.01, delta: 1e-5, stages, rule }
}

fn stages(all: &[(u64, f64)]) -> Stages {
    Stages::new(all.iter().map(|&(rounds, factor)| Stage { rounds, factor })).unwrap()
}

fn epsilon(uses: &Uses, noise: f64) -> f64 {
    uses.epsilon(|factor| gaussian(noise * factor)).unwrap().epsilon
}

#[test]
fn stages_compose_exactly() {
    for rule in [Rule::Rdp, Rule::Pld, Rule::Best] {
        let of = |all: &[(u64, f64)]| epsilon(&uses(stages(all), rule), 1.0);
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 2e-4, "{rule:?}: {a} {b}");
        // The order of rounds is nothing to a composition; neither is where a stage is cut.
        near(of(&[(40, 1.0), (60, 0.7)]), of(&[(60, 0.7), (40, 1.0)]));
        near(of(&[(40, 1.0), (30, 0.7), (25, 1.0), (30, 0.7)]), of(&[(65, 1.0), (60, 0.7)]));
        // Between all rounds at the least and all at the most noise, and not what the mean noise would cost.
        let mixed = of(&[(50, 1.0), (50, 0.5)]);
        assert!(mixed > 1.1 * of(&[(100, 0.75)]), "{rule:?}");
        assert!(mixed < of(&[(100, 0.5)]) && mixed > of(&[(100, 1.0)]));
    }
    // Without sampling, Gaussians have a closed form: the squares of 1 / sigma add up.
    let plain = Uses { rate: 1.0, ..uses(stages(&[(3, 1.0), (2, 0.5)]), Rule::Pld) };
    let one = Uses { rate: 1.0, ..uses(Stages::uniform(1), Rule::Pld) };
    let (found, expected) = (epsilon(&plain, 4.0), epsilon(&one, 4.0 / 11f64.sqrt()));
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
}

#[test]
fn losses_of_a_course_are_the_accountant_s_own_interval() {
    use veilsum::privacy::accountant::{Accountant, pld::PldAccountant};
    let mut accountant = PldAccountant::new();
    let sampled = |noise| DpEvent::PoissonSampled { rate: 0.01, event: Box::new(gaussian(noise)) };
    accountant.compose(&sampled(1.0), 80).unwrap();
    accountant.compose(&sampled(0.6), 20).unwrap();
    let interval = accountant.interval(1e-5).unwrap();
    let found = epsilon(&uses(stages(&[(80, 1.0), (20, 0.6)]), Rule::Best), 1.0);
    assert!(
        interval.low > 0.0 && found >= interval.low && found <= interval.high * (1.0 + 1e-3),
        "{found} {interval:?}"
    );
}

#[test]
fn a_calibrated_course_meets_its_target_by_the_bound_that_the_run_uses() {
    for shape in [Stages::uniform(200), Stages::decaying(200, Decay::Exponential, 0.5, 4).unwrap()] {
        let mut noise = Vec::new();
        for rule in [Rule::Rdp, Rule::Best] {
            let uses = uses(shape.clone(), rule);
            let found = calibrate_noise(&uses, 1.0, gaussian).unwrap();
            let spent = epsilon(&uses, found);
            assert!(spent <= 1.0 && spent > 0.9998, "{rule:?} {spent}");
            noise.push(found);
        }
        assert!(noise[1] < 0.97 * noise[0], "the tighter bound needs less noise: {noise:?}");
    }
    // A mechanism that losses do not know is calibrated by what knows it.
    let uses = uses(Stages::uniform(200), Rule::Best);
    let best = calibrate_noise(&uses, 1.0, discrete_gaussian).unwrap();
    let rdp = calibrate_noise(&Uses { rule: Rule::Rdp, ..uses }, 1.0, discrete_gaussian).unwrap();
    assert_eq!(best, rdp);
}

#[test]
fn gamma_by_losses_is_finer_at_the_same_epsilon_and_leaves_room_for_the_noisiest_rounds() {
    let request = |uses| GammaRequest {
        kind: SkellamKind::Smm,
        bits: 8,
        dim: 63_610,
        cohort: 240.0,
        clip: 1.0,
        uses,
        target_epsilon: 3.0,
        wrap_limit: 1e-3,
        inflation: 1.0,
    };
    let mnist = |rule, stages| Uses { rate: 0.004, delta: 1e-5, stages, rule };
    let rdp = calibrate_gamma(&request(mnist(Rule::Rdp, Stages::uniform(1000)))).unwrap();
    let best = calibrate_gamma(&request(mnist(Rule::Best, Stages::uniform(1000)))).unwrap();
    let std = |c: veilsum::privacy::calibrate::Calibration| (2.0 * c.mu_total).sqrt() / c.gamma;
    assert!(best.epsilon <= 3.0 && best.epsilon > 2.999, "{best:?}");
    // At so coarse a scale the dominating Gaussian costs nearly what losses gain.
    assert!(best.gamma > rdp.gamma && std(best) < 0.995 * std(rdp), "{best:?} {rdp:?}");
    let wide =
        |rule| calibrate_gamma(&GammaRequest { bits: 12, ..request(mnist(rule, Stages::uniform(1000))) }).unwrap();
    let (best, rdp_12) = (wide(Rule::Best), wide(Rule::Rdp));
    assert!(std(best) < 0.95 * std(rdp_12), "{best:?} {rdp_12:?}");
    let falling = request(mnist(Rule::Rdp, stages(&[(500, 1.0), (500, 0.5)])));
    let found = calibrate_gamma(&falling).unwrap();
    assert!(found.epsilon <= 3.0 && found.epsilon > 2.999 && found.predicted_wrap <= 1e-3, "{found:?}");
    assert!(found.gamma < rdp.gamma, "its first rounds have more noise than {rdp:?}: {found:?}");
    let room = falling.ring(found.gamma, found.mu_total).noise_variance;
    assert_eq!(room, 2.0 * found.mu_total);
    let rising = request(mnist(Rule::Rdp, stages(&[(500, 1.0), (500, 2.0)])));
    assert_eq!(rising.ring(10.0, 7.0).noise_variance, 8.0 * 7.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// More rounds, a higher rate, less noise and a smaller delta never cost less; what is reported in between is never
    /// below what the rounds cost.
    #[test]
    fn bounds_move_with_every_parameter(
        first in 1u64..60, second in 1u64..60, factor in 0.4f64..2.5,
        noise in 0.7f64..4.0, rate in 0.002f64..0.3, ln_delta in -20f64..-5.0, stride in 1u64..30,
    ) {
        let delta = ln_delta.exp();
        let of = |first, second, noise: f64, rate, delta, rule| {
            let uses = Uses { rate, delta, stages: stages(&[(first, 1.0), (second, factor)]), rule };
            epsilon(&uses, noise)
        };
        for rule in [Rule::Rdp, Rule::Best] {
            let here = of(first, second, noise, rate, delta, rule) * (1.0 - 2e-4);
            prop_assert!(of(first + 3, second, noise, rate, delta, rule) >= here, "rounds");
            prop_assert!(of(first, second + 1, noise, rate, delta, rule) >= here, "rounds");
            prop_assert!(of(first, second, 0.9 * noise, rate, delta, rule) >= here, "noise");
            prop_assert!(of(first, second, noise, 1.2 * rate, delta, rule) >= here, "rate");
            prop_assert!(of(first, second, noise, rate, 0.5 * delta, rule) >= here, "delta");
        }
        let sampled = |noise| DpEvent::PoissonSampled { rate, event: Box::new(gaussian(noise)) };
        let course = |stride, rule| Course { stages: vec![(sampled(noise), first), (sampled(noise * factor), second)], stride, rule };
        let exact = Meter::of(course(1, Rule::Best), &[]).unwrap();
        let coarse = Meter::of(course(stride, Rule::Best), &[]).unwrap();
        let rdp = Meter::of(course(stride, Rule::Rdp), &[]).unwrap();
        let mut last = 0.0;
        for (a, b) in [(first / 2, 0), (first, second / 2), (first, second), (first + 2, second)] {
            let at = |meter: &Meter| meter.epsilon(&[a, b], delta).unwrap().epsilon;
            let told = at(&coarse);
            prop_assert!(told >= at(&exact) * (1.0 - 2e-4) && told <= at(&rdp), "{a} {b}");
            prop_assert!(told >= last * (1.0 - 2e-4), "{a} {b}: {told} after {last}");
            last = told;
            // What is let pass is never below what is told.
            prop_assert!(coarse.exceeds(&[a, b], delta, told).unwrap().is_none());
        }
    }
}
