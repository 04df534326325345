use std::net::SocketAddr;

/// The client's address, as a request extension.
///
/// A server that knows it inserts it; with the feature `axum`, axum's `ConnectInfo<SocketAddr>` is
/// read as well. See [`OpaLayer::source_address`](crate::OpaLayer::source_address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);
