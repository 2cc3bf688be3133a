//! Files that are whole or absent: never half written, also after a power cut.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A step of [`write_atomic`] that the operating system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

/// For `map_err` on an I/O result.
fn error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    move |source| FileError { action, path: path.to_path_buf(), source }
}

/// Writes `bytes` to `path`, so that a reader sees the old content or the new one and nothing between.
///
/// A temporary file in the same folder is written, synced to the disk and renamed over `path`; then the
/// folder is synced, so that the new name survives a power cut as well. An existing file is replaced and
/// keeps its permissions; a new one gets the usual ones. The folder must exist.
///
/// # Errors
/// [`FileError`] names the path and the step. The temporary file is removed then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = folder_of(path);
    let mut temporary = temporary_beside(path).map_err(error("create a temporary file beside", path))?;
    temporary.write_all(bytes).map_err(error("write", path))?;
    if let Ok(old) = std::fs::metadata(path) {
        temporary.as_file().set_permissions(old.permissions()).map_err(error("set permissions of", path))?;
    }
    temporary.as_file().sync_all().map_err(error("sync", path))?;
    temporary.persist(path).map_err(|e| error("rename a temporary file to", path)(e.error))?;
    sync_folder(folder)
}

/// The folder that holds `path`; `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A hidden temporary file in the folder of `path`, removed on drop unless it is persisted.
fn temporary_beside(path: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".veilsum-").suffix(".partial");
    // `tempfile` makes private files; a result is as readable as the user's umask says.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path))
}

/// Makes the name of a new file durable.
///
/// # Errors
/// [`FileError`] if the system refuses.
pub fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    sync_folder(folder_of(path))
}

/// Makes the names in `folder` durable. Only Unix can open a folder for that; elsewhere the rename is all.
fn sync_folder(folder: &Path) -> Result<(), FileError> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(error("sync the folder", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomic(&path, b"a longer first content").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn an_existing_file_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_atomic(&path, b"1").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        write_atomic(&path, b"2").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_missing_folder_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("a.txt");
        let message = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(message.contains("absent"), "{message}");
        assert!(!path.exists());
    }

    #[test]
    fn a_failed_rename_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
