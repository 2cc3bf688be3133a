//! Text as token ids: plays, plain text, tables.

use std::collections::BTreeSet;
use std::path::Path;

use veilsum::data::partition::{PartitionConfig, partition};
use veilsum::data::text::{Tokenizer, play};
use veilsum::data::{CellProblem, DataConfig, DataError, Dataset, Features, Split, TextConfig, TextProblem};
use veilsum::math::prg::{Cipher, StreamKey};

use super::{load_json, shared, write};

const PLAY: &str = "ANNA:\nabc\ndef\n\nBERT:\nxyz\n\n\nANNA:\nghi\n\nCARL:\n\nBERT:\nuvw\n";
const REST: &str = "ANNA:\nabcdefgh\n";

fn ids(data: &Dataset) -> Vec<Vec<u32>> {
    let Features::Floats(features) = &data.features else { panic!("bytes") };
    features.chunks_exact(data.dim).map(|row| row.iter().map(|&x| x as u32).collect()).collect()
}

fn tokenizer(rest: &str) -> Tokenizer {
    let config: TextConfig = serde_json::from_str(&format!(r#"{{"length":1{rest}}}"#)).unwrap();
    Tokenizer::open(&config, Path::new("")).unwrap()
}

/// Windows as text, `_` for padding, with `>` before the label.
fn windows(data: &Dataset, tokenizer: &Tokenizer) -> Vec<String> {
    let text = |id: u32| if id == tokenizer.padding() { "_".to_owned() } else { tokenizer.decode(&[id]) };
    let row =
        |(row, &label): (Vec<u32>, &u32)| format!("{}>{}", row.into_iter().map(text).collect::<String>(), text(label));
    ids(data).into_iter().zip(&data.labels).map(row).collect()
}

fn play(dir: &Path, text: &str, rest: &str) -> Result<Split, DataError> {
    write(dir, "p.txt", text);
    write(dir, "q.txt", REST);
    load_json(&format!(r#"{{"text":{{"train":"p.txt","test":"q.txt","format":"play",{rest}}}}}"#), dir)
}

fn problem(e: DataError) -> TextProblem {
    match e {
        DataError::Text { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn speeches_of_a_speaker_are_joined_and_cut_into_windows() {
    let dir = tempfile::tempdir().unwrap();
    let t = tokenizer("");
    assert_eq!((t.symbols(), t.vocabulary(), t.padding()), (96, 97, 96));
    assert_eq!(t.encode("\n ~").unwrap(), [0, 1, 95]);
    let Split { train, test } = play(dir.path(), PLAY, r#""length":4"#).unwrap();
    assert_eq!(windows(&train, &t), ["abc\n>d", "def\n>\n", "xyz\n>\n"]);
    assert_eq!(windows(&test, &t), ["abcd>e"]);
    assert_eq!((train.dim, train.classes, train.natural_ids), (4, 96, Some(vec![0, 0, 1])));
    assert_eq!((train.name.as_str(), train.class_names, test.natural_ids), ("text", None, None));
    // Loss-free with padding: every token but a speaker's first is behind another one exactly once.
    let split = play(dir.path(), PLAY, r#""length":4,"rest":"pad""#).unwrap();
    assert_eq!(windows(&split.train, &t), ["abc\n>d", "def\n>\n", "\nghi>_", "xyz\n>\n", "\nuvw>_"]);
    assert_eq!((split.train.classes, split.train.natural_ids), (97, Some(vec![0, 0, 0, 1, 1])));
    // Training windows overlap if they are asked to; those of the test set never do.
    let split = play(dir.path(), PLAY, r#""length":4,"stride":3"#).unwrap();
    assert_eq!(windows(&split.train, &t), ["abc\n>d", "\ndef>\n", "f\n\ng>h", "xyz\n>\n", "\n\nuv>w"]);
    assert_eq!(windows(&split.test, &t), ["abcd>e"]);
}

#[test]
fn files_of_an_author_paragraphs_and_gzip_are_plain() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.txt", "\u{feff}one\r\ntwo\r\n\r\n\r\nthree");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, b"four\n\nfive\n").unwrap();
    write(dir.path(), "b.gz", gz.finish().unwrap());
    let json = r#"{"text":{"train":["a.txt","b.gz"],"test":["b.gz","a.txt"],"format":"plain","length":5}}"#;
    let Split { train, test } = load_json(json, dir.path()).unwrap();
    assert_eq!(windows(&train, &tokenizer("")), ["one\nt>w", "wo\n\nt>h", "four\n>\n"]);
    assert_eq!((train.natural_ids, test.len()), (Some(vec![0, 0, 1]), 3));
}

#[test]
fn alphabets_and_characters_outside_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let text = "ANNA:\nabcé\n\n\nBERT:\n\nANNA:\nab\nc\u{2014}d\n";
    let load = |rest: &str| play(dir.path(), text, &format!(r#""length":2{rest}"#));
    let e = load("").unwrap_err();
    let text_of_error = e.to_string();
    assert_eq!(problem(e), TextProblem::Character { line: 2, column: 4, found: 'é' });
    for part in ["p.txt: line 2, column 4: 'é' (U+00E9)", "`alphabet`", "\"unknown\": \"drop\""] {
        assert!(text_of_error.contains(part), "no {part} in {text_of_error}");
    }
    let e = load(r#","alphabet":"\nabcdefghé""#).unwrap_err();
    assert_eq!(problem(e), TextProblem::Character { line: 9, column: 2, found: '\u{2014}' });
    let split = load(r#","alphabet":"\nabcdefghé","unknown":"drop""#).unwrap();
    assert_eq!((ids(&split.train)[0].as_slice(), split.train.classes), (&[1, 2][..], 10));
    let e = load(r#","unknown":"drop","alphabet":"aba""#).unwrap_err().to_string();
    assert!(e.contains("`text.alphabet`") && e.contains("'a' twice"), "{e}");
    let e = load(r#","alphabet":"a""#).unwrap_err().to_string();
    assert!(e.contains("at least two characters"), "{e}");
}

#[test]
fn speakers_are_classes() {
    let dir = tempfile::tempdir().unwrap();
    let text = "ANNA:\nabc\n\nBERT:\nxyzuvw\n\nDORA:\nno\n\nANNA:\n\nBERT:\nu\n\nCARL:\n";
    write(dir.path(), "p.txt", text);
    let load = |classes: &str| {
        let json = r#"{"text":{"train":"p.txt","test":"p.txt","format":"play","length":4,"task":"class","classes":"#;
        load_json(&format!("{json}{classes}}}}}"), dir.path())
    };
    let Split { train, test } = load(r#"["BERT","ANNA"]"#).unwrap();
    assert_eq!(train.labels, [1, 0, 0]);
    let rows: Vec<String> = windows(&train, &tokenizer("")).iter().map(|w| w[..4].to_owned()).collect();
    assert_eq!(rows, ["abc_", "xyzu", "u___"]);
    assert_eq!((train.classes, train.natural_ids), (2, Some(vec![0, 1, 1])));
    assert_eq!((train.class_names, test.len()), (Some(vec!["BERT".to_owned(), "ANNA".to_owned()]), 3));
    let e = load(r#"["ANNA","BRET"]"#).unwrap_err();
    assert!(e.to_string().contains("did you mean `BERT`?") && e.to_string().contains("4 speakers"), "{e}");
    let e = load(r#"["ANNA","BERT","ANNA"]"#).unwrap_err().to_string();
    assert!(e.contains("`ANNA` twice"), "{e}");
    assert!(load(r#"["ANNA"]"#).unwrap_err().to_string().contains("at least two"));
}

#[test]
fn tables_are_classified_by_word_pieces() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nbad\n##ly\n,\n");
    write(dir.path(), "t.csv", "user,review,stars\nu,\"Good, badly\",pos\nv,bad,neg\nu,GOOD day good good,pos\n");
    let load = |rest: &str| {
        let csv = r#""format":{"csv":{"text":"review","label":"stars","group":"user"}}"#;
        let json = format!(
            r#"{{"text":{{"train":"t.csv","test":"t.csv",{csv},"tokens":{{"word-piece":"vocab.txt"}},"length":5,"task":"class"{rest}}}}}"#
        );
        load_json(&json, dir.path())
    };
    let split = load("").unwrap();
    assert_eq!(ids(&split.train), [[2, 4, 7, 5, 3], [2, 5, 3, 0, 0], [2, 4, 1, 4, 3]]);
    assert_eq!((split.train.labels.as_slice(), split.train.natural_ids), (&[1, 0, 1][..], Some(vec![0, 1, 0])));
    assert_eq!(split.train.class_names.unwrap(), ["neg", "pos"]);
    let split = load(r#","classes":["pos","neg","mixed"]"#).unwrap();
    assert_eq!((split.train.labels.as_slice(), split.train.classes), (&[0, 1, 0][..], 3));
    let e = load(r#","classes":["pos","mixed"]"#).unwrap_err();
    let DataError::Cell { line: 3, column, problem: CellProblem::NotListed { found, .. }, .. } = &e else {
        panic!("{e}")
    };
    assert_eq!((column.as_str(), found.as_str()), ("stars", "neg"));
    write(dir.path(), "vocab.txt", "[PAD]\n[CLS]\n[SEP]\ngood\n");
    assert_eq!(problem(load("").unwrap_err()), TextProblem::NoToken { token: "[UNK]" });
}

#[test]
fn cells_of_text_have_places_too() {
    let dir = tempfile::tempdir().unwrap();
    let load = |table: &str, rest: &str| {
        write(dir.path(), "t.csv", table);
        let json = format!(r#"{{"text":{{"train":"t.csv","test":"t.csv","length":2,"format":{{"csv":{{{rest}}}}}"#);
        (load_json(&format!("{json}}}}}"), dir.path()), load_json(&format!(r#"{json},"task":"class"}}}}"#), dir.path()))
    };
    let (next, class) = load("abcd,0\n\nef,1\n", r#""text":0,"label":1"#);
    let next = next.unwrap();
    assert_eq!(windows(&next.train, &tokenizer("")), ["ab>c", "cd>\n", "\n\n>e"]);
    assert_eq!((next.train.natural_ids, class.unwrap().train.labels), (None, vec![0, 1]));
    let cell = |e: Result<Split, DataError>| match e.unwrap_err() {
        DataError::Cell { line, column, problem, .. } => (line, column, problem),
        other => panic!("{other}"),
    };
    let text = || "t".to_owned();
    let (next, class) = load("t,y\nabc,0\n\n\"a\nß\",1\n", r#""text":"t","label":"y""#);
    assert_eq!(cell(next), (4, text(), CellProblem::Character { found: 'ß' }));
    assert_eq!(cell(class), (4, text(), CellProblem::Character { found: 'ß' }));
    let (_, class) = load("t,y\nabc,0\n,1\n", r#""text":"t","label":"y""#);
    assert_eq!(cell(class), (3, text(), CellProblem::NoText));
    let (_, class) = load("t,y\nabc,0\nd,\n", r#""text":"t","label":"y""#);
    assert!(matches!(cell(class), (3, _, CellProblem::MissingLabel { .. })));
    let (next, _) = load("t,y\nabc,0\n", r#""text":"z""#);
    assert!(next.unwrap_err().to_string().contains("no column `z`"));
    let (_, class) = load("t,y\nabc,0\n", r#""text":"t""#);
    assert!(class.unwrap_err().to_string().contains("`text.format.csv.label` is absent"));
    let (next, _) = load("t,y\n", r#""text":"t""#);
    assert!(matches!(next.unwrap_err(), DataError::Empty { what: "samples", .. }));
    let (next, _) = load("abc,0\n", r#""text":0,"delimiter":"é""#);
    assert!(next.unwrap_err().to_string().contains("`text.format.csv.delimiter`"));
}

#[test]
fn bad_texts_say_what_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let of = |text: &str| play(dir.path(), text, r#""length":2"#).unwrap_err();
    assert!(matches!(of(""), DataError::Empty { what: "speeches", .. }));
    assert!(matches!(of("\n \n"), DataError::Empty { .. }));
    let e = of("ANNA:\nabc\n\nNo name here\nand so on\n");
    assert!(e.to_string().contains("as `ROMEO:`"), "{e}");
    assert_eq!(problem(e), TextProblem::NoSpeaker { line: 4, found: "No name here".to_owned() });
    assert_eq!(problem(of(":\nabc\n")), TextProblem::NoSpeaker { line: 1, found: ":".to_owned() });
    let e = of("ANNA:\n");
    assert_eq!(problem(e), TextProblem::TooShort { part: "training", length: 2, longest: 0 });
    let e = play(dir.path(), PLAY, r#""length":30"#).unwrap_err();
    assert!(e.to_string().contains("the 31 tokens that one window"), "{e}");
    assert_eq!(problem(e), TextProblem::TooShort { part: "training", length: 30, longest: 12 });
    let e = play(dir.path(), PLAY, r#""length":10"#).unwrap_err();
    assert_eq!(problem(e), TextProblem::TooShort { part: "test", length: 10, longest: 8 });
    let e = play(dir.path(), PLAY, r#""length":1099511627776,"rest":"pad""#).unwrap_err();
    assert!(matches!(problem(e), TextProblem::TooManySamples { samples: 2, .. }));
    write(dir.path(), "bad.txt", b"ANNA:\nab\xff\n");
    let json = r#"{"text":{"train":"bad.txt","test":"bad.txt","format":"plain","length":2}}"#;
    assert_eq!(problem(load_json(json, dir.path()).unwrap_err()), TextProblem::NotUtf8 { byte: 8 });
    write(dir.path(), "bad.txt", "\n\n");
    assert!(matches!(load_json(json, dir.path()).unwrap_err(), DataError::Empty { what: "text", .. }));
    write(dir.path(), "bad.txt", "one paragraph\nalone");
    let json = r#"{"text":{"train":"bad.txt","test_fraction":0.5,"format":"plain","length":2}}"#;
    let e = load_json(json, dir.path()).unwrap_err().to_string();
    assert!(e.contains("second passage") && e.contains("give `test`"), "{e}");
    let json = r#"{"text":{"train":"none.txt","test_fraction":0.5,"format":"plain","length":2}}"#;
    assert!(load_json(json, dir.path()).unwrap_err().to_string().contains("none.txt"));
}

#[test]
fn members_that_do_not_go_together_are_refused_before_a_file_is_read() {
    for (members, part) in [
        (r#""length":4"#, "`text.train` is absent"),
        (r#""name":"tiny-shakespeare","train":"a","test":"b","length":4"#, "`text.train` is given beside `name`"),
        (r#""name":"tiny-shakspeare","test_fraction":0.1,"length":4"#, "did you mean `tiny-shakespeare`"),
        (r#""name":"mnist","test_fraction":0.1,"length":4"#, "the data sets are tiny-shakespeare"),
        (r#""train":[],"test":"b","format":"play","length":4"#, "`text.train` is []"),
        (r#""train":"a","test":[],"format":"play","length":4"#, "`text.test` is []"),
        (r#""train":"a","format":"play","length":4"#, "`test_fraction` is absent"),
        (r#""train":"a","test":"b","length":4"#, "`text.format` is absent"),
        (r#""train":"a","test":"b","format":"play","length":0"#, "`text.length` is 0, but must be at least 1"),
        (r#""train":"a","test":"b","format":"play","length":4,"stride":0"#, "`text.stride` is 0"),
        (r#""train":"a","test":"b","format":"play","length":4,"stride":5"#, "in 1..=`length`"),
        (r#""train":"a","test":"b","format":"play","length":4,"classes":["a","b"]"#, "`text.classes` is given"),
        (r#""train":"a","test":"b","format":"play","length":4,"task":"class""#, "`text.classes` is absent"),
        (r#""train":"a","test":"b","format":"plain","length":4,"task":"class""#, "`text.task` is class"),
        (
            r#""train":"a","test":"b","format":"play","length":2,"task":"class","classes":["a","b"],"tokens":{"word-piece":"v"}"#,
            "at least 3",
        ),
        (
            r#""train":"a","test":"b","format":"play","length":2,"tokens":{"word-piece":"v"},"alphabet":"ab""#,
            "absent beside `word-piece`",
        ),
        (
            r#""train":"a","test":"b","format":"play","length":2,"task":"class","classes":["a","b"],"rest":"pad""#,
            "`text.rest` is given",
        ),
    ] {
        let e = load_json(&format!(r#"{{"text":{{{members}}}}}"#), Path::new("/nowhere")).unwrap_err().to_string();
        assert!(e.contains(part), "{members}: {e}");
    }
}

#[test]
fn paths_start_at_the_base() {
    let json = r#"{"text":{"train":["a","b"],"test":"c","format":"play","length":4,"tokens":{"word-piece":"v"}}}"#;
    let config: DataConfig = serde_json::from_str(json).unwrap();
    let moved = serde_json::to_string(&config.rebased(Path::new("x"))).unwrap();
    for part in [r#"["x/a","x/b"]"#, r#""x/c""#, r#""x/v""#] {
        assert!(moved.contains(part), "{moved}");
    }
}

/// Each of 300 speeches says its own number in its own characters, so that a leak would show.
#[test]
fn no_passage_is_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let speech = |i: u32| format!("S{}:\n{}\n\n", i % 7, char::from_u32(0x4e00 + i).unwrap().to_string().repeat(9));
    write(dir.path(), "p.txt", (0..300).map(speech).collect::<String>());
    let alphabet: String = ['\n'].into_iter().chain((0..300).map(|i| char::from_u32(0x4e00 + i).unwrap())).collect();
    for stride in [4, 1] {
        let json = format!(
            r#"{{"text":{{"train":"p.txt","test_fraction":0.2,"format":"play","alphabet":{alphabet:?},"length":4,"stride":{stride},"rest":"pad"}}}}"#
        );
        let Split { train, test } = load_json(&json, dir.path()).unwrap();
        let said = |data: &Dataset| -> BTreeSet<u32> {
            let all = ids(data).concat();
            all.into_iter().chain(data.labels.iter().copied()).filter(|id| (1..301).contains(id)).collect()
        };
        let (train_said, test_said) = (said(&train), said(&test));
        assert_eq!((train_said.len(), test_said.len()), (240, 60));
        assert!(train_said.is_disjoint(&test_said));
        // Seven speakers on both sides, under the same numbers.
        let speakers = |data: &Dataset| data.natural_ids.iter().flatten().copied().collect::<BTreeSet<_>>();
        assert_eq!((speakers(&train), speakers(&test)), ((0..7).collect(), (0..7).collect()));
    }
}

#[test]
fn content_is_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let hash = |rest: &str| play(dir.path(), PLAY, rest).unwrap().train.content_sha256();
    assert_eq!(hash(r#""length":4"#), "747a7e0c194938300f0d8de67b7d55b643914c45186bf3e7aa19fcb4e198d9cd");
    assert_ne!(hash(r#""length":4"#), hash(r#""length":4,"rest":"pad""#));
}

#[test]
fn tiny_shakespeare_by_speaker() {
    let Some(path) = shared("tinyshakespeare/tinyshakespeare.txt") else { return };
    let text = std::fs::read_to_string(&path).unwrap();
    let speeches = play::parse(&text).unwrap();
    let speakers: BTreeSet<&str> = speeches.iter().map(|s| s.speaker.as_str()).collect();
    let silent = speakers.iter().filter(|name| speeches.iter().all(|s| s.speaker != ***name || s.text.is_empty()));
    assert_eq!((text.len(), speeches.len(), speakers.len(), silent.count()), (1_115_394, 7_222, 309, 10));
    let load = |members: &str| {
        let json = format!(r#"{{"text":{{"train":{path:?},"format":"play","length":64,{members}}}}}"#);
        load_json(&json, Path::new("")).unwrap()
    };
    let key = StreamKey::from_bytes([1; 32], Cipher::ChaCha20);
    let clients = |data: &Dataset| partition(data, &PartitionConfig::Natural {}, &key).unwrap().len();
    let test = format!(r#""test":{path:?}"#);
    // Sums over speakers of floor((L - 1) / 64) and of ceil((L - 1) / 64) for speeches of L characters, joined.
    let whole = load(&test).train;
    assert_eq!((whole.len(), clients(&whole), whole.classes), (16_010, 261, 96));
    let whole = load(&format!(r#"{test},"rest":"pad""#)).train;
    assert_eq!((whole.len(), clients(&whole), whole.classes), (16_307, 299, 97));
    // Back to text: with padding all that the first speaker says, window by window.
    let own: Vec<usize> = (0..whole.len()).filter(|&i| whole.natural_ids.as_ref().unwrap()[i] == 0).collect();
    let said = tokenizer("").decode(&ids(&whole.select(&own)).concat());
    let spoken: Vec<&str> = speeches.iter().filter(|s| s.speaker == "First Citizen").map(|s| s.text.as_str()).collect();
    assert_eq!(said, spoken.join("\n\n"));
    // A tenth of the speeches to test on.
    let split = load(r#""test_fraction":0.1"#);
    assert_eq!((split.train.len(), split.test.len(), clients(&split.train)), (14_356, 1_569, 249));
    let hash = "4b888d2761b7b4cb91c4d32bd864cd41b86fc812ec088435a06cc199eea9ca34";
    assert_eq!(split.train.content_sha256(), hash);
    let classes = r#""task":"class","classes":["ROMEO","JULIET"]"#;
    let split = load(&format!(r#""test_fraction":0.1,{classes}"#));
    // Three speeches of Romeo and one of Juliet are empty.
    assert_eq!((split.train.len() + split.test.len(), split.train.classes), (160 + 124, 2));
}
