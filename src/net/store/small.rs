//! A disk that is soon full.

use std::path::Path;
use std::process::Command;

/// A small file system in memory, unmounted on drop.
pub(crate) struct Small(tempfile::TempDir);

impl Small {
    /// Mounts one; a word about why not where that is not allowed.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "veilsum-test"]).arg(folder.path());
        let why = match mount.output() {
            Ok(output) if output.status.success() => return Some(Self(folder)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("SKIPPED: no small file system: {why}");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes it larger.
    pub(crate) fn grow(&self, size: &str) {
        let grown = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(self.path()).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
    }
}
