//! `veilsum eval`: loss, accuracy and confusion of a saved model on a data set.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Exit, Failure};
use crate::data::{self, Dataset, Split};
use crate::model::evaluate::{Confusion, confusion};
use crate::model::weights::{SavedModel, load};
use crate::model::{Evaluation, ModelError, trainer_for};

/// Arguments of `veilsum eval`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  veilsum eval runs/first/model.safetensors --data mnist
  veilsum eval runs/first/model.safetensors --data runs/first/config.json --split train --json

The model file says which network it holds; the data set must have its number of features and classes.
The loss is the mean cross entropy (natural log); a sample whose scores hold NaN counts as wrong.")]
pub struct Args {
    /// A model that `veilsum train` saved.
    #[arg(value_name = "MODEL.safetensors")]
    model: PathBuf,
    /// A data set by name (mnist, fashion-mnist, tiny-shakespeare, digits), or a JSON file: an experiment's config, or its `data` part.
    #[arg(long, value_name = "NAME|CONFIG.json")]
    data: String,
    /// Which half of the data set.
    #[arg(long, value_enum, default_value_t = Half::Test)]
    split: Half,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A half of a [`Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Half {
    Train,
    Test,
}

impl Half {
    const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Exit 2 for a model file or a config that is not right, 4 for data that cannot be had.
pub fn run(args: Args) -> Result<(), Failure> {
    let usage = |error: ModelError| Failure::new(Exit::Usage, error);
    let model = load(&args.model).map_err(usage)?;
    let architecture = model.config.architecture().map_err(usage)?;
    let Split { train, test } = read_data(&args.data)?;
    let data = match args.split {
        Half::Train => train,
        Half::Test => test,
    };
    architecture.check_dataset(&data).map_err(usage)?;
    let trainer = trainer_for(&model.config).map_err(usage)?;
    let (evaluation, confusion) = confusion(&*trainer, &model.weights, &data).map_err(usage)?;
    let text = if args.json {
        format!("{}\n", to_json(&args, &model, &data, evaluation, confusion.as_ref()))
    } else {
        to_text(&args, &model, &data, evaluation, confusion.as_ref())
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader (`head`, say) has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Loads the data set that `--data` names.
fn read_data(argument: &str) -> Result<Split, Failure> {
    let path = Path::new(argument);
    let is_file = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let (value, folder) = if is_file {
        let bad = |reason: String| Failure::new(Exit::Usage, format!("{argument}: {reason}"));
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let mut value: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let part = value.get_mut("data").map(Value::take);
        (part.unwrap_or(value), path.parent().unwrap_or(Path::new("")))
    } else {
        (json!({ "name": argument }), Path::new(""))
    };
    let config: data::DataConfig = serde_json::from_value(value)
        .map_err(|error| Failure::new(Exit::Usage, format!("the data set `{argument}`: {error}")))?;
    data::load(&config, folder, true).map_err(|error| Failure::new(Exit::Data, error))
}

/// The object of `--json`.
fn to_json(
    args: &Args,
    model: &SavedModel,
    data: &Dataset,
    evaluation: Evaluation,
    confusion: Option<&Confusion>,
) -> Value {
    let shares = |confusion: &Confusion| -> Vec<_> { (0..data.classes).map(|c| confusion.class_accuracy(c)).collect() };
    json!({
        "file": args.model.display().to_string(),
        "model": model.config,
        "parameters": model.weights.len(),
        "info": model.info,
        "data": data.name,
        "split": args.split.name(),
        "samples": evaluation.samples,
        "loss": evaluation.loss,
        "accuracy": evaluation.accuracy,
        "class_accuracy": confusion.map(shares),
        "confusion": confusion.map(|confusion| &confusion.counts),
        "undecided": confusion.map(|confusion| &confusion.undecided),
    })
}

/// The table for people.
fn to_text(
    args: &Args,
    model: &SavedModel,
    data: &Dataset,
    evaluation: Evaluation,
    confusion: Option<&Confusion>,
) -> String {
    let mut text = format!(
        "{} ({}, {} parameters) on {} {}, {} samples\nloss {:.4}  accuracy {:.2} %\n",
        args.model.display(),
        model.config,
        model.weights.len(),
        data.name,
        args.split.name(),
        evaluation.samples,
        evaluation.loss,
        100.0 * evaluation.accuracy,
    );
    let Some(confusion) = confusion else { return text };
    let _ = writeln!(text, "\n{:>5} {:>8} {:>9}  most mistaken for", "class", "samples", "accuracy");
    for class in 0..data.classes {
        let share = confusion.class_accuracy(class).map_or("-".to_owned(), |share| format!("{:.2} %", 100.0 * share));
        let mistaken =
            confusion.most_mistaken(class).map_or("-".to_owned(), |(other, count)| format!("{other} ({count} times)"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{class:>5} {:>8} {share:>9}  {mistaken}", confusion.samples(class));
    }
    text
}
