//! A PostgreSQL server of a test's own, on a socket in a temporary folder. Who includes this says whether one answers at an address.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::answers;

/// A server of our own, stopped and deleted on drop.
pub(super) struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    uid: Option<u32>,
    pub(super) options: Vec<String>,
    /// Of the socket's name, and of the network where it listens there.
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Makes a server, or says why there is none.
    pub(super) fn new(options: &[&str], port: u16) -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed: no initdb in PATH or /usr/lib/postgresql")?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        // The server refuses to run as root.
        let root = output(Command::new("id").arg("-u"))? == "0";
        let uid = if root { output(Command::new("id").args(["-u", "postgres"]))?.parse().ok() } else { None };
        if root && uid.is_none() {
            return Err("there is no user postgres to run it as".to_owned());
        }
        std::os::unix::fs::chown(folder.path(), uid, None).map_err(|e| e.to_string())?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { folder, programs, uid, options, port, child: None };
        let data = server.data();
        let mut init = server.program("initdb");
        output(init.arg("-D").arg(&data).args(["-A", "trust", "-U", "veilsum", "--no-sync", "-E", "UTF8"]))?;
        server.start();
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path()).env_remove("PGPORT").env("LC_ALL", "C");
        if let Some(uid) = self.uid {
            command.uid(uid);
        }
        command
    }

    pub(super) fn start(&mut self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.folder.path()).args(["-c", "fsync=off"]);
        command.arg("-p").arg(self.port.to_string());
        let listens = self.options.iter().any(|option| option.starts_with("listen_addresses"));
        command.args(if listens { &[][..] } else { &["-c", "listen_addresses="][..] });
        self.options.iter().for_each(|option| {
            command.args(["-c", option]);
        });
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let url = self.url("postgres");
        for _ in 0..300 {
            if answers(&url) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server does not answer");
    }

    /// Stops it at once, as a crash would.
    pub(super) fn stop(&mut self) {
        let mut command = self.program("pg_ctl");
        let _ = output(command.arg("-D").arg(self.data()).args(["stop", "-m", "immediate"]));
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?user=veilsum&port={}&host={}", self.port, self.folder.path().display())
    }

    /// A new empty database.
    pub(super) fn database(&self, name: &str) -> String {
        let mut command = self.program("createdb");
        command.arg("-h").arg(self.folder.path()).args(["-U", "veilsum", "-p", &self.port.to_string(), name]);
        output(&mut command).unwrap();
        self.url(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn output(command: &mut Command) -> Result<String, String> {
    let found = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    match found.status.success() {
        true => Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&found.stderr).trim().to_owned()),
    }
}

/// The folder of `initdb`.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|entry| entry.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = debian.chain(std::env::split_paths(&path)).collect();
    folders.retain(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
    folders.into_iter().next()
}
