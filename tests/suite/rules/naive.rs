//! The formulas, written down one by one in `f64` over vectors: slow, and nothing shared with the crate.

use serde_json::Value;

pub(super) type Vector = Vec<f64>;

pub(super) fn widened(x: &[Vec<f32>]) -> Vec<Vector> {
    x.iter().map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect()
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

/// `sum_i |x_i - z|`.
pub(super) fn distances(x: &[Vector], z: &[f64]) -> f64 {
    x.iter().map(|row| distance(row, z)).sum()
}

/// `sum_i w_i x_i`.
pub(super) fn combination(x: &[Vector], w: &[f64]) -> Vector {
    (0..x[0].len()).map(|l| x.iter().zip(w).map(|(row, w)| w * row[l]).sum()).collect()
}

pub(super) fn mean(x: &[Vector]) -> Vector {
    combination(x, &vec![1.0 / x.len() as f64; x.len()])
}

fn clipped(x: &[Vector], bound: f64) -> Vec<Vector> {
    x.iter().map(|row| combination(std::slice::from_ref(row), &[(bound / norm(row)).min(1.0)])).collect()
}

/// `f` of the sorted values of every coordinate.
fn coordinates(x: &[Vector], f: impl Fn(&[f64]) -> f64) -> Vector {
    (0..x[0].len())
        .map(|l| {
            let mut values: Vec<f64> = x.iter().map(|row| row[l]).collect();
            values.sort_by(f64::total_cmp);
            f(&values)
        })
        .collect()
}

fn middle(values: &[f64]) -> f64 {
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

fn around_median(x: &[Vector], keep: usize) -> Vector {
    coordinates(x, |values| {
        let median = middle(values);
        let mut near = values.to_vec();
        // A stable sort: of two as near, the lesser stays first.
        near.sort_by(|a, b| (a - median).abs().total_cmp(&(b - median).abs()));
        near[..keep].iter().sum::<f64>() / keep as f64
    })
}

/// Indices in the order of Krum's scores.
fn by_score(x: &[&Vector], neighbors: usize) -> Vec<usize> {
    let score = |i: usize| {
        let mut near: Vec<f64> = (0..x.len()).filter(|&j| j != i).map(|j| distance(x[i], x[j]).powi(2)).collect();
        near.sort_by(f64::total_cmp);
        near.iter().take(neighbors).sum::<f64>()
    };
    let scores: Vec<f64> = (0..x.len()).map(score).collect();
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    order
}

fn multi_krum(x: &[Vector], f: usize, m: usize) -> Vector {
    let order = by_score(&x.iter().collect::<Vec<_>>(), x.len() - f - 2);
    mean(&order[..m].iter().map(|&i| x[i].clone()).collect::<Vec<_>>())
}

fn bulyan(x: &[Vector], f: usize) -> Vector {
    let mut left: Vec<&Vector> = x.iter().collect();
    let mut selected = Vec::new();
    while selected.len() < x.len() - 2 * f {
        let neighbors = (left.len() as i64 - f as i64 - 2).max(1) as usize;
        selected.push(left.remove(by_score(&left, neighbors)[0]).clone());
    }
    around_median(&selected, x.len() - 4 * f)
}

/// Weiszfeld over vectors, until nothing moves.
fn geometric_median(x: &[Vector]) -> Vector {
    let mut z = coordinates(x, middle);
    for _ in 0..200_000 {
        let w: Vec<f64> = x.iter().map(|row| 1.0 / distance(row, &z).max(1e-9)).collect();
        let total: f64 = w.iter().sum();
        let next = combination(x, &w.iter().map(|w| w / total).collect::<Vec<_>>());
        let step = distance(&next, &z);
        z = next;
        if step < 1e-13 * norm(&z) {
            break;
        }
    }
    z
}

fn centered_clipping(x: &[Vector], tau: f64, iterations: u64, start: Option<&[f64]>) -> Vector {
    let mut v = start.map_or(vec![0.0; x[0].len()], <[f64]>::to_vec);
    for _ in 0..iterations {
        let steps: Vec<Vector> = x.iter().map(|row| row.iter().zip(&v).map(|(a, b)| a - b).collect()).collect();
        let step = mean(&clipped(&steps, tau));
        v.iter_mut().zip(step).for_each(|(v, s)| *v += s);
    }
    v
}

/// All subsets, in lexicographic order.
pub(super) fn subsets(k: usize, size: usize) -> Vec<Vec<usize>> {
    fn grow(first: usize, k: usize, size: usize, prefix: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if prefix.len() == size {
            return all.push(prefix.clone());
        }
        for i in first..k {
            prefix.push(i);
            grow(i + 1, k, size, prefix, all);
            prefix.pop();
        }
    }
    let mut all = Vec::new();
    grow(0, k, size, &mut Vec::new(), &mut all);
    all
}

fn mda(x: &[Vector], f: usize) -> Vector {
    let diameter = |s: &Vec<usize>| {
        s.iter().flat_map(|&i| s.iter().map(move |&j| (i, j))).map(|(i, j)| distance(&x[i], &x[j])).fold(0.0, f64::max)
    };
    let all = subsets(x.len(), x.len() - f);
    let best = all.iter().fold((f64::INFINITY, &all[0]), |best, s| {
        let found = diameter(s);
        if found < best.0 { (found, s) } else { best }
    });
    mean(&best.1.iter().map(|&i| x[i].clone()).collect::<Vec<_>>())
}

fn fltrust(x: &[Vector], root: &[f64]) -> Vector {
    let cosine = |row: &Vector| row.iter().zip(root).map(|(a, b)| a * b).sum::<f64>() / norm(row) / norm(root);
    let trust: Vec<f64> = x.iter().map(|row| cosine(row).max(0.0)).collect();
    let total: f64 = trust.iter().sum();
    if total == 0.0 {
        // Nothing is trusted: no step, as the rule says.
        return vec![0.0; root.len()];
    }
    let shares: Vec<f64> = x.iter().zip(&trust).map(|(row, t)| t / total * norm(root) / norm(row)).collect();
    combination(x, &shares)
}

/// What the formulas need besides the vectors.
#[derive(Default)]
pub(super) struct Besides<'a> {
    pub(super) weights: Option<&'a [u64]>,
    pub(super) root: Option<&'a [f64]>,
    pub(super) start: Option<&'a [f64]>,
}

fn weighted_mean(x: &[Vector], weights: Option<&[u64]>) -> Vector {
    let weights: Vec<f64> = weights.map_or(vec![1.0; x.len()], |w| w.iter().map(|&w| w as f64).collect());
    let total: f64 = weights.iter().sum();
    combination(x, &weights.iter().map(|w| w / total).collect::<Vec<_>>())
}

/// The aggregate by the rule that a config names.
pub(super) fn aggregate(rule: &Value, x: &[Vector], besides: &Besides<'_>) -> Vector {
    if let Some(name) = rule.as_str() {
        return match name {
            "mean" => weighted_mean(x, besides.weights),
            "median" => coordinates(x, middle),
            "fltrust" => fltrust(x, besides.root.unwrap()),
            other => panic!("no naive {other}"),
        };
    }
    let (name, fields) = rule.as_object().unwrap().iter().next().unwrap();
    let f = || fields["f"].as_u64().unwrap() as usize;
    let number = |field: &str| fields[field].as_f64().unwrap();
    match name.as_str() {
        "norm-bounded-mean" => weighted_mean(&clipped(x, number("bound")), besides.weights),
        "trimmed-mean" => coordinates(x, |v| mean_of(&v[f()..v.len() - f()])),
        "krum" => multi_krum(x, f(), 1),
        "multi-krum" => multi_krum(x, f(), fields["m"].as_u64().map_or(x.len() - f() - 2, |m| m as usize)),
        "bulyan" => bulyan(x, f()),
        "geometric-median" => geometric_median(x),
        "centered-clipping" => {
            centered_clipping(x, number("tau"), fields["iterations"].as_u64().unwrap(), besides.start)
        }
        "mda" => mda(x, f()),
        "meamed" => around_median(x, x.len() - f()),
        other => panic!("no naive {other}"),
    }
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The vectors behind a step that a config names.
pub(super) fn before(step: &Value, x: &[Vector]) -> Vec<Vector> {
    let (name, fields) = step.as_object().unwrap().iter().next().unwrap();
    let f = || fields["f"].as_u64().unwrap() as usize;
    match name.as_str() {
        "nearest-neighbor-mixing" => x
            .iter()
            .map(|row| {
                let mut order: Vec<&Vector> = x.iter().collect();
                order.sort_by(|a, b| distance(a, row).total_cmp(&distance(b, row)));
                mean(&order[..x.len() - f()].iter().map(|v| (*v).clone()).collect::<Vec<_>>())
            })
            .collect(),
        "clipping" => clipped(x, fields["bound"].as_f64().unwrap()),
        "arc" => {
            let mut norms: Vec<f64> = x.iter().map(|row| norm(row)).collect();
            norms.sort_by(f64::total_cmp);
            let cut = 2 * f() * (x.len() - f()) / x.len();
            clipped(x, norms[x.len() - cut - 1])
        }
        other => panic!("no naive {other}"),
    }
}
