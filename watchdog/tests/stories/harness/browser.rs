//! A real browser without a screen, driven over its debugging port.
//!
//! In: addresses and scripts. Out: what scripts say, and pictures. The browser and its profile go
//! when this is dropped.

use super::clock;
use super::process::Child;
use super::transcript::{Line, Transcript};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tungstenite::{Message, WebSocket};

/// How long the browser may take for one command.
const PATIENCE: Duration = Duration::from_secs(20);

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    session: String,
    last_id: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it. `None`, and said so, where there is no chromium.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn start(story: &str) -> Option<Self> {
        let Some(program) = ["/usr/bin/chromium", "/usr/bin/chromium-browser"]
            .into_iter()
            .find(|path| Path::new(path).exists())
        else {
            assert!(
                std::env::var_os("CI").is_none(),
                "chromium is missing: run `cargo xtask setup`"
            );
            println!("SKIPPED: {story}: chromium is missing; run `cargo xtask setup`");
            return None;
        };
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-dev-shm-usage", "--mute-audio"])
            .args(["--disable-background-networking", "--disable-sync"])
            .args(["--remote-debugging-port=0", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .arg("about:blank");
        let mut child = Child::start(command);
        let said = Transcript::new();
        said.feed(child.take_stderr(), Line::keep);
        let address = clock::poll(PATIENCE, || {
            let lines: Vec<Line> = said.since(0);
            lines.iter().find_map(|line| {
                let (_, address) = line.text.split_once("DevTools listening on ws://")?;
                Some(address.trim().to_owned())
            })
        })
        .unwrap_or_else(|| panic!("the browser says no address: {said:?}"));
        let (host, _) = address.split_once('/').expect("an address has a path");
        let stream = TcpStream::connect(host).expect("the browser listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let (socket, _) = tungstenite::client(format!("ws://{address}"), stream)
            .expect("the browser speaks the protocol");
        let mut browser = Self {
            child,
            socket,
            session: String::new(),
            last_id: 0,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        attached["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut browser.session);
        Some(browser)
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Panics
    /// If it is refused or takes too long.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        self.socket
            .send(Message::text(command.to_string()))
            .expect("the browser takes commands");
        loop {
            let message = self
                .socket
                .read()
                .unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            let Message::Text(text) = message else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
    }

    /// What a script's last expression is, promises awaited.
    ///
    /// # Panics
    /// If the script throws.
    pub fn run(&mut self, script: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": script, "returnByValue": true, "awaitPromise": true}),
        );
        assert!(
            answer["exceptionDetails"].is_null(),
            "{script}: {}",
            answer["exceptionDetails"]
        );
        answer["result"]["value"].clone()
    }

    /// Waits until a script's last expression is true.
    ///
    /// # Panics
    /// If it is not in time; the message has what the page shows.
    pub fn wait(&mut self, what: &str, within: Duration, script: &str) {
        if clock::poll(within, || (self.run(script) == true).then_some(())).is_none() {
            let shown = self.run("document.body.innerText");
            panic!("no {what} within {within:?}; the page shows:\n{shown}");
        }
    }

    /// The size of the page's window, and whether it is a phone's.
    pub fn size(&mut self, width: u32, height: u32, phone: bool) {
        let scale = if phone { 2 } else { 1 };
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}),
        );
    }

    /// What the reader prefers: `light` or `dark`.
    pub fn scheme(&mut self, scheme: &str) {
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    }

    /// A picture of the page as PNG.
    pub fn picture(&mut self, whole: bool) -> Vec<u8> {
        let answer = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": whole}),
        );
        let text = answer["data"].as_str().expect("a picture");
        from_base64(text)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to close, it takes its own children along.
        let close = json!({"id": 0, "method": "Browser.close"});
        let _asked = self.socket.send(Message::text(close.to_string()));
        let _ended = self.child.wait_exit(Duration::from_secs(5));
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let digits = group.iter().take_while(|byte| **byte != b'=').count();
        let word = group
            .iter()
            .take(digits)
            .fold(0, |word, byte| word << 6 | value(*byte))
            << (6 * (4 - digits));
        bytes.extend_from_slice(&word.to_be_bytes()[1..digits]);
    }
    bytes
}
