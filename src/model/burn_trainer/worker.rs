//! What the framework's own threads say when they panic.
//!
//! A device of the framework has a thread that talks to the driver. What panics there is caught there, and the thread goes on,
//! with memory that nobody has written: a kernel that could not be compiled would leave rows of garbage. Its panics are
//! heard by the process's panic hook, which is called as before.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

/// The threads are named `DS`, one letter, `-TYPE-INDEX` of the device.
const NAMES: &str = "DS";
/// Texts that are kept, and bytes of each.
const MOST: (usize, usize) = (64, 2000);

/// Name of the thread and text of every panic that nobody has asked for.
static HEARD: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Hears the framework's threads from now on.
pub(super) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(name) = std::thread::current().name().filter(|name| name.starts_with(NAMES)) {
                hear(name, &said(info));
            }
            before(info);
        }));
    });
}

fn hear(thread: &str, text: &str) {
    let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    if heard.len() < MOST.0 {
        let end = text.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|&end| end <= MOST.1).last();
        heard.push((thread.to_owned(), text[..end.unwrap_or(0)].to_owned()));
    }
}

/// The first that the thread of a device said since it was last asked.
pub(super) fn take(kind: u16, index: u16) -> Option<String> {
    let of_device = format!("-{kind}-{index}");
    let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    let first = heard.iter().find(|(thread, _)| thread.ends_with(&of_device)).map(|(_, text)| text.clone());
    heard.retain(|(thread, _)| !thread.ends_with(&of_device));
    first
}

/// The bytes of an allocation that did not fit, from what the framework says then.
pub(super) fn refused_bytes(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("BufferTooBig { size: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn said(info: &PanicHookInfo<'_>) -> String {
    info.payload_as_str().unwrap_or("a panic without a text").to_owned()
}

/// The result of `work`, or what it said when it panicked.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic in a thread of this name, which is caught there.
    fn panic_in(name: &str, text: String) {
        let work = move || drop(caught(|| panic!("{text}")));
        std::thread::Builder::new().name(name.to_owned()).spawn(work).unwrap().join().unwrap();
    }

    #[test]
    fn the_thread_of_a_device_is_heard_and_no_other() {
        listen();
        listen();
        panic_in("DSD-40000-1", "first".into());
        panic_in("DSD-40000-1", "second".into());
        panic_in("DSU-40000-11", "another device".into());
        panic_in("somebody", "elsewhere".into());
        assert_eq!(take(40000, 1).as_deref(), Some("first"));
        assert_eq!(take(40000, 1), None);
        assert_eq!(take(40000, 11).as_deref(), Some("another device"));
        panic_in("DSD-40000-2", "\u{e9}".repeat(5000));
        let text = take(40000, 2).unwrap();
        assert!(text.len() <= MOST.1 && text.chars().all(|c| c == '\u{e9}') && text.len() > MOST.1 - 4);
        for _ in 0..2 * MOST.0 {
            hear("DSD-40000-3", "again");
        }
        assert!(HEARD.lock().unwrap().len() <= MOST.0);
        assert_eq!(take(40000, 3).as_deref(), Some("again"));
    }

    #[test]
    fn what_did_not_fit_is_read_from_the_text() {
        let text = "called `Result::unwrap()` on an `Err` value: BufferTooBig { size: 21474836480, backtrace: none }";
        assert_eq!(refused_bytes(text), Some(21_474_836_480));
        for other in ["BufferTooBig { size: , b", "BufferTooBig { size: 99999999999999999999999 }", "no room", ""] {
            assert_eq!(refused_bytes(other), None, "{other}");
        }
    }
}
