//! `veilsum devices`.

use std::io::{ErrorKind, Write as _};

use serde_json::{Map, Value, json};

use super::{Exit, Failure};
use crate::backend::cuda::toolkit::{Missing, Places, Toolkit, look};
use crate::backend::cuda::{CudaInfo, DRIVER_CUDA, DRIVER_RELEASE, compiler, driver_cuda, probe as cuda_devices};
use crate::backend::probe::{Found, probe};
use crate::backend::{BackendKind, OpenOptions};
use crate::report::terminal::{Align, Table};

/// Arguments of `veilsum devices`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "List what the kernels can run on here, in the order in which it is taken, and why something cannot \
        be used.\n\nA software adapter is a GPU played by the CPU, many times slower than simd: it is refused \
        unless --allow-software or VEILSUM_ALLOW_SOFTWARE=1 asks for it, for tests.\n\nThe kernels need no more than \
        a driver. What training on CUDA needs besides (NVRTC and headers, by which the framework compiles at run time) is \
        looked for too, what is missing is named with its packages, and where all is there a line is compiled.",
    after_help = "Examples:
  veilsum devices
  veilsum devices --json | jq '.[] | select(.usable)'"
)]
pub struct Args {
    /// A JSON list on stdout.
    #[arg(long)]
    pub json: bool,
    /// Counts a software adapter as usable.
    #[arg(long)]
    pub allow_software: bool,
}

/// Runs the command.
///
/// # Errors
/// Exit 1 if stdout cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let found = probe(&OpenOptions::from_env().or_software(args.allow_software));
    let cuda = Cuda::look();
    let text = if args.json { json(&found, &cuda) } else { table(&found) + &cuda.lines() };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// What CUDA needs beside a device.
struct Cuda {
    driver: Option<(i32, i32)>,
    toolkit: Toolkit,
    /// Why clients cannot train there, if they cannot.
    refused: Option<String>,
}

impl Cuda {
    fn look() -> Self {
        let toolkit = look(&Places::from_env());
        let first = cuda_devices().and_then(|found| found.into_iter().next().ok_or("there is no device".to_owned()));
        let ready = first.and_then(CudaInfo::usable).and_then(|device| compiler::ready_with(&toolkit, &device));
        Self { driver: driver_cuda(), toolkit, refused: ready.err() }
    }

    fn lines(&self) -> String {
        let found = self
            .driver
            .map_or("there is no driver".to_owned(), |found| format!("a driver for CUDA {}", version(found)));
        let mut text = format!(
            "cuda: {found}; the kernels need CUDA {} (driver {DRIVER_RELEASE} or newer)\n",
            version(DRIVER_CUDA)
        );
        let places = [("NVRTC", &self.toolkit.nvrtc), ("headers", &self.toolkit.headers), ("CCCL", &self.toolkit.cccl)];
        for (what, path) in places.into_iter().filter_map(|(what, path)| Some((what, path.as_ref()?))) {
            text += &format!("cuda, to compile for training: {what} in {}\n", path.display());
        }
        for Missing { what, reason, apt, pip } in &self.toolkit.missing {
            text += &format!("cuda, missing for training (not for the kernels): {what}: {reason}\n");
            text += &format!("    apt: {apt}\n    pip: {pip}\n");
        }
        text += "cuda, training there (train_on=backend): ";
        match &self.refused {
            None => text += "yes\n",
            // The lines above have named the parts.
            Some(_) if !self.toolkit.missing.is_empty() => text += "no: something is missing, see above\n",
            Some(reason) => text += &format!("no: {reason}\n"),
        }
        text
    }

    /// Fields of the entries of the backend.
    fn json(&self) -> Map<String, Value> {
        let one = |m: &Missing| json!({"what": m.what, "reason": m.reason, "apt": m.apt, "pip": m.pip});
        let Toolkit { nvrtc, headers, cccl, missing } = &self.toolkit;
        let fields = [
            ("driver_cuda", json!(self.driver.map(version))),
            ("driver_cuda_needed", json!(version(DRIVER_CUDA))),
            ("driver_release_needed", json!(DRIVER_RELEASE)),
            (
                "training_compiler",
                json!({
                    "nvrtc": nvrtc,
                    "headers": headers,
                    "cccl": cccl,
                    "missing": missing.iter().map(one).collect::<Vec<_>>(),
                }),
            ),
            ("training", json!({"works": self.refused.is_none(), "reason": self.refused})),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn version((major, minor): (i32, i32)) -> String {
    format!("{major}.{minor}")
}

fn table(found: &[Found]) -> String {
    let mut table = Table::new(["backend", "device", "what", "driver", "usable"]).with_align([Align::Left; 5]);
    for one in found {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        table.push([
            one.backend.name().to_owned(),
            one.name.clone().unwrap_or("-".into()),
            dash(one.class),
            dash(&one.driver),
            one.refused.as_ref().map_or("yes".into(), |reason| format!("no: {reason}")),
        ]);
    }
    let mut text = table.to_string();
    for one in found.iter().filter(|one| one.name.is_some()) {
        let limits: Vec<String> = one.limits.iter().map(|(name, value)| format!("{name} {value}")).collect();
        text += &format!("{}: {}\n", one.backend.name(), limits.join(", "));
    }
    text
}

fn json(found: &[Found], cuda: &Cuda) -> String {
    let one = |one: &Found| {
        let limits: Map<String, Value> = one.limits.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        let mut entry = json!({
            "backend": one.backend.name(),
            "device": one.name,
            "class": one.class,
            "driver": one.driver,
            "limits": limits,
            "usable": one.refused.is_none(),
            "reason": one.refused,
        });
        if let (BackendKind::Cuda, Some(entry)) = (one.backend, entry.as_object_mut()) {
            entry.extend(cuda.json());
        }
        entry
    };
    format!("{:#}\n", Value::from(found.iter().map(one).collect::<Vec<_>>()))
}
