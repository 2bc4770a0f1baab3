//! Man pages and completions, of the one definition of the command line.
//!
//! In: [`Cli`]. Out: files, for the package. Never: a word about an option that stands only here.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

/// Of administrators' commands.
const SECTION: &str = "8";
const NAME: &str = "lease-watchdog";

/// What no option says, at the end of the main page.
const FILES: &str = r".SH FILES
.TP
.I /etc/lease\-watchdog/lease\-watchdog.yaml
The configuration of the service, with every key and its default.
.TP
.I /run/lease\-watchdog
What is known of leases, kept over a restart; api.sock, where programs ask.
.TP
.I /usr/share/lease\-watchdog
Grafana dashboards, Prometheus rules.
.SH ENVIRONMENT
.TP
.B NO_COLOR
If set and not empty, nothing is coloured. Nothing is coloured in a pipe either.
.TP
.B RUST_LOG
What is logged to standard error; goes before \fB\-v\fR.
.SH SEE ALSO
.I /usr/share/doc/lease\-watchdog/README.md, runbook.md, deploy.md, config.md, metrics.md
";

/// Writes them: `man/*.8`, and a file for each shell.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    let pages = dir.join("man");
    fs::create_dir_all(&pages)?;
    let mut cli = Cli::command();
    cli.build();
    let mut main = File::create(pages.join(format!("{NAME}.{SECTION}")))?;
    page(&cli).render(&mut main)?;
    main.write_all(FILES.as_bytes())?;
    for verb in verbs(&cli) {
        // As git does: `man lease-watchdog-run`.
        let name = format!("{NAME}-{}", verb.get_name());
        let mut file = File::create(pages.join(format!("{name}.{SECTION}")))?;
        page(verb).render(&mut file)?;
    }
    for (shell, file) in [
        (Shell::Bash, format!("{NAME}.bash")),
        (Shell::Zsh, format!("_{NAME}")),
        (Shell::Fish, format!("{NAME}.fish")),
    ] {
        let mut file = File::create(dir.join(file))?;
        clap_complete::generate(shell, &mut Cli::command(), NAME, &mut file);
    }
    Ok(())
}

fn page(command: &Command) -> Man {
    Man::new(command.clone())
        .section(SECTION)
        .source(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
        .manual("System administration")
}

fn verbs(cli: &Command) -> impl Iterator<Item = &Command> {
    let is_shown = |verb: &&Command| !verb.is_hide_set() && verb.get_name() != "help";
    cli.get_subcommands().filter(is_shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_and_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        let main = read("man/lease-watchdog.8");
        assert!(main.contains(".TH lease-watchdog 8"), "{main}");
        assert!(
            main.contains(".SH FILES") && main.contains("NO_COLOR"),
            "{main}"
        );
        let cli = Cli::command();
        for verb in verbs(&cli).map(Command::get_name) {
            let page = read(&format!("man/lease-watchdog-{verb}.8"));
            assert!(page.contains(".SH NAME"), "{page}");
            for shell in [
                "lease-watchdog.bash",
                "_lease-watchdog",
                "lease-watchdog.fish",
            ] {
                assert!(read(shell).contains(verb), "{shell} knows {verb}");
            }
        }
        let run = read("man/lease-watchdog-run.8");
        assert!(run.contains(r"\-\-record\-all"), "{run}");
        let bash = std::process::Command::new("bash")
            .arg("-n")
            .arg(dir.path().join("lease-watchdog.bash"))
            .status()
            .unwrap();
        assert!(bash.success());
    }
}
