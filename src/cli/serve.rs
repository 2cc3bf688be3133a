//! `veilsum serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::train::{on_ctrl_c, read_config};
use super::{Exit, Failure};
use crate::config::build::{Experiment, Given, Seat, federate};
use crate::net::NetError;
use crate::net::objects::ObjectError;
use crate::net::server::{Ending, LEASE, ServeOptions, Serving, serve};
use crate::net::store::StoreError;
use crate::report::terminal::{Align, Table};
use crate::sim::page;

/// Arguments of `veilsum serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  veilsum keys init demo --name localhost
  veilsum serve configs/federation_mnist.json --keys demo --state state
  veilsum serve experiment.json --keys demo --state state --listen 0.0.0.0:7443 --http 127.0.0.1:7444
  veilsum serve experiment.json --keys demo --state state --store postgres://user@db/veilsum

Rounds begin when every client and key holder has enrolled and enough are connected. What is accepted is on disk before it is
acknowledged: a server that is killed goes on where it was. Ctrl-C or SIGTERM ends it when the present round is over; the same
command goes on with the run. A second server on the same store (--store, --objects, the same --keys) stands by and takes over when
the first is gone: /healthz says 503 at the one that stands by. The dashboard is at the --http address; it needs no login, so that it belongs behind one.

Exit codes: 0 finished (or stopped by its budget, or drained), 1 failure, 2 bad config or keys, 3 refused, 4 no data.")]
pub struct Args {
    /// The experiment; its section `federation` says how long rounds wait.
    pub config: PathBuf,
    /// Overrides a value: a.b=c, where c is JSON or a string; null removes the key.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// The folder that `veilsum keys init` made, or that of a server's keys alone (then nobody can enrol by a token).
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
    /// Folder of the state: database, messages, ledger; at the end model and report. Default: runs/NAME-server.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where parties call.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7443")]
    pub listen: SocketAddr,
    /// Where the dashboard, /metrics, /healthz (takes callers) and /livez (lives) are.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7444")]
    pub http: SocketAddr,
    /// The store: a path, or postgres://... Default: SQLite in the state folder.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Where large messages lie: a folder, or s3://BUCKET/PREFIX. Default: a folder in the state folder.
    #[arg(long, value_name = "URL")]
    pub objects: Option<String>,
    /// Seconds after which a server that stands by on the same store takes over from this one, should this one be gone: 2 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = LEASE, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub lease: u64,
    /// One JSON object at the end on stdout; logs as JSON on stderr.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    super::log::start(args.json);
    let (config, base) = read_config(Some(&args.config), &args.set)?;
    // What `keys init` makes has both; a folder of one party's keys has no authority.
    let (keys, authority) = match (args.keys.join("server"), args.keys.join("ca")) {
        (server, ca) if server.is_dir() => (server, ca.is_dir().then_some(ca)),
        _ => (args.keys.clone(), None),
    };
    let state = args.state.clone().unwrap_or_else(|| Path::new("runs").join(format!("{}-server", config.name)));
    let options = ServeOptions {
        state,
        keys,
        authority,
        listen: args.listen,
        http: Some(args.http),
        store: args.store.clone(),
        objects: args.objects.clone(),
        lease: args.lease,
    };
    // Without a seed the randomness of the server comes from its keys and its store: the run goes on after a restart.
    let secret = if config.seed.is_some() { None } else { Some(options.secret()?) };
    let given = Given { secret, progress: !args.json, ..Given::default() };
    let experiment = federate(&config, &base, given, Seat::Server)?;
    let drain = on_ctrl_c();
    let federation = config.federation.clone().unwrap_or_default();
    let shown = experiment.clone();
    let served = serve(experiment, federation, &options, &drain, |serving| announce(&shown, &options.state, serving))?;
    let Some(result) = &served.result else {
        if args.json {
            println!("{}", json!({"name": shown.name, "ending": "stood by", "state": options.state}));
        }
        eprintln!("stood by until it was ended");
        return Ok(());
    };
    if args.json {
        let mut value = page::result_json(&shown, result);
        value["state"] = json!(options.state);
        println!("{value}");
    } else {
        let mut table = Table::new(["run", shown.name.as_str()]).with_align([Align::Left, Align::Left]);
        for (name, value) in page::summary(&shown, result) {
            table.push([name, value]);
        }
        println!("{table}");
    }
    if served.ending == Ending::Drained {
        eprintln!("drained after round {}; the same command goes on", result.rounds);
    }
    Ok(())
}

fn announce(experiment: &Experiment, state: &Path, serving: &Serving) {
    let plan = &experiment.plan;
    eprintln!(
        "{}: {} clients, {} a round expected, {} rounds, {} parameters, {}",
        experiment.name,
        plan.clients,
        plan.cohort,
        plan.rounds,
        plan.dim,
        plan.mechanism.name(),
    );
    for note in &experiment.notes {
        eprintln!("note: {note}");
    }
    eprintln!("state: {}", state.display());
    eprintln!("parties call https://{}", serving.address);
    if let Some(http) = serving.http {
        eprintln!("dashboard: http://{http}");
    }
}

impl From<NetError> for Failure {
    fn from(e: NetError) -> Self {
        match e {
            NetError::Fl(e) => crate::sim::SimError::Fl(e).into(),
            NetError::Sim(e) => e.into(),
            NetError::Config(e) => e.into(),
            NetError::Keys(e) => Self::new(Exit::Usage, e),
            NetError::Tls(e) => Self::new(Exit::Usage, format!("the keys cannot be used: {e}")),
            e @ (NetError::OtherRun { .. } | NetError::Unsupported { .. }) => Self::new(Exit::Usage, e),
            e @ (NetError::Policy { .. } | NetError::Refused { .. } | NetError::Dishonest { .. }) => {
                Self::new(Exit::Refused, e)
            }
            other => Self::new(Exit::Failure, other),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        NetError::from(e).into()
    }
}

impl From<ObjectError> for Failure {
    fn from(e: ObjectError) -> Self {
        NetError::from(e).into()
    }
}
