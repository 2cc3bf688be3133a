//! What a partition looks like: sizes, labels, distance from the whole.

use std::fmt;

use serde::Serialize;

use super::Partition;
use crate::data::{Dataset, histogram};

/// Most clients whose label histograms a report lists.
pub(super) const LISTED: usize = 100;
/// Most clients that the text table shows.
const SHOWN: usize = 20;
/// Most classes of a histogram: the tokens of a vocabulary are too many to list for every client.
const LISTED_CLASSES: usize = 1024;
/// Most classes that the text table shows one by one.
const SHOWN_CLASSES: usize = 20;

/// Number of samples of a client.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sizes {
    /// Fewest.
    pub min: usize,
    /// The middle one; of an even number of clients, the mean of the two middle ones.
    pub median: f64,
    /// Most.
    pub max: usize,
}

/// Total variation distance of label distributions, `sum_c |p_k(c) - p(c)| / 2`, in `[0, 1]`; empty
/// clients do not count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Skew {
    /// Mean over the clients.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

/// One client of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClientReport {
    /// Number of the client, from 0.
    pub client: usize,
    /// Samples.
    pub size: usize,
    /// Total variation distance from the whole data set.
    pub total_variation: f64,
    /// Samples of each class; empty with more than 1,024 classes.
    pub labels: Vec<usize>,
}

/// A partition in numbers. It describes the data exactly and is no private release: for simulations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartitionReport {
    /// Name of the data set.
    pub data: String,
    /// Number of clients.
    pub clients: usize,
    /// Samples dealt.
    pub samples: usize,
    /// Samples a client.
    pub sizes: Sizes,
    /// How far the label distributions of the clients are from that of the data set.
    pub total_variation: Skew,
    /// Samples of each class in the data set; empty with more than 1,024 classes.
    pub labels: Vec<usize>,
    /// The first 100 clients.
    pub listed: Vec<ClientReport>,
}

impl PartitionReport {
    /// The report of `partition`, which was dealt from `data`.
    #[must_use]
    pub fn new(data: &Dataset, partition: &Partition) -> Self {
        let labels = data.label_histogram();
        let few = |labels: Vec<usize>| if labels.len() > LISTED_CLASSES { Vec::new() } else { labels };
        let mut sizes: Vec<usize> = partition.clients.iter().map(Vec::len).collect();
        let (mut sum, mut max, mut counted) = (0.0, 0.0f64, 0usize);
        let mut listed = Vec::new();
        for (client, indices) in partition.clients.iter().enumerate() {
            let own = histogram(indices.iter().map(|&i| data.labels[i]), data.classes);
            let distance = total_variation(&own, &labels);
            if !indices.is_empty() {
                (sum, max, counted) = (sum + distance, max.max(distance), counted + 1);
            }
            if client < LISTED {
                listed.push(ClientReport { client, size: indices.len(), total_variation: distance, labels: few(own) });
            }
        }
        let samples = sizes.iter().sum();
        sizes.sort_unstable();
        Self {
            data: data.name.clone(),
            clients: sizes.len(),
            samples,
            sizes: Sizes {
                min: sizes.first().copied().unwrap_or(0),
                median: median(&sizes),
                max: sizes.last().copied().unwrap_or(0),
            },
            total_variation: Skew { mean: sum / counted.max(1) as f64, max },
            labels: few(labels),
            listed,
        }
    }
}

fn median(sorted: &[usize]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2] as f64,
        n => (sorted[n / 2 - 1] as f64 + sorted[n / 2] as f64) / 2.0,
    }
}

fn total_variation(own: &[usize], all: &[usize]) -> f64 {
    let (n, m) = (own.iter().sum::<usize>() as f64, all.iter().sum::<usize>() as f64);
    if n == 0.0 || m == 0.0 {
        return 0.0;
    }
    own.iter().zip(all).map(|(&a, &b)| (a as f64 / n - b as f64 / m).abs()).sum::<f64>() / 2.0
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sizes { min, median, max } = self.sizes;
        writeln!(f, "{}: {} samples, {} clients", self.data, self.samples, self.clients)?;
        writeln!(f, "samples a client: min {min}, median {median}, max {max}")?;
        let Skew { mean, max } = self.total_variation;
        writeln!(f, "total variation of labels from the whole: mean {mean:.3}, max {max:.3}")?;
        let each = self.labels.len() <= SHOWN_CLASSES;
        let last = match self.labels.len() {
            0 => "",
            _ if each => "samples of each class",
            _ => "classes there are",
        };
        writeln!(f, "\n{:>8} {:>8} {:>6}  {last}", "client", "samples", "tv")?;
        let row = |labels: &[usize]| match each {
            true => labels.iter().map(|n| format!("{n:>6}")).collect::<String>(),
            false => format!("{:>6}", labels.iter().filter(|&&n| n > 0).count()),
        };
        for c in self.listed.iter().take(SHOWN) {
            writeln!(f, "{:>8} {:>8} {:>6.3}  {}", c.client, c.size, c.total_variation, row(&c.labels))?;
        }
        if self.clients > SHOWN {
            writeln!(f, "{:>8} and {} more", "...", self.clients - SHOWN)?;
        }
        write!(f, "{:>8} {:>8} {:>6}  {}", "all", self.samples, "", row(&self.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Features;

    fn data(labels: Vec<u32>) -> Dataset {
        Dataset {
            name: "toy".to_owned(),
            features: Features::Bytes(vec![0; labels.len()]),
            mean: 0.0,
            std: 1.0,
            labels,
            dim: 1,
            classes: 2,
            natural_ids: None,
            class_names: None,
        }
    }

    #[test]
    fn numbers_of_a_partition_known_by_hand() {
        let data = data(vec![0, 0, 1, 1]);
        let report = PartitionReport::new(&data, &Partition { clients: vec![vec![0, 1, 2], vec![3], vec![]] });
        assert_eq!(report.sizes, Sizes { min: 0, median: 1.0, max: 3 });
        assert_eq!(report.labels, [2, 2]);
        assert_eq!(report.listed[0].labels, [2, 1]);
        // |2/3 - 1/2| = 1/6 and |0 - 1/2| = 1/2; the empty client does not count.
        assert!((report.total_variation.mean - (1.0 / 6.0 + 0.5) / 2.0).abs() < 1e-12);
        assert!((report.total_variation.max - 0.5).abs() < 1e-12);
        let text = report.to_string();
        assert!(text.contains("min 0, median 1, max 3") && text.contains("mean 0.333, max 0.500"), "{text}");
    }

    #[test]
    fn lists_are_capped() {
        let data = data(vec![0; 150]);
        let report = PartitionReport::new(&data, &Partition { clients: (0..150).map(|i| vec![i]).collect() });
        assert_eq!((report.clients, report.listed.len()), (150, LISTED));
        assert!(report.to_string().contains("and 130 more"));
    }
}
