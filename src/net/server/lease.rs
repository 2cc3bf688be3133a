//! The right to coordinate a run: a lease in the store that one server has, and others wait for.
//!
//! A thread of its own renews the lease, however long the coordinator computes. A server that was killed has its lease back at once
//! when it starts again: it goes by the name in its state folder, and who holds that file's lock is the only living process with that
//! name. Everybody else goes by a name drawn at random and waits until the lease is given back or has run out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::Rng;
use tracing::warn;

use crate::net::store::{Store, StoreError};
use crate::net::{NetError, now};

/// The file of a state folder that has its name.
const NAME: &str = "coordinator";
/// Bytes of a name that is drawn.
const DRAWN: usize = 8;

/// Who has the lease instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    /// Its name.
    pub(super) owner: String,
    /// For how long, if it does not renew it, seconds.
    pub(super) seconds: u64,
}

/// A server's claim to coordinate; given up when it is dropped.
pub(super) struct Claim {
    store: Arc<dyn Store>,
    /// Machine and state folder, for people.
    place: String,
    file: PathBuf,
    /// The name of this process.
    drawn: String,
    seconds: u64,
    /// Whether it was taken over once: then it no longer goes by the name of the folder, under which another may go as well (a copied
    /// machine), since two that take over from each other would never end.
    overtaken: bool,
    held: Option<Held>,
}

/// A lease that is renewed.
struct Held {
    /// The lock of the folder's name, if this process goes by it.
    _named: Option<File>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
    lost: Arc<Mutex<Option<StoreError>>>,
}

impl Claim {
    /// A claim of the server with this state folder, for a lease of so many seconds.
    pub(super) fn new(store: Arc<dyn Store>, state: &Path, seconds: u64) -> Self {
        let folder = std::path::absolute(state).unwrap_or_else(|_| state.to_path_buf());
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let place = format!("{}:{}", host.trim(), folder.display());
        Self { store, place, file: state.join(NAME), drawn: draw(), seconds, overtaken: false, held: None }
    }

    /// How long to wait before the lease is asked for again.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_secs(self.seconds).div_f64(10.0).clamp(Duration::from_millis(200), Duration::from_secs(3))
    }

    /// Takes the lease; who has it, if somebody else does.
    ///
    /// # Errors
    /// Those of [`Store::lease`]; a state folder that cannot be written to.
    pub(super) fn take(&mut self) -> Result<Option<Other>, NetError> {
        let named = if self.overtaken { None } else { self.named()? };
        let name = named.as_ref().map_or(&self.drawn, |(name, _)| name);
        let owner = format!("{} ({name})", self.place);
        match self.store.lease(&owner, self.seconds, now().as_secs()) {
            Ok(_) => {
                self.held = Some(self.renewed(owner, named.map(|(_, lock)| lock))?);
                Ok(None)
            }
            Err(StoreError::LeaseHeld { owner, seconds }) => Ok(Some(Other { owner, seconds })),
            Err(error) => Err(error.into()),
        }
    }

    /// The name in the state folder and its lock; `None` if another process has that.
    fn named(&self) -> Result<Option<(String, File)>, NetError> {
        let io = |source| NetError::Io { action: "lock", what: self.file.display().to_string(), source };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&self.file).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut bytes = Vec::new();
        (&mut file).take(2 * DRAWN as u64).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() == 2 * DRAWN
            && let Ok(name) = String::from_utf8(bytes)
            && name.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Ok(Some((name, file)));
        }
        file.set_len(0).map_err(io)?;
        std::io::Seek::rewind(&mut file).map_err(io)?;
        file.write_all(self.drawn.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        Ok(Some((self.drawn.clone(), file)))
    }

    /// The lease that was just taken, with the thread that renews it.
    fn renewed(&self, owner: String, named: Option<File>) -> Result<Held, NetError> {
        let (stop, stopped) = channel::<()>();
        let lost = Arc::new(Mutex::new(None));
        let (store, seconds, told) = (Arc::clone(&self.store), self.seconds, Arc::clone(&lost));
        let every = Duration::from_secs(seconds).div_f64(3.0);
        let renew = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                match store.lease(&owner, seconds, now().as_secs()) {
                    Ok(_) => {}
                    Err(error @ StoreError::LeaseLost { .. }) => {
                        *locked(&told) = Some(error);
                        return;
                    }
                    // A store that takes nothing now takes nothing from the coordinator either, which says so.
                    Err(error) => warn!(%error, "the lease is not renewed; trying again"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("lease".to_owned()).spawn(renew);
        let thread = thread.map_err(|source| NetError::Io { action: "start", what: "a thread".to_owned(), source })?;
        Ok(Held { _named: named, stop, thread, lost })
    }

    /// # Errors
    /// [`StoreError::LeaseLost`] once another server has taken over.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.held.as_ref().and_then(|held| locked(&held.lost).take()).map_or(Ok(()), Err)
    }

    /// Gives the lease back, so that whoever stands by goes on at once.
    pub(super) fn give_back(&mut self) {
        if self.stop()
            && let Err(error) = self.store.end_lease()
        {
            warn!(%error, "the lease is not given back; it runs out by itself");
            self.store.forget_lease();
        }
    }

    /// Forgets a lease that another server has taken over.
    pub(super) fn step_down(&mut self) {
        self.overtaken = true;
        self.stop();
        self.store.forget_lease();
    }

    /// Ends the renewal; true if there was one.
    fn stop(&mut self) -> bool {
        let Some(Held { _named, stop, thread, .. }) = self.held.take() else { return false };
        drop(stop);
        // It is over: a panic there is no reason for one here.
        drop(thread.join());
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other process has.
fn draw() -> String {
    hex::encode(rand::rng().next_u64().to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::store::open;

    fn claim(store: &Path, state: &Path, seconds: u64) -> Claim {
        Claim::new(open(&store.display().to_string()).unwrap(), state, seconds)
    }

    /// Waits a while for what a thread does.
    fn until<T>(mut there: impl FnMut() -> Option<T>) -> T {
        let since = std::time::Instant::now();
        loop {
            if let Some(found) = there() {
                return found;
            }
            assert!(since.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn of_two_servers_one_waits_whatever_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        std::fs::create_dir(folder.path().join("other")).unwrap();
        let mut first = claim(&path, folder.path(), 6);
        assert_eq!(first.take().unwrap(), None);
        for state in [folder.path().to_owned(), folder.path().join("other")] {
            let other = claim(&path, &state, 6).take().unwrap().unwrap();
            assert!(other.owner.contains(&folder.path().display().to_string()) && other.seconds <= 6, "{other:?}");
        }
        // Renewed meanwhile, and given back at the end.
        let ends = |claim: &Claim| claim.store.lease_holder().unwrap().unwrap().until;
        let before = ends(&first);
        until(|| (ends(&first) > before).then_some(()));
        let mut second = claim(&path, &folder.path().join("other"), 6);
        assert!(second.take().unwrap().is_some());
        drop(first);
        assert_eq!(second.take().unwrap(), None);
    }

    #[test]
    fn a_server_that_was_killed_is_back_at_once_and_no_other_with_its_folder_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        // Its lock goes with the process, its lease stays.
        let killed = |claim: &mut Claim| {
            claim.stop();
        };
        let mut first = claim(&path, folder.path(), 600);
        first.take().unwrap();
        killed(&mut first);
        let mut again = claim(&path, folder.path(), 600);
        assert_eq!(again.take().unwrap(), None);
        assert!(first.store.set_meta("a", b"b").is_err());
        killed(&mut again);
        // Somebody else in the folder has the lock: the name is not to be had.
        let lock = File::open(folder.path().join(NAME)).unwrap();
        lock.try_lock().unwrap();
        assert!(claim(&path, folder.path(), 600).take().unwrap().is_some());
    }

    #[test]
    fn a_server_that_was_taken_over_waits_like_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        std::fs::create_dir(folder.path().join("other")).unwrap();
        let mut first = claim(&path, folder.path(), 3);
        first.take().unwrap();
        let second = claim(&path, &folder.path().join("other"), 3);
        second.store.lease("a machine whose clock is ahead", 600, now().as_secs() + 600).unwrap();
        let lost = until(|| first.check().err());
        assert!(matches!(lost, StoreError::LeaseLost { .. }), "{lost}");
        first.step_down();
        assert!(first.take().unwrap().is_some());
        second.store.end_lease().unwrap();
        assert_eq!(first.take().unwrap(), None);
    }
}
