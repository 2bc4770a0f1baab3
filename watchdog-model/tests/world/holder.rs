//! Clients by the rules of the real ones: when they ping, how long they wait, how they come back.

use watchdog_model::Mono;
use watchdog_model::leases::observation::{CloseHow, Role};
use watchdog_model::time::{MS, SECOND, ms};

use super::flow::Message;
use super::{Event, Held, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// T/3 after the last send, only with no request outstanding.
    C,
    /// About T/3, down to a second less.
    Java,
    /// T/3, down to 0.4 s less.
    Kazoo,
    /// The Rust crate `zookeeper-client`: T/5.
    Rust,
    /// The Rust crate `tokio-zookeeper`: 2T/3; waits for ever, comes back asking for 0.
    Tokio,
}

pub const CLIENTS: [Client; 5] = [
    Client::C,
    Client::Java,
    Client::Kazoo,
    Client::Rust,
    Client::Tokio,
];

pub struct Holder {
    pub client: Client,
    pub wanted_ns: u64,
    pub grantor: usize,
    pub executable: u64,
    pub held: Option<Held>,
    pub flow: Option<usize>,
    /// As negotiated; 0 before.
    pub timeout_ns: u64,
    pub session: u64,
    /// Closed its session or was killed.
    pub left: bool,
    /// Mean time between two requests of its application; 0: it asks nothing.
    pub asks_every_ns: u64,
    /// Its timer may be late by as much, as on a busy node.
    pub timer_slack_ns: u64,
    heard_at: Mono,
    ping_at: Mono,
    ping_timer_at: Option<Mono>,
    connect_wanted: bool,
    /// The connection whose handshake is over.
    welcomed_on: Option<usize>,
}

impl Holder {
    pub fn new(client: Client, timeout_ns: u64, grantor: usize) -> Self {
        Self {
            client,
            wanted_ns: timeout_ns,
            grantor,
            executable: client as u64 + 1,
            held: None,
            flow: None,
            timeout_ns: 0,
            session: 0,
            left: false,
            asks_every_ns: 0,
            timer_slack_ns: 20 * MS,
            heard_at: Mono(0),
            ping_at: Mono(0),
            ping_timer_at: None,
            connect_wanted: false,
            welcomed_on: None,
        }
    }

    fn waits_for_ns(&self) -> Option<u64> {
        let timeout_ns = if self.timeout_ns == 0 {
            self.wanted_ns
        } else {
            self.timeout_ns
        };
        (self.client != Client::Tokio).then_some(timeout_ns / 3 * 2)
    }

    fn welcomed(&self) -> bool {
        self.flow.is_some() && self.flow == self.welcomed_on
    }
}

impl World {
    fn pings_after(&mut self, holder: usize) -> u64 {
        let it = &self.holders[holder];
        let timeout_ns = it.timeout_ns;
        let (cadence_ns, early_ns) = match it.client {
            Client::C => (timeout_ns / 3, 0),
            Client::Java => (timeout_ns / 3, SECOND.min(timeout_ns / 6)),
            Client::Kazoo => (timeout_ns / 3, 400 * MS),
            Client::Rust => (timeout_ns / 5, 0),
            Client::Tokio => (timeout_ns / 3 * 2, 0),
        };
        let late_ns = it.timer_slack_ns;
        cadence_ns - self.rng.between(0, early_ns) + self.rng.between(0, late_ns)
    }

    fn holder_sends(&mut self, holder: usize, message: Message) {
        let Some(flow) = self.holders[holder].flow else {
            return;
        };
        self.send(flow, Role::Holder, message);
        if self.holders[holder].welcomed() {
            let wait = self.pings_after(holder);
            self.holders[holder].ping_at = self.now.plus(wait);
            self.set_ping_timer(holder);
        }
    }

    fn set_ping_timer(&mut self, holder: usize) {
        let it = &mut self.holders[holder];
        let at = it.ping_at.max(self.now);
        if it.ping_timer_at.is_none_or(|set| at < set) {
            it.ping_timer_at = Some(at);
            self.at(at, Event::PingTimer(holder));
        }
    }

    pub fn ping_timer(&mut self, holder: usize) {
        if self.holders[holder].ping_timer_at == Some(self.now) {
            self.holders[holder].ping_timer_at = None;
            self.ping_if_due(holder);
        }
    }

    fn ping_if_due(&mut self, holder: usize) {
        let it = &self.holders[holder];
        let Some(flow) = it.flow.filter(|_| it.welcomed() && it.held.is_none()) else {
            return;
        };
        if it.ping_at > self.now {
            self.set_ping_timer(holder);
            return;
        }
        let outstanding = !self.flows[flow].end(Role::Holder).pending.is_empty();
        if outstanding && it.client == Client::C {
            return; // taken up again when the answer has been read
        }
        self.holder_sends(holder, Message::Ping);
    }

    pub fn ask(&mut self, holder: usize) {
        let it = &self.holders[holder];
        if it.asks_every_ns == 0 || it.left {
            return;
        }
        let wait = self.rng.between(0, 2 * it.asks_every_ns);
        let may = it.held.is_none() && it.welcomed();
        self.at(self.now.plus(wait), Event::Ask(holder));
        if may {
            self.holder_sends(holder, Message::Data);
        }
    }

    pub fn patience(&mut self, holder: usize) {
        let it = &self.holders[holder];
        let (Some(flow), Some(patience_ns)) = (it.flow, it.waits_for_ns()) else {
            return;
        };
        let due = it.heard_at.plus(patience_ns);
        if due > self.now {
            self.at(due, Event::Patience(holder));
        } else if it.held.is_none() {
            self.give_up(holder, flow);
        }
    }

    fn give_up(&mut self, holder: usize, flow: usize) {
        self.holders[holder].flow = None;
        self.hang_up(flow, Role::Holder, CloseHow::OwnClose);
        self.reconnect(holder);
    }

    fn reconnect(&mut self, holder: usize) {
        let wait = match self.holders[holder].client {
            Client::Kazoo => self.rng.between(10 * MS, 100 * MS),
            _ => self.rng.between(10 * MS, SECOND),
        };
        self.at(self.now.plus(wait), Event::Connect(holder));
    }

    pub fn connect(&mut self, holder: usize) {
        let it = &mut self.holders[holder];
        if it.left || it.flow.is_some() {
            return;
        }
        if it.held.is_some() {
            it.connect_wanted = true;
            return;
        }
        if self.links[holder].cut {
            self.at(self.now.plus(SECOND), Event::Connect(holder));
            return;
        }
        let grantor = it.grantor;
        let flow = self.open_flow(holder, grantor);
        let now = self.now;
        let it = &mut self.holders[holder];
        it.flow = Some(flow);
        it.heard_at = now;
        let again = it.session != 0;
        let asked_ms = match it.client {
            Client::Tokio if again => 0,
            _ => i32::try_from(it.wanted_ns / MS).unwrap(),
        };
        let session = it.session;
        let patience = it.waits_for_ns();
        self.send(flow, Role::Holder, Message::Hello { asked_ms, session });
        if let Some(patience_ns) = patience {
            self.at(now.plus(patience_ns), Event::Patience(holder));
        }
    }

    pub fn holder_reads(&mut self, flow: usize) {
        let holder = self.flows[flow].holder;
        if self.holders[holder].held.is_some() {
            return;
        }
        for (_, message) in self.take_unread(flow, Role::Holder) {
            self.holders[holder].heard_at = self.now;
            let Message::Welcome {
                timeout_ms,
                session,
            } = message
            else {
                continue;
            };
            if timeout_ms == 0 {
                let it = &mut self.holders[holder];
                (it.session, it.timeout_ns, it.flow) = (0, 0, None);
                self.hang_up(flow, Role::Holder, CloseHow::OwnClose);
                self.reconnect(holder);
                return;
            }
            let it = &mut self.holders[holder];
            it.session = session;
            it.welcomed_on = Some(flow);
            it.timeout_ns = u64::try_from(timeout_ms).map(ms).unwrap();
            let wait = self.pings_after(holder);
            let it = &mut self.holders[holder];
            it.ping_at = self.now.plus(wait);
            let asks = it.asks_every_ns;
            self.set_ping_timer(holder);
            if asks != 0 {
                self.at(self.now.plus(asks), Event::Ask(holder));
            }
        }
        self.ping_if_due(holder);
    }

    pub fn holder_resumes(&mut self, holder: usize) {
        if std::mem::take(&mut self.holders[holder].connect_wanted) {
            self.connect(holder);
        }
        let Some(flow) = self.holders[holder].flow else {
            return;
        };
        // The clock is looked at before the socket.
        self.patience(holder);
        if self.holders[holder].flow == Some(flow) {
            self.holder_reads(flow);
        }
    }

    /// The server's end is gone.
    pub fn holder_lost(&mut self, flow: usize) {
        let holder = self.flows[flow].holder;
        if self.holders[holder].flow == Some(flow) {
            self.holders[holder].flow = None;
            self.reconnect(holder);
        }
    }

    /// The holder hangs up, to come back on another connection.
    pub fn drop_connection(&mut self, holder: usize) {
        if let Some(flow) = self.holders[holder].flow {
            self.give_up(holder, flow);
        }
    }

    /// The holder goes: closing its session, or killed.
    pub fn leave(&mut self, holder: usize, killed: bool) {
        self.holders[holder].left = true;
        let Some(flow) = self.holders[holder].flow.take() else {
            return;
        };
        if killed {
            self.hang_up(flow, Role::Holder, CloseHow::OwnExit);
        } else {
            self.send(flow, Role::Holder, Message::CloseSession);
        }
    }
}
