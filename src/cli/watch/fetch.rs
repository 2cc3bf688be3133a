//! Asks a server for its status.

use std::time::Duration;

use crate::cli::{Exit, Failure};
use crate::net::status::format::one_line;
use crate::net::status::{FORMAT, Guarantee, HISTORY_SHOWN, PARTIES_SHOWN, Status, WARNINGS_KEPT};

/// A status that takes longer than this has not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of a status; 2,000 rounds and 200 parties are less than one MiB.
const MOST_BYTES: u64 = 16 << 20;
/// Most characters of a text.
const TEXT: usize = 400;

/// Why there is no status to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    /// The address is not one.
    #[error("`{url}` is no address of a server; one looks like http://127.0.0.1:7444")]
    Address {
        /// What was given.
        url: String,
    },
    /// Nobody answers, or somebody who is no server of this kind.
    #[error("{url}: {source}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The answer is no status.
    #[error("{url} is no status of a veilsum server: {source}")]
    Malformed {
        /// What was asked.
        url: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// A status of another version.
    #[error("{url} has status format {found}, and this veilsum reads format {FORMAT}; use the server's version here")]
    Format {
        /// What was asked.
        url: String,
        /// The number in it.
        found: u32,
    },
    /// The terminal does not do what it should.
    #[error("cannot {action} the terminal: {source}")]
    Terminal {
        /// What was tried, as a verb.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl From<WatchError> for Failure {
    fn from(e: WatchError) -> Self {
        let exit = if matches!(e, WatchError::Address { .. }) { Exit::Usage } else { Exit::Failure };
        Self::new(exit, e)
    }
}

/// Where to ask.
#[derive(Debug)]
pub(super) struct Server {
    base: String,
    agent: ureq::Agent,
}

impl Server {
    /// `url` may lack its scheme, and may be that of any page of the status at the root.
    pub(super) fn new(url: &str) -> Result<Self, WatchError> {
        let bad = || WatchError::Address { url: one_line(url, TEXT) };
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let full = full.split(['?', '#']).next().unwrap_or_default();
        let base = full.trim_end_matches('/').trim_end_matches("/status.json").trim_end_matches('/').to_owned();
        let uri: ureq::http::Uri = base.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(bad)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad());
        }
        let mut config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE));
        // A proxy of the environment knows nothing of this machine's own addresses.
        if host == "localhost" || host == "[::1]" || host.starts_with("127.") {
            config = config.proxy(None);
        }
        Ok(Self { base, agent: config.build().new_agent() })
    }

    /// The address without the path of the status.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The status now. Its texts are made safe for a terminal and its lists have at most their documented lengths, whoever
    /// answered.
    pub(super) fn status(&self) -> Result<Status, WatchError> {
        let url = format!("{}/status.json", self.base);
        let unreachable = |source| WatchError::Unreachable { url: url.clone(), source: Box::new(source) };
        let mut response = self.agent.get(&url).call().map_err(unreachable)?;
        let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_string().map_err(unreachable)?;
        read(&url, &text)
    }
}

fn read(url: &str, text: &str) -> Result<Status, WatchError> {
    /// Enough to tell a version from garbage.
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    let malformed = |source| WatchError::Malformed { url: url.to_owned(), source };
    let head: Head = serde_json::from_str(text).map_err(malformed)?;
    if head.format != FORMAT {
        return Err(WatchError::Format { url: url.to_owned(), found: head.format });
    }
    Ok(safe(serde_json::from_str(text).map_err(malformed)?))
}

/// The status with every text on one line and without escapes of terminals.
fn safe(mut status: Status) -> Status {
    fn clean(text: &mut String) {
        *text = one_line(text, TEXT);
    }
    let Status { run, sentence, privacy, parties, history, warnings, counters, evaluations, .. } = &mut status;
    parties.truncate(PARTIES_SHOWN);
    history.truncate(HISTORY_SHOWN);
    evaluations.truncate(HISTORY_SHOWN);
    warnings.truncate(WARNINGS_KEPT);
    [&mut run.name, &mut run.version, &mut run.session, &mut run.model].into_iter().for_each(clean);
    [sentence, &mut privacy.mechanism, &mut privacy.protocol].into_iter().for_each(clean);
    if let Some(Guarantee { neighbours, accountant, .. }) = &mut privacy.guarantee {
        [neighbours, accountant].into_iter().for_each(clean);
    }
    parties.iter_mut().for_each(|party| clean(&mut party.name));
    warnings.iter_mut().for_each(|warning| clean(&mut warning.text));
    history.iter_mut().flat_map(|r| &mut r.abandoned).for_each(|a| clean(&mut a.reason));
    counters.refused =
        std::mem::take(&mut counters.refused).into_iter().map(|(r, n)| (one_line(&r, TEXT), n)).collect();
    status
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::net::status::sample;

    /// Answers one request with `code` and `body`, on a port of its own; the address.
    fn answering(code: u16, body: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            let head = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // The other side may have enough before the end.
            let _ = stream.write_all((head + &body).as_bytes());
        });
        format!("http://{address}/")
    }

    fn ask(url: &str) -> Result<Status, WatchError> {
        Server::new(url)?.status()
    }

    #[test]
    fn a_status_comes_over_the_wire_and_is_safe_for_a_terminal() {
        let now = Duration::from_secs(1_795_383_271);
        let mut status = sample::early(now).snapshot(now);
        status.parties[0].name = "\u{1b}[2Jevil\u{7}".into();
        status.counters.refused.insert("\u{1b}]0;x".into(), 1);
        let got = ask(&answering(200, serde_json::to_string(&status).unwrap())).unwrap();
        assert_eq!((got.parties[0].name.as_str(), got.progress), (" [2Jevil ", status.progress));
        assert!(got.counters.refused.contains_key(" ]0;x"));
    }

    #[test]
    fn what_is_no_status_is_an_error_that_says_so() {
        let message = |code, body: &str| ask(&answering(code, body.to_owned())).unwrap_err().to_string();
        assert!(message(500, "").contains("/status.json: http status: 500"));
        assert!(message(200, "<html>").contains("is no status of a veilsum server"));
        assert!(message(200, "{\"format\":1}").contains("missing field"));
        assert!(
            message(200, "{\"format\":7,\"other\":[]}").contains("status format 7, and this veilsum reads format 1")
        );
        let deep = "[".repeat(1 << 20);
        assert!(message(200, &deep).contains("is no status"));
        assert!(message(200, &" ".repeat(MOST_BYTES as usize + 1)).contains("limit"));
    }

    #[test]
    fn nobody_there_is_an_error_with_the_address() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(&format!("{free}")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("http://{free}/status.json: ")), "{error}");
    }

    #[test]
    fn addresses_are_completed_or_refused() {
        let base = |url| Server::new(url).map(|s| s.base().to_owned());
        assert_eq!(base("127.0.0.1:7444").unwrap(), "http://127.0.0.1:7444");
        assert_eq!(base("https://a.b/x/status.json?y").unwrap(), "https://a.b/x");
        for bad in ["", "ftp://a", "http://", "file:///etc/passwd", "http://a b", "\u{1b}[2J"] {
            assert!(matches!(base(bad), Err(WatchError::Address { .. })), "{bad}");
        }
    }
}
