//! The gateway over real HTTP, with a real store, and a scripted fleet whose sidecars listen on real Unix sockets.

mod access;
mod admin;
mod client;
mod document;
mod documented;
mod faults;
mod fleet;
mod messages;
mod pod;
mod proxy;
mod relayed;
mod revoked;
mod streams;
mod turns;
mod vault;
mod world;
