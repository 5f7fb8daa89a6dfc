//! The token in the `authorization` header of a request.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

/// The token that is presented, if there is one and no other.
pub(crate) fn only_bearer(headers: &HeaderMap) -> Option<&str> {
    let mut presented = headers.get_all(AUTHORIZATION).iter();
    presented.next().filter(|_| presented.next().is_none()).and_then(bearer)
}

/// The token in `Bearer TOKEN` or `OAuth2 TOKEN` (RFC 6750, SEEDS of Arvados).
pub(crate) fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("oauth2");
    known.then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_and_oauth2_carry_a_token() {
        let of =
            |text: &'static str| bearer(&HeaderValue::from_static(text)).map(ToOwned::to_owned);
        assert_eq!(of("Bearer x"), Some("x".to_owned()));
        assert_eq!(of("bearer  x "), Some("x".to_owned()));
        assert_eq!(of("OAuth2 x"), Some("x".to_owned()));
        assert_eq!(of("Basic x"), None);
        assert_eq!(of("x"), None);
    }
}
