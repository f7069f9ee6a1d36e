//! Connections to sandboxes.
//!
//! * [`pool`] keeps idle HTTP/1.1 connections, and [`shared`] HTTP/2 ones.
//! * [`dial`] opens them.
//! * [`connection`] speaks HTTP/1.1 over one: [`head`] and [`framing`] say how.
//!
//! HTTP/1.1 is spoken here, and not by a general client, because a general client hands requests and
//! answers through channels to a task of its own, which costs more than everything else that a request
//! needs; and because the proxy knows best what it may repeat, and when memory can go. HTTP/2 has
//! tasks and channels by nature and is hyper's.

mod connection;
mod dial;
mod framing;
mod head;
mod pool;
mod shared;

pub(crate) use self::connection::{Http1, Http1Error};
pub(crate) use self::dial::DialError;
pub(crate) use self::head::Head;
pub(crate) use self::pool::{Dialled, Key, Pool};
