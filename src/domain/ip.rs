use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::Invalid;

/// How many networks one credential may list.
pub const MAX_ALLOWED_IPS: usize = 100;

/// The networks from which a credential may be used; empty: from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedIps(Vec<IpNet>);

impl AllowedIps {
    /// Adds one network: CIDR notation, or an address for that address alone.
    /// Kept as its first address and length; IPv4 mapped into IPv6 becomes IPv4.
    ///
    /// # Errors
    ///
    /// The text is not a network, or [`MAX_ALLOWED_IPS`] are there already.
    pub fn push(&mut self, text: &str) -> Result<(), Invalid> {
        if self.0.len() == MAX_ALLOWED_IPS {
            return Err(Invalid(format!("must be at most {MAX_ALLOWED_IPS} networks")));
        }
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| Invalid::new("must be an IP address or a network in CIDR notation"))?;
        let network = canonical(network.trunc());
        if !self.0.contains(&network) {
            self.0.push(network);
        }
        Ok(())
    }

    /// Whether every address is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a call from `address` is allowed; an unknown address is not,
    /// unless every address is.
    #[must_use]
    pub fn allow(&self, address: Option<IpAddr>) -> bool {
        self.0.is_empty()
            || address.is_some_and(|address| {
                let address = address.to_canonical();
                self.0.iter().any(|network| network.contains(&address))
            })
    }

    /// Whether every address that `other` allows is allowed here too.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        self.0.is_empty()
            || (!other.0.is_empty()
                && other.0.iter().all(|narrow| self.0.iter().any(|wide| wide.contains(narrow))))
    }

    /// The networks in CIDR notation, in the order in which they were given.
    #[must_use]
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match Ipv6Addr::to_ipv4_mapped(&v6.network()) {
            Some(v4) => IpNet::V4(Ipv4Net::new(v4, v6.prefix_len() - 96).expect("0 to 32 bits")),
            None => network,
        },
        IpNet::V4(_) | IpNet::V6(_) => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> AllowedIps {
        let mut list = AllowedIps::default();
        texts.iter().for_each(|text| list.push(text).unwrap());
        list
    }

    #[test]
    fn mapped_addresses_are_their_ipv4_addresses() {
        let address = Some("::ffff:10.2.3.4".parse().unwrap());
        assert!(list(&["10.0.0.0/8"]).allow(address));
        assert!(list(&["::ffff:10.0.0.0/104"]).allow(Some("10.2.3.4".parse().unwrap())));
        assert!(!list(&["11.0.0.0/8"]).allow(address));
    }

    #[test]
    fn an_unknown_address_is_allowed_only_where_all_are() {
        assert!(list(&[]).allow(None));
        assert!(!list(&["0.0.0.0/0", "::/0"]).allow(None));
    }

    #[test]
    fn networks_lose_their_host_bits_and_doubles() {
        assert_eq!(
            list(&["10.1.2.3/8", "10.0.0.0/8", "::1"]).to_texts(),
            ["10.0.0.0/8", "::1/128"]
        );
        let mut none = AllowedIps::default();
        for text in ["", "10.0.0.0/33", "example.org", "10.0.0", "10.0.0.1-10.0.0.9"] {
            assert!(none.push(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_covers_what_lies_within_it() {
        let wide = list(&["10.0.0.0/8", "::/0"]);
        assert!(wide.cover(&list(&["10.1.0.0/16"])));
        assert!(!wide.cover(&list(&["10.1.0.0/16", "11.0.0.0/8"])));
        assert!(!wide.cover(&list(&[])), "no list is every address");
        assert!(list(&[]).cover(&wide));
    }
}
