//! Files of keys: short, regular, and those with secrets for their owner alone.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::error::KeysError;
use crate::files::sync_folder_of;

/// Longest file that is read, in bytes.
const MOST: u64 = super::pem::MAX_TEXT as u64;

/// Reads a file that has to be there.
///
/// # Errors
/// [`KeysError::Missing`] with `remedy`, a file that is too long or no file, and what the system says.
pub(super) fn read_public(path: &Path, remedy: &'static str) -> Result<String, KeysError> {
    let bytes = read(path, remedy, false)?;
    let text = std::str::from_utf8(&bytes);
    text.map(str::to_owned).map_err(|_| KeysError::Garbled { path: path.to_path_buf(), expected: "text" })
}

/// Reads a secret; refuses one that others may read or change.
///
/// # Errors
/// As [`read_public`], and [`KeysError::TooOpen`].
pub(super) fn read_secret(path: &Path, remedy: &'static str) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    read(path, remedy, true)
}

fn read(path: &Path, remedy: &'static str, secret: bool) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => KeysError::Missing { path: path.to_path_buf(), remedy },
        _ => KeysError::Io { action: "read", path: path.to_path_buf(), source },
    };
    // Before it is opened: to open a pipe waits for somebody to write.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(KeysError::NotAFile(path.to_path_buf()));
    }
    let file = File::open(path).map_err(failed)?;
    if secret {
        check_mode(path, &file.metadata().map_err(failed)?)?;
    }
    // The room is reserved at once, so that no part of a secret stays in memory that was outgrown.
    let mut bytes = Zeroizing::new(Vec::with_capacity(super::pem::MAX_TEXT + 1));
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > super::pem::MAX_TEXT {
        return Err(KeysError::TooLong { path: path.to_path_buf(), most: MOST });
    }
    Ok(bytes)
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeysError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    // 440 is how service managers and orchestrators hand out secrets: nobody can write, and the group is the service's own.
    if mode & 0o077 != 0 && mode != 0o440 {
        return Err(KeysError::TooOpen { path: path.to_path_buf(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &std::fs::Metadata) -> Result<(), KeysError> {
    Ok(())
}

/// One file of several that appear together.
pub(super) struct New<'a> {
    pub(super) path: PathBuf,
    pub(super) bytes: &'a [u8],
    pub(super) secret: bool,
}

/// Makes a folder for keys, closed to others where it is new.
///
/// # Errors
/// What the system says.
pub(super) fn make_folder(folder: &Path) -> Result<(), KeysError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(KeysError::io("make the folder", folder))
}

/// Writes files that must not be there yet. All are on the disk under hidden names before the first appears, so that a
/// process that dies leaves none of them, but for the instant between the renames.
///
/// # Errors
/// [`KeysError::Exists`] where one of them is there; what the system says.
pub(super) fn write_new(files: &[New<'_>]) -> Result<(), KeysError> {
    if let Some(there) = files.iter().find(|file| file.path.symlink_metadata().is_ok()) {
        return Err(KeysError::Exists(there.path.clone()));
    }
    let staged: Vec<_> = files.iter().map(stage).collect::<Result<_, _>>()?;
    for (file, temporary) in files.iter().zip(staged) {
        temporary.persist_noclobber(&file.path).map_err(|e| match e.error.kind() {
            std::io::ErrorKind::AlreadyExists => KeysError::Exists(file.path.clone()),
            _ => KeysError::io("rename a temporary file to", &file.path)(e.error),
        })?;
        sync_folder_of(&file.path)?;
    }
    Ok(())
}

/// Replaces a secret by another, whole, for its owner alone.
///
/// # Errors
/// What the system says.
pub(super) fn replace_secret(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    let temporary = stage(&New { path: path.to_path_buf(), bytes, secret: true })?;
    temporary.persist(path).map_err(|e| KeysError::io("rename a temporary file to", path)(e.error))?;
    Ok(sync_folder_of(path)?)
}

fn stage(file: &New<'_>) -> Result<NamedTempFile, KeysError> {
    let folder = file.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".veilsum-").suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(if file.secret { 0o600 } else { 0o666 }));
    }
    let mut temporary = builder.tempfile_in(folder).map_err(KeysError::io("write beside", &file.path))?;
    temporary.write_all(file.bytes).map_err(KeysError::io("write", &file.path))?;
    temporary.as_file().sync_all().map_err(KeysError::io("sync", &file.path))?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_together_and_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = |name: &str, secret| New { path: at(name), bytes: b"abc", secret };
        write_new(&[file("a", true), file("b", false)]).unwrap();
        let refused = write_new(&[file("c", true), file("b", false)]).unwrap_err();
        assert!(matches!(&refused, KeysError::Exists(path) if *path == at("b")), "{refused}");
        assert!(!at("c").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(**read_secret(&at("a"), "").unwrap(), *b"abc");
        replace_secret(&at("a"), b"new").unwrap();
        assert_eq!(**read_secret(&at("a"), "").unwrap(), *b"new");
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        write_new(&[New { path: path.clone(), bytes: b"abc", secret: true }]).unwrap();
        assert_eq!(mode(&path), 0o600);
        replace_secret(&path, b"abd").unwrap();
        assert_eq!(mode(&path), 0o600);
        for open in [0o640, 0o604, 0o620, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(open)).unwrap();
            let message = read_secret(&path, "").unwrap_err().to_string();
            assert!(message.contains(&format!("mode {open:o}")) && message.contains("chmod 600"), "{message}");
            read_public(&path, "").unwrap();
        }
        for given in [0o400, 0o440] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(given)).unwrap();
            read_secret(&path, "").unwrap();
        }
        make_folder(&folder.path().join("x/y")).unwrap();
        assert_eq!(mode(&folder.path().join("x/y")), 0o700);
    }

    #[test]
    fn what_is_missing_too_long_or_no_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let message = read_secret(&path, "make one").unwrap_err().to_string();
        assert!(message.contains("/a is not there: make one"), "{message}");
        assert!(matches!(read_secret(folder.path(), ""), Err(KeysError::NotAFile(_))));
        std::fs::write(&path, vec![b'a'; super::super::pem::MAX_TEXT + 1]).unwrap();
        assert!(matches!(read_public(&path, ""), Err(KeysError::TooLong { .. })));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read_public(&path, ""), Err(KeysError::Garbled { .. })));
    }
}
