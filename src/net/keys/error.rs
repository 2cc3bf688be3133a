//! What can be wrong with keys, certificates and their files.

use std::path::PathBuf;

use super::certificate::date;
use super::role::{Role, RoleError};
use crate::files::FileError;
use crate::math::prg::PrgError;

/// What is wrong with a certificate, a request or a public key, wherever it came from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Nothing was presented.
    #[error("no certificate was presented")]
    Absent,
    /// No PEM section of the kind.
    #[error("no section `{expected}` in PEM text; it would begin with -----BEGIN {expected}-----")]
    Pem {
        /// The label.
        expected: &'static str,
    },
    /// More sections than are read.
    #[error("{found} sections in PEM text, at most {most} are expected")]
    Sections {
        /// How many there are.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// A certificate without its authority's.
    #[error("{found} certificate in PEM text where two are expected: the party's, then its authority's")]
    Chain {
        /// How many there are.
        found: usize,
    },
    /// More bytes than a certificate has.
    #[error("{found} bytes; at most {most} are read")]
    Size {
        /// How many there are.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// Bytes that are no certificate or request.
    #[error("these bytes are no {expected} in DER")]
    Der {
        /// What was expected.
        expected: &'static str,
    },
    /// Something around the signed part that is not as DER and Ed25519 have it.
    #[error("the certificate is not signed with Ed25519, or not encoded in the one way of DER")]
    Form,
    /// A key of another kind.
    #[error("the key is of the kind {found} and only Ed25519 (1.3.101.112) is accepted")]
    KeyType {
        /// Its object identifier, and a name where it has one.
        found: String,
    },
    /// Bytes that are no point, or one that anybody can sign for.
    #[error("the public key {key} is no Ed25519 key, or one of small order")]
    BadKey {
        /// The bytes in hex.
        key: String,
    },
    /// No URI that says a role.
    #[error("no role: among the alternative names is no URI `veilsum:ROLE`")]
    NoRole,
    /// More than one role.
    #[error("{0} roles; a certificate has one")]
    Roles(usize),
    /// A URI that begins as a role and is none.
    #[error(transparent)]
    BadRole(#[from] RoleError),
    /// The role is good, and not the one that is needed here.
    #[error("the role is {found} and has to be {expected}")]
    WrongRole {
        /// Whose certificate it is.
        found: Role,
        /// What would be right.
        expected: String,
    },
    /// A certificate that may not issue others.
    #[error("this is no authority's certificate: it may not sign certificates")]
    NoAuthority,
    /// An authority whose name is not one common name.
    #[error("the authority's subject is not one common name; use an authority of `veilsum keys init`")]
    Subject,
    /// Issued by somebody else.
    #[error("not issued by the authority with the fingerprint {authority}")]
    OtherAuthority {
        /// SHA-256 of the authority's certificate, in hex.
        authority: String,
    },
    /// A signature that does not hold.
    #[error("the signature of the {0} does not hold")]
    Signature(&'static str),
    /// Too early.
    #[error("not valid before {}; the clock here says {}", date(*.not_before), date(*.now))]
    NotYet {
        /// When it begins, in seconds since 1970.
        not_before: u64,
        /// The present.
        now: u64,
    },
    /// Too late.
    #[error("expired at {}; the clock here says {}", date(*.not_after), date(*.now))]
    Expired {
        /// When it ended, in seconds since 1970.
        not_after: u64,
        /// The present.
        now: u64,
    },
    /// Made for another key.
    #[error("made for the key {found}, and the key here is {expected}")]
    OtherKey {
        /// The key in the certificate, in hex.
        found: String,
        /// The key that it should have.
        expected: String,
    },
}

/// What can go wrong with the folder of a party or of an authority.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] PrgError),
    /// Something that would be overwritten.
    #[error("{} is already there and is not overwritten; use another folder, or remove what is in this one", .0.display())]
    Exists(PathBuf),
    /// A file that has to be there.
    #[error("{} is not there: {remedy}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Where it would come from.
        remedy: &'static str,
    },
    /// A folder, a pipe or a device.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A secret that others can read.
    #[error(
        "{} holds a secret and others than its owner may use it (mode {mode:03o}); it has to be 600: chmod 600 {}",
        path.display(), path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that is longer than any of its kind.
    #[error("{} is longer than {most} bytes, which no such file is", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        most: u64,
    },
    /// A secret file that does not hold what it should. Its content is not shown.
    #[error("{} does not hold {expected}", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What would be right.
        expected: &'static str,
    },
    /// A certificate or a request in a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// A certificate, request or key that is in no file here.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A validity that no certificate can have.
    #[error("{days} days; a certificate is valid for 1 to {most} days")]
    Days {
        /// What was asked for.
        days: u32,
        /// The limit.
        most: u32,
    },
    /// A validity that ends before it begins, or after the last year that a certificate can name.
    #[error("a validity from {not_before} to {not_after} (seconds since 1970); it has to end after its beginning")]
    Validity {
        /// First second.
        not_before: u64,
        /// Last second.
        not_after: u64,
    },
    /// A name that no server has.
    #[error("`{0}` is no DNS name and no IP address")]
    Name(String),
    /// Names for a party that nobody connects to.
    #[error("{0} is not a server, and only a server's certificate has names")]
    NamesOf(Role),
    /// A server that nobody could connect to.
    #[error("a server's certificate needs a name or an address that clients connect to")]
    NoNames,
    /// A name of an authority that is empty or too long.
    #[error("an authority's name has 1 to {most} bytes without control characters, this one {found}")]
    AuthorityName {
        /// Bytes of the name.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// The library that writes certificates refused.
    #[error("cannot write the {what}: {source}")]
    Encode {
        /// What was to be written.
        what: &'static str,
        /// Its reason.
        source: rcgen::Error,
    },
}

impl KeysError {
    /// For `map_err` on what is wrong with the certificate in a file.
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(CertificateError) -> Self {
        move |source| Self::File { path: path.to_path_buf(), source }
    }

    /// For `map_err` on an I/O result.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
