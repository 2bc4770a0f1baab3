//! What is kept of flows over a restart: session id, timeout, cadence, by socket cookie, addresses
//! and boot id, in the state directory. An upgrade must not blind the fleet.
