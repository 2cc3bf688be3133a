//! `veilsum man`.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::Man;

use super::completions::to_stdout;
use crate::cli::{Cli, Exit, Failure};
use crate::files::write_atomic;

/// Arguments of `veilsum man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  veilsum man | man -l -
  veilsum man ~/.local/share/man/man1

Exit codes: 0 success, 1 a page could not be written, 2 bad usage.")]
pub struct Args {
    /// Writes a page for every subcommand into this folder, which is made if it is not there. Absent: the main page, on stdout.
    dir: Option<PathBuf>,
}

/// A page: its file name and its text.
#[derive(Clone, Debug)]
pub struct Page {
    /// Such as `veilsum-ledger-show.1`.
    pub name: String,
    /// In roff.
    pub text: Vec<u8>,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Failure`] if a page cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failure, e);
    let pages = pages().map_err(|e| failed(&e))?;
    let Some(dir) = &args.dir else {
        return pages.first().map_or(Ok(()), |main| to_stdout(&main.text));
    };
    std::fs::create_dir_all(dir).map_err(|e| failed(&format!("cannot make the folder {}: {e}", dir.display())))?;
    for page in &pages {
        write_atomic(&dir.join(&page.name), &page.text).map_err(|e| failed(&e))?;
    }
    eprintln!("{} pages in {}", pages.len(), dir.display());
    Ok(())
}

/// All pages, the main one first, then each subcommand's before those below it.
///
/// # Errors
/// None that is known: pages are written to memory.
pub fn pages() -> std::io::Result<Vec<Page>> {
    // `help` is a subcommand of every command, and its pages would be those of the others once more.
    let mut main = Cli::command().disable_help_subcommand(true);
    main.build();
    let version = main.get_version().unwrap_or_default().to_owned();
    let mut pages = Vec::new();
    let mut open = vec![main];
    while let Some(command) = open.pop() {
        let below: Vec<clap::Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
        open.extend(below.into_iter().rev());
        pages.push(page(command, &version)?);
    }
    Ok(pages)
}

fn page(command: clap::Command, version: &str) -> std::io::Result<Page> {
    let after = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let has_subcommands = command.get_subcommands().any(|c| !c.is_hide_set());
    let man = Man::new(command).source(format!("veilsum {version}")).manual("veilsum");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_subcommands {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(after.iter().flat_map(|after| notes(after).into_bytes()));
    Ok(Page { name: man.get_filename(), text })
}

/// What stands behind the options, in roff: examples are not filled, paragraphs are. (The crate's own section fills all.)
fn notes(after: &str) -> String {
    let mut out = String::from(".SH NOTES\n");
    let mut filled = true;
    for line in after.lines() {
        let fill = !line.starts_with(' ');
        if fill != filled {
            out.push_str(if fill { ".fi\n" } else { ".nf\n" });
            filled = fill;
        }
        if line.trim().is_empty() {
            out.push_str(".PP\n");
            continue;
        }
        // A line that begins with a dot or a quote would be a request.
        out.push_str("\\&");
        out.push_str(&line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq"));
        out.push('\n');
    }
    if !filled {
        out.push_str(".fi\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page_of_its_own_name() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        assert_eq!(names[0], "veilsum.1");
        for name in ["veilsum-train.1", "veilsum-ledger.1", "veilsum-ledger-show.1"] {
            assert_eq!(names.iter().filter(|found| **found == name).count(), 1, "{name} of {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
        for page in &pages {
            let text = String::from_utf8_lossy(&page.text);
            assert!(
                text.contains(".TH ") && text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
                "{}",
                page.name
            );
        }
    }

    #[test]
    fn examples_keep_their_lines_and_nothing_is_a_request_by_chance() {
        let text = notes("Examples:\n  a --b 'c'   words\n\n.SH no section\nback\\slash");
        let expected = ".SH NOTES\n\\&Examples:\n.nf\n\\&  a \\-\\-b \\(aqc\\(aq   words\n.fi\n.PP\n\\&.SH no section\n\\&back\\eslash\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn pages_are_written_into_a_folder_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("man1");
        run(&Args { dir: Some(dir.clone()) }).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), pages().unwrap().len());
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(run(&Args { dir: Some(file) }).unwrap_err().exit, Exit::Failure);
    }
}
