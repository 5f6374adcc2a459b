//! Opens the socket of a port, for IPv4, IPv6 and clusters that have both.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// What the kernel may hold for us, as tokio asks.
const BACKLOG: i32 = 1024;
/// `EAFNOSUPPORT` of Linux: a kernel without IPv6.
const NO_SUCH_FAMILY: i32 = 97;

/// Listens at an address. `[::]` is every address of the machine, of IPv4 and IPv6 alike, whatever `net.ipv6.bindv6only` says; where the kernel has no
/// IPv6, those of IPv4.
///
/// # Errors
/// When the address is taken or not ours.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(or_ipv4(address, open)?.into())
}

fn or_ipv4<T>(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(address) {
        Err(error) if is_everywhere(address) && has_no_ipv6(&error) => {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        opened => opened,
    }
}

fn is_everywhere(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(NO_SUCH_FAMILY) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // One that asks for a single IPv6 address gets that; nothing of IPv4 could be mapped to it.
    if is_everywhere(address) {
        socket.set_only_v6(false)?;
    }
    // As tokio does: connections of the process before us must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_listens_at_ipv4() {
        let everywhere: SocketAddr = "[::]:8080".parse().unwrap();
        for error in [|| io::Error::from_raw_os_error(NO_SUCH_FAMILY), || io::ErrorKind::AddrNotAvailable.into()] {
            let open = |address: SocketAddr| if address.is_ipv6() { Err(error()) } else { Ok(address) };
            assert_eq!(or_ipv4(everywhere, open).unwrap(), "0.0.0.0:8080".parse().unwrap());
            // Who names an address means that one.
            assert!(or_ipv4("[::1]:8080".parse().unwrap(), open).is_err());
        }
        let taken = |_| Err::<(), _>(io::ErrorKind::AddrInUse.into());
        assert_eq!(or_ipv4(everywhere, taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
