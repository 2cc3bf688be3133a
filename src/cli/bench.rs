//! `veilsum bench`.

mod secagg;

use std::io::{ErrorKind, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Exit, Failure};
use crate::backend::OpenOptions;
use crate::bench::compare::{Unmatched, check_common, check_tolerance, compare};
use crate::bench::record::{Results, Row};
use crate::bench::request::{Case, Request, plan, size};
use crate::bench::stages::STAGES;
use crate::bench::{BenchError, Measurement, measure, show};
use crate::files::write_atomic;
use crate::report::terminal::{Align, Table};

/// Arguments of `veilsum bench`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    long_about = "Measure the kernels, and beside each what this machine could do at best.\n\n\
        Bandwidths and port rates are measured on the spot with the same instruction set and threads; `of limit` \
        is the least time that they allow over the best time seen. The limit of a GPU is the bandwidth of copies \
        within its memory; its buffers are uploaded once. Cases run in turns, so that a slow moment of \
        the machine meets all of them. Close other programs, and compare ratios rather than times.",
    after_help = "Examples:
  veilsum bench                                      every stage at its usual sizes
  veilsum bench fwht encode/skellam --threads 1      two stages on one thread
  veilsum bench fwht --size 2^10,2^16 --backend scalar,simd --isa all
  veilsum bench fwht --backend simd,wgpu             a GPU beside the CPU (see veilsum devices)
  veilsum bench --json > before.jsonl                a header, then a JSON object a row
  veilsum bench --against before.jsonl               ratios; fails if something became slower
  veilsum bench --from after.jsonl --against before.jsonl --markdown
  veilsum bench --out report                         report/bench.jsonl, roofline.svg, bench.html
  veilsum bench secagg                               what secure aggregation costs its parties

Exit codes: 0 done, 1 failure, or slower than --against allows, 2 bad usage or file, 130 interrupted (what was
measured is printed)."
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Stages, or STAGE/VARIANT; default: all (see --list).
    #[arg(value_name = "STAGE")]
    pub stages: Vec<String>,
    /// Backends: scalar, simd, wgpu, cuda; several with commas or repeated. Default: simd.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub backend: Vec<String>,
    /// Takes a GPU played by the CPU for wgpu, for tests (or VEILSUM_ALLOW_SOFTWARE=1).
    #[arg(long)]
    pub allow_software: bool,
    /// Instruction sets of simd: portable, neon, avx2, avx512, avx512ifma, or all that this processor has. Default: the best of this processor, or VEILSUM_ISA.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub isa: Vec<String>,
    /// Elements a row, such as 65536, 2^16, 64k or 4e5; several with commas. Default: see --list.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub size: Vec<String>,
    /// Rows. Default: see --list.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub rows: Option<u32>,
    /// Threads. Default: all processors.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Seconds that each row is timed for.
    #[arg(long, value_name = "S", default_value_t = 0.3)]
    pub seconds: f64,
    /// JSON lines on stdout: a header, then a row a case.
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Markdown tables on stdout.
    #[arg(long)]
    pub markdown: bool,
    /// Also writes DIR/bench.jsonl, DIR/roofline.svg and DIR/bench.html, or one FILE.jsonl, .json, .svg or .html.
    #[arg(long, value_name = "DIR|FILE")]
    pub out: Option<PathBuf>,
    /// Compares with an earlier result (what --json or --out wrote).
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// A row is slower if it takes this many times as long as in --against.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.25, requires = "against")]
    pub tolerance: f64,
    /// Shows an earlier result instead of measuring.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stages", "backend", "isa", "size", "rows", "threads", "list"])]
    pub from: Option<PathBuf>,
    /// Lists the stages with their variants and sizes.
    #[arg(long)]
    pub list: bool,
}

/// What is no kernel.
#[derive(Debug, clap::Subcommand)]
enum What {
    Secagg(secagg::Args),
}

impl From<BenchError> for Failure {
    fn from(e: BenchError) -> Self {
        let exit = match &e {
            BenchError::Sample(_)
            | BenchError::Ntt(_)
            | BenchError::Threads { .. }
            | BenchError::NoSum { .. }
            | BenchError::WrongSum { .. } => Exit::Failure,
            _ => Exit::Usage,
        };
        Self::new(exit, e)
    }
}

/// Runs the command.
///
/// # Errors
/// Exit 2 for a bad request or file, 1 for rows slower than `--against` allows, 130 after Ctrl-C.
pub fn run(args: Args) -> Result<(), Failure> {
    if let Some(What::Secagg(args)) = &args.what {
        return secagg::run(args);
    }
    if args.list {
        return print(&list(args.json));
    }
    let out = args.out.as_deref().map(Output::of).transpose()?;
    let before = match &args.against {
        Some(path) => {
            check_tolerance(args.tolerance)?;
            Some((Results::read(path)?, path))
        }
        None => None,
    };
    let mut results = match &args.from {
        Some(path) => Results::read(path)?,
        None => {
            let (cases, threads) = (planned(&args)?, threads(args.threads)?);
            if let Some((before, path)) = &before {
                let rows: Vec<Row> = cases.iter().map(|case| Row::planned(case, threads)).collect();
                check_common(&rows, &before.rows, path)?;
            }
            measured(&args, &cases, threads)?
        }
    };
    let unmatched = match &before {
        // Ctrl-C may have left nothing to compare.
        Some((before, path)) if !results.header.interrupted => {
            check_common(&results.rows, &before.rows, path)?;
            compare(&mut results.rows, &before.rows, args.tolerance)?
        }
        _ => Unmatched::default(),
    };
    print(&text(&args, &results, &unmatched))?;
    if let Some(out) = out {
        out.write(&results)?;
    }
    verdict(&args, &results)
}

/// The cases of the request.
fn planned(args: &Args) -> Result<Vec<Case>, BenchError> {
    let sizes = args.size.iter().map(|text| size(text)).collect::<Result<_, _>>()?;
    plan(&Request {
        stages: args.stages.clone(),
        backends: args.backend.clone(),
        isas: args.isa.clone(),
        devices: OpenOptions::from_env().or_software(args.allow_software),
        sizes,
        rows: args.rows.map(|rows| rows as usize),
    })
}

/// The number of threads: as asked for, or all processors that this process may use.
fn threads(asked: Option<usize>) -> Result<usize, BenchError> {
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    match asked {
        None => Ok(here),
        Some(threads) if (1..=here).contains(&threads) => Ok(threads),
        Some(threads) => Err(BenchError::OutOfRange {
            name: "--threads",
            expected: format!("1 to {here}, the processors that this process may use"),
            found: threads.to_string(),
        }),
    }
}

/// Measures with a bar on stderr.
fn measured(args: &Args, cases: &[Case], threads: usize) -> Result<Results, Failure> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(1000) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} % {msg}, {eta} left") {
        bar.set_style(style);
    }
    let interrupt = super::train::on_ctrl_c();
    let settings = measure::Settings { seconds: args.seconds, threads, interrupt: &interrupt };
    let shown = bar.clone();
    let results = Measurement { cases, settings }.run(move |share, name| {
        shown.set_message(name.to_owned());
        shown.set_position((1000.0 * share) as u64);
    });
    bar.finish_and_clear();
    Ok(results?)
}

/// What goes to stdout.
fn text(args: &Args, results: &Results, unmatched: &Unmatched) -> String {
    if args.json {
        return results.to_jsonl();
    }
    let tables = [show::rows(results), show::limits(&results.header), show::ports(&results.header)];
    let table = |t: &Table| if args.markdown { t.to_markdown() } else { t.to_string() };
    let mut text = format!("{}\n\n", show::machine(&results.header));
    for t in &tables {
        text += &format!("{}\n", table(t));
    }
    text += show::LEGEND;
    text.push('\n');
    for (keys, why) in
        [(&unmatched.only_before, "not measured now"), (&unmatched.only_now, "not in the earlier result")]
    {
        for key in keys {
            text += &format!("{why}: {key}\n");
        }
    }
    text
}

/// Writes to stdout; a closed pipe (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// How the command ends.
fn verdict(args: &Args, results: &Results) -> Result<(), Failure> {
    if args.from.is_none() && results.header.interrupted {
        let message = format!("interrupted after {} rows", results.rows.len());
        return Err(Failure::new(Exit::Interrupted, message));
    }
    let slower: Vec<String> = results
        .rows
        .iter()
        .filter_map(|row| {
            let against = row.against.filter(|a| a.slower)?;
            Some(format!("{} takes {:.2} times as long", row.key(), 1.0 / against.ratio))
        })
        .collect();
    if slower.is_empty() {
        return Ok(());
    }
    let message = format!("slower than --tolerance {} allows: {}", args.tolerance, slower.join("; "));
    Err(Failure::new(Exit::Failure, message))
}

/// Where `--out` leads.
enum Output {
    Folder(PathBuf),
    File(PathBuf, fn(&Results) -> String),
}

impl Output {
    /// A folder, unless the name ends like a file that the bench can write.
    fn of(path: &Path) -> Result<Self, Failure> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let write: fn(&Results) -> String = match extension {
            _ if path.is_dir() => return Ok(Self::Folder(path.to_path_buf())),
            "jsonl" | "json" => Results::to_jsonl,
            "svg" => show::roofline,
            "html" => show::page,
            _ if path.is_file() => {
                let message = format!(
                    "--out {} is a file, expected a folder or a name that ends in .jsonl, .json, .svg or .html",
                    path.display()
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            _ => return Ok(Self::Folder(path.to_path_buf())),
        };
        Ok(Self::File(path.to_path_buf(), write))
    }

    fn write(&self, results: &Results) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failure, e);
        let put = |path: &Path, text: String| write_atomic(path, text.as_bytes()).map_err(|e| failed(&e));
        match self {
            Self::File(path, write) => put(path, write(results)),
            Self::Folder(folder) => {
                std::fs::create_dir_all(folder)
                    .map_err(|e| failed(&format!("cannot create the folder {}: {e}", folder.display())))?;
                put(&folder.join("bench.jsonl"), results.to_jsonl())?;
                put(&folder.join("roofline.svg"), show::roofline(results))?;
                put(&folder.join("bench.html"), show::page(results))
            }
        }
    }
}

/// The stages as a table, or as JSON.
fn list(as_json: bool) -> String {
    if as_json {
        let stage = |s: &crate::bench::stages::Stage| {
            let rows: Vec<usize> = s.sizes.iter().map(|&d| (s.rows.default)(d)).collect();
            json!({ "stage": s.name, "variants": s.variants, "sizes": s.sizes, "rows": rows, "size": s.dims.describe(), "about": s.about })
        };
        return format!("{}\n", Value::from(STAGES.iter().map(stage).collect::<Vec<_>>()));
    }
    let mut table = Table::new(["stage", "default sizes", "sizes", "what"]).with_align([Align::Left; 4]);
    for stage in STAGES {
        let sizes: Vec<String> = stage.sizes.iter().map(|&d| crate::bench::record::size(d)).collect();
        for variant in stage.variants {
            let name = if variant.is_empty() { stage.name.to_owned() } else { format!("{}/{variant}", stage.name) };
            table.push([name, sizes.join(" "), stage.dims.describe(), stage.about.to_owned()]);
        }
    }
    table.to_string()
}
