//! `veilsum bench secagg`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Exit, Failure, print};
use crate::backend::{self, BackendKind, OpenOptions};
use crate::bench::secagg::{self, Holders, PROTOCOLS, Protocol, Request, Row, show};
use crate::bench::{BenchError, request::size};
use crate::files::write_atomic;

/// Arguments of `veilsum bench secagg`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    about = "What secure aggregation costs its parties: time and bytes a value",
    long_about = "Play whole aggregations with the machines that `train` uses, every call timed, every sum checked.\n\n\
        All clients of masks are played, since they share keys with one another; of the others --sample of them, \
        with the parameters for all.",
    after_help = "Examples:
  veilsum bench secagg --threads 1
  veilsum bench secagg --protocol masks,oneshot --clients 100,1000 --size 2^16,1e6 --dropout 0,0.3
  veilsum bench secagg --json > secagg.jsonl
  veilsum bench secagg --out report                  report/secagg.jsonl, secagg.svg

Exit codes: 0 done, 1 failure, 2 bad usage, 130 interrupted (what was measured is printed)."
)]
pub(super) struct Args {
    /// Protocols; several with commas. Default: all.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    protocol: Vec<ProtocolName>,
    /// Clients of the cohort.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10, 100, 1000])]
    clients: Vec<u32>,
    /// Values of a vector, such as 65536, 2^16, 64k or 4e5.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = ["2^16".to_owned(), "2^20".to_owned()])]
    size: Vec<String>,
    /// Shares of the clients, and of the key holders that are not needed, that vanish.
    #[arg(long, value_name = "SHARE", value_delimiter = ',', default_values_t = [0.0, 0.1, 0.3])]
    dropout: Vec<f64>,
    /// The sum is one mod 2^bits.
    #[arg(long, default_value_t = 16)]
    bits: u32,
    /// Holders of the key (mphe, oneshot).
    #[arg(long, default_value_t = 16)]
    holders: u16,
    /// Holders that are needed to open.
    #[arg(long, default_value_t = 14)]
    threshold: u16,
    /// Holders that may be corrupt.
    #[arg(long, default_value_t = 2)]
    corrupt_holders: u16,
    /// Clients of the protocols but masks that are played at most.
    #[arg(long, default_value_t = 9)]
    sample: u32,
    /// Backend: scalar, simd, wgpu, cuda.
    #[arg(long, value_name = "NAME", default_value = "simd")]
    backend: String,
    /// Takes a GPU played by the CPU for wgpu, for tests (or VEILSUM_ALLOW_SOFTWARE=1).
    #[arg(long)]
    allow_software: bool,
    /// Threads. Default: all processors.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// JSON lines on stdout, a row a case.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// A Markdown table on stdout.
    #[arg(long)]
    markdown: bool,
    /// Also writes DIR/secagg.jsonl and DIR/secagg.svg.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    /// Added in the clear.
    Plain,
    /// Masks that cancel in the sum.
    Masks,
    /// Every value under a collective lattice key.
    Mphe,
    /// One lattice ciphertext a client.
    Oneshot,
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Plain => Self::Plain,
            ProtocolName::Masks => Self::Masks,
            ProtocolName::Mphe => Self::Mphe,
            ProtocolName::Oneshot => Self::Oneshot,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Exit 2 for a bad request, 1 for a sum that is wrong or a file that cannot be written, 130 after Ctrl-C.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let request = args.request()?;
    let kinds = [BackendKind::Scalar, BackendKind::Simd, BackendKind::Wgpu, BackendKind::Cuda];
    let Some(kind) = kinds.into_iter().find(|kind| kind.name() == args.backend) else {
        let message = format!("--backend is {}, expected {}", args.backend, kinds.map(BackendKind::name).join(", "));
        return Err(Failure::new(Exit::Usage, message));
    };
    let options = OpenOptions::from_env().or_software(args.allow_software);
    let backend = backend::open_with(Some(kind), &options).map_err(BenchError::from)?;
    let threads = super::threads(args.threads)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| BenchError::Threads { threads, reason: e.to_string() })?;
    let cases = secagg::cases(&request);
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let interrupt = crate::cli::train::on_ctrl_c();
    let mut rows: Vec<Row> = Vec::new();
    let mut interrupted = false;
    for case in &cases {
        bar.set_message(show::name(case));
        bar.set_length(case.delivering.into());
        let measured = pool
            .install(|| secagg::measure(case, &backend, &interrupt, |delivered| bar.set_position(delivered.into())))?;
        let Some(row) = measured else {
            interrupted = true;
            break;
        };
        rows.push(row);
    }
    bar.finish_and_clear();
    print(&text(args, &rows, threads))?;
    if let Some(folder) = &args.out {
        write(folder, &rows)?;
    }
    if interrupted {
        return Err(Failure::new(Exit::Interrupted, format!("interrupted after {} rows", rows.len())));
    }
    Ok(())
}

impl Args {
    fn request(&self) -> Result<Request, BenchError> {
        let dims = self.size.iter().map(|text| {
            let d = size(text)?;
            u32::try_from(d).map_err(|_| BenchError::OutOfRange {
                name: "--size",
                expected: "below 2^32".into(),
                found: d.to_string(),
            })
        });
        let protocols: Vec<Protocol> = self.protocol.iter().map(|&name| name.into()).collect();
        Ok(Request {
            protocols: if protocols.is_empty() { PROTOCOLS.to_vec() } else { protocols },
            clients: self.clients.clone(),
            dims: dims.collect::<Result<_, _>>()?,
            dropouts: self.dropout.clone(),
            bits: self.bits,
            holders: Holders { holders: self.holders, needed: self.threshold, corrupt: self.corrupt_holders },
            sample: self.sample.max(2),
        })
    }
}

fn text(args: &Args, rows: &[Row], threads: usize) -> String {
    if args.json {
        return show::jsonl(rows);
    }
    let table = show::table(rows);
    let table = if args.markdown { table.to_markdown() } else { table.to_string() };
    let backend = rows.first().map_or("", |row| &row.backend);
    format!("{backend}, {threads} threads, b = {}\n\n{table}\n{}\n", args.bits, show::LEGEND)
}

fn write(folder: &std::path::Path, rows: &[Row]) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failure, e);
    std::fs::create_dir_all(folder)
        .map_err(|e| failed(&format!("cannot create the folder {}: {e}", folder.display())))?;
    for (name, text) in [("secagg.jsonl", show::jsonl(rows)), ("secagg.svg", show::chart(rows))] {
        write_atomic(&folder.join(name), text.as_bytes()).map_err(|e| failed(&e))?;
    }
    Ok(())
}
