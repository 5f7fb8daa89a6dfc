//! Where tokens are introspected and revoked.

use super::*;

pub(super) fn refused(world: &World) -> Vec<Refused> {
    let admin = &world.server.admin;
    let introspect = "POST /oauth2/introspect";
    let with = |headers: &[&str], token: &str, request: &str, body: &str, status| {
        Refused::with(headers, token, request, body, status)
    };
    let form = |token: &str, body: &str, status| with(&[FORM], token, introspect, body, status);
    let of_root = format!("token={ROOT}");
    let mut refused = vec![
        form("", "token=x", 401),
        form("pat_x", "token=x", 401),
        form(&world.pats.dead[0], "token=x", 401),
        with(&[FORM, "authorization: Basic !"], "", introspect, "token=x", 401),
        with(&[FORM, "authorization: Basic eDp5"], "", introspect, "token=x", 401),
        form(&world.pats.good, "token=x", 403),
        form(&world.authorizations.good, "token=x", 403),
        with(&[FORM], admin, "POST /oauth2/introspect?token=x", "", 400),
        with(&[FORM], "", "POST /oauth2/revoke", &of_root, 400),
        with(&[], admin, "POST /oauth2/token", "token=x", 404),
        with(&[], admin, "POST /oauth2/revoke/x", "token=x", 404),
        with(&[], admin, "POST /oauth2", "token=x", 404),
        with(&[], admin, "GET /oauth2/introspect", "", 405),
        with(&[], admin, "HEAD /oauth2/introspect", "", 405),
        with(&[], admin, "OPTIONS /oauth2/revoke", "", 405),
        with(&[], admin, "DELETE /oauth2/revoke", "", 405),
        with(&["x: y"; 70], admin, introspect, "", 431),
    ];
    for request in [introspect, "POST /oauth2/revoke"] {
        for body in ["", "token", "token=", "x=y", "token=a&token=b"] {
            refused.push(with(&[FORM], admin, request, body, 400));
        }
        refused.push(with(&[JSON], admin, request, r#"{"token":"x"}"#, 400));
        refused.push(with(&[FORM], admin, request, &"x".repeat(2 << 20), 413));
    }
    refused
}
