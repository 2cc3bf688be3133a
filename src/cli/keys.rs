//! `veilsum keys`.

mod show;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use crate::cli::{Exit, Failure};
use crate::files::write_atomic;
use crate::net::keys::{Authority, KeysError, MAX_DAYS, PartyKeys, Peer, Renewal, Role, TokenRole, date, now};

/// Names by which a server is always reached on its own machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Most tokens that one call prints.
const MAX_TOKENS: u32 = 100_000;
/// Longest request that is read, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;

/// Arguments of `veilsum keys`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Who is who in a federation: an authority, the server's certificate, tokens that let clients and key \
        holders in, and what is needed to do without a network.\n\nEvery party has one Ed25519 key, in a folder that only \
        its owner can read. The authority signs for which role a key is; the same key signs in the protocols. A token is \
        good for one enrolment: whoever has it can use it, so send it as you would a password. DIR/ca/ca.key can make \
        anybody anyone; keep a copy of it offline.",
    after_help = "Examples:
  veilsum keys init study --name fl.example.org --name 10.0.0.7
  veilsum keys token study --count 20
  veilsum keys token study --client 100 --count 20 --hours 72
  veilsum keys token study --holders --count 5
  veilsum keys show study
  veilsum keys renew study

Without a connection to the server:
  veilsum keys new alice                                      (the client; writes alice/request.pem)
  veilsum keys issue study alice/request.pem --client 17 --out alice.pem       (the authority)
  veilsum keys install alice alice.pem                        (the client)

Exit codes: 0 success, 1 a file could not be read or written, 2 bad usage, bad keys or a file that is there already."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority and a server's keys: DIR/ca and DIR/server.
    Init(Init),
    /// Print tokens that let parties in, one a line.
    Token(TokenArgs),
    /// Make a party's identity and secret, and a request for a certificate.
    New(New),
    /// Sign a certificate for a request or a bare public key.
    Issue(Issue),
    /// Take the answer to a request into a party's folder.
    Install(Install),
    /// Give the server's certificate new dates; a running server takes it without a restart.
    Renew(Renew),
    /// Who somebody is: roles, fingerprints, validity.
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// The folder; ca and server in it must not be there yet.
    dir: PathBuf,
    /// A DNS name or an IP address that clients connect to; localhost, 127.0.0.1 and ::1 are always in.
    #[arg(long = "name", value_name = "HOST", required = true, num_args = 1..)]
    names: Vec<String>,
    /// How long the server's certificate is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    days: u32,
    /// How long the authority is valid.
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    authority_days: u32,
    /// What the authority is called.
    #[arg(long, default_value = "veilsum authority")]
    authority: String,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    /// The folder of `init`, or that of the authority in it.
    dir: PathBuf,
    /// For client N, and those behind it with --count. Absent: for any client; the server gives the number.
    #[arg(long, value_name = "N", group = "whom")]
    client: Option<u64>,
    /// For key holder N, and those behind it with --count.
    #[arg(long, value_name = "N", group = "whom")]
    holder: Option<u16>,
    /// For any key holder; the server gives the number.
    #[arg(long, group = "whom")]
    holders: bool,
    /// How many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TOKENS)))]
    count: u32,
    /// For how many hours they are good.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    hours: u32,
    /// A JSON object a line on stdout: token, role, when it expires.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct New {
    /// The folder; made if it is not there.
    dir: PathBuf,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// The folder of `init`, or that of the authority in it.
    ca: PathBuf,
    /// A file with a request, or a public key as 64 hex digits.
    request: String,
    /// For client N.
    #[arg(long, value_name = "N", group = "whom", required_unless_present_any = ["holder", "server"])]
    client: Option<u64>,
    /// For key holder N.
    #[arg(long, value_name = "N", group = "whom")]
    holder: Option<u16>,
    /// For the server.
    #[arg(long, group = "whom", requires = "names")]
    server: bool,
    /// A name of the server, with --server.
    #[arg(long = "name", value_name = "HOST", id = "names", conflicts_with_all = ["client", "holder"])]
    names: Vec<String>,
    /// How long the certificate is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    days: u32,
    /// Where the certificate goes, the authority's behind it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Install {
    /// The party's folder.
    dir: PathBuf,
    /// What `issue` wrote.
    file: PathBuf,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Renew {
    /// The folder of `init`.
    dir: PathBuf,
    /// How long the new certificate is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    days: u32,
    /// A new key as well; the server is then another signer in the protocols.
    #[arg(long)]
    rotate: bool,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The folder of `init`, of an authority or of a party.
    dir: PathBuf,
    /// JSON on stdout, one object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in its help.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Init(args) => init(&args),
        Command::Token(args) => token(&args, &mut std::io::stdout().lock()),
        Command::New(args) => new(&args),
        Command::Issue(args) => issue(&args),
        Command::Install(args) => install(&args),
        Command::Renew(args) => renew(&args),
        Command::Show(args) => show::run(&args.dir, args.json),
    }
}

fn init(args: &Init) -> Result<(), Failure> {
    let (ca, server) = (args.dir.join("ca"), args.dir.join("server"));
    // Names first, so that a bad one leaves nothing behind.
    let mut names: Vec<String> = LOCAL.map(str::to_owned).into();
    names.extend(args.names.iter().filter(|name| !LOCAL.contains(&name.as_str())).cloned());
    Authority::check_names(&names)?;
    if let Some(full) = [&ca, &server].into_iter().find(|folder| holds_something(folder)) {
        return Err(KeysError::Exists(full.clone()).into());
    }
    let authority = Authority::create(&ca, &args.authority, args.authority_days)?;
    let mut keys = PartyKeys::create(&server)?;
    let text = authority.issue(Role::Server, &keys.public(), &names, args.days)?;
    let peer = keys.install(&text, &authority.pem())?;
    let of_authority = authority.certificate();
    if args.json {
        println!("{}", json!({"authority": show::authority(of_authority), "server": show::peer(peer)}));
    } else {
        println!("{}: the authority `{}`, valid until {}", ca.display(), args.authority, date(of_authority.not_after));
        println!("  fingerprint {}", hex::encode(authority.fingerprint()));
        println!("{}: the server, valid until {}, for {}", server.display(), date(peer.not_after), names.join(", "));
        println!("ca.key can make anybody anyone: keep a copy of it offline");
    }
    Ok(())
}

fn holds_something(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// The authority in a folder of `init`, or the one that lies in the folder itself.
fn open_authority(dir: &Path) -> Result<Authority, Failure> {
    let inner = dir.join("ca");
    Ok(Authority::open(if inner.is_dir() { &inner } else { dir })?)
}

/// Whom the token with this place in the row is for.
fn whom(args: &TokenArgs, place: u32) -> Result<TokenRole, Failure> {
    let beyond =
        |kind: &str| Failure::new(Exit::Usage, format!("there are not {} {kind} numbers from there on", args.count));
    match (args.client, args.holder) {
        (Some(first), _) => {
            let number = first.checked_add(u64::from(place)).ok_or_else(|| beyond("client"))?;
            Ok(TokenRole::Client(Some(number)))
        }
        (None, Some(first)) => {
            let number = u32::from(first).checked_add(place).and_then(|n| u16::try_from(n).ok());
            Ok(TokenRole::Holder(Some(number.ok_or_else(|| beyond("holder"))?)))
        }
        (None, None) if args.holders => Ok(TokenRole::Holder(None)),
        (None, None) => Ok(TokenRole::Client(None)),
    }
}

fn token(args: &TokenArgs, out: &mut impl Write) -> Result<(), Failure> {
    let authority = open_authority(&args.dir)?;
    authority.certificate().valid_at(now()).map_err(KeysError::from)?;
    let expires = now() + u64::from(args.hours) * 3_600;
    // All numbers before the first token: an error leaves no half list.
    let roles: Vec<_> = (0..args.count).map(|place| whom(args, place)).collect::<Result<_, _>>()?;
    for role in roles {
        let text = authority.token(role, expires)?;
        let line = if args.json {
            json!({"token": *text, "role": role.to_string(), "expires": expires}).to_string()
        } else {
            text.to_string()
        };
        writeln!(out, "{line}").map_err(|e| Failure::new(Exit::Failure, format!("cannot print the tokens: {e}")))?;
    }
    Ok(())
}

fn new(args: &New) -> Result<(), Failure> {
    let path = args.dir.join("request.pem");
    let keys = PartyKeys::create(&args.dir)?;
    write_atomic(&path, keys.request()?.as_bytes()).map_err(KeysError::from)?;
    let public = hex::encode(keys.public());
    if args.json {
        println!("{}", json!({"public_key": public, "request": path}));
    } else {
        println!("{}: public key {public}", args.dir.display());
        println!("{}: bring it to the authority, for `veilsum keys issue`", path.display());
    }
    Ok(())
}

fn issue(args: &Issue) -> Result<(), Failure> {
    let role = match (args.client, args.holder) {
        (Some(number), _) => Role::Client(number),
        (None, Some(number)) => Role::Holder(number),
        (None, None) => Role::Server,
    };
    let authority = open_authority(&args.ca)?;
    let mut key = [0; 32];
    let text = if hex::decode_to_slice(&args.request, &mut key).is_ok() {
        authority.issue(role, &key, &args.names, args.days)?
    } else {
        authority.issue_request(role, &read_text(Path::new(&args.request))?, &args.names, args.days)?
    };
    write_atomic(&args.out, (text.clone() + &authority.pem()).as_bytes()).map_err(KeysError::from)?;
    let peer = Peer::from_pem(&text).map_err(KeysError::from)?;
    told(&args.out, &peer, args.json);
    Ok(())
}

fn told(path: &Path, peer: &Peer, json: bool) {
    if json {
        println!("{}", show::peer(peer));
    } else {
        let (from, to) = (date(peer.not_before), date(peer.not_after));
        println!(
            "{}: {} with the key {}, valid from {from} to {to}",
            path.display(),
            peer.role,
            hex::encode(peer.identity)
        );
    }
}

/// A short text from a file that a user names.
fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failure, format!("cannot read {}: {e}", path.display()));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_REQUEST {
        let message = format!("{} is no file of at most {MAX_REQUEST} bytes", path.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn install(args: &Install) -> Result<(), Failure> {
    let mut keys = PartyKeys::open(&args.dir)?;
    let peer = keys.install_chain(&read_text(&args.file)?)?;
    told(&args.dir, peer, args.json);
    Ok(())
}

fn renew(args: &Renew) -> Result<(), Failure> {
    let authority = open_authority(&args.dir)?;
    let renewal = if args.rotate { Renewal::NewKey } else { Renewal::SameKey };
    let folder = args.dir.join("server");
    let peer = PartyKeys::renew(&folder, &authority, args.days, renewal)?;
    told(&folder, &peer, args.json);
    Ok(())
}

impl From<KeysError> for Failure {
    fn from(e: KeysError) -> Self {
        let exit = match &e {
            KeysError::Io { .. } | KeysError::Write(_) | KeysError::Random(_) | KeysError::Encode { .. } => {
                Exit::Failure
            }
            _ => Exit::Usage,
        };
        Self::new(exit, e)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["keys"], words].concat()).map(|line| line.args)
    }

    fn call(words: &[&str]) -> Result<(), Failure> {
        run(line(words).unwrap())
    }

    #[test]
    fn a_federation_without_a_network() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (study, alice, answer) = (at("study"), at("alice"), at("alice.pem"));
        call(&["init", &study, "--name", "example.org"]).unwrap();
        let again = call(&["init", &study, "--name", "example.org"]).unwrap_err();
        assert_eq!(again.exit, Exit::Usage);
        assert!(again.message.contains("already there"), "{again}");
        call(&["new", &alice]).unwrap();
        call(&["issue", &study, &at("alice/request.pem"), "--client", "17", "--out", &answer]).unwrap();
        call(&["install", &alice, &answer, "--json"]).unwrap();
        let keys = PartyKeys::open(Path::new(&alice)).unwrap();
        assert_eq!(keys.certificate().unwrap().role, Role::Client(17));
        let key = hex::encode(keys.public());
        call(&["issue", &at("study/ca"), &key, "--holder", "3", "--out", &answer]).unwrap();
        call(&["install", &alice, &answer]).unwrap();
        assert_eq!(PartyKeys::open(Path::new(&alice)).unwrap().certificate().unwrap().role, Role::Holder(3));
        let server = || PartyKeys::open(&folder.path().join("study/server")).unwrap();
        let before = server();
        call(&["renew", &study]).unwrap();
        assert_eq!(server().public(), before.public());
        assert_ne!(server().certificate(), before.certificate());
        call(&["renew", &study, "--rotate"]).unwrap();
        assert_ne!(server().public(), before.public());
        for dir in [&study, &alice, &at("study/ca")] {
            call(&["show", dir]).unwrap();
            call(&["show", dir, "--json"]).unwrap();
        }
        assert_eq!(call(&["show", &at("nothing")]).unwrap_err().exit, Exit::Usage);
        assert_eq!(call(&["install", &alice, &at("absent")]).unwrap_err().exit, Exit::Failure);
        let alone = call(&["install", &alice, &at("study/ca/ca.pem")]).unwrap_err();
        assert!(alone.message.contains("1 certificate in PEM text where two are expected"), "{alone}");
    }

    #[test]
    fn a_bad_name_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("study");
        let refused = call(&["init", dir.to_str().unwrap(), "--name", "not a name"]).unwrap_err();
        assert!(refused.message.contains("`not a name` is no DNS name"), "{refused}");
        assert!(!dir.exists());
    }

    #[test]
    fn tokens_are_for_whom_they_were_asked() {
        let args = |words: &[&str]| match line(&[&["token", "x"], words].concat()).unwrap().command {
            Command::Token(args) => args,
            other => panic!("{other:?}"),
        };
        assert_eq!(whom(&args(&[]), 5).unwrap(), TokenRole::Client(None));
        assert_eq!(whom(&args(&["--holders"]), 5).unwrap(), TokenRole::Holder(None));
        assert_eq!(whom(&args(&["--client", "7"]), 5).unwrap(), TokenRole::Client(Some(12)));
        assert_eq!(whom(&args(&["--holder", "7"]), 5).unwrap(), TokenRole::Holder(Some(12)));
        assert!(whom(&args(&["--holder", "65535"]), 1).is_err());
        assert!(whom(&args(&["--client", &u64::MAX.to_string()]), 1).is_err());
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "study", 1).unwrap();
        let dir = || folder.path().to_path_buf();
        let mut out = Vec::new();
        token(&TokenArgs { dir: dir(), ..args(&["--holder", "4", "--count", "3"]) }, &mut out).unwrap();
        token(&TokenArgs { dir: dir(), ..args(&["--json"]) }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        for (number, line) in (4..).zip(&lines[..3]) {
            assert_eq!(authority.verify_token(line, now()).unwrap().role, TokenRole::Holder(Some(number)));
            assert!(authority.verify_token(line, now() + 25 * 3_600).is_err());
        }
        let object: serde_json::Value = serde_json::from_str(lines[3]).unwrap();
        let read = authority.verify_token(object["token"].as_str().unwrap(), now()).unwrap();
        assert_eq!((object["role"].as_str(), object["expires"].as_u64()), (Some("client"), Some(read.expires)));
    }

    #[test]
    fn what_makes_no_sense_is_bad_usage() {
        for words in [
            &["init", "x"][..],
            &["init", "x", "--name", "a", "--days", "0"],
            &["token", "x", "--client", "1", "--holders"],
            &["token", "x", "--count", "0"],
            &["token", "x", "--holder", "65536"],
            &["issue", "x", "y", "--out", "z"],
            &["issue", "x", "y", "--out", "z", "--client", "1", "--server"],
            &["issue", "x", "y", "--out", "z", "--server"],
            &["issue", "x", "y", "--out", "z", "--client", "1", "--name", "a"],
        ] {
            assert!(line(words).is_err(), "{words:?}");
        }
        line(&["issue", "x", "y", "--out", "z", "--server", "--name", "a"]).unwrap();
    }
}
