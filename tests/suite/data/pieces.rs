//! Word pieces against those of Hugging Face's `tokenizers` (`scripts/word_piece_vectors.py`).

use serde::Deserialize;
use veilsum::data::TextProblem;
use veilsum::data::text::WordPiece;

#[derive(Deserialize)]
struct Vectors {
    vocabulary: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    tokens: Vec<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../vectors/word_piece.json")).unwrap()
}

#[test]
fn word_pieces_are_those_of_the_reference() {
    let Vectors { vocabulary, cases } = vectors();
    let pieces = WordPiece::parse(&vocabulary.join("\n")).unwrap();
    assert_eq!(pieces.vocabulary(), vocabulary.len());
    assert!(cases.len() > 25 && cases.iter().any(|c| c.tokens.iter().any(|t| t == "[UNK]")));
    for Case { text, ids, tokens } in cases {
        let found = pieces.encode(&text);
        let names: Vec<&str> = found.iter().map(|&id| vocabulary[id as usize].as_str()).collect();
        assert_eq!(names, tokens, "{text:?}");
        assert_eq!(found, ids, "{text:?}");
    }
}

#[test]
fn pieces_become_words_again() {
    let pieces = WordPiece::parse(&vectors().vocabulary.join("\n")).unwrap();
    let ids = pieces.encode("Tokenization of CAFÉ,  hyperparameterization");
    assert_eq!(pieces.decode(&ids), "tokenization of cafe , hyperparameterization");
    assert_eq!(pieces.decode(&[pieces.begin(), pieces.end(), u32::MAX]), "[CLS] [SEP]");
}

#[test]
fn vocabularies_that_cannot_cut_are_refused() {
    let parse = |text: &str| WordPiece::parse(text).unwrap_err();
    for token in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] {
        let text = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"].into_iter().filter(|t| *t != token).collect::<Vec<_>>();
        assert_eq!(parse(&text.join("\n")), TextProblem::NoToken { token });
    }
    let all = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n";
    assert_eq!(
        parse(&format!("{all}a\nb\na\n")),
        TextProblem::DuplicateToken { line: 7, first: 5, token: "a".to_owned() }
    );
    assert_eq!(parse(&format!("{all}\nb\n")), TextProblem::EmptyToken { line: 5 });
    assert_eq!(parse(""), TextProblem::NoToken { token: "[PAD]" });
    // A vocabulary of special tokens alone knows nothing.
    let pieces = WordPiece::parse(all).unwrap();
    assert_eq!(pieces.encode("a b"), [pieces.unknown(); 2]);
}
