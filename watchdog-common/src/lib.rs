//! What the kernel programs and the daemon share: the layout of the state that the kernel keeps
//! ([`layout`]), and the parsers that follow a flow's byte stream ([`stream`], [`zookeeper`]; [`frames`]
//! and [`exchange`] for all other protocols).
//!
//! The parsers are the very code that runs in the kernel; host tests run it on slices. In: bytes
//! of one direction of one flow, their sequence number, the time. Out: fields of the flow's slot.
//! Never: an allocation, a panic, a loop without bound.
#![no_std]
#![deny(clippy::disallowed_methods)]

#[cfg(test)]
extern crate std;

pub mod consul;
pub mod etcd;
pub mod exchange;
pub mod flow;
pub mod frames;
pub mod kafka;
pub mod layout;
pub mod plaintext;
pub mod stream;
pub mod tls;
pub mod zookeeper;
