//! What a verification reads: the credentials that secrets prove, with all that decides
//! whether they may be used.

use serde_json::Value;
use sqlx::{FromRow as _, Pool, Row as _};

use super::{
    Db,
    rows::{FoundRow, HeadRow, credential_columns, ended},
};
use crate::{
    domain::{Digest, Found, PepperId},
    store::{Lookup, Lookups, StoreError, Unloaded, Wanted, Workspaces},
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

/// Each text of the list is a place of four digits, a digest in hexadecimal, and the
/// workspace that is asked about, which may be none. The peppers that are in use are
/// looked up one after the other: to count on any row's being of another would read
/// all of them where none is.
const FIND_ALL: &str = find!(
    "k.place, ",
    "k.required",
    "$2",
    "EXISTS (WITH RECURSIVE used (id) AS (SELECT min(pepper_id) FROM secrets UNION ALL \
     SELECT (SELECT min(n.pepper_id) FROM secrets n WHERE n.pepper_id > used.id) \
     FROM used WHERE used.id IS NOT NULL) \
     SELECT 1 FROM used WHERE used.id NOT IN ($3, $4, $5, $6))",
    concat!(
        "LEFT JOIN (SELECT CAST(substr(value, 1, 4) AS BIGINT) AS place, ",
        bytes!(before),
        "substr(value, 5, 64)",
        bytes!(after),
        " AS digest, substr(value, 69) AS required FROM ",
        rows_of!(before),
        "$1",
        rows_of!(after),
        ") AS k ON TRUE LEFT JOIN secrets s ON s.digest = k.digest"
    )
);

pub(super) async fn find(
    pool: &Pool<Db>,
    digests: &[Digest],
    unloaded: Unloaded<'_>,
    workspaces: Workspaces<'_>,
) -> Result<Lookup, StoreError> {
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
        .fetch_one(pool)
        .await?;
    let found = found(&row)?;
    Ok(HeadRow::from_row(&row)?.with(found))
}

pub(super) async fn find_all(
    pool: &Pool<Db>,
    wanted: &[Wanted<'_>],
    loaded: &[PepperId],
    askers: Option<&str>,
) -> Result<Lookups, StoreError> {
    let unloaded = Unloaded { shown: "", loaded };
    let rows = sqlx::query(FIND_ALL)
        .bind(listed(wanted))
        .bind(askers)
        .bind(unloaded.loaded_or_none(0))
        .bind(unloaded.loaded_or_none(1))
        .bind(unloaded.loaded_or_none(2))
        .bind(unloaded.loaded_or_none(3))
        .fetch_all(pool)
        .await?;
    let mut all = vec![None; wanted.len()];
    for row in &rows {
        if let Some(found) = found(row)? {
            let place: i64 = row.try_get("place")?;
            let place = usize::try_from(place).ok().and_then(|place| all.get_mut(place));
            *place.expect("it was listed") = Some(found);
        }
    }
    let head = HeadRow::from_row(rows.first().ok_or(sqlx::Error::RowNotFound)?)?.with(None);
    Ok(Lookups {
        found: all,
        has_unloaded: head.has_unloaded,
        head: head.head,
        current_pepper: head.current_pepper,
    })
}

fn found(row: &<Db as sqlx::Database>::Row) -> Result<Option<Found>, StoreError> {
    let is_found = row.try_get::<Option<String>, _>("secret_id")?.is_some();
    is_found.then(|| FoundRow::from_row(row)).transpose()?.map(Found::try_from).transpose()
}

/// They are bound as one: there may be more of them than an engine binds.
fn listed(wanted: &[Wanted<'_>]) -> String {
    let texts = wanted.iter().enumerate().flat_map(|(place, wanted)| {
        let required = wanted.required.unwrap_or_default();
        wanted.digests.iter().map(move |digest| format!("{place:04}{}{required}", digits(digest)))
    });
    texts.collect::<Value>().to_string()
}

/// A digest in hexadecimal.
pub(super) fn digits(digest: &Digest) -> String {
    digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
