//! The messages and the service are those of `proto/`, and the bytes of version 1 are what they were.

use std::path::Path;

use prost::Message;
use veilsum::net::wire::v1;

/// `src/net/wire/v1.rs` again. `VEILSUM_BLESS=1` writes it.
#[test]
fn the_generated_code_is_that_of_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = protox::compile(["veilsum/v1/federation.proto"], [root.join("proto")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    let builder = tonic_prost_build::configure().out_dir(folder.path()).build_transport(false);
    builder.compile_fds_with_config(set, config).unwrap();
    let made = std::fs::read_to_string(folder.path().join("veilsum.v1.rs")).unwrap();
    let path = root.join("src/net/wire/v1.rs");
    if std::env::var_os("VEILSUM_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == made, "{} is not what proto/ makes: run with VEILSUM_BLESS=1", path.display());
}

fn plan() -> v1::SignedPlan {
    v1::SignedPlan { body: b"{}".to_vec().into(), signature: vec![7; 2].into() }
}

/// Every message with every field, and its bytes as version 1 has them.
fn recorded() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let object = v1::Object { id: vec![1, 2].into(), len: 300 };
    let event = |event| v1::Event { event: Some(event) }.encode_to_vec();
    vec![
        (
            "enrol",
            v1::EnrolRequest {
                version: 1,
                token: "t".into(),
                identity: vec![1].into(),
                channel: vec![2].into(),
                name: "n".into(),
                proof: vec![3].into(),
            }
            .encode_to_vec(),
            "0801120174 1a0101 220102 2a016e 320103",
        ),
        (
            "enrolled",
            v1::EnrolResponse { certificate: "c".into(), authority: "a".into(), role: "client:1".into() }
                .encode_to_vec(),
            "0a0163 120161 1a08636c69656e743a31",
        ),
        (
            "hello",
            v1::HelloRequest { version: 1, software: "s".into(), name: "n".into(), channel: vec![9].into() }
                .encode_to_vec(),
            "0801 120173 1a016e 220109",
        ),
        (
            "about",
            v1::HelloResponse {
                version: 1,
                software: "s".into(),
                session: vec![1].into(),
                config: "{}".into(),
                plan_digest: vec![2].into(),
                deal: vec![3].into(),
                round: 4,
                rounds: 5,
            }
            .encode_to_vec(),
            "0801 120173 1a0101 22027b7d 2a0102 320103 3804 4005",
        ),
        ("listen", v1::ListenRequest { round: 1, attempt: 2, next: 3 }.encode_to_vec(), "0801 1002 1803"),
        ("plan", event(v1::event::Event::Plan(plan())), "0a080a027b7d12020707"),
        (
            "message",
            event(v1::event::Event::Message(v1::ServerMessage {
                round: 1,
                attempt: 2,
                index: 3,
                frame: vec![4].into(),
            })),
            "12090801 1002 1803 220104",
        ),
        (
            "end",
            event(v1::event::Event::End(v1::RoundEnd { round: 1, attempt: 2, released: true })),
            "1a06080110021801",
        ),
        (
            "finished",
            event(v1::event::Event::Finished(v1::Finished { rounds: 9, reason: "r".into() })),
            "22050809120172",
        ),
        (
            "submit",
            v1::SubmitRequest {
                round: 1,
                attempt: 2,
                payload: Some(v1::submit_request::Payload::Frame(vec![3].into())),
            }
            .encode_to_vec(),
            "0801 1002 1a0103",
        ),
        (
            "submit an object",
            v1::SubmitRequest {
                round: 1,
                attempt: 2,
                payload: Some(v1::submit_request::Payload::Object(object.clone())),
            }
            .encode_to_vec(),
            "0801 1002 22070a02010210ac02",
        ),
        ("receipt", v1::Receipt { status: 5, reason: "r".into() }.encode_to_vec(), "0805 120172"),
        ("state", v1::UploadState { offset: 300, complete: true }.encode_to_vec(), "08ac02 1001"),
        (
            "chunk",
            v1::UploadChunk { object: Some(object), offset: 1, bytes: vec![9].into() }.encode_to_vec(),
            "0a070a02010210ac02 1001 1a0109",
        ),
        ("download", v1::DownloadRequest { id: vec![1].into(), offset: 2 }.encode_to_vec(), "0a0101 1002"),
        ("downloaded", v1::DownloadChunk { bytes: vec![1].into() }.encode_to_vec(), "0a0101"),
    ]
}

#[test]
fn the_bytes_of_version_1_stay() {
    for (name, bytes, expected) in recorded() {
        assert_eq!(hex::encode(bytes), expected.replace(' ', ""), "{name}");
    }
    // What a newer party says besides (field 100) is left out.
    let newer = hex::decode("0801120172a2060178").unwrap();
    let receipt = v1::Receipt::decode(&newer[..]).unwrap();
    assert_eq!((receipt.status, receipt.reason.as_str()), (1, "r"));
}
