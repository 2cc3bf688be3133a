//! A grid of overrides over seeds, around a base config.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::overrides::{set_value, typed};
use super::{Config, ConfigError};

/// A sweep: every combination of the grid's values, in every variant, with every seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// For editors: where the JSON schema of this file is.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of the output folder and the title.
    #[serde(default = "default_name")]
    pub name: String,
    /// Base experiment: a path (relative to this file) or the experiment itself.
    pub base: Value,
    /// Dotted path -> values; every combination is run.
    #[serde(default)]
    pub grid: BTreeMap<String, Vec<Value>>,
    /// Named sets of overrides; every one is run with every combination of the grid.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// Seeds; the mean and spread are taken over them.
    pub seeds: Vec<u64>,
    /// The grid path on the horizontal axis of the figure; absent: the first of the grid that is not `panels`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Draws a heat map instead of curves: the grid path of its rows, or `variants`; the columns are `x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<String>,
    /// What the figure shows.
    #[serde(default)]
    pub measure: Measure,
    /// A grid path of which every value gets a chart of its own; a point without it stands in each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panels: Option<String>,
}

fn default_name() -> String {
    "sweep".into()
}

/// What a sweep compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Test accuracy at the end.
    #[default]
    Accuracy,
    /// Mean test accuracy of the evaluations in the last ten rounds.
    LastTen,
    /// Best test accuracy of all evaluations.
    Best,
    /// Success rate of a backdoor at the end.
    AttackSuccess,
}

impl Measure {
    /// Its name on an axis.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Accuracy => "test accuracy (%)",
            Self::LastTen => "test accuracy, mean of the last 10 rounds (%)",
            Self::Best => "best test accuracy (%)",
            Self::AttackSuccess => "success of the attack (%)",
        }
    }

    /// Its key in the result of a run.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::LastTen => "accuracy_last_10",
            Self::Best => "accuracy_best",
            Self::AttackSuccess => "attack_success",
        }
    }
}

/// What stands for all variants where a path is asked for.
pub const VARIANTS: &str = "variants";

/// A named set of overrides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in tables and figures.
    pub label: String,
    /// Dotted path -> value; `null` removes the key.
    pub set: BTreeMap<String, Value>,
    /// Leave the grid out: one run a seed (a baseline that the grid does not touch).
    #[serde(default)]
    pub once: bool,
    /// Grid paths that this variant does not have: its other combinations are run once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// One point of the sweep, without its seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name of the variant; empty without variants.
    pub label: String,
    /// Grid values of this point, in the order of the paths.
    pub coordinates: Vec<(String, Value)>,
    /// The config with all overrides applied, without a seed.
    pub config: Value,
}

impl Point {
    /// A file name for the point: label and values, with unusual characters replaced.
    #[must_use]
    pub fn slug(&self) -> String {
        let mut parts = Vec::new();
        if !self.label.is_empty() {
            parts.push(self.label.clone());
        }
        for (path, value) in &self.coordinates {
            let leaf = path.rsplit('.').next().unwrap_or(path);
            parts.push(format!("{leaf}={}", short(value)));
        }
        let text = if parts.is_empty() { "point".to_string() } else { parts.join("_") };
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "=._-".contains(c) { c } else { '-' }).collect()
    }
}

/// A value without quotes.
#[must_use]
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// A value as people write it: `{"inner-product": {"strength": 0.1}}` is `inner-product strength 0.1`.
#[must_use]
pub fn short(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let part = |(key, value): (&String, &Value)| format!("{key} {}", short(value)).trim_end().to_owned();
            members.iter().map(part).collect::<Vec<_>>().join(" ")
        }
        Value::Array(values) => values.iter().map(short).collect::<Vec<_>>().join(" "),
        other => plain(other),
    }
}

impl SweepConfig {
    /// All points; every resulting config is checked for its form.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if there is no seed, or if `x`, `panels` or a `without` is not a path of the grid.
    pub fn points(&self, base: &Value) -> Result<Vec<Point>, ConfigError> {
        self.check_paths()?;
        let none = [Variant { label: String::new(), set: BTreeMap::new(), once: false, without: Vec::new() }];
        let variants = if self.variants.is_empty() { &none[..] } else { &self.variants[..] };
        let mut points = Vec::new();
        for variant in variants {
            let combinations = if variant.once { vec![Vec::new()] } else { self.combinations(&variant.without) };
            for coordinates in combinations {
                let mut config = base.clone();
                let all = coordinates.iter().map(|(p, v)| (p, v)).chain(&variant.set);
                for (path, value) in all {
                    set_value(&mut config, path, value.clone())
                        .ok_or_else(|| ConfigError::Override { text: path.clone() })?;
                }
                typed::<Config>(&config, &self.name)?;
                points.push(Point { label: variant.label.clone(), coordinates, config });
            }
        }
        if self.seeds.is_empty() {
            return Err(ConfigError::Invalid { name: "seeds", expected: "at least one".into(), found: "none".into() });
        }
        Ok(points)
    }

    /// The paths that are named beside the grid are paths of the grid.
    fn check_paths(&self) -> Result<(), ConfigError> {
        let rows = self.rows.clone().filter(|path| path != VARIANTS);
        let named = [("x", &self.x), ("panels", &self.panels), ("rows", &rows)];
        let named = named.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?)));
        let left_out = self.variants.iter().flat_map(|v| v.without.iter().map(|path| ("variants.without", path)));
        for (name, path) in named.chain(left_out) {
            if !self.grid.contains_key(path) {
                let paths: Vec<&str> = self.grid.keys().map(String::as_str).collect();
                let expected = format!("a path of the grid ({})", paths.join(", "));
                return Err(ConfigError::Invalid { name, expected, found: path.clone() });
            }
        }
        if self.panels.is_some() && self.panels.as_deref() == self.axis() {
            let expected = "another path of the grid than x".into();
            return Err(ConfigError::Invalid {
                name: "panels",
                expected,
                found: self.panels.clone().unwrap_or_default(),
            });
        }
        if self.rows.is_some() && (self.rows.as_deref() == self.axis() || self.rows == self.panels) {
            let expected = "`variants`, or another path of the grid than x and panels".into();
            return Err(ConfigError::Invalid { name: "rows", expected, found: self.rows.clone().unwrap_or_default() });
        }
        Ok(())
    }

    fn combinations(&self, without: &[String]) -> Vec<Vec<(String, Value)>> {
        let mut all: Vec<Vec<(String, Value)>> = vec![Vec::new()];
        for (path, values) in self.grid.iter().filter(|(path, _)| !without.contains(path)) {
            all = all
                .into_iter()
                .flat_map(|c| {
                    values.iter().map(move |v| {
                        let mut next = c.clone();
                        next.push((path.clone(), v.clone()));
                        next
                    })
                })
                .collect();
        }
        all
    }

    /// The grid path of the horizontal axis.
    #[must_use]
    pub fn axis(&self) -> Option<&str> {
        let mut paths = self.grid.keys().filter(|path| ![&self.panels, &self.rows].contains(&&Some((*path).clone())));
        self.x.as_deref().or_else(|| paths.next().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variants_times_grid_and_single_baselines() {
        let sweep: SweepConfig = serde_json::from_value(json!({
            "base": "x.json", "seeds": [1, 2],
            "grid": {"privacy.bits": [6, 8], "cohort": [10, 20, 30]},
            "variants": [
                {"label": "smm", "set": {}},
                {"label": "none", "set": {"privacy.mechanism": "none"}, "once": true}
            ]
        }))
        .unwrap();
        let base = crate::config::overrides::parse(Config::quickstart(), "q").unwrap();
        let points = sweep.points(&base).unwrap();
        assert_eq!(points.len(), 7);
        let attack = json!({"inner-product": {"strength": 0.1}});
        assert_eq!([short(&attack), short(&json!({"free-rider": {}}))], ["inner-product strength 0.1", "free-rider"]);
        assert_eq!(points[0].slug(), "smm_cohort=10_bits=6");
        assert_eq!(points[6].slug(), "none");
        assert_eq!(points[6].config["privacy"]["mechanism"], "none");
        assert_eq!(sweep.axis(), Some("cohort"));
        let bad: SweepConfig =
            serde_json::from_value(json!({"base": "x", "seeds": [1], "grid": {"privacy.bit": [6]}})).unwrap();
        assert!(bad.points(&base).unwrap_err().to_string().contains("did you mean `bits`?"));
    }

    #[test]
    fn a_variant_leaves_out_a_path_and_panels_are_paths_of_the_grid() {
        let with = |more: Value| -> SweepConfig {
            let mut sweep = json!({
                "base": "x.json", "seeds": [1],
                "grid": {"privacy.bits": [6, 8], "privacy.target_epsilon": [1, 2, 4]},
                "variants": [
                    {"label": "smm", "set": {}},
                    {"label": "central", "set": {"privacy.bits": null}, "without": ["privacy.bits"]}
                ]
            });
            sweep.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(sweep).unwrap()
        };
        let base = crate::config::overrides::parse(Config::quickstart(), "q").unwrap();
        let sweep = with(json!({"panels": "privacy.bits"}));
        let points = sweep.points(&base).unwrap();
        assert_eq!(points.len(), 2 * 3 + 3);
        assert_eq!(points[6].slug(), "central_target_epsilon=1");
        assert_eq!(sweep.axis(), Some("privacy.target_epsilon"));
        for (wrong, word) in [
            (json!({"panels": "bits"}), "panels is"),
            (json!({"rows": "bits"}), "rows is"),
            (json!({"rows": "privacy.bits", "x": "privacy.bits"}), "rows is"),
            (json!({"x": "rounds"}), "x is"),
            (json!({"panels": "privacy.bits", "x": "privacy.bits"}), "another path"),
            (json!({"variants": [{"label": "a", "set": {}, "without": ["cohort"]}]}), "variants.without"),
        ] {
            let text = with(wrong).points(&base).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
    }
}
