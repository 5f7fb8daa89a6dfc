//! From where a call comes.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The address of who calls: that of the socket, or, where a trusted proxy is there, the
/// last one in `X-Forwarded-For` that is none. `None`: what the proxy says can't be
/// read.
pub(super) fn address(socket: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
    let is_proxy = |ip: &IpAddr| proxies.iter().any(|network| network.contains(ip));
    let mut client = socket.to_canonical();
    let lists = headers.get_all("x-forwarded-for").iter().rev();
    // What can't be read was written by nobody who is trusted.
    let hops = lists.flat_map(|list| list.to_str().unwrap_or("?").rsplit(','));
    for hop in hops {
        if !is_proxy(&client) {
            break;
        }
        client = hop_address(hop.trim())?.to_canonical();
    }
    Some(client)
}

/// The address of a hop, which some proxies write with a port, or in brackets.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse().ok().map(|with_port: SocketAddr| with_port.ip()))
}

/// Whether the client speaks HTTPS: with this service, or with the trusted proxy that says
/// so by `X-Forwarded-Proto`.
pub(super) fn is_secure(
    socket: IpAddr,
    headers: &HeaderMap,
    proxies: &[IpNet],
    is_tls: bool,
) -> bool {
    let socket = socket.to_canonical();
    let said = headers.get_all("x-forwarded-proto").iter().next_back();
    let said = said.filter(|_| proxies.iter().any(|network| network.contains(&socket)));
    let said = said.and_then(|list| list.to_str().ok()?.rsplit(',').next());
    match said.map(|said| said.trim().to_ascii_lowercase()).as_deref() {
        Some("https") => true,
        Some("http") => false,
        Some(_) | None => is_tls,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let of = |socket: &str, lists: &[&str], proxies: &[&str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append("x-forwarded-for", list.parse().unwrap());
            }
            let proxies: Vec<_> = proxies.iter().map(|it| it.parse().unwrap()).collect();
            let address = address(socket.parse().unwrap(), &headers, &proxies);
            address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
        };
        let inner = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(of("192.0.2.1", &["198.51.100.9"], &[]), "192.0.2.1");
        assert_eq!(of("192.0.2.1", &["198.51.100.9"], &inner), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &[], &inner), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.9"], &inner), "198.51.100.9");
        assert_eq!(of("::ffff:10.0.0.1", &["::ffff:198.51.100.9"], &inner), "198.51.100.9");
        // What the client itself has written is before what the first proxy did.
        assert_eq!(of("10.0.0.1", &["127.0.0.1, 198.51.100.9"], &inner), "198.51.100.9");
        assert_eq!(of("10.0.0.1", &["127.0.0.1", "198.51.100.9, fd00::7"], &inner), "198.51.100.9");
        assert_eq!(of("10.0.0.1", &["127.0.0.1, x, fd00::7"], &inner), "unknown");
        assert_eq!(of("10.0.0.1", &["x, 198.51.100.9"], &inner), "198.51.100.9");
        assert_eq!(of("10.0.0.1", &["198.51.100.9, "], &inner), "unknown");
        assert_eq!(of("10.0.0.1", &["198.51.100.9:4711"], &inner), "198.51.100.9");
        for hop in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4711"] {
            assert_eq!(of("10.0.0.1", &[hop], &inner), "2001:db8::1");
        }
        assert_eq!(of("10.0.0.1", &["10.0.0.3,10.0.0.2"], &inner), "10.0.0.3");
    }

    #[test]
    fn https_is_what_this_service_or_a_trusted_proxy_speaks() {
        let of = |socket: &str, said: Option<&str>, is_tls| {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert("x-forwarded-proto", said.parse().unwrap());
            }
            is_secure(socket.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()], is_tls)
        };
        for is_tls in [false, true] {
            assert_eq!(of("10.0.0.1", None, is_tls), is_tls);
            assert_eq!(of("10.0.0.1", Some("gopher"), is_tls), is_tls);
            assert_eq!(of("192.0.2.1", Some("https"), is_tls), is_tls);
            assert_eq!(of("192.0.2.1", Some("http"), is_tls), is_tls);
            assert!(of("10.0.0.1", Some("http, HTTPS"), is_tls));
            assert!(!of("::ffff:10.0.0.1", Some("http"), is_tls));
        }
    }
}
