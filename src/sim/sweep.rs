//! Runs the points of a sweep, several at a time, each in a run folder of its own; a sweep that was
//! stopped goes on where it was.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::{Value, json};

use super::dse::mean_std;
use super::loss::DeviceLoss;
use super::{Ending, RunOptions, Silent, SimError, run, run_dir};
use crate::config::build::{Experiment, Given, build};
use crate::config::overrides::typed;
use crate::config::sweep::{Measure, Point, SweepConfig, VARIANTS, short};
use crate::config::{Config, ConfigError};
use crate::data::{self, Split};
use crate::files::write_atomic;
use crate::report::ReportError;
use crate::report::svg::heat::{HeatMap, common_range, heat_maps};
use crate::report::svg::{Chart, Point as SvgPoint, Series, common_heights, line_chart, stacked_charts};
use crate::report::terminal::Table;

/// The point and seed that a run folder of a sweep is for.
const REQUEST: &str = "request.json";
/// The key of the reason for which a point was not run.
const REFUSED: &str = "refused";

/// Mean and sample standard deviation over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanStd {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (n - 1).
    pub std: f64,
}

/// The finished runs of a point.
#[derive(Clone, Debug, Serialize)]
pub struct PointResult {
    /// Name of the variant.
    pub label: String,
    /// Grid values.
    pub coordinates: HashMap<String, Value>,
    /// Seeds that are finished.
    pub seeds: Vec<u64>,
    /// What the sweep measures: by default the final test accuracy.
    pub measured: MeanStd,
    /// Final test accuracy.
    pub accuracy: MeanStd,
    /// Epsilon in the public view; `None` without privacy.
    pub epsilon: Option<f64>,
    /// What the mechanism resolved to.
    pub gamma: Value,
    /// Total Skellam parameter.
    pub mu_total: Value,
    /// Predicted share of wrapped coordinates.
    pub predicted_wrap_rate: Value,
    /// Mean bytes that a client of a round sent for it.
    pub bytes_up: Option<f64>,
    /// Mean wall time of a run.
    pub seconds: f64,
    /// Why the point was not run, if its config is impossible; its figures are then NaN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    #[serde(skip)]
    point: usize,
}

struct Job {
    point: usize,
    seed: u64,
    folder: PathBuf,
    request: Value,
}

/// How far a sweep is, for a progress display.
pub trait SweepObserver: Sync {
    /// `done` of `total` runs are finished; `line` says what the last one gave.
    fn finished(&self, done: usize, total: usize, line: &str);
}

/// Runs what is not finished yet; at most `jobs` runs at a time. Returns the results of the points that
/// have all their seeds, and whether everything is finished.
pub fn run_sweep(
    sweep: &SweepConfig,
    points: &[Point],
    base: &Path,
    out: &Path,
    jobs: usize,
    interrupt: &AtomicBool,
    observer: &dyn SweepObserver,
) -> Result<(Vec<PointResult>, bool), SimError> {
    let list: Vec<Job> = points
        .iter()
        .enumerate()
        .flat_map(|(point, p)| {
            sweep.seeds.iter().map(move |&seed| {
                let mut request = p.config.clone();
                request["seed"] = seed.into();
                Job { point, seed, folder: out.join(p.slug()).join(format!("seed-{seed}")), request }
            })
        })
        .collect();
    let splits = Splits { base: base.into(), loaded: Mutex::new(HashMap::new()) };
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Value>>> = list.iter().map(|_| Mutex::new(None)).collect();
    let failure: Mutex<Option<SimError>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, list.len().max(1)) {
            scope.spawn(|| {
                while !interrupt.load(Ordering::Relaxed) && lock(&failure).is_none() {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = list.get(i) else { break };
                    match one(job, base, &splits, interrupt) {
                        Ok(Some(result)) => {
                            let line = describe(&points[job.point], job.seed, &result);
                            *lock(&results[i]) = Some(result);
                            observer.finished(done.fetch_add(1, Ordering::Relaxed) + 1, list.len(), &line);
                        }
                        Ok(None) => break,
                        Err(e) => {
                            lock(&failure).get_or_insert(e);
                        }
                    }
                }
            });
        }
    });
    if let Some(e) = lock(&failure).take() {
        return Err(e);
    }
    let results: Vec<Option<Value>> = results.iter().map(|r| lock(r).take()).collect();
    let complete = results.iter().all(Option::is_some);
    Ok((collect(sweep.measure, points, &list, &results), complete))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn describe(point: &Point, seed: u64, result: &Value) -> String {
    if let Some(reason) = result[REFUSED].as_str() {
        return format!("{} seed {seed}: refused: {reason}", point.slug());
    }
    let accuracy = result["accuracy"].as_f64().unwrap_or(f64::NAN);
    let line = format!("{} seed {seed}: {:.2} %", point.slug(), 100.0 * accuracy);
    match serde_json::from_value::<DeviceLoss>(result["device_lost"].clone()) {
        Ok(loss) => format!("{line}\n{loss}"),
        Err(_) => line,
    }
}

/// Data sets by their config, loaded once.
struct Splits {
    base: PathBuf,
    loaded: Mutex<HashMap<String, Arc<Split>>>,
}

impl Splits {
    fn get(&self, config: &Config) -> Result<Arc<Split>, SimError> {
        let key = serde_json::to_string(&config.data).unwrap_or_default();
        let mut loaded = lock(&self.loaded);
        if let Some(split) = loaded.get(&key) {
            return Ok(Arc::clone(split));
        }
        let split = Arc::new(data::load(&config.data, &self.base, false).map_err(ConfigError::from)?);
        loaded.insert(key, Arc::clone(&split));
        Ok(split)
    }
}

/// The result of one run: read if it is finished, else started or continued. `None` after Ctrl-C.
fn one(job: &Job, base: &Path, splits: &Splits, interrupt: &AtomicBool) -> Result<Option<Value>, SimError> {
    let request_path = job.folder.join(REQUEST);
    let started = match read_json(&request_path)? {
        None => false,
        Some(known) if known == job.request => true,
        Some(_) => {
            return Err(SimError::Folder {
                folder: job.folder.display().to_string(),
                problem: "holds a run of another config; name another output folder with --out".into(),
            });
        }
    };
    if started
        && let Some(result) = read_json(&job.folder.join(run_dir::RESULT))?
        && result["ending"] != "interrupted"
    {
        return Ok(Some(result));
    }
    let resume = started && job.folder.join(run_dir::CONFIG).exists();
    let experiment = if resume {
        reopen(&job.folder, base, splits)?
    } else {
        let config: Config = typed(&job.request, "sweep")?;
        let split = splits.get(&config)?;
        match build(&config, base, Given { split: Some(split), ..Given::default() }) {
            Ok(experiment) => experiment,
            // A point that cannot be (no noise fits a ring so small) is a result too: the others go on.
            Err(ConfigError::Privacy(e)) => return Ok(Some(json!({ REFUSED: e.to_string() }))),
            Err(e) => return Err(e.into()),
        }
    };
    let options = RunOptions { folder: Some(&job.folder), resume, interrupt };
    if !started {
        std::fs::create_dir_all(&job.folder).map_err(|source| ReportError::Io {
            action: "create",
            path: job.folder.clone(),
            source,
        })?;
    }
    let result = if resume {
        run(&experiment, &options, &mut Silent)?
    } else {
        clear(&job.folder)?;
        let request = job.request.to_string();
        run_with_request(&experiment, &options, &request_path, &request)?
    };
    if result.ending == Ending::Interrupted {
        return Ok(None);
    }
    read_json(&job.folder.join(run_dir::RESULT))
}

/// A folder that was made but never got a config holds nothing of value.
fn clear(folder: &Path) -> Result<(), SimError> {
    std::fs::remove_dir_all(folder)
        .map_err(|source| ReportError::Io { action: "clear", path: folder.into(), source }.into())
}

/// Starts a run; the request is written once the run folder has its config.
fn run_with_request(
    experiment: &Experiment,
    options: &RunOptions<'_>,
    path: &Path,
    request: &str,
) -> Result<super::RunResult, SimError> {
    struct Mark<'a>(&'a Path, &'a str, Option<ReportError>);
    impl super::Observer for Mark<'_> {
        fn started(&mut self, _round: u32, _rounds: u32) {
            self.2 = write_atomic(self.0, self.1.as_bytes()).err().map(ReportError::from);
        }
        fn round(&mut self, _record: &super::RoundRecord) {}
        // The line of the finished run says it, and its folder.
        fn lost(&mut self, _loss: &DeviceLoss) {}
    }
    let mut mark = Mark(path, request, None);
    let result = run(experiment, options, &mut mark)?;
    match mark.2 {
        Some(e) => Err(e.into()),
        None => Ok(result),
    }
}

fn reopen(folder: &Path, base: &Path, splits: &Splits) -> Result<Experiment, SimError> {
    let path = folder.join(run_dir::CONFIG);
    let value = read_json(&path)?.unwrap_or(Value::Null);
    let mut config: Config = typed(&value, &path.display().to_string())?;
    run_dir::without_lost_device(folder, &mut config)?;
    let split = splits.get(&config)?;
    let secret = Some(run_dir::read_secret(folder)?);
    Ok(build(&config, base, Given { secret, split: Some(split), ..Given::default() })?)
}

fn read_json(path: &Path) -> Result<Option<Value>, SimError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(crate::config::overrides::parse(&text, &path.display().to_string())?)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::Io { action: "read", path: path.into(), source }.into()),
    }
}

fn collect(measure: Measure, points: &[Point], jobs: &[Job], results: &[Option<Value>]) -> Vec<PointResult> {
    let mut out = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let mine: Vec<(u64, &Value)> = jobs
            .iter()
            .zip(results)
            .filter(|(j, _)| j.point == index)
            .filter_map(|(j, r)| Some((j.seed, r.as_ref()?)))
            .collect();
        let Some((_, first)) = mine.first() else { continue };
        let figure = |name: &str| -> Vec<f64> { mine.iter().filter_map(|(_, r)| r[name].as_f64()).collect() };
        let spread = |name: &str| {
            let (mean, std) = mean_std(&figure(name));
            MeanStd { mean, std }
        };
        out.push(PointResult {
            label: point.label.clone(),
            coordinates: point.coordinates.iter().cloned().collect(),
            seeds: mine.iter().map(|(s, _)| *s).collect(),
            measured: spread(measure.key()),
            accuracy: spread("accuracy"),
            epsilon: first["epsilon"].as_f64(),
            gamma: first["gamma"].clone(),
            mu_total: first["mu_total"].clone(),
            predicted_wrap_rate: first["predicted_wrap_rate"].clone(),
            bytes_up: Some(mean_std(&figure("bytes_up")).0).filter(|bytes| bytes.is_finite()),
            seconds: mean_std(&figure("seconds")).0,
            refused: first[REFUSED].as_str().map(str::to_string),
            point: index,
        });
    }
    out
}

/// The points that were not run, with their reasons.
#[must_use]
pub fn refusals(points: &[Point], results: &[PointResult]) -> Vec<String> {
    let refused = results.iter().filter_map(|r| Some((points[r.point].slug(), r.refused.as_ref()?)));
    refused.map(|(point, reason)| format!("{point} was refused: {reason}.")).collect()
}

/// The table of a sweep.
#[must_use]
pub fn table(sweep: &SweepConfig, points: &[Point], results: &[PointResult]) -> Table {
    let paths: Vec<&String> = points
        .iter()
        .map(|p| &p.coordinates)
        .max_by_key(|c| c.len())
        .map_or(Vec::new(), |c| c.iter().map(|(path, _)| path).collect());
    let mut headers = vec!["variant".to_string()];
    headers.extend(paths.iter().map(|p| leaf(p).to_string()));
    let other = sweep.measure != Measure::Accuracy;
    if other {
        headers.extend([sweep.measure.title(), "+-"].map(String::from));
    }
    headers.extend(
        ["accuracy %", "+-", "seeds", "epsilon", "gamma", "mu_tot", "wraps", "KB up", "s/run"].map(String::from),
    );
    let mut table = Table::new(headers);
    let number = |v: &Value, digits: usize| v.as_f64().map_or("-".into(), |x| format!("{x:.digits$}"));
    for r in results {
        let mut row = vec![if r.label.is_empty() { "-".to_string() } else { r.label.clone() }];
        row.extend(paths.iter().map(|p| r.coordinates.get(*p).map_or("-".to_string(), short)));
        if r.refused.is_some() {
            row.push("refused".into());
            row.resize(paths.len() + 10 + 2 * usize::from(other), "-".into());
            table.push(row);
            continue;
        }
        if other {
            row.extend([r.measured.mean, r.measured.std].map(|x| format!("{:.2}", 100.0 * x)));
        }
        row.extend([
            format!("{:.2}", 100.0 * r.accuracy.mean),
            format!("{:.2}", 100.0 * r.accuracy.std),
            r.seeds.len().to_string(),
            r.epsilon.map_or("inf".into(), |e| format!("{e:.3}")),
            number(&r.gamma, 2),
            number(&r.mu_total, 1),
            r.predicted_wrap_rate.as_f64().map_or("-".into(), |x| format!("{x:.1e}")),
            r.bytes_up.map_or("-".into(), |bytes| format!("{:.2}", bytes / 1000.0)),
            format!("{:.0}", r.seconds),
        ]);
        table.push(row);
    }
    table
}

/// Accuracy over the sweep's axis, a curve a variant with its spread; points without the axis are lines. With `panels`,
/// one such chart for each of its values, to one scale.
#[must_use]
pub fn figure(sweep: &SweepConfig, points: &[Point], results: &[PointResult]) -> String {
    if let Some(rows) = &sweep.rows {
        return heat(sweep, rows, results);
    }
    let Some((path, values)) = sweep.panels.as_ref().and_then(|path| Some((path, sweep.grid.get(path)?))) else {
        let all: Vec<&PointResult> = results.iter().collect();
        return line_chart(&chart(sweep, points, &all, sweep.name.clone()));
    };
    let panel = |value: &Value| {
        let shown = |r: &&PointResult| r.coordinates.get(path).is_none_or(|own| own == value);
        let shown: Vec<&PointResult> = results.iter().filter(shown).collect();
        chart(sweep, points, &shown, format!("{}: {} {}", sweep.name, leaf(path), short(value)))
    };
    let mut charts: Vec<Chart> = values.iter().map(panel).collect();
    let range = common_heights(&charts);
    for chart in &mut charts {
        chart.y_range = range;
    }
    stacked_charts(&sweep.name, &charts)
}

/// A heat map over two paths of the grid, or over a path and the variants; the mean over all other coordinates. With `panels`, one
/// such map for each of its values, in one range of colours.
fn heat(sweep: &SweepConfig, rows: &str, results: &[PointResult]) -> String {
    let axis = sweep.axis().unwrap_or("point");
    let columns = sweep.grid.get(axis).cloned().unwrap_or_default();
    let labels: Vec<&str> = sweep.variants.iter().map(|variant| variant.label.as_str()).collect();
    let values = sweep.grid.get(rows).cloned().unwrap_or_default();
    let names: Vec<String> = if rows == VARIANTS {
        labels.iter().map(|&l| l.to_owned()).collect()
    } else {
        values.iter().map(short).collect()
    };
    let in_row = |r: &PointResult, row: usize| match rows {
        VARIANTS => r.label == labels[row],
        _ => r.coordinates.get(rows) == Some(&values[row]),
    };
    let map = |panel: Option<(&String, &Value)>| {
        let here = |r: &&PointResult| {
            r.refused.is_none()
                && panel.is_none_or(|(path, value)| r.coordinates.get(path).is_none_or(|own| own == value))
        };
        let cell = |row: usize, column: &Value| {
            let fits = |r: &&PointResult| in_row(r, row) && r.coordinates.get(axis).is_none_or(|own| own == column);
            let found: Vec<f64> = results.iter().filter(here).filter(fits).map(|r| 100.0 * r.measured.mean).collect();
            mean_std(&found).0
        };
        HeatMap {
            title: match panel {
                Some((path, value)) => {
                    format!("{}: {}, {} {}", sweep.name, sweep.measure.title(), leaf(path), short(value))
                }
                None => format!("{}: {}", sweep.name, sweep.measure.title()),
            },
            x_label: axis.to_owned(),
            y_label: rows.to_owned(),
            columns: columns.iter().map(short).collect(),
            values: (0..names.len()).map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect(),
            rows: names.clone(),
            range: None,
        }
    };
    let panels = sweep.panels.as_ref().and_then(|path| Some((path, sweep.grid.get(path)?)));
    let mut maps: Vec<HeatMap> = match panels {
        Some((path, values)) => values.iter().map(|value| map(Some((path, value)))).collect(),
        None => vec![map(None)],
    };
    let range = common_range(&maps);
    maps.iter_mut().for_each(|map| map.range = range);
    heat_maps(&sweep.name, &maps)
}

/// The last part of a dotted path.
fn leaf(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn chart(sweep: &SweepConfig, points: &[Point], results: &[&PointResult], title: String) -> Chart {
    let axis = sweep.axis().unwrap_or("point");
    let mut chart = Chart::new(title, axis, sweep.measure.title());
    let mut curves: Vec<Series> = Vec::new();
    for r in results {
        let (mean, std) = (100.0 * r.measured.mean, 100.0 * r.measured.std);
        // A panel's value stands in its headline.
        let named_elsewhere = |path: &str| path == axis || Some(path) == sweep.panels.as_deref();
        let others: Vec<String> = points[r.point]
            .coordinates
            .iter()
            .filter(|(path, _)| !named_elsewhere(path))
            .map(|(path, value)| format!("{}={}", leaf(path), short(value)))
            .collect();
        let mut name = r.label.clone();
        if !others.is_empty() {
            name = format!("{name} {}", others.join(" ")).trim().to_string();
        }
        if r.refused.is_some() {
            // A curve without its points: a variant has one colour in all panels.
            if !curves.iter().any(|c| c.name == name) {
                curves.push(Series { name, points: Vec::new() });
            }
            continue;
        }
        match r.coordinates.get(axis).and_then(Value::as_f64) {
            Some(x) => {
                let point = SvgPoint { x, y: mean, spread: std };
                match curves.iter_mut().find(|c| c.name == name) {
                    Some(curve) => curve.points.push(point),
                    None => curves.push(Series { name, points: vec![point] }),
                }
            }
            None => chart.levels.push((format!("{name}: {mean:.2} %"), mean)),
        }
    }
    for mut curve in curves {
        curve.points.sort_by(|a, b| a.x.total_cmp(&b.x));
        if curve.name.is_empty() {
            curve.name = "accuracy".into();
        }
        chart.series.push(curve);
    }
    chart
}
