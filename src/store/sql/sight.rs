//! What may be known in a workspace.

use serde_json::{Value, json};
use sqlx::Pool;

use super::{Db, rows::known_to};
use crate::{
    domain::Revision,
    store::{StoreError, Touched},
};

/// The head, and of those listed in `$1` the ones that may be known of in the workspace `$2`.
const SEEN: &str = concat!(
    "SELECT r.number, r.mark, k.kind, k.id FROM revision r LEFT JOIN (SELECT value ->> 0 AS kind, \
     value ->> 1 AS id FROM ",
    lists_of!(before),
    "$1",
    lists_of!(after),
    ") AS k ON (k.kind = 'credential' AND EXISTS (SELECT 1 FROM credentials c WHERE c.id = k.id AND ",
    known_to!("$2"),
    ")) OR (k.kind = 'user' AND EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = k.id \
     AND m.workspace_id = $2)) OR (k.kind = 'organization' AND EXISTS (SELECT 1 FROM workspaces w \
     WHERE w.id = $2 AND w.organization_id = k.id)) WHERE r.id = 1"
);

/// A row of [`SEEN`]: the head's number and mark, and a kind and an id.
type Row = (i64, i64, Option<String>, Option<String>);

/// Those of these credentials, users and organizations that may be known of in a
/// workspace, and the head.
pub(super) async fn seen(
    pool: &Pool<Db>,
    workspace_id: &str,
    touched: &[Touched],
) -> Result<(Vec<Touched>, Revision), StoreError> {
    let listed: Value = touched.iter().filter_map(listed).collect();
    let rows: Vec<Row> =
        sqlx::query_as(SEEN).bind(listed.to_string()).bind(workspace_id).fetch_all(pool).await?;
    let Some((number, mark, ..)) = rows.first() else {
        return Err(sqlx::Error::RowNotFound.into());
    };
    let head = Revision { number: *number, mark: *mark };
    let seen = rows.into_iter().filter_map(|(.., kind, id)| match kind?.as_str() {
        "credential" => Some(Touched::Credential(id?)),
        "organization" => Some(Touched::Organization(id?)),
        _ => Some(Touched::User(id?)),
    });
    Ok((seen.collect(), head))
}

fn listed(touched: &Touched) -> Option<Value> {
    match touched {
        Touched::Credential(id) => Some(json!(["credential", id])),
        Touched::User(id) => Some(json!(["user", id])),
        Touched::Organization(id) => Some(json!(["organization", id])),
        Touched::Member { .. } | Touched::Workspace(_) | Touched::Everything => None,
    }
}
