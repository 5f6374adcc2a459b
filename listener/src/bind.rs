//! Opens the socket of a port, on IPv4, IPv6 and dual-stack clusters.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Length of the kernel's accept queue, as in tokio.
const BACKLOG: i32 = 1024;
/// `EAFNOSUPPORT` on Linux: a kernel without IPv6.
const EAFNOSUPPORT: i32 = 97;

/// Listens at an address. `[::]` includes every address of the machine, of IPv4 and IPv6, whatever
/// `net.ipv6.bindv6only` is; on a kernel without IPv6, all IPv4 addresses.
///
/// # Errors
/// When the address is in use or not local.
pub fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(with_ipv4_fallback(address, open_socket)?.into())
}

fn with_ipv4_fallback<T>(
    address: SocketAddr,
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match open(address) {
        Err(error) if is_unspecified_ipv6(address) && is_ipv6_unsupported(&error) => {
            open(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        opened => opened,
    }
}

fn is_unspecified_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn is_ipv6_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn open_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // For a single IPv6 address nothing changes: no IPv4 address could be mapped to it.
    if is_unspecified_ipv6(address) {
        socket.set_only_v6(false)?;
    }
    // As in tokio: connections of a previous process must not block the port.
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
        for error in [
            || io::Error::from_raw_os_error(EAFNOSUPPORT),
            || io::ErrorKind::AddrNotAvailable.into(),
        ] {
            let open =
                |address: SocketAddr| if address.is_ipv6() { Err(error()) } else { Ok(address) };
            assert_eq!(
                with_ipv4_fallback(everywhere, open).unwrap(),
                "0.0.0.0:8080".parse().unwrap()
            );
            // An explicit address has no fallback.
            assert!(with_ipv4_fallback("[::1]:8080".parse().unwrap(), open).is_err());
        }
        let taken = |_| Err::<(), _>(io::ErrorKind::AddrInUse.into());
        assert_eq!(
            with_ipv4_fallback(everywhere, taken).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
