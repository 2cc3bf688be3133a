//! `veilsum completions`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::{Cli, Exit, Failure};

/// Arguments of `veilsum completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  veilsum completions bash > ~/.local/share/bash-completion/completions/veilsum
  veilsum completions zsh > \"${fpath[1]}/_veilsum\"
  veilsum completions fish > ~/.config/fish/completions/veilsum.fish
  veilsum completions powershell >> $PROFILE

Exit codes: 0 success, 1 stdout could not be written, 2 bad usage.")]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Failure`] if stdout cannot be written. One that is closed early (`| head`) is no error.
pub fn run(args: &Args) -> Result<(), Failure> {
    to_stdout(&script(args.shell))
}

/// The script of a shell, for every subcommand and option there is.
#[must_use]
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "veilsum", &mut script);
    script
}

/// Writes all of it, unless nobody reads on.
pub(super) fn to_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_is_told_of_every_subcommand() {
        for shell in Shell::value_variants() {
            let text = String::from_utf8(script(*shell)).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(text.contains("--principal") || text.contains("principal"), "{shell}");
        }
    }

    /// Asks bash itself what it would offer behind some words.
    fn offered(words: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("veilsum.bash");
        std::fs::write(&path, script(Shell::Bash)).unwrap();
        let program = r#"source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            function=$(complete -p veilsum | sed 's/.*-F \([^ ]*\).*/\1/')
            "$function" veilsum "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; printf '%s\n' "${COMPREPLY[@]}""#;
        let output = std::process::Command::new("bash")
            .args(["--noprofile", "--norc", "-c", program, "bash"])
            .arg(&path)
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn bash_completes_subcommands_options_and_values() {
        assert_eq!(offered(&["veilsum", "led"]), ["ledger"]);
        assert_eq!(offered(&["veilsum", "ledger", "ver"]), ["verify"]);
        assert!(offered(&["veilsum", "train", "--pri"]).contains(&"--principal".to_owned()));
        assert_eq!(offered(&["veilsum", "ledger", "open", "--view", "pu"]), ["public"]);
    }
}
