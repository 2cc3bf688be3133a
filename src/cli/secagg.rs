//! `veilsum secagg`: what secure aggregation needs before it is used, and one aggregation from files.

mod lattice;
mod protocols;
mod run;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{Exit, Failure, number};
use crate::fl::protocol::{MasksConfig, ServerBehavior, share_of};
use crate::he::HeError;
use crate::he::chooser::{self, Failure as Errors, MpheChoice, OneshotChoice, Request};
use crate::he::noise::Weights;
use crate::he::security::Security;
use crate::he::shamir::Threshold;
use crate::report::terminal::Table;
use crate::secagg::VectorShape;
use crate::secagg::{masks, oneshot};

const AFTER_HELP: &str = "\
PROTOCOLS
  masks    Masks that cancel in the sum (Bonawitz et al. 2017; Bell et al. 2020): as many neighbors as the shares of
           corrupt and lost clients ask for. `veilsum train --set secagg={\"masks\":{}}` runs it.
  oneshot  One lattice ciphertext a client, and shares of its key for key holders, who open the sum of the keys.
           `veilsum train --set secagg={\"oneshot\":{}}` runs it.
  mphe     Every value under a collective public key, made once for many sums and opened by key holders.
           `veilsum train --set secagg={\"mphe\":{}}` runs it.

The lattice protocols open integers: a field has room for the sum of values of magnitude --bound, and is reduced mod 2^bits
afterwards. Security is a primal-uSVP estimate, and within the table of HomomorphicEncryption.org; failure is the probability
that a value of the whole sum decodes wrongly, or for masks that a coalition within its limits sees more than the sum.
`oneshot, key by mphe` is oneshot with the key of every client under the holders' collective key in place of shares, for any
number of holders in the same bytes: parameters only, no command runs it.

EXAMPLES
  veilsum secagg plan --dim 1000000 --clients 1000
  veilsum secagg plan --dim 1000000 --clients 1000 --bits 16 --bound 32768 --holders 16 --json
  veilsum secagg plan --dim 65536 --clients 240 --corrupt 0.2 --dropouts 0.3 --server semi-honest

Exit codes: 0 success, 2 bad usage, 3 no protocol does what is asked.";

/// `veilsum secagg`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Parameters, security, failure and bytes of every protocol for one sum.
    Plan(PlanArgs),
    /// Add up vectors from files, with all parties in this process.
    Run(Box<run::RunArgs>),
}

/// Arguments of `veilsum secagg plan`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
struct PlanArgs {
    /// Values of a vector.
    #[arg(long)]
    dim: u32,
    /// Clients of a sum.
    #[arg(long)]
    clients: u32,
    /// Ring width: the sum is wanted mod 2^bits.
    #[arg(long, default_value_t = 16)]
    bits: u32,
    /// Magnitude that no value exceeds; 2^(bits - 1) if not given (oneshot, mphe).
    #[arg(long)]
    bound: Option<u64>,
    /// Share of the clients that may be in league with the server (masks, oneshot).
    #[arg(long, default_value_t = 0.1)]
    corrupt: f64,
    /// Share of the clients that may vanish at any time (masks).
    #[arg(long, default_value_t = 0.1)]
    dropouts: f64,
    /// What the server may do (masks).
    #[arg(long, value_enum, default_value_t = ServerName::Malicious)]
    server: ServerName,
    /// Holders of the key (oneshot, mphe).
    #[arg(long, default_value_t = 16)]
    holders: u16,
    /// Holders that are needed to open; all of them if not given.
    #[arg(long)]
    threshold: Option<u16>,
    /// Holders that may be corrupt: (holders + this) / 2 < threshold.
    #[arg(long, default_value_t = 0)]
    corrupt_holders: u16,
    /// Openings under one key.
    #[arg(long, default_value_t = 1000)]
    openings: u64,
    /// Bits of statistical distance of all openings.
    #[arg(long, default_value_t = 40)]
    lambda: u32,
    /// Room for every error, in place of a failure below 2^-40 (oneshot).
    #[arg(long)]
    certain: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServerName {
    /// Does what it likes.
    Malicious,
    /// Follows the protocol and looks at everything.
    SemiHonest,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Usage`] for a parameter outside its range, [`Exit::Refused`] if no protocol serves.
pub fn run(args: &Args) -> Result<(), Failure> {
    let plan = match &args.command {
        Command::Plan(plan) => plan,
        Command::Run(args) => return run::run(args),
    };
    let usage = |message: String| Err(Failure::new(Exit::Usage, message));
    if plan.dim == 0 || plan.clients == 0 {
        return usage("--dim and --clients are at least 1".into());
    }
    if !(1..=63).contains(&plan.bits) {
        return usage(format!("--bits is {}, expected 1 to 63", plan.bits));
    }
    for (name, share) in [("--corrupt", plan.corrupt), ("--dropouts", plan.dropouts)] {
        if !(0.0..1.0).contains(&share) {
            return usage(format!("{name} is {share}, expected in [0, 1)"));
        }
    }
    let request = plan.request().map_err(|e| Failure::new(Exit::Usage, e))?;
    let found = [
        ("masks", plan.masks()),
        ("oneshot", plan.oneshot()),
        ("oneshot, key by mphe", chooser::oneshot(&request).map(|c| key_by_mphe(&c)).map_err(|e| e.to_string())),
        ("mphe", chooser::mphe(&request).map(|c| mphe(&c)).map_err(|e| e.to_string())),
    ];
    if found.iter().all(|(_, outcome)| outcome.is_err()) {
        let reasons = found.iter().map(|(name, outcome)| match outcome {
            Err(reason) => format!("{name}: {reason}"),
            Ok(_) => String::new(),
        });
        return Err(Failure::new(Exit::Refused, reasons.collect::<Vec<_>>().join("\n")));
    }
    if plan.json {
        println!("{}", object(plan, found));
    } else {
        println!("{}", table(&found));
    }
    Ok(())
}

impl PlanArgs {
    fn request(&self) -> Result<Request, HeError> {
        let clients = u64::from(self.clients);
        Ok(Request {
            values: self.dim.into(),
            bound: self.bound.unwrap_or(1 << (self.bits - 1)),
            weight_sum: clients,
            ciphertexts: Weights::equal(clients),
            threshold: Threshold::new(self.holders, self.threshold.unwrap_or(self.holders), self.corrupt_holders)?,
            openings: self.openings,
            lambda: self.lambda,
            failure: if self.certain { Errors::Never } else { Errors::Statistical },
            degree: None,
        })
    }

    fn masks(&self) -> Result<Map<String, Value>, String> {
        let server = match self.server {
            ServerName::Malicious => ServerBehavior::Malicious,
            ServerName::SemiHonest => ServerBehavior::SemiHonest,
        };
        let config = MasksConfig { corrupt: self.corrupt, dropouts: self.dropouts, server };
        let plan = masks::Plan::choose(&config.request(self.clients as usize)).map_err(|e| e.to_string())?;
        let bytes = VectorShape { len: self.dim, bits: self.bits }.packed_len();
        Ok(map([
            ("parameters", json!(plan.to_string())),
            ("neighbors", json!(plan.degree())),
            ("threshold", json!(plan.threshold())),
            ("corrupt_neighbors", json!(plan.corrupt_neighbors())),
            ("min_survivors", json!(plan.min_survivors())),
            ("security_bits", Value::Null),
            ("log2_failure", number(plan.privacy_failure_log2())),
            ("log2_abort", number(plan.abort_log2())),
            ("vector_bytes", json!(bytes)),
            ("bytes_per_value", json!(bytes as f64 / f64::from(self.dim))),
        ]))
    }
}

impl PlanArgs {
    /// What `train` and `secagg run` use.
    fn oneshot(&self) -> Result<Map<String, Value>, String> {
        let clients = self.clients as usize;
        let shape = VectorShape { len: self.dim, bits: self.bits };
        let bound = self.bound.unwrap_or(1 << (self.bits - 1));
        let holders = (self.holders, self.threshold.unwrap_or(self.holders), self.corrupt_holders);
        let corrupt_clients = share_of(self.corrupt, clients);
        let request = oneshot::Request {
            corrupt_clients,
            min_survivors: corrupt_clients + 2,
            failure: if self.certain { Errors::Never } else { Errors::Statistical },
            ..oneshot::Request::new(clients, shape, bound, holders)
        };
        let plan = oneshot::Plan::choose(&request).map_err(|e| e.to_string())?;
        let (vector, message) = (plan.vector(), plan.message_bytes());
        let mut object = lattice(&vector.security, plan.to_string(), vector.log2_failure);
        object.extend(map([
            ("min_survivors", json!(request.min_survivors)),
            ("vector_bytes", json!(vector.ciphertext_bytes)),
            ("key_bytes", json!(message.saturating_sub(vector.ciphertext_bytes as usize))),
            ("bytes_per_value", json!(message as f64 / f64::from(self.dim))),
        ]));
        Ok(object)
    }
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn lattice(security: &Security, parameters: String, log2_failure: f64) -> Map<String, Value> {
    map([
        ("parameters", json!(parameters)),
        ("security_bits", json!(security.bits)),
        ("core_svp_bits", json!(security.core_svp)),
        ("log2_failure", number(log2_failure)),
    ])
}

fn key_by_mphe(choice: &OneshotChoice) -> Map<String, Value> {
    let (ring, layout, key) = (&choice.ring, &choice.layout, &choice.key);
    let parameters = format!(
        "N = {}, log2 Q = {:.1}, L = {}: {} values of {} bits a coefficient over {} of noise; key N = {}, log2 Q = {:.1}, o = {}",
        ring.degree(),
        ring.log2_modulus(),
        ring.limbs(),
        layout.slots,
        layout.width,
        layout.offset,
        key.ring.degree(),
        key.ring.log2_modulus(),
        key.layout.offset
    );
    let mut object = lattice(&choice.security, parameters, choice.log2_failure);
    object.extend(map([
        ("key_security_bits", json!(key.security.bits)),
        ("log2_flooding", json!(key.flooding.log2_distance)),
        ("vector_bytes", json!(choice.ciphertext_bytes)),
        ("key_bytes", json!(key.ciphertext_bytes)),
        ("bytes_per_value", json!(choice.bytes_per_value)),
    ]));
    object
}

fn mphe(choice: &MpheChoice) -> Map<String, Value> {
    let (ring, layout) = (&choice.ring, &choice.layout);
    let parameters = format!(
        "N = {}, log2 Q = {:.1}, L = {}: {} values of {} bits a coefficient over {} of noise",
        ring.degree(),
        ring.log2_modulus(),
        ring.limbs(),
        layout.slots,
        layout.width,
        layout.offset
    );
    let mut object = lattice(&choice.security, parameters, choice.flooding.log2_failure);
    object.extend(map([
        ("log2_flooding", json!(choice.flooding.log2_distance)),
        ("vector_bytes", json!(choice.ciphertext_bytes)),
        ("bytes_per_value", json!(choice.bytes_per_value)),
    ]));
    object
}

type Found = [(&'static str, Result<Map<String, Value>, String>); 4];

fn object(plan: &PlanArgs, found: Found) -> Value {
    let mut object = map([
        ("dim", json!(plan.dim)),
        ("clients", json!(plan.clients)),
        ("bits", json!(plan.bits)),
        ("lambda", json!(plan.lambda)),
        ("openings", json!(plan.openings)),
    ]);
    for (name, outcome) in found {
        let value = outcome.map_or_else(|reason| json!({ "refused": reason }), Value::Object);
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

fn table(found: &Found) -> Table {
    let mut table = Table::new(["protocol", "bytes a value", "security bits", "log2 failure", "parameters"]);
    for (name, outcome) in found {
        match outcome {
            Ok(object) => {
                let figure = |key: &str, digits: usize| match object.get(key) {
                    Some(Value::Number(n)) => format!("{:.digits$}", n.as_f64().unwrap_or(f64::NAN)),
                    Some(Value::String(text)) => text.clone(),
                    _ => "-".to_owned(),
                };
                table.push([
                    (*name).to_owned(),
                    figure("bytes_per_value", 3),
                    figure("security_bits", 1),
                    figure("log2_failure", 1),
                    figure("parameters", 0),
                ]);
            }
            Err(reason) => {
                let dash = || "-".to_owned();
                table.push([(*name).to_owned(), dash(), dash(), dash(), format!("refused: {reason}")]);
            }
        }
    }
    table
}
