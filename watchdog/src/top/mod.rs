//! `lease-watchdog top`: the leases on a terminal, live.
//!
//! In: the daemon's API, keys. Out: a picture a few times a second. Only the rows in sight are
//! asked for, so 10,000 leases cost as much as ten. A thread of its own asks, so that a daemon that
//! hangs does not hold up the keys.

pub mod client;
pub mod data;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clap::Args;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::{DefaultTerminal, Terminal};
use tokio_rustls::rustls::pki_types::ServerName;
use watchdog_model::Mono;

use self::client::{Client, Place};
use self::data::{Incident, Incidents, Lease, Leases, Overview};
use self::screen::Means;
use crate::config::Url;
use crate::failure::Failure;
use crate::tick::clock;
use crate::trusted;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Between two pictures: bars shrink meanwhile.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Options of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// The daemon's Unix socket.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/lease-watchdog/api.sock",
        conflicts_with = "url"
    )]
    pub socket: PathBuf,
    /// Ask a port instead, perhaps of another node: http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The authority that vouches for an https server, PEM; without it those that this node trusts do.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub ca: Option<PathBuf>,
    /// File with the token that the port asks for.
    #[arg(long, value_name = "FILE", requires = "url")]
    pub token_file: Option<PathBuf>,
    /// Print one picture as text and leave; so it does where its output is no terminal.
    #[arg(long)]
    pub once: bool,
}

/// By what leases are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Worst first.
    Risk,
    /// Least left first.
    Left,
    /// By name of the process.
    Process,
    /// Longest silent first.
    Silent,
}

impl Sort {
    /// As the API calls it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Risk => "risk",
            Self::Left => "left",
            Self::Process => "process",
            Self::Silent => "silent",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Risk => Self::Left,
            Self::Left => Self::Process,
            Self::Process => Self::Silent,
            Self::Silent => Self::Risk,
        }
    }
}

/// What lies over the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popup {
    /// The keys.
    Keys,
    /// Evidence of the selected lease.
    Evidence,
    /// Its incident, or all.
    Incident,
}

/// What is shown and how.
#[derive(Clone, Debug)]
pub struct View {
    /// The node.
    pub overview: Overview,
    /// Leases in sight.
    pub leases: Leases,
    /// Index of the first of them among all.
    pub first: usize,
    /// Incidents.
    pub incidents: Incidents,
    /// Why there is no answer.
    pub trouble: Option<String>,
    /// Index of the selected lease among all.
    pub selected: usize,
    /// The order.
    pub sort: Sort,
    /// What leases must mention.
    pub filter: String,
    /// Whether the filter is being typed.
    pub typing: bool,
    /// Whether healthy ones are left out.
    pub late_only: bool,
    /// Which end; None: both.
    pub role: Option<&'static str>,
    /// What lies over the list.
    pub popup: Option<Popup>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            overview: Overview::default(),
            leases: Leases::default(),
            first: 0,
            incidents: Incidents::default(),
            trouble: None,
            selected: 0,
            sort: Sort::Risk,
            filter: String::new(),
            typing: false,
            late_only: false,
            role: None,
            popup: None,
        }
    }
}

/// What is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    first: usize,
    rows: usize,
    sort: Sort,
    filter: String,
    late_only: bool,
    role: Option<&'static str>,
}

/// What was answered.
struct Answer {
    first: usize,
    at: Mono,
    told: Result<(Overview, Leases, Incidents), String>,
}

impl View {
    fn open_incidents(&self) -> impl Iterator<Item = &Incident> {
        let all = self.incidents.incidents.iter();
        all.filter(|incident| incident.state == "open")
    }

    fn selected_lease(&self) -> Option<&Lease> {
        let index = self.selected.checked_sub(self.first)?;
        self.leases.leases.get(index)
    }

    /// The rows that hold the selected one.
    fn wish(&mut self, rows: usize) -> Wish {
        if self.selected < self.first {
            self.first = self.selected;
        } else if self.selected >= self.first + rows.max(1) {
            self.first = self.selected + 1 - rows.max(1);
        }
        Wish {
            first: self.first,
            rows: rows.max(1),
            sort: self.sort,
            filter: self.filter.clone(),
            late_only: self.late_only,
            role: self.role,
        }
    }

    fn take(&mut self, answer: Answer) -> Mono {
        match answer.told {
            Ok((overview, leases, incidents)) => {
                self.overview = overview;
                self.first = answer.first;
                self.selected = self.selected.min(leases.total.saturating_sub(1));
                self.leases = leases;
                self.incidents = incidents;
                self.trouble = None;
            }
            Err(why) => self.trouble = Some(why),
        }
        answer.at
    }

    /// Takes a key; whether to go on.
    fn key(&mut self, code: KeyCode, page: usize) -> bool {
        if self.typing {
            match code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.filter.clear();
                }
                KeyCode::Backspace => {
                    self.filter.pop();
                }
                KeyCode::Char(letter) if self.filter.len() < 64 => self.filter.push(letter),
                _ => {}
            }
            self.selected = 0;
            return true;
        }
        let last = self.leases.total.saturating_sub(1);
        match code {
            KeyCode::Esc if self.popup.is_some() => self.popup = None,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => {
                self.selected = (self.selected + page).min(last);
            }
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.selected = last,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('l') => self.late_only = !self.late_only,
            KeyCode::Char('r') => {
                self.role = match self.role {
                    None => Some("holder"),
                    Some("holder") => Some("grantor"),
                    Some(_) => None,
                }
            }
            KeyCode::Enter | KeyCode::Char('e') => self.toggle(Popup::Evidence),
            KeyCode::Char('i') => self.toggle(Popup::Incident),
            KeyCode::Char('?' | 'h') => self.toggle(Popup::Keys),
            _ => {}
        }
        true
    }

    fn toggle(&mut self, popup: Popup) {
        self.popup = (self.popup != Some(popup)).then_some(popup);
    }
}

/// Runs it.
///
/// # Errors
/// The daemon does not answer at all, or the terminal cannot be used.
pub fn run(args: &TopArgs) -> Result<(), Failure> {
    let client = client(args)?;
    let means = means();
    if args.once || !io::stdout().is_terminal() {
        return once(&client, means);
    }
    let mut terminal = ratatui::try_init()
        .map_err(|error| Failure::Running(format!("the terminal cannot be used: {error}")))?;
    let outcome = live(&mut terminal, client, means);
    ratatui::restore();
    outcome.map_err(|error| Failure::Running(format!("the terminal cannot be used: {error}")))
}

/// Whom to ask.
///
/// # Errors
/// The address or the token file is of no use.
pub fn client(args: &TopArgs) -> Result<Client, Failure> {
    let place = match &args.url {
        None => Place::Socket(args.socket.clone()),
        Some(url) => at_url(url, args.ca.as_deref()).map_err(Failure::Usage)?,
    };
    let token = match &args.token_file {
        None => None,
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|error| {
                    Failure::Usage(format!("--token-file {}: {error}", file.display()))
                })?
                .trim()
                .to_owned(),
        ),
    };
    Ok(Client::new(place, token))
}

fn at_url(url: &str, ca: Option<&Path>) -> Result<Place, String> {
    let parsed = Url::parse(url).map_err(|what| format!("--url {what}"))?;
    if parsed.path != "/" {
        return Err(format!(
            "--url {url:?}: write it without a path, like http://127.0.0.1:9527"
        ));
    }
    let host = &parsed.host;
    let at = if host.contains(':') {
        format!("[{host}]:{}", parsed.port)
    } else {
        format!("{host}:{}", parsed.port)
    };
    if !parsed.tls {
        return match ca {
            None => Ok(Place::Port { at, tls: None }),
            Some(_) => Err(format!("--ca is for https; --url is {url:?}")),
        };
    }
    let name = ServerName::try_from(host.clone())
        .map_err(|error| format!("--url {url:?}: {host:?} is no name for https: {error}"))?;
    let roots = match ca {
        None => trusted::by_the_node()?,
        Some(file) => trusted::by_file(file).map_err(|what| format!("--ca {what}"))?,
    };
    let tls = Some((trusted::client(roots)?, name));
    Ok(Place::Port { at, tls })
}

fn means() -> Means {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let term = set("TERM").unwrap_or_default();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    Means {
        colours: set("NO_COLOR").is_none()
            && term != "dumb"
            && !term.ends_with("-m")
            && !term.starts_with("vt1"),
        unicode: locale.is_none_or(|locale| {
            let locale = locale.to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }),
    }
}

fn ask(client: &Client, wish: &Wish) -> Answer {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("sort", wish.sort.word())
        .append_pair("offset", &wish.first.to_string())
        .append_pair("limit", &wish.rows.min(1000).to_string());
    if !wish.filter.is_empty() {
        query.append_pair("q", &wish.filter);
    }
    if wish.late_only {
        query.append_pair("stage", "late");
    }
    if let Some(role) = wish.role {
        query.append_pair("role", role);
    }
    let told = client
        .ask(&format!("/api/v1/leases?{}", query.finish()))
        .and_then(|leases| {
            Ok((
                client.ask("/api/v1/overview")?,
                leases,
                client.ask("/api/v1/incidents?limit=50")?,
            ))
        });
    Answer {
        first: wish.first,
        at: clock(),
        told,
    }
}

fn once(client: &Client, means: Means) -> Result<(), Failure> {
    // So that the names of leases are whole.
    const WIDTH: u16 = 200;
    let mut view = View::default();
    let answer = ask(client, &view.wish(1000));
    if let Err(why) = &answer.told {
        return Err(Failure::Running(format!("{why}{}", client.hint(why))));
    }
    view.take(answer);
    // Nothing is selected.
    view.selected = usize::MAX;
    let rows = view.leases.leases.len() + view.incidents.incidents.len();
    let height = u16::try_from(rows).unwrap_or(u16::MAX - 8) + 4;
    let means = Means {
        colours: false,
        ..means
    };
    // A backend in memory cannot fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(WIDTH, height));
    let Ok(_) = terminal.draw(|frame| screen::draw(frame, &view, means, 0));
    let buffer = terminal.backend().buffer();
    let mut out = io::stdout().lock();
    // The last line is for keys.
    for line in buffer
        .content()
        .chunks(usize::from(WIDTH))
        .take(usize::from(height) - 1)
    {
        let text: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        let text = text.trim_end();
        if !text.is_empty() && writeln!(out, "{text}").is_err() {
            // Whoever read it has read enough.
            break;
        }
    }
    Ok(())
}

fn live(terminal: &mut DefaultTerminal, client: Client, means: Means) -> io::Result<()> {
    let (wishes, wished) = channel();
    let (answers, answered) = channel();
    std::thread::Builder::new()
        .name("asks".into())
        .spawn(move || asks(&client, &wished, &answers))?;
    let mut view = View::default();
    let mut answered_at = clock();
    let mut last_wish = None;
    loop {
        while let Ok(answer) = answered.try_recv() {
            answered_at = view.take(answer);
        }
        let size = terminal.size()?;
        let rows = screen::rows(&view, Rect::new(0, 0, size.width, size.height));
        let wish = view.wish(rows);
        if last_wish.as_ref() != Some(&wish) {
            // The thread that asks ends with this one.
            let _ = wishes.send(wish.clone());
            last_wish = Some(wish);
        }
        let passed = i64::try_from(clock().since(answered_at) / 1_000_000).unwrap_or(i64::MAX);
        terminal.draw(|frame| screen::draw(frame, &view, means, passed))?;
        if !event::poll(DRAW_EVERY)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let interrupt =
                key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
            if interrupt || !view.key(key.code, rows) {
                return Ok(());
            }
        }
    }
}

/// Asks for what is wished, again and again, at once when the wish changes.
fn asks(client: &Client, wished: &Receiver<Wish>, answers: &Sender<Answer>) {
    let Ok(mut wish) = wished.recv() else { return };
    loop {
        if answers.send(ask(client, &wish)).is_err() {
            return;
        }
        match wished.recv_timeout(ASK_EVERY) {
            Ok(newer) => wish = wished.try_iter().last().unwrap_or(newer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
