//! What servers and clients say of themselves, on stderr: lines for people, or one JSON object a line.

use tracing_subscriber::EnvFilter;

/// Starts the log of the process. `VEILSUM_LOG` filters it (`debug`, `veilsum::net=debug`); without, it is `info` of our own.
pub(super) fn start(json: bool) {
    let filter = EnvFilter::try_from_env("VEILSUM_LOG").unwrap_or_else(|_| EnvFilter::new("veilsum=info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start, in a test, changes nothing.
    drop(if json { log.json().try_init() } else { log.compact().try_init() });
}
