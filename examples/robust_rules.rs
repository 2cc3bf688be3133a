//! Times aggregation rules beside the kernel `gram` alone, in turns: `robust_rules K D F REPEATS [RULE...]`.
//!
//!     cargo run --release --example robust_rules -- 25 400000 5 20
//!     cargo run --release --example robust_rules -- 1000 1000000 100 1 krum
//!
//! Prints best and median of every rule in milliseconds, and what share of it `gram` has (best over best). Rows are
//! uniform, and take 4 K D bytes.

use std::error::Error;
use std::time::Instant;

use serde_json::json;
use veilsum::backend::{Backend, Rows, simd::Simd};
use veilsum::fl::rule::{AggregationConfig, Aggregator, Inputs};

/// Best and median of the times.
fn summary(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> Result<usize, Box<dyn Error>> {
        Ok(arguments.get(at).ok_or("usage: robust_rules K D F REPEATS [RULE...]")?.parse()?)
    };
    let (k, d, f, repeats) = (number(0)?, number(1)?, number(2)?, number(3)?.max(1));
    let mut state = 1u32;
    let data: Vec<f32> = (0..k * d)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 - 0.4
        })
        .collect();
    let rows = Rows::dense(data, k, d)?;
    let root = vec![0.1f32; d];
    let inputs = Inputs { root: Some(&root), ..Inputs::default() };

    let nnm = json!([{"nearest-neighbor-mixing": {"f": f}}]);
    let all = [
        ("mean", json!({"rule": "mean"})),
        ("norm-bounded-mean", json!({"rule": {"norm-bounded-mean": {"bound": 1.0}}})),
        ("median", json!({"rule": "median"})),
        ("trimmed-mean", json!({"rule": {"trimmed-mean": {"f": f}}})),
        ("meamed", json!({"rule": {"meamed": {"f": f}}})),
        ("krum", json!({"rule": {"krum": {"f": f}}})),
        ("multi-krum", json!({"rule": {"multi-krum": {"f": f}}})),
        ("bulyan", json!({"rule": {"bulyan": {"f": f}}})),
        ("geometric-median", json!({"rule": {"geometric-median": {}}})),
        ("centered-clipping", json!({"rule": {"centered-clipping": {"tau": 10.0, "iterations": 3}}})),
        ("mda", json!({"rule": {"mda": {"f": f}}})),
        ("fltrust", json!({"rule": "fltrust"})),
        ("nnm + krum", json!({"rule": {"krum": {"f": f}}, "before": nnm.clone()})),
        ("nnm + trimmed-mean", json!({"rule": {"trimmed-mean": {"f": f}}, "before": nnm})),
    ];
    let wanted = &arguments[4..];
    let mut rules: Vec<(&str, Aggregator)> = Vec::new();
    for (name, config) in all {
        let rule = serde_json::from_value::<AggregationConfig>(config)?.build()?;
        let asked = wanted.is_empty() || wanted.iter().any(|w| w == name);
        match rule.check(k) {
            Ok(()) if asked => rules.push((name, rule)),
            Err(error) if asked => println!("{name}: {error}"),
            _ => {}
        }
    }
    let backend = Simd::new();
    println!("{}; K = {k}, d = {d}, f = {f}, {repeats} repeats", backend.describe());
    let mut times = vec![Vec::new(); rules.len() + 1];
    for _ in 0..repeats {
        let begin = Instant::now();
        std::hint::black_box(backend.gram(&rows)?);
        times[0].push(begin.elapsed().as_secs_f64() * 1e3);
        for ((_, rule), times) in rules.iter().zip(&mut times[1..]) {
            let begin = Instant::now();
            std::hint::black_box(rule.aggregate(&backend, &rows, &inputs)?);
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    let (gram, middle) = summary(&mut times[0]);
    println!("{:<20} {gram:>10.2} ms best {middle:>10.2} ms median", "gram");
    for ((name, _), times) in rules.iter().zip(&mut times[1..]) {
        let (best, middle) = summary(times);
        println!("{name:<20} {best:>10.2} ms best {middle:>10.2} ms median, gram {:.0} %", 100.0 * gram / best);
    }
    Ok(())
}
