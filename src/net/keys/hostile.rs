//! Bytes from strangers: whatever they are, the answer is an error or a good value, never a panic.

use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamReader};
use crate::net::keys::{
    Authority, AuthorityCertificate, Pair, PartyKeys, Peer, Role, Token, TokenRole, Validity, pem, request_key,
};

/// One to four changes: a flip, another byte, a byte less or more, a part twice, the end cut off.
pub(crate) fn mutate(bytes: &[u8], random: &mut StreamReader) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        if out.is_empty() {
            return out;
        }
        let at = usize::try_from(random.below(out.len() as u64)).unwrap();
        let byte = random.next_u64().to_le_bytes()[0];
        match random.below(6) {
            0 => out[at] ^= 1 << (byte % 8),
            1 => out[at] = byte,
            2 => drop(out.remove(at)),
            3 => out.insert(at, byte),
            4 => out.truncate(at),
            _ => {
                let part: Vec<u8> = out[at..].iter().take(8 + usize::from(byte % 32)).copied().collect();
                out.splice(at..at, part);
            }
        }
    }
    out
}

/// Numbers of a test.
pub(crate) fn random(seed: u64) -> StreamReader {
    Secret::from_seed(seed).derive(&[0; 16], Address::default(), Purpose::Draws, Cipher::ChaCha8).reader(0)
}

#[test]
fn changed_certificates_are_refused_or_say_what_they_said() {
    let authority = Authority::in_memory("study", Validity::days(10).unwrap()).unwrap();
    let pair = Pair::fresh().unwrap();
    let names = ["example.org".to_owned(), "::1".to_owned()];
    let text = authority.issue(Role::Server, pair.public(), &names, 5).unwrap();
    let der = pem::first(&text).unwrap();
    let mut random = random(1);
    let mut read = 0;
    for _ in 0..20_000 {
        let bad = mutate(&der, &mut random);
        if bad == der.as_ref() {
            continue;
        }
        read += u32::from(Peer::from_der(&bad).is_ok());
        let _ = super::certificate::names(&bad);
        // Nothing that was changed has a good signature.
        assert!(authority.certificate().check(&bad).is_err());
        let bad = mutate(authority.certificate().der(), &mut random);
        assert!(bad == authority.certificate().der() || AuthorityCertificate::from_der(&bad).is_err());
    }
    // The mutations reach what lies behind the parser.
    assert!(read > 100, "{read}");
}

#[test]
fn changed_texts_are_refused_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::in_memory("study", Validity::days(10).unwrap()).unwrap();
    let keys = PartyKeys::create(folder.path()).unwrap();
    let request = keys.request().unwrap();
    let certificate = authority.issue(Role::Client(1), &keys.public(), &[], 5).unwrap();
    let token = authority.token(TokenRole::Client(None), 5_000).unwrap();
    let key = Pair::fresh().unwrap().to_pem();
    let mut random = random(2);
    for _ in 0..5_000 {
        let mut bad = |text: &str| String::from_utf8_lossy(&mutate(text.as_bytes(), &mut random)).into_owned();
        if let Ok(read) = request_key(&bad(&request)) {
            assert_eq!(read, keys.public());
        }
        if let Ok(read) = pem::first(&bad(&certificate)).map(|der| authority.certificate().check(&der)) {
            assert!(read.is_err() || read.unwrap().identity == keys.public());
        }
        let changed = bad(&token);
        assert!(changed == *token || authority.verify_token(&changed, 1_000).is_err());
        let _ = Token::peek(&changed);
        let _ = Pair::from_pem(bad(&key).as_bytes());
        let _ = bad("client:17").parse::<Role>();
    }
    let mut noise = vec![0; 2_000];
    for length in 0..2_000 {
        random.next_u64().to_le_bytes().iter().zip(&mut noise[length..]).for_each(|(&r, n)| *n = r);
        let _ = (Peer::from_der(&noise[..length]), AuthorityCertificate::from_der(&noise[..length]));
    }
}
