//! What a verification reads: the credentials that secrets prove, with all that decides
//! whether they may be used.

use serde_json::{Value, json};
use sqlx::{FromRow as _, Row as _};

use super::{
    Connection, Db,
    rows::{FoundRow, HeadRow, credential_columns, ended},
};
use crate::{
    domain::{Digest, Found},
    store::{Lookup, Lookups, StoreError, Wanted, Workspaces},
};

/// The columns of [`FoundRow`] and [`HeadRow`], where `$secrets` joins what is found as
/// `secrets s`; a row that finds none says only the latter.
///
/// The conditions on the two tables of one row tell PostgreSQL that each has but
/// one: without statistics it takes them for millions together, and compiles the
/// statement (JIT) at each execution, which takes a second.
macro_rules! find {
    ($columns:literal, $required:literal, $askers:literal, $has_unloaded:literal, $secrets:expr) => {
        concat!(
            "SELECT r.number AS head_number, r.mark AS head_mark, p.id AS current_pepper, ",
            $columns,
            credential_columns!(),
            ", u.external_id AS user_external_id, u.handle AS user_handle, \
             u.is_admin AS user_is_admin, u.is_active AS user_is_active, \
             w.external_id AS workspace_external_id, w.is_active AS workspace_is_active, \
             o.external_id AS organization_external_id, o.is_active AS organization_is_active, \
             (SELECT rw.organization_id FROM workspaces rw WHERE rw.id = ",
            $required,
            ") AS required_organization_id, \
             EXISTS (SELECT 1 FROM memberships m JOIN workspaces mw ON mw.id = m.workspace_id \
             JOIN organizations mo ON mo.id = mw.organization_id \
             WHERE m.user_id = c.user_id AND m.workspace_id = ",
            $required,
            " AND mw.is_active AND mo.is_active) AS member_of_required, \
             EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = c.user_id AND m.workspace_id = ",
            $askers,
            ") AS member_of_askers, ",
            $has_unloaded,
            " AS has_unloaded FROM revision r CROSS JOIN store t JOIN peppers p ON p.is_current ",
            $secrets,
            " LEFT JOIN credentials c ON c.id = s.credential_id \
             LEFT JOIN users u ON u.id = c.user_id \
             LEFT JOIN workspaces w ON w.id = c.workspace_id \
             LEFT JOIN organizations o ON o.id = c.organization_id \
             WHERE r.id = 1 AND t.id = 1"
        )
    };
}

const FIND: &str = find!(
    "",
    "$5",
    "$6",
    "CASE WHEN s.id IS NULL THEN EXISTS (SELECT 1 FROM secrets n WHERE n.shown = $7 \
     AND n.pepper_id NOT IN ($8, $9, $10, $11)) ELSE FALSE END",
    "LEFT JOIN secrets s ON s.digest IN ($1, $2, $3, $4)"
);

/// Each list of the list has the place of what is wanted, one of its digests in
/// hexadecimal, the two workspaces, and what is shown of the secret.
const FIND_ALL: &str = find!(
    "k.place, ",
    "k.required",
    "k.askers",
    "CASE WHEN s.id IS NULL THEN EXISTS (SELECT 1 FROM secrets n WHERE n.shown = k.shown \
     AND n.pepper_id NOT IN ($2, $3, $4, $5)) ELSE FALSE END",
    concat!(
        "LEFT JOIN (SELECT CAST(value ->> 0 AS BIGINT) AS place, ",
        bytes!(before),
        "value ->> 1",
        bytes!(after),
        " AS digest, value ->> 2 AS required, value ->> 3 AS askers, value ->> 4 AS shown FROM ",
        lists_of!(before),
        "$1",
        lists_of!(after),
        ") AS k ON TRUE LEFT JOIN secrets s ON s.digest = k.digest"
    )
);

/// What is there of each that is wanted, of one instant.
pub(super) async fn find_all(
    connection: &mut Connection,
    wanted: &[Wanted<'_>],
) -> Result<Lookups, StoreError> {
    if let [one] = wanted {
        let lookup = find(connection, *one).await?;
        let (head, current_pepper) = (lookup.head, lookup.current_pepper.clone());
        return Ok(Lookups { lookups: vec![Ok(lookup)], head, current_pepper });
    }
    let unloaded = wanted.first().map(|wanted| wanted.unloaded).unwrap_or_default();
    let rows = sqlx::query(FIND_ALL)
        .bind(listed(wanted))
        .bind(unloaded.loaded_or_none(0))
        .bind(unloaded.loaded_or_none(1))
        .bind(unloaded.loaded_or_none(2))
        .bind(unloaded.loaded_or_none(3))
        .fetch_all(connection)
        .await?;
    let head = HeadRow::from_row(rows.first().ok_or(sqlx::Error::RowNotFound)?)?.with(None);
    let mut lookups: Vec<Result<Lookup, StoreError>> = Vec::new();
    lookups.resize_with(wanted.len(), || Ok(Lookup { has_unloaded: false, ..head.clone() }));
    for row in &rows {
        // One that says the head alone is at no place.
        let Some(place) = row.try_get::<Option<i64>, _>("place")? else { continue };
        let place = usize::try_from(place).ok().and_then(|place| lookups.get_mut(place));
        let lookup = place.expect("it was listed");
        match found(row) {
            Ok(Some(found)) => *lookup = Ok(Lookup { found: Some(found), ..head.clone() }),
            Ok(None) => {
                if let Ok(lookup) = lookup {
                    lookup.has_unloaded |= row.try_get::<bool, _>("has_unloaded")?;
                }
            }
            Err(error) => *lookup = Err(error),
        }
    }
    let Lookup { head, current_pepper, .. } = head;
    Ok(Lookups { lookups, head, current_pepper })
}

/// What is there of one.
pub(super) async fn find(
    connection: &mut Connection,
    wanted: Wanted<'_>,
) -> Result<Lookup, StoreError> {
    let Wanted { digests, unloaded, workspaces } = wanted;
    let digest = |at: usize| digests.get(at).map(Digest::as_bytes);
    let row = sqlx::query(FIND)
        .bind(digest(0))
        .bind(digest(1))
        .bind(digest(2))
        .bind(digest(3))
        .bind(workspaces.required)
        .bind(workspaces.askers)
        .bind(unloaded.shown)
        .bind(unloaded.loaded_or_none(0))
        .bind(unloaded.loaded_or_none(1))
        .bind(unloaded.loaded_or_none(2))
        .bind(unloaded.loaded_or_none(3))
        .fetch_one(connection)
        .await?;
    let found = found(&row)?;
    Ok(HeadRow::from_row(&row)?.with(found))
}

fn found(row: &<Db as sqlx::Database>::Row) -> Result<Option<Found>, StoreError> {
    let is_found = row.try_get::<Option<String>, _>("secret_id")?.is_some();
    is_found.then(|| FoundRow::from_row(row)).transpose()?.map(Found::try_from).transpose()
}

/// They are bound as one: there may be more of them than an engine binds.
fn listed(wanted: &[Wanted<'_>]) -> String {
    let lists = wanted.iter().enumerate().flat_map(|(place, wanted)| {
        let Workspaces { required, askers } = wanted.workspaces;
        let list = move |digest| json!([place, digest, required, askers, wanted.unloaded.shown]);
        let without_any = wanted.digests.is_empty().then(|| list(None));
        wanted.digests.iter().map(move |digest| list(Some(digits(digest)))).chain(without_any)
    });
    lists.collect::<Value>().to_string()
}

/// A digest in hexadecimal.
pub(super) fn digits(digest: &Digest) -> String {
    digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
