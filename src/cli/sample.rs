//! `veilsum sample`.

use std::io::Write;
use std::time::Instant;

use clap::ValueEnum;

use super::{Exit, Failure};
use crate::backend::{self, Buffer};
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::sample::SampleError;
use crate::sample::binomial::CentredBinomial;
use crate::sample::law::Law;
use crate::sample::noise::Noise;
use crate::sample::statistics::{Comparison, compare};
use crate::sample::table::NoiseTable;

/// Integer laws with an exact sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LawName {
    /// Poisson with mean --rate.
    Poisson,
    /// Poisson(mu) - Poisson(mu), variance 2 mu.
    Skellam,
    /// P(k) ~ exp(-k^2 / (2 sigma^2)).
    DiscreteGaussian,
    /// P(k) ~ exp(-|k| / b), b = --rate.
    DiscreteLaplace,
    /// Binomial(k, 1/2) - Binomial(k, 1/2), variance k / 2.
    CentredBinomial,
}

/// Which sampler draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SamplerName {
    /// The rational oracle: uniform integers are its only randomness.
    Exact,
    /// The constant-time sampler of the noise stage: a table of 128-bit thresholds (Skellam, discrete Gaussian),
    /// or popcount (centred binomial).
    Table,
}

/// Arguments of `veilsum sample`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Draw from the integer noise laws and test the draws against the exact law.\n\n\
        KL is the divergence of the empirical law from the exact one. A correct sampler does not bring it to \
        zero but to about (k - 1) / (2 n), with k distinct integers among n draws: compare the two numbers. \
        The chi-square p value is uniform on [0, 1] for a correct sampler; values below 1e-6 mean a bug.",
    after_help = "Examples:\n  \
        veilsum sample --law skellam --mu 5.95\n  \
        veilsum sample --law skellam --mu 1428 --sampler table --count 1000000 --json\n  \
        veilsum sample --law poisson --rate 4/3 --count 20 --draws\n  \
        veilsum sample --law discrete-gaussian --sigma 100\n  \
        veilsum sample --law centred-binomial --k 24 --sampler table\n\nExit code 2: a parameter outside its range."
)]
pub struct Args {
    /// The law to draw from.
    #[arg(long, value_enum)]
    law: LawName,
    /// Mean of each of the two Poisson draws of a Skellam: a decimal or a fraction, taken exactly.
    #[arg(long, value_name = "MU", allow_hyphen_values = true)]
    mu: Option<String>,
    /// Mean of the Poisson, or scale b of the discrete Laplace: a decimal or a fraction such as 4/3.
    #[arg(long, value_name = "RATE", allow_hyphen_values = true)]
    rate: Option<String>,
    /// Parameter of the discrete Gaussian.
    #[arg(long, value_name = "SIGMA", allow_hyphen_values = true)]
    sigma: Option<f64>,
    /// Coins on each side of the centred binomial, 1 to 4096.
    #[arg(long, value_name = "K")]
    k: Option<u32>,
    /// Number of draws.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    count: u32,
    /// Which sampler draws.
    #[arg(long, value_enum, default_value_t = SamplerName::Exact)]
    sampler: SamplerName,
    /// Seed, for draws that repeat; without it the operating system gives one.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the draws.
    #[arg(long)]
    draws: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn failure(message: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, message)
}

/// `"4/3"`, `"5.95"`, `"7"` as an exact fraction.
pub(super) fn fraction(name: &str, text: &str) -> Result<(i64, i64), Failure> {
    let wrong = || {
        usage(format!(
            "--{name} is {text:?}, expected a decimal such as 5.95 or a fraction such as 4/3, with at most 18 digits"
        ))
    };
    let text = text.trim();
    if let Some((n, d)) = text.split_once('/') {
        return Ok((n.trim().parse().map_err(|_| wrong())?, d.trim().parse().map_err(|_| wrong())?));
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !decimals.bytes().all(|b| b.is_ascii_digit()) || decimals.len() > 18 {
        return Err(wrong());
    }
    let n: i64 = format!("{whole}{decimals}").parse().map_err(|_| wrong())?;
    let d = 10i64.pow(decimals.len() as u32);
    let common = num_integer::gcd(n, d).max(1);
    Ok((n / common, d / common))
}

/// The law that the arguments name; options of other laws are refused.
fn law(args: &Args) -> Result<Law, Failure> {
    let given = [
        ("mu", args.mu.is_some()),
        ("rate", args.rate.is_some()),
        ("sigma", args.sigma.is_some()),
        ("k", args.k.is_some()),
    ];
    let wanted = match args.law {
        LawName::Skellam => "mu",
        LawName::Poisson | LawName::DiscreteLaplace => "rate",
        LawName::DiscreteGaussian => "sigma",
        LawName::CentredBinomial => "k",
    };
    if let Some((other, _)) = given.into_iter().find(|(name, given)| *given && *name != wanted) {
        return Err(usage(format!("--{other} does not belong to this law; it takes --{wanted}")));
    }
    let missing = || usage(format!("this law takes --{wanted}"));
    Ok(match args.law {
        LawName::Skellam => {
            let (numerator, denominator) = fraction("mu", args.mu.as_ref().ok_or_else(missing)?)?;
            Law::Skellam { numerator, denominator }
        }
        LawName::Poisson => {
            let (numerator, denominator) = fraction("rate", args.rate.as_ref().ok_or_else(missing)?)?;
            Law::Poisson { numerator, denominator }
        }
        LawName::DiscreteLaplace => {
            let (numerator, denominator) = fraction("rate", args.rate.as_ref().ok_or_else(missing)?)?;
            Law::DiscreteLaplace { numerator, denominator }
        }
        LawName::DiscreteGaussian => Law::DiscreteGaussian { sigma: args.sigma.ok_or_else(missing)? },
        LawName::CentredBinomial => Law::CentredBinomial { k: args.k.ok_or_else(missing)? },
    })
}

/// Draws by the constant-time noise stage, on the fastest backend.
fn draw_from_table(law: Law, key: &StreamKey, count: usize) -> Result<(Vec<i64>, f64), Failure> {
    let noise: Noise = match law {
        Law::Skellam { numerator, denominator } => {
            NoiseTable::skellam(numerator as f64 / denominator as f64).map_err(usage)?.into()
        }
        Law::DiscreteGaussian { sigma } => NoiseTable::discrete_gaussian(sigma).map_err(usage)?.into(),
        Law::CentredBinomial { k } => CentredBinomial::new(k).map_err(usage)?.into(),
        Law::Poisson { .. } | Law::DiscreteLaplace { .. } => {
            return Err(usage(
                "--sampler table draws skellam, discrete-gaussian and centred-binomial; the other laws take --sampler exact",
            ));
        }
    };
    let backend = backend::open(None).map_err(failure)?;
    let mut words = Buffer::HostU32(vec![0; count].into());
    let start = Instant::now();
    backend.noise(&mut words, 32, &noise, key).map_err(failure)?;
    let seconds = start.elapsed().as_secs_f64();
    let words = words.as_u32().map_err(failure)?;
    Ok((words.iter().map(|&w| i64::from(w as i32)).collect(), seconds))
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for arguments outside their range, 1 for a failure of the machine.
pub fn run(args: Args) -> Result<(), Failure> {
    let law = law(&args)?;
    let sampler = law.sampler().map_err(usage)?;
    let pmf = match law.pmf() {
        Ok(pmf) => Some(pmf),
        Err(SampleError::OutOfRange { name: "standard deviation", .. }) => None,
        Err(error) => return Err(usage(error)),
    };
    let secret = match args.seed {
        Some(seed) => Secret::from_seed(seed),
        None => Secret::fresh().map_err(failure)?,
    };
    let key = secret.derive(&[0; 16], Address::default(), Purpose::Draws, Cipher::ChaCha20);
    let count = args.count as usize;
    let (draws, seconds) = match args.sampler {
        SamplerName::Table => draw_from_table(law, &key, count)?,
        SamplerName::Exact => {
            let mut reader = key.reader(0);
            let start = Instant::now();
            let draws = (0..count).map(|_| sampler.draw(&mut reader)).collect();
            (draws, start.elapsed().as_secs_f64())
        }
    };
    let empty = crate::sample::law::Pmf { first: 0, probabilities: Vec::new() };
    let seen = compare(&draws, pmf.as_ref().unwrap_or(&empty));
    let rate = count as f64 / seconds.max(1e-9);
    let text = if args.json {
        json(&args, pmf.is_some(), &seen, rate, &draws).to_string() + "\n"
    } else {
        table(&args, pmf.as_ref().map(|p| p.moments()), &seen, rate, &draws)
    };
    // A closed pipe (`| head`) is no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

fn json(args: &Args, tested: bool, seen: &Comparison, rate: f64, draws: &[i64]) -> serde_json::Value {
    let mut object = serde_json::json!({
        "law": value_name(args.law),
        "sampler": value_name(args.sampler),
        "count": seen.count,
        "mean": seen.mean,
        "variance": seen.variance,
        "samples_per_second": rate,
    });
    if tested {
        // An infinite KL (a draw of probability zero) becomes null.
        object["kl"] = seen.kl.into();
        object["kl_expected"] = seen.kl_expected.into();
        object["chi_square"] = seen.chi_square.into();
        object["degrees_of_freedom"] = seen.degrees.into();
        object["p_value"] = seen.p_value.into();
    }
    if args.draws {
        object["draws"] = draws.into();
    }
    object
}

fn table(args: &Args, exact: Option<(f64, f64)>, seen: &Comparison, rate: f64, draws: &[i64]) -> String {
    let mut text = String::new();
    if args.draws {
        for draw in draws {
            text += &format!("{draw}\n");
        }
    }
    let (law, sampler) = (value_name(args.law), value_name(args.sampler));
    text += &format!("{law}, {} draws, {sampler} sampler, {rate:.3e} draws/s\n\n", seen.count);
    text += &format!("{:<12}{:>14}{:>14}\n", "", "sample", "exact");
    match exact {
        Some((mean, variance)) => {
            // An exact mean of zero comes out of the sum as a negligible number.
            let mean = if mean.abs() < 1e-9 { 0.0 } else { mean };
            text += &format!("{:<12}{:>14.6}{:>14.6}\n", "mean", seen.mean, mean);
            text += &format!("{:<12}{:>14.6}{:>14.6}\n", "variance", seen.variance, variance);
            text += &format!("{:<12}{:>14.3e}{:>14.3e}  (exact: (k - 1) / 2n)\n", "KL", seen.kl, seen.kl_expected);
            text += &format!("{:<12}{:>14.3}{:>14}\n", "chi-square", seen.chi_square, seen.degrees);
            text += &format!("{:<12}{:>14.4}\n", "p value", seen.p_value);
        }
        None => {
            text += &format!("{:<12}{:>14.6}\n{:<12}{:>14.6}\n", "mean", seen.mean, "variance", seen.variance);
            text += "too wide to list its probabilities: no KL, no chi-square\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_read_exactly() {
        for (text, value) in [
            ("5.95", (119, 20)),
            ("4/3", (4, 3)),
            ("7", (7, 1)),
            ("-1.5", (-3, 2)),
            (" 2 / 5 ", (2, 5)),
            ("0.0", (0, 1)),
            ("1/0", (1, 0)),
        ] {
            assert_eq!(fraction("mu", text).unwrap(), value, "{text}");
        }
        for text in ["", ".", "a", "1e5", "1.2.3", "1/", "/2", "1.-2", "99999999999999999999", "0.1234567890123456789"]
        {
            let error = fraction("mu", text).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{text}");
        }
    }
}
