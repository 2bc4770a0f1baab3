//! Files, directories and addresses that the configuration names: could the daemon use them?
//!
//! What can be tried is tried: a file is made and removed, a port is bound and let go.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::{Check, DoctorArgs, State};
use crate::config::{ApiSocket, Config};
use crate::netns::Netns;
use crate::run::SOCKET_FILE;

/// For whoever has the port: long enough for a daemon that runs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads the configuration; where it is wrong, what follows is judged by the defaults.
pub fn configuration(file: Option<&Path>) -> (Config, Vec<Check>) {
    const NAME: &str = "configuration";
    let Some(path) = file else {
        let found = "none: ZooKeeper on port 2181 alone";
        return (Config::default(), vec![Check::ok(NAME, found)]);
    };
    match Config::load(file) {
        Ok(config) => {
            let found = format!("{}: {}", path.display(), config.entry_names().join(", "));
            (config, vec![Check::ok(NAME, found)])
        }
        Err(errors) => {
            let wrong = errors.to_string();
            let row = |line: &str| {
                let (found, mend) = line.rsplit_once("; ").unwrap_or((line, "correct the file"));
                Check::new(NAME, State::Wrong, found).mend(mend)
            };
            (Config::default(), wrong.lines().map(row).collect())
        }
    }
}

/// Every place.
pub fn all(config: &Config, args: &DoctorArgs) -> Vec<Check> {
    let mut checks = vec![state_directory(&args.state_dir)];
    if let Some(events) = args
        .events
        .as_deref()
        .filter(|path| *path != Path::new("-"))
    {
        checks.push(events_file(events));
    }
    if let Some(recorder) = &config.recorder {
        checks.push(recorder_directory(&recorder.dir));
    }
    checks.push(listen(config.http_listen));
    let socket = match &config.http.socket {
        ApiSocket::Off => None,
        ApiSocket::InStateDir => Some(args.state_dir.join(SOCKET_FILE)),
        ApiSocket::At(path) => Some(path.clone()),
    };
    checks.extend(socket.map(|path| api_socket(&path)));
    if config.http.token_file.is_some() {
        checks.push(match config.http.token() {
            Ok(_) => Check::ok("http.token_file", "can be read"),
            Err(why) => Check::new("http.token_file", State::Wrong, why)
                .mend("make it root's own, mode 0600, with one line"),
        });
    }
    if let Some(files) = &config.http.tls {
        checks.push(match config.http.identity() {
            Ok(_) => Check::ok(
                "http.tls",
                format!("{} and its key belong together", files.cert.display()),
            ),
            Err(why) => Check::new("http.tls", State::Wrong, why).mend(
                "name the certificate's own key, readable by the daemon and not by everybody",
            ),
        });
    }
    if let Some(name) = &config.scope.netns {
        checks.push(match Netns::open(name) {
            Ok(netns) => Check::ok("scope.netns", format!("{name}: net:[{}]", netns.number())),
            Err(why) => Check::new("scope.netns", State::Missing, why)
                .mend("make it before the daemon starts, or leave scope.netns out"),
        });
    }
    checks
}

/// Makes a file in the directory and removes it. A directory that is not there is made by whoever
/// uses it: then its nearest ancestor is tried.
fn writable(directory: &Path) -> io::Result<()> {
    let there = directory
        .ancestors()
        .find(|at| at.symlink_metadata().is_ok())
        .unwrap_or(directory);
    let trial = there.join(format!(".lease-watchdog-doctor.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&trial)?;
    let written = file.write_all(b"trial\n");
    fs::remove_file(&trial)?;
    written
}

fn state_directory(directory: &Path) -> Check {
    const NAME: &str = "run directory";
    let shown = directory.display();
    match writable(directory) {
        Ok(()) => Check::ok(NAME, format!("{shown} can be written")),
        Err(error) => Check::new(
            NAME,
            State::Less,
            format!("{shown} cannot be written ({error}): what is known of leases is lost by a restart"),
        )
        .mend(format!(
            "make it for this user: install -d -o lease-watchdog {shown} (RuntimeDirectory= in a unit), or --state-dir"
        )),
    }
}

fn events_file(file: &Path) -> Check {
    const NAME: &str = "events file";
    let shown = file.display();
    let tried = if file.exists() {
        OpenOptions::new().append(true).open(file).map(drop)
    } else {
        match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                Err(io::Error::from(io::ErrorKind::NotFound))
            }
            Some(parent) if !parent.as_os_str().is_empty() => writable(parent),
            _ => writable(Path::new(".")),
        }
    };
    match tried {
        Ok(()) => Check::ok(NAME, format!("{shown} can be written")),
        // A start with such a file is refused as wrong usage.
        Err(error) => Check::new(NAME, State::Wrong, format!("{shown}: {error}"))
            .mend("make its directory for this user, or name another file"),
    }
}

fn recorder_directory(directory: &Path) -> Check {
    let shown = directory.display();
    match writable(directory) {
        Ok(()) => Check::ok("recorder.dir", format!("{shown} can be written")),
        Err(error) => Check::new(
            "recorder.dir",
            State::Less,
            format!("{shown} cannot be written ({error}): incidents are not recorded"),
        )
        .mend(format!(
            "install -d -o lease-watchdog {shown} (StateDirectory= in a unit)"
        )),
    }
}

fn listen(address: SocketAddr) -> Check {
    const NAME: &str = "http.listen";
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(NAME, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if is_a_daemon(address) {
                let found = format!("{address}: a lease-watchdog answers there already");
                Check::new(NAME, State::Note, found)
                    .mend("nothing, if that is the daemon that this is about")
            } else {
                // The daemon leaves with exit code 1 where its port is taken.
                Check::new(
                    NAME,
                    State::Wrong,
                    format!("{address} is taken by another process"),
                )
                .mend("stop it or set http.listen to another port")
            }
        }
        Err(error) => Check::new(NAME, State::Wrong, format!("{address}: {error}"))
            .mend("set http.listen to an address of this node and a port above 1023"),
    }
}

fn is_a_daemon(address: SocketAddr) -> bool {
    let asked = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: doctor\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(16 * 1024).read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().is_ok_and(|answer| answer.contains("lease-watchdog"))
}

fn api_socket(path: &Path) -> Check {
    const NAME: &str = "http.socket";
    let shown = path.display();
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Check::new(
            NAME,
            State::Note,
            format!("{shown}: somebody answers there already"),
        )
        .mend("nothing, if that is the daemon that this is about");
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    match writable(parent) {
        Ok(()) => Check::ok(NAME, format!("{shown} can be made")),
        Err(error) => Check::new(
            NAME,
            State::Less,
            format!("{shown} cannot be made ({error}): programs cannot ask for their leases there"),
        )
        .mend("make its directory for this user, or set http.socket to another path or to off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let below = file.join("below");
        assert_eq!(state_directory(dir.path()).state, State::Ok);
        assert_eq!(state_directory(&dir.path().join("a/b")).state, State::Ok);
        assert_eq!(state_directory(&below).state, State::Less);
        assert_eq!(recorder_directory(&below).state, State::Less);
        assert_eq!(events_file(&file).state, State::Ok);
        assert_eq!(events_file(&below).state, State::Wrong);
        assert_eq!(events_file(&dir.path().join("no/such")).state, State::Wrong);
        assert_eq!(api_socket(&below.join("s")).state, State::Less);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing stays"
        );
    }

    #[test]
    fn a_taken_port_is_told_from_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        // Somebody who accepts and hangs up is no daemon.
        let stranger = std::thread::spawn(move || drop(taken.accept()));
        assert_eq!(listen(address).state, State::Wrong);
        stranger.join().unwrap();
        assert_eq!(listen("127.0.0.1:0".parse().unwrap()).state, State::Ok);
        assert_eq!(listen("192.0.2.1:1".parse().unwrap()).state, State::Wrong);
    }

    #[test]
    fn every_mistake_of_a_configuration_is_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.yaml");
        fs::write(&file, "lease: []\nstages: { hard_stall: 1 }\n").unwrap();
        let (_, rows) = configuration(Some(&file));
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert!(
            rows.iter()
                .all(|row| row.state == State::Wrong && row.mend.is_some())
        );
    }
}
