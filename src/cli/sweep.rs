//! `veilsum sweep`.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::train::on_ctrl_c;
use super::{Exit, Failure};
use crate::config::sweep::SweepConfig;
use crate::config::{ConfigError, overrides};
use crate::files::write_atomic;
use crate::report::html::{self, RunReport};
use crate::sim::sweep::{self, SweepObserver};

/// Arguments of `veilsum sweep`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A sweep is a JSON file:
  { \"name\": \"bits\", \"base\": \"smm_mnist.json\", \"seeds\": [1, 2, 3],
    \"grid\": { \"privacy.bits\": [6, 8, 10] },
    \"variants\": [ { \"label\": \"smm\", \"set\": {} },
                  { \"label\": \"smm-2022\", \"set\": { \"privacy.mechanism\": \"smm-2022\" } },
                  { \"label\": \"no noise\", \"set\": { \"privacy.mechanism\": \"none\" }, \"once\": true } ] }

  veilsum sweep configs/sweep_bits.json --out runs/bits
  veilsum sweep configs/sweep_bits.json --set seeds=[1] --json

Every run has a folder of its own below --out; a sweep that was stopped goes on where it was when the
same command is given again. The output folder then holds sweep.json, table.md, table.csv, figure.svg
and report.html. A point whose privacy cannot be had (no noise fits its ring) is refused, and the others go on.

Exit codes: 0 done, 1 failure, 2 bad config, 3 refused, 4 no data, 130 interrupted.")]
pub struct Args {
    /// The sweep.
    pub config: PathBuf,
    /// Overrides a value of the sweep: a.b=c, where c is JSON or a string.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Output folder. Default: runs/NAME.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Runs at a time; each uses all cores, so that more than one pays off for small models only.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// No progress; one JSON object on stdout.
    #[arg(long)]
    pub json: bool,
}

struct Bar(ProgressBar);

impl SweepObserver for Bar {
    fn finished(&self, done: usize, _total: usize, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
        self.0.set_position(done as u64);
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&args.config)
        .map_err(|source| ConfigError::Io { path: args.config.clone(), source })?;
    let origin = args.config.display().to_string();
    let mut value = overrides::parse(&text, &origin)?;
    for item in &args.set {
        overrides::set(&mut value, item)?;
    }
    let sweep: SweepConfig = overrides::typed(&value, &origin)?;
    let here = args.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (base, folder) = base(&sweep, here)?;
    let points = sweep.points(&base)?;
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&sweep.name));
    let runs = points.len() * sweep.seeds.len();
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(runs as u64) };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed} so far") {
        bar.set_style(style);
    }
    let interrupt = on_ctrl_c();
    let observer = Bar(bar);
    let (results, complete) = sweep::run_sweep(&sweep, &points, &folder, &out, args.jobs, &interrupt, &observer)?;
    observer.0.finish_and_clear();
    let table = sweep::table(&sweep, &points, &results);
    let figure = sweep::figure(&sweep, &points, &results);
    let mut notes = vec![
        "Means and sample standard deviations over the seeds; accuracy is that on the test data at the end. Epsilon is the public view."
            .to_string(),
    ];
    notes.extend(sweep::refusals(&points, &results));
    let summary = json!({ "name": sweep.name, "complete": complete, "points": results, "out": out });
    let page = html::page(&RunReport {
        title: format!("veilsum sweep: {}", sweep.name),
        notes,
        charts: vec![(format!("{}; a band is one standard deviation.", sweep.measure.title()), figure.clone())],
        tables: vec![("All points".into(), table.clone())],
        ..RunReport::default()
    });
    let files: [(&str, &str); 5] = [
        ("sweep.json", &format!("{summary:#}\n")),
        ("table.md", &table.to_markdown()),
        ("table.csv", &table.to_csv()),
        ("figure.svg", &figure),
        ("report.html", &page),
    ];
    for (name, text) in files {
        write_atomic(&out.join(name), text.as_bytes()).map_err(|e| Failure::new(Exit::Failure, e))?;
    }
    if args.json {
        println!("{summary}");
    } else {
        println!("{table}");
        println!("report   {}", out.join("report.html").display());
    }
    if !complete {
        return Err(Failure::new(Exit::Interrupted, "interrupted; the same command goes on with the rest"));
    }
    Ok(())
}

/// The base experiment and the folder of its relative paths.
fn base(sweep: &SweepConfig, here: &Path) -> Result<(Value, PathBuf), Failure> {
    match &sweep.base {
        Value::String(path) => {
            let path = here.join(path);
            let text =
                std::fs::read_to_string(&path).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
            let folder = path.parent().unwrap_or(here).to_path_buf();
            Ok((overrides::parse(&text, &path.display().to_string())?, folder))
        }
        inline @ Value::Object(_) => Ok((inline.clone(), here.to_path_buf())),
        other => {
            let message = format!("base is {other}, expected the path of an experiment or the experiment itself");
            Err(Failure::new(Exit::Usage, message))
        }
    }
}
