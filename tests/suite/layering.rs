//! The rules of the house that a compiler does not check: arrows between rooms point down, every room is
//! known, `unsafe` has one place, no `mod.rs`, nothing left for later.

use std::fmt;
use std::path::{Path, PathBuf};

/// Rooms, and what each may use beside itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("math", &[]),
    ("files", &[]),
    ("params", &["math"]),
    ("sample", &["math", "params"]),
    ("backend", &["params", "math", "sample"]),
    ("he", &["backend", "params", "math", "sample"]),
    ("privacy", &["params", "sample", "math", "files"]),
    ("data", &["math"]),
    ("report", &["math", "files"]),
    ("model", &["backend", "data", "math", "files"]),
    ("secagg", &["he", "backend", "params", "math", "sample"]),
    ("bench", &["secagg", "he", "backend", "report", "params", "math", "sample"]),
    ("fl", &["secagg", "privacy", "model", "data", "backend", "sample", "params", "math"]),
    ("config", &["fl", "privacy", "model", "data", "secagg", "backend", "params", "math"]),
    (
        "sim",
        &[
            "config", "report", "fl", "secagg", "privacy", "model", "data", "backend", "sample", "params", "math",
            "files",
        ],
    ),
    ("net", &["sim", "config", "report", "fl", "secagg", "privacy", "model", "data", "backend", "math", "files"]),
    (
        "cli",
        &[
            "net", "files", "sim", "config", "bench", "report", "fl", "secagg", "he", "privacy", "model", "data",
            "backend", "sample", "params", "math",
        ],
    ),
];

/// Files of `src/` that are no room.
const ROOTS: &[&str] = &["lib", "main"];

/// A broken rule.
#[derive(Debug, PartialEq)]
struct Violation {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.what)
    }
}

/// The source with comments, and the contents of string and character literals, turned to spaces; line
/// breaks stay where they are, so that a line number means the same in both.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let end = literal_or_comment_end(&chars, i);
        if end > i {
            out.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        } else {
            out.push(chars[i]);
            i += 1;
        }
    }
    out
}

/// Where the comment or literal that begins at `i` ends; `i` itself if none begins there.
fn literal_or_comment_end(chars: &[char], i: usize) -> usize {
    let at = |j: usize| chars.get(j).copied().unwrap_or('\0');
    let after_word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
    match (at(i), at(i + 1)) {
        ('/', '/') => (i..chars.len()).find(|&j| chars[j] == '\n').unwrap_or(chars.len()),
        ('/', '*') => {
            let (mut j, mut depth) = (i + 2, 1);
            while j < chars.len() && depth > 0 {
                match (at(j), at(j + 1)) {
                    ('/', '*') => (j, depth) = (j + 2, depth + 1),
                    ('*', '/') => (j, depth) = (j + 2, depth - 1),
                    _ => j += 1,
                }
            }
            j.min(chars.len())
        }
        ('r', '"' | '#') if !after_word => raw_string_end(chars, i).unwrap_or(i),
        ('"', _) => quoted_end(chars, i, '"'),
        // A character literal, and not a lifetime.
        ('\'', '\\') => quoted_end(chars, i, '\''),
        ('\'', _) if at(i + 2) == '\'' => i + 3,
        _ => i,
    }
}

/// The end of a quoted literal with escapes that begins at `i`.
fn quoted_end(chars: &[char], i: usize, quote: char) -> usize {
    let mut j = i + 1;
    while j < chars.len() && chars[j] != quote {
        j += if chars[j] == '\\' { 2 } else { 1 };
    }
    (j + 1).min(chars.len())
}

/// The end of `r"..."` or `r#"..."#` that begins at `i`; `None` for a raw identifier.
fn raw_string_end(chars: &[char], i: usize) -> Option<usize> {
    let hashes = chars[i + 1..].iter().take_while(|&&c| c == '#').count();
    let open = i + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let close = (open + 1..chars.len())
        .find(|&j| chars[j] == '"' && chars[j + 1..].iter().take_while(|&&c| c == '#').count() >= hashes);
    Some(close.map_or(chars.len(), |j| j + 1 + hashes))
}

/// The first path segments behind every `crate::` of `code`, with the byte offset of each: one for
/// `crate::a::b`, several for `crate::{a, b::{c, d}}`.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate") {
        let before = code[..start].chars().next_back();
        let Some(rest) = code[start + "crate".len()..].trim_start().strip_prefix("::") else { continue };
        // `$crate` in a macro is this crate too; `my_crate` is not.
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = rest.trim_start();
        match rest.strip_prefix('{') {
            None => found.push((start, word(rest))),
            Some(group) => found.extend(heads_of_group(group).into_iter().map(|w| (start, w))),
        }
    }
    found.retain(|(_, w)| !w.is_empty());
    found
}

/// The identifier at the start of `text`.
fn word(text: &str) -> String {
    let text = text.trim_start();
    let text = text.strip_prefix("r#").unwrap_or(text);
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each entry of a `use` group; `group` begins behind the opening brace.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut begin, mut heads) = (0usize, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.push(word(&group[begin..i]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(word(&group[begin..i]));
                begin = i + 1;
            }
            _ => {}
        }
    }
    heads
}

/// True if `name` stands in `code` as a word of its own at byte `i`.
fn whole_word(code: &str, i: usize, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    !code[..i].chars().next_back().is_some_and(is_word) && !code[i + name.len()..].chars().next().is_some_and(is_word)
}

/// Checks one file; `file` is its path under `src/`, with `/` between folders.
fn check(file: &str, source: &str) -> Vec<Violation> {
    let code = code_only(source);
    let line_of = |offset: usize| code[..offset].matches('\n').count() + 1;
    let mut violations = Vec::new();
    let mut report = |line, what: String| violations.push(Violation { file: file.to_owned(), line, what });

    let room = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
    let allowed = ALLOWED.iter().find(|(name, _)| *name == room).map(|(_, rooms)| *rooms);
    if allowed.is_none() && !ROOTS.contains(&room) {
        report(1, format!("`{room}` is no known room; add it to the table of this test and to ARCHITECTURE.md"));
    }
    if file.ends_with("mod.rs") && file.rsplit('/').next() == Some("mod.rs") {
        report(1, "`mod.rs`: a module is `name.rs` beside `name/`".to_owned());
    }
    for (offset, target) in crate_paths(&code) {
        let known = ALLOWED.iter().any(|(name, _)| *name == target);
        let fine = target == room || ROOTS.contains(&room) || allowed.is_some_and(|rooms| rooms.contains(&&*target));
        if known && !fine {
            report(line_of(offset), format!("`{room}` may not use `crate::{target}`: arrows point down"));
        } else if !known && !ROOTS.contains(&room) {
            report(line_of(offset), format!("`crate::{target}` is no room: name the room where the item lives"));
        }
    }
    let unsafe_allowed = ["simd", "wgpu", "cuda"]
        .into_iter()
        .any(|backend| file.starts_with(&format!("backend/{backend}/")) || file == format!("backend/{backend}.rs"));
    for (offset, _) in code.match_indices("unsafe").filter(|(i, w)| whole_word(&code, *i, w)) {
        if !unsafe_allowed {
            report(line_of(offset), "`unsafe` outside backend/{simd,wgpu,cuda}".to_owned());
        }
    }
    for name in ["todo", "unimplemented", "dbg"] {
        for (offset, _) in code.match_indices(name).filter(|(i, w)| whole_word(&code, *i, w)) {
            if code[offset + name.len()..].trim_start().starts_with('!') {
                report(line_of(offset), format!("`{name}!`: nothing is left for later"));
            }
        }
    }
    violations.sort_by_key(|v| v.line);
    violations
}

/// Every Rust file below `folder`.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the source folder is readable") {
        let path = entry.expect("the source folder is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn the_house_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 20, "only {} files below {}", files.len(), root.display());
    let mut violations = Vec::new();
    for path in &files {
        let name: Vec<_> = path.strip_prefix(&root).unwrap().iter().map(|p| p.to_string_lossy()).collect();
        violations.extend(check(&name.join("/"), &std::fs::read_to_string(path).unwrap()));
    }
    let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

#[test]
fn every_room_of_the_table_exists_and_the_table_has_no_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (index, (room, uses)) in ALLOWED.iter().enumerate() {
        assert!(root.join(format!("{room}.rs")).is_file(), "no src/{room}.rs");
        // Only rooms above it in the table: then no circle of any length is possible.
        let known = |other: &&str| ALLOWED[..index].iter().any(|(name, _)| name == other);
        assert!(uses.iter().all(known), "{room} uses a room that stands below it in the table");
    }
}

fn lines(file: &str, source: &str) -> Vec<(usize, String)> {
    check(file, source).into_iter().map(|v| (v.line, v.what.split('`').nth(1).unwrap_or("").to_owned())).collect()
}

#[test]
fn upward_arrows_are_found_however_they_are_written() {
    for source in [
        "use crate::cli::Exit;",
        "pub(crate) use crate::cli;",
        "use crate::{math::prg, cli::{self, Exit}};",
        "use crate::{\n    math,\n    cli,\n};",
        "fn f() -> crate::cli::Exit { g() }",
        "use crate :: cli;",
        "macro_rules! m { () => { $crate::cli::run() } }",
    ] {
        let found = check("backend/scalar.rs", source);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert!(found[0].what.contains("`backend` may not use `crate::cli`"), "{source}: {found:?}");
    }
    assert_eq!(lines("math/prg.rs", "\n\nuse crate::params::X;"), [(3, "math".into())]);
    assert!(check("report.rs", "use crate::privacy::DpEvent;\n").len() == 1);
}

#[test]
fn downward_arrows_own_rooms_and_roots_are_fine() {
    assert!(
        check("fl/client.rs", "use crate::{backend::Rows, math::prg::StreamKey};\nuse crate::fl::rule;").is_empty()
    );
    assert!(check("main.rs", "use veilsum::cli::Cli;").is_empty());
    assert!(check("lib.rs", "pub mod cli;").is_empty());
    assert!(check("math.rs", "use my_crate::cli;").is_empty());
}

#[test]
fn comments_and_strings_are_no_code() {
    let source = r##"
        //! See crate::cli and todo!() and unsafe.
        /* crate::cli /* nested unsafe */ dbg!(1) */
        const A: &str = "crate::cli \" unsafe todo!()";
        const B: &str = r#"crate::cli " unsafe"#;
        const C: char = '"';
        const D: char = '\'';
        fn f<'a>(x: &'a str) -> &'a str { x }
        const E: &str = "unsafe_op_in_unsafe_fn";
    "##;
    assert_eq!(check("math.rs", source), []);
    let after = format!("{source}\nuse crate::cli;");
    assert_eq!(check("math.rs", &after).len(), 1, "code behind the literals is still read");
}

#[test]
fn the_other_rules_are_checked() {
    assert_eq!(lines("kitchen.rs", ""), [(1, "kitchen".into())]);
    assert_eq!(lines("kitchen/sink.rs", ""), [(1, "kitchen".into())]);
    assert_eq!(lines("math/mod.rs", ""), [(1, "mod.rs".into())]);
    assert_eq!(lines("math.rs", "fn f() {\n    unsafe { g() }\n}"), [(2, "unsafe".into())]);
    assert_eq!(lines("backend/simd/fwht.rs", "unsafe fn f() {}"), []);
    assert_eq!(lines("backend/cuda.rs", "unsafe fn f() {}"), []);
    assert_eq!(lines("backend/device.rs", "unsafe fn f() {}"), [(1, "unsafe".into())]);
    assert_eq!(lines("backend/scalar.rs", "unsafe fn f() {}"), [(1, "unsafe".into())]);
    assert_eq!(lines("math.rs", "fn f() { todo!() }\nfn g() { std::unimplemented! () }\nfn h() { dbg!(1); }").len(), 3);
    assert_eq!(lines("math.rs", "fn todo() { unimplemented(); let not_unsafe = 1; }"), []);
    assert_eq!(lines("math.rs", "use crate::helpers::x;"), [(1, "crate::helpers".into())]);
}
