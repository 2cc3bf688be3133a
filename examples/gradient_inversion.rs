//! What one round's released update tells of the data behind it, by gradient inversion: in the clear, averaged, and with noise.
//!
//! Every client holds one 8x8 digit and sends its gradient. The first layer of the model gives the input away (`fl::attack::inversion`):
//! exactly where a client is alone, a mixture where there are many, nothing that can be recognised behind the noise.
//!
//! ```text
//! cargo run --release --example gradient_inversion
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use veilsum::config::build::{Experiment, Given, build};
use veilsum::config::{Config, overrides};
use veilsum::fl::attack::inversion::{FirstLayer, correlation, input_of};
use veilsum::sim::{self, RunOptions, Silent};

/// A run of one round: `cohort` clients of one image each, the server steps by their mean.
fn experiment(cohort: u64, privacy: &str) -> Result<Experiment, Box<dyn Error>> {
    let text = format!(
        r#"{{
            "name": "inversion", "seed": 7, "data": {{"name": "digits"}}, "partition": {{"scheme": "per-sample"}},
            "model": "digits_mlp", "algorithm": {{"name": "fed_sgd"}}, "server": {{"optimizer": "sgd", "learning_rate": 1.0}},
            "cohort": {cohort}, "sampling": "{}", "rounds": 1, "evaluation": {{"every": 1}}, "privacy": {privacy}
        }}"#,
        if privacy.contains("none") { "fixed" } else { "poisson" },
    );
    let config: Config = overrides::typed(&overrides::parse(&text, "the example")?, "the example")?;
    Ok(build(&config, Path::new("."), Given::default())?)
}

/// The mean gradient that a round releases: what the weights have lost.
fn released(experiment: &Experiment) -> Result<Vec<f32>, Box<dyn Error>> {
    let before = experiment.trainer.init(&experiment.init_key());
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    let after = sim::run(experiment, &options, &mut Silent)?.weights;
    Ok(before.iter().zip(after).map(|(before, after)| before - after).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let layer = FirstLayer { inputs: 64, outputs: 32, weight: 0..64 * 32, bias: 64 * 32..65 * 32 };
    println!("{:<46} best match with any of the 1437 images", "one round of");
    for (cohort, privacy, name) in [
        (1, r#"{"mechanism": "none", "clip": 100.0}"#, "1 client, in the clear"),
        (10, r#"{"mechanism": "none", "clip": 100.0}"#, "10 clients, their sum alone is seen"),
        (100, r#"{"mechanism": "none", "clip": 100.0}"#, "100 clients, their sum alone is seen"),
        (100, r#"{"mechanism": "smm", "clip": 1.0, "bits": 16, "target_epsilon": 8.0}"#, "100 clients, smm, epsilon 8"),
    ] {
        let experiment = experiment(cohort, privacy)?;
        let train = &experiment.split.train;
        let shown = input_of(&released(&experiment)?, &layer);
        let all: Vec<usize> = (0..train.len()).collect();
        let images = train.gather(&all);
        let match_of = |shown: &[f32]| {
            images.features.chunks_exact(64).map(|image| correlation(shown, image)).max_by(f64::total_cmp)
        };
        let best = shown.as_deref().and_then(match_of);
        if cohort == 1 {
            let mean = (0..64).map(|i| images.features.iter().skip(i).step_by(64).sum::<f32>()).collect::<Vec<_>>();
            let base = match_of(&mean).unwrap_or(0.0);
            println!("{:<46} correlation {base:.3}", "(to compare: the mean of all images)");
        }
        println!("{name:<46} {}", best.map_or("nothing".into(), |best| format!("correlation {best:.3}")));
        if let Some(shown) = shown {
            print_image(&shown);
        }
    }
    Ok(())
}

/// Eight rows of eight shades.
fn print_image(image: &[f32]) {
    let (low, high) = image.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    for row in image.chunks_exact(8) {
        let shade =
            |&x: &f32| " .:-=+*#%@".chars().nth((9.99 * (x - low) / (high - low).max(f32::MIN_POSITIVE)) as usize);
        println!("    {}", row.iter().filter_map(shade).flat_map(|c| [c, c]).collect::<String>());
    }
}
