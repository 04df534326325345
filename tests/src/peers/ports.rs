//! Free ports on loopback for programs that can't choose and tell one themselves.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::fetch;

/// A port that no other test, also of another process, gets while this lives.
///
/// Somebody else on the machine may still take it before the program binds it; the program then
/// ends, and its start is tried again with another port.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub(super) fn reserve() -> io::Result<Port> {
        let folder = fetch::folder().join("ports");
        fs::create_dir_all(&folder)?;
        loop {
            let number = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port();
            let lock = File::create(folder.join(number.to_string()))?;
            if lock.try_lock().is_ok() {
                return Ok(Port {
                    number,
                    _lock: lock,
                });
            }
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reserved_ports_differ() {
        let ports: Vec<_> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let numbers: BTreeSet<_> = ports.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), 50);
    }
}
