//! `veilsum secagg run`: one aggregation from files, all parties in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::protocols::{self, Aggregation, PhaseCount};
use crate::cli::{Exit, Failure};
use crate::data::DataError;
use crate::data::vectors::{self, IntegerRows, RawLayout};
use crate::files::write_atomic;
use crate::math::prg::Secret;
use crate::report::terminal::Table;
use crate::secagg::{Output, VectorShape};

const AFTER_HELP: &str = "\
Every row of the inputs is a client's vector of integers; their sum mod 2^bits, centred, is written as .npy (int64), or as raw
little-endian int64 where the name does not end in .npy. The file appears whole or not at all.

PROTOCOLS
  plain    Added in the clear.
  masks    Masks that cancel in the sum: --corrupt, --dropouts, --server.
  mphe     Under a lattice key that key holders have in common: --holders, --threshold, --corrupt-holders, --trust. Values
           must be within --bound; the key set-up is played too.
  oneshot  A lattice key for each client, shares of which go to the key holders: --holders, --threshold, --corrupt-holders.
           Values must be within --bound. At most --min-clients less two clients are in league with the server.

WHO VANISHES, and in which phase: WHO@PHASE, WHO being numbers and ranges from 1 (row 1 is client 1).
  plain    clients: input
  masks    clients: keys, shares, input, consistency, unmask
  mphe     clients: input; holders: commit, share, sign (of the key set-up), agree, open
  oneshot  clients: input; holders: open

EXAMPLES
  veilsum secagg run --input rows.npy --bits 16 --output sum.npy
  veilsum secagg run --input a.bin b.bin c.bin --raw i32 --dim 1000 --bits 20 --protocol mphe --bound 4096 --output sum.bin
  veilsum secagg run --input rows.npy --bits 16 --protocol masks --drop-clients 2,5-7@input --dropouts 0.3 --output sum.npy --json

Exit codes: 0 success, 1 given up (too few clients or holders are left; nothing is written), 2 bad usage, 3 no parameters do
what is asked, 4 an input that cannot be read.";

/// Arguments of `veilsum secagg run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
pub(super) struct RunArgs {
    /// Files with one row a client: several with a row or more each, or one matrix. .npy, .safetensors, or raw numbers.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    input: Vec<PathBuf>,
    /// The tensor of a .safetensors file; the only one if not given.
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Type of raw numbers, little-endian.
    #[arg(long, value_enum, requires = "dim")]
    raw: Option<RawType>,
    /// Values of a row of raw numbers.
    #[arg(long)]
    dim: Option<usize>,
    /// Ring width: the sum is taken mod 2^bits.
    #[arg(long, default_value_t = 16)]
    pub(super) bits: u32,
    /// Magnitude that no value exceeds; 2^(bits - 1) if not given.
    #[arg(long)]
    bound: Option<u64>,
    /// How the vectors are added.
    #[arg(long, value_enum, default_value_t = ProtocolName::Plain)]
    pub(super) protocol: ProtocolName,
    /// Where the sum goes.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Clients that vanish: WHO@PHASE; may be repeated.
    #[arg(long, value_name = "WHO@PHASE")]
    pub(super) drop_clients: Vec<Dropped>,
    /// Key holders that vanish (mphe, oneshot).
    #[arg(long, value_name = "WHO@PHASE")]
    pub(super) drop_holders: Vec<Dropped>,
    /// Least number of clients that are added up.
    #[arg(long, default_value_t = 2)]
    pub(super) min_clients: u32,
    /// Share of the clients that may be in league with the server (masks).
    #[arg(long, default_value_t = 0.1)]
    pub(super) corrupt: f64,
    /// Share of the clients that may vanish at any time (masks).
    #[arg(long, default_value_t = 0.1)]
    pub(super) dropouts: f64,
    /// What the server may do (masks).
    #[arg(long, value_enum, default_value_t = super::ServerName::Malicious)]
    pub(super) server: super::ServerName,
    /// Holders of the key (mphe, oneshot).
    #[arg(long, default_value_t = 3)]
    pub(super) holders: u16,
    /// Holders that are needed to open; if not given the least number that is safe: (holders + corrupt) / 2 < threshold for
    /// mphe, (2 holders + corrupt) / 3 < threshold for oneshot.
    #[arg(long)]
    pub(super) threshold: Option<u16>,
    /// Holders that may be corrupt (mphe, oneshot).
    #[arg(long, default_value_t = 0)]
    pub(super) corrupt_holders: u16,
    /// Whom the sum is protected from (mphe).
    #[arg(long, value_enum, default_value_t = TrustName::SemiHonestServer)]
    pub(super) trust: TrustName,
    /// Sums that the key is made for (mphe).
    #[arg(long, default_value_t = 1000)]
    pub(super) rounds: u64,
    /// Bits of statistical distance of all openings under the key (mphe).
    #[arg(long, default_value_t = 40)]
    pub(super) lambda: u32,
    /// Ring degree N; the one with the fewest bytes a client if not given. A smaller one makes keys faster (mphe).
    #[arg(long)]
    pub(super) degree: Option<usize>,
    /// Draw everything from this seed in place of fresh randomness: a simulation that repeats, and protects nothing.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RawType {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl RawType {
    const fn layout(self, cols: usize) -> RawLayout {
        let (bytes, signed) = match self {
            Self::I8 => (1, true),
            Self::I16 => (2, true),
            Self::I32 => (4, true),
            Self::I64 => (8, true),
            Self::U8 => (1, false),
            Self::U16 => (2, false),
            Self::U32 => (4, false),
            Self::U64 => (8, false),
        };
        RawLayout { bytes, signed, cols }
    }
}

/// The protocols that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProtocolName {
    /// In the clear.
    Plain,
    /// Masks that cancel in the sum.
    Masks,
    /// Under a collective lattice key.
    Mphe,
    /// Under a lattice key of each client.
    Oneshot,
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Masks => "masks",
            Self::Mphe => "mphe",
            Self::Oneshot => "oneshot",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TrustName {
    /// The server follows the protocol and looks at everything.
    SemiHonestServer,
    /// The server does what it likes, no client is in league with it; the holders add.
    HonestRoster,
}

/// Numbers from 1 and a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) who: Vec<u64>,
    pub(super) phase: String,
}

impl std::str::FromStr for Dropped {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not WHO@PHASE, such as 2,5-7@input");
        let (list, phase) = text.split_once('@').ok_or_else(wrong)?;
        let mut who = Vec::new();
        for part in list.split(',') {
            let number = |text: &str| text.trim().parse::<u64>().ok().filter(|n| (1..=1 << 24).contains(n));
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
            if first > last {
                return Err(wrong());
            }
            who.extend(first..=last);
        }
        Ok(Self { who, phase: phase.to_owned() })
    }
}

/// Runs the command.
pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    if !(1..=63).contains(&args.bits) {
        return Err(usage(format!("--bits is {}, expected 1 to 63", args.bits)));
    }
    let rows = read(args)?;
    let bound = args.bound.unwrap_or(1 << (args.bits - 1));
    let shape = shape(args, &rows)?;
    let packed = pack(&rows, shape, bound)?;
    let secret = match args.seed {
        Some(seed) => Secret::from_seed(seed),
        None => Secret::fresh().map_err(|e| Failure::new(Exit::Failure, e))?,
    };
    let played = protocols::play(args, &Aggregation { shape, bound, packed: &packed, secret: &secret })?;
    let (words, survivors) = match &played.output {
        Some(Output::Sum { words, survivors }) => (words, survivors),
        _ => {
            let reason = played.fault.clone().unwrap_or_else(|| "too few clients are left".to_owned());
            return Err(Failure::new(Exit::Failure, format!("no sum: {reason}")));
        }
    };
    let sum = centred(words, shape.bits);
    write(&args.output, &sum)?;
    if args.json {
        println!("{}", object(args, shape, survivors, &played));
    } else {
        println!("{}", table(&played));
        println!(
            "sum of {} of {} clients, {} values mod 2^{}: {}",
            survivors.len(),
            rows.rows,
            shape.len,
            shape.bits,
            args.output.display()
        );
    }
    Ok(())
}

/// All rows of all files.
fn read(args: &RunArgs) -> Result<IntegerRows, Failure> {
    let layout = args.raw.zip(args.dim).map(|(raw, cols)| raw.layout(cols));
    let mut all: Option<IntegerRows> = None;
    for path in &args.input {
        let next = vectors::read(path, args.tensor.as_deref(), layout).map_err(|e| {
            let exit = if matches!(e, DataError::Config { .. }) { Exit::Usage } else { Exit::Data };
            Failure::new(exit, e)
        })?;
        match &mut all {
            None => all = Some(next),
            Some(all) if all.cols == next.cols => {
                all.rows += next.rows;
                all.values.extend(next.values);
            }
            Some(all) => {
                let message = format!(
                    "{} has rows of {} values, {} has rows of {}",
                    path.display(),
                    next.cols,
                    args.input[0].display(),
                    all.cols
                );
                return Err(Failure::new(Exit::Data, message));
            }
        }
    }
    all.ok_or_else(|| Failure::new(Exit::Usage, "--input names no file"))
}

fn shape(args: &RunArgs, rows: &IntegerRows) -> Result<VectorShape, Failure> {
    let Ok(len) = u32::try_from(rows.cols) else {
        return Err(Failure::new(
            Exit::Data,
            format!("rows have {} values, at most {} are added", rows.cols, u32::MAX),
        ));
    };
    Ok(VectorShape { len, bits: args.bits })
}

/// Every row as residues, packed; a value that is not within the bound or the ring names its place.
fn pack(rows: &IntegerRows, shape: VectorShape, bound: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let half = 1i64 << (shape.bits - 1);
    let ring = (1u64 << shape.bits) - 1;
    let fits = |v: i64| v.unsigned_abs() <= bound && v >= -half && v < half;
    if let Some(at) = rows.values.iter().position(|&v| !fits(v)) {
        let message = format!(
            "row {}, value {} is {}, expected within -{bound}..={bound} and {}..={} (--bound, --bits)",
            at / rows.cols + 1,
            at % rows.cols + 1,
            rows.values[at],
            -half,
            half - 1
        );
        return Err(Failure::new(Exit::Data, message));
    }
    let packed = |row: &[i64]| {
        let mut out = Vec::with_capacity(shape.packed_len());
        crate::secagg::frame::pack(row.iter().map(|&v| v as u64 & ring), shape.bits, &mut out);
        out
    };
    Ok(rows.values.chunks_exact(rows.cols).map(packed).collect())
}

fn centred(words: &[u64], bits: u32) -> Vec<i64> {
    words.iter().map(|&w| (w << (64 - bits)) as i64 >> (64 - bits)).collect()
}

fn write(path: &Path, sum: &[i64]) -> Result<(), Failure> {
    let npy = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"));
    let bytes = if npy { vectors::to_npy(sum) } else { sum.iter().flat_map(|v| v.to_le_bytes()).collect() };
    write_atomic(path, &bytes).map_err(|e| Failure::new(Exit::Failure, e))
}

/// What a run was, for machines.
pub(super) struct Played {
    pub(super) output: Option<Output>,
    /// Parameters, in words.
    pub(super) parameters: String,
    /// Why there is no sum.
    pub(super) fault: Option<String>,
    /// In order; of a key set-up first.
    pub(super) phases: Vec<PhaseCount>,
}

fn object(args: &RunArgs, shape: VectorShape, survivors: &[u64], played: &Played) -> Value {
    let phases: Vec<Value> = played
        .phases
        .iter()
        .map(|p| json!({ "phase": p.name, "frames": p.frames, "bytes": p.bytes, "milliseconds": p.milliseconds }))
        .collect();
    let total: BTreeMap<&str, f64> = BTreeMap::from([
        ("bytes", played.phases.iter().map(|p| p.bytes as f64).sum()),
        ("milliseconds", played.phases.iter().map(|p| p.milliseconds).sum()),
    ]);
    json!({
        "protocol": args.protocol.to_string(),
        "parameters": played.parameters,
        "values": shape.len,
        "bits": shape.bits,
        "clients": survivors.len(),
        "survivors": survivors,
        "phases": phases,
        "total": total,
        "output": args.output.display().to_string(),
    })
}

fn table(played: &Played) -> Table {
    let mut table = Table::new(["phase", "frames", "bytes", "ms"]);
    for p in &played.phases {
        table.push([p.name.to_owned(), p.frames.to_string(), p.bytes.to_string(), format!("{:.1}", p.milliseconds)]);
    }
    table
}
