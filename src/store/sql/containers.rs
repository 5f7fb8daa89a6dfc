//! Organizations and workspaces: one type, two tables.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Pool;

use super::{
    Connection, Db, Tx,
    mutation::{Audit, Done, Step},
    rows::ContainerRow,
};
use crate::{
    domain::{
        Container, ContainerKind, ContainerName, ContainerRef, DisplayName, ExternalId, Slug,
        Timestamp,
    },
    store::{
        ContainerChanges, ContainerFilter, ContainerUpsert, Cursor, NewContainer, Refusal,
        StoreError, Touched, Unique, Viewer,
    },
};

/// What is written for each of the two tables: the statements, and what the
/// audit calls the changes.
struct Texts {
    by_id: &'static str,
    by_external_id: &'static str,
    by_slug: &'static str,
    list: &'static str,
    list_of_organization: &'static str,
    list_of_viewer: &'static str,
    insert: &'static str,
    update: &'static str,
    created: &'static str,
    updated: &'static str,
    upserted: &'static str,
}

/// The texts for a table: what says what its rows are part of, with the column and
/// the value for that; what says their organization; what leads to one by its slug;
/// and those that the user `$1` sees.
macro_rules! texts {
    (
        $noun:literal, $table:literal,
        part_of: $part_of:literal $column:literal $value:literal,
        organization: $organization:literal,
        by_slug: $by_slug:literal,
        seen: $seen:literal $(,)?
    ) => {
        Texts {
            by_id: texts!(@named $table, $part_of, $organization, "c.id = $3", $seen),
            by_external_id:
                texts!(@named $table, $part_of, $organization, "c.external_id = $3", $seen),
            by_slug: texts!(@named $table, $part_of, $organization, $by_slug, $seen),
            list: texts!(@list $table, $part_of, $organization, "CAST($1 AS TEXT) IS NULL"),
            list_of_organization: texts!(
                @list $table, $part_of, $organization,
                "CAST($1 AS TEXT) IS NULL AND ", $organization, " = $4"
            ),
            list_of_viewer: texts!(
                @list $table, $part_of, $organization,
                "c.id IN (", $seen, ")"
            ),
            insert: concat!(
                "INSERT INTO ",
                $table,
                " (id, slug, name, external_id, is_active, created_at, updated_at",
                $column,
                ") VALUES ($1, $2, $3, $4, $5, $6, $6",
                $value,
                ") ON CONFLICT (external_id) DO NOTHING RETURNING ",
                texts!(@columns $part_of),
            ),
            update: concat!(
                "UPDATE ",
                $table,
                " SET slug = coalesce($2, slug), name = coalesce($3, name), \
                 external_id = CASE WHEN $4 THEN $5 ELSE external_id END, \
                 is_active = coalesce($6, is_active), updated_at = $7 \
                 WHERE id = $1 AND (slug <> coalesce($2, slug) OR name <> coalesce($3, name) \
                 OR is_active <> coalesce($6, is_active) \
                 OR ($4 AND external_id IS DISTINCT FROM $5)) RETURNING ",
                texts!(@columns $part_of),
            ),
            created: concat!($noun, ".create"),
            updated: concat!($noun, ".update"),
            upserted: concat!($noun, ".upsert"),
        }
    };
    (
        @named $table:literal, $part_of:literal, $organization:literal, $by:literal,
        $seen:literal
    ) => {
        concat!(
            "SELECT ",
            texts!(@columns $part_of),
            " FROM ",
            $table,
            " c WHERE ",
            $by,
            " AND (CAST($1 AS TEXT) IS NULL OR c.id IN (",
            $seen,
            ")) AND (CAST($2 AS TEXT) IS NULL OR c.id = $2) AND (CAST($4 AS TEXT) IS NULL OR ",
            $organization,
            " = $4)"
        )
    };
    (@list $table:literal, $part_of:literal, $organization:literal, $($lead:literal),*) => {
        concat!(
            "SELECT ",
            texts!(@columns $part_of),
            " FROM ",
            $table,
            " c WHERE ",
            $($lead,)*
            " AND (CAST($2 AS TEXT) IS NULL OR c.id = $2) \
             AND c.is_active = coalesce($3, c.is_active) AND (CAST($4 AS TEXT) IS NULL OR ",
            $organization,
            " = $4) AND (c.created_at, c.id) < ($5, $6) \
             ORDER BY c.created_at DESC, c.id DESC LIMIT $7"
        )
    };
    (@columns $part_of:literal) => {
        concat!(
            "id, ",
            $part_of,
            " AS organization_id, slug, name, external_id, is_active, created_at, updated_at"
        )
    };
}

const ORGANIZATIONS: Texts = texts!(
    "organization", "organizations",
    part_of: "CAST(NULL AS TEXT)" "" "",
    organization: "c.id",
    by_slug: "c.slug = $3",
    seen: "SELECT m.organization_id FROM memberships m WHERE m.user_id = $1 \
        AND m.organization_id IS NOT NULL UNION SELECT w.organization_id FROM memberships m \
        JOIN workspaces w ON w.id = m.workspace_id WHERE m.user_id = $1",
);
const WORKSPACES: Texts = texts!(
    "workspace", "workspaces",
    part_of: "organization_id" ", organization_id" ", $7",
    organization: "c.organization_id",
    by_slug: "c.slug = $3 AND c.organization_id = $4",
    seen: "SELECT m.workspace_id FROM memberships m WHERE m.user_id = $1 \
        AND m.workspace_id IS NOT NULL UNION SELECT w.id FROM memberships m \
        JOIN workspaces w ON w.organization_id = m.organization_id WHERE m.user_id = $1",
);

/// The unique fields: how the engines' messages end, and their names.
const FIELDS: &[(&str, Unique)] = &[
    ("slug", Unique::Slug),
    ("slug_key", Unique::Slug),
    ("external_id", Unique::ExternalId),
    ("external_id_key", Unique::ExternalId),
];

fn texts(kind: ContainerKind) -> &'static Texts {
    match kind {
        ContainerKind::Organization => &ORGANIZATIONS,
        ContainerKind::Workspace => &WORKSPACES,
    }
}

pub(super) async fn container(
    connection: &mut Connection,
    name: &ContainerName,
    viewer: &Viewer,
) -> Result<Option<Container>, StoreError> {
    let (workspace, organization) = match name {
        ContainerName::Organization(organization) => {
            return named(connection, name.kind(), organization, None, viewer).await;
        }
        ContainerName::Workspace { workspace, organization } => (workspace, organization),
    };
    let organization = match (organization, workspace) {
        (None, ContainerRef::Slug(_)) => return Ok(None),
        (None, ContainerRef::Id(_) | ContainerRef::External(_)) => None,
        (Some(organization), _) => {
            let kind = ContainerKind::Organization;
            match named(connection, kind, organization, None, &Viewer::Administrator).await? {
                None => return Ok(None),
                Some(organization) => Some(organization.id),
            }
        }
    };
    named(connection, name.kind(), workspace, organization.as_deref(), viewer).await
}

async fn named(
    connection: &mut Connection,
    kind: ContainerKind,
    name: &ContainerRef,
    organization_id: Option<&str>,
    viewer: &Viewer,
) -> Result<Option<Container>, StoreError> {
    let texts = texts(kind);
    let (statement, key) = match name {
        ContainerRef::Id(id) => (texts.by_id, id.as_str()),
        ContainerRef::External(external_id) => (texts.by_external_id, external_id.as_str()),
        ContainerRef::Slug(slug) => (texts.by_slug, slug.as_str()),
    };
    let (user, within) = seen_by(viewer, kind);
    sqlx::query_as::<Db, ContainerRow>(statement)
        .bind(user)
        .bind(within)
        .bind(key)
        .bind(organization_id)
        .fetch_optional(connection)
        .await?
        .map(Container::try_from)
        .transpose()
}

pub(super) async fn list(
    pool: &Pool<Db>,
    filter: &ContainerFilter,
    viewer: &Viewer,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Vec<Container>, StoreError> {
    let (user, within) = seen_by(viewer, filter.kind);
    let texts = texts(filter.kind);
    let statement = match (user, &filter.organization_id) {
        (Some(_), _) => texts.list_of_viewer,
        (None, Some(_)) => texts.list_of_organization,
        (None, None) => texts.list,
    };
    sqlx::query_as::<Db, ContainerRow>(statement)
        .bind(user)
        .bind(within)
        .bind(filter.is_active)
        .bind(filter.organization_id.as_deref())
        .bind(after.map_or(i64::MAX, |cursor| cursor.created_at.as_micros()))
        .bind(after.map_or("", |cursor| cursor.id.as_str()))
        .bind(limit)
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(Container::try_from)
        .collect()
}

/// The user who must belong to a container to see it, and the only one that it
/// then sees.
fn seen_by(viewer: &Viewer, kind: ContainerKind) -> (Option<&str>, Option<&str>) {
    match viewer {
        Viewer::Administrator => (None, None),
        Viewer::User { id, within } => {
            let within = within.as_ref().map(|(workspace, organization)| match kind {
                ContainerKind::Organization => organization.as_str(),
                ContainerKind::Workspace => workspace.as_str(),
            });
            (Some(id.as_str()), within)
        }
    }
}

/// Keeps a new container, in which no token is bound yet, so no answer changes.
pub(super) struct Insert<'a> {
    pub(super) new: &'a NewContainer,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for Insert<'_> {
    type Output = Container;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Container>, StoreError> {
        let made = insert(tx, self.new, self.at)
            .await?
            .ok_or(StoreError::AlreadyExists(Unique::ExternalId))?;
        let audit = Audit {
            action: texts(made.kind()).created,
            targets: vec![made.id.clone()],
            details: described(&made),
        };
        Ok(Done { value: made, touched: Vec::new(), audit: Some(audit) })
    }
}

/// Changes a container, and so perhaps what is said of it in answers of Verify.
pub(super) struct Update<'a> {
    pub(super) name: &'a ContainerName,
    pub(super) changes: &'a ContainerChanges,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for Update<'_> {
    type Output = Option<Container>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<Container>>, StoreError> {
        let Some(before) = container(tx, self.name, &Viewer::Administrator).await? else {
            return Ok(Done::nothing(None));
        };
        let Some(changed) = update(tx, &before, self.changes, self.at).await? else {
            let id = ContainerRef::Id(before.id);
            let kind = self.name.kind();
            return Ok(Done::nothing(named(tx, kind, &id, None, &Viewer::Administrator).await?));
        };
        let audit = Audit {
            action: texts(changed.kind()).updated,
            targets: vec![changed.id.clone()],
            details: described(&changed),
        };
        let touched = vec![touched(&changed)];
        Ok(Done { value: Some(changed), touched, audit: Some(audit) })
    }
}

/// Makes or changes containers by their external ids.
pub(super) struct Upsert<'a> {
    pub(super) kind: ContainerKind,
    pub(super) containers: &'a [ContainerUpsert],
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for Upsert<'_> {
    type Output = Vec<Container>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Vec<Container>>, StoreError> {
        // In one order, so that two who do the same at once wait for each other once.
        let mut sorted: Vec<_> = self.containers.iter().enumerate().collect();
        sorted.sort_by_key(|(_, upsert)| upsert.external_id.as_str());
        let (mut done, mut targets, mut details) = (Vec::new(), Vec::new(), Vec::new());
        let mut all_touched = Vec::new();
        for (at, upsert) in sorted {
            let (container, what) = self.one(tx, upsert).await.map_err(|error| error.at(at))?;
            if what != Upserted::Nothing {
                targets.push(container.id.clone());
                details.push(described(&container));
            }
            if what == Upserted::Changed {
                all_touched.push(touched(&container));
            }
            done.push((at, container));
        }
        done.sort_by_key(|(at, _)| *at);
        let audit = (!targets.is_empty()).then(|| Audit {
            action: texts(self.kind).upserted,
            targets,
            details: details.into(),
        });
        let value = done.into_iter().map(|(_, container)| container).collect();
        Ok(Done { value, touched: all_touched, audit })
    }
}

/// What an upsert did to one of its records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Upserted {
    Made,
    Changed,
    Nothing,
}

impl Upsert<'_> {
    async fn one(
        &self,
        tx: &mut Tx,
        upsert: &ContainerUpsert,
    ) -> Result<(Container, Upserted), StoreError> {
        let external = ContainerRef::External(upsert.external_id.clone());
        let found = named(tx, self.kind, &external, None, &Viewer::Administrator).await?;
        let found = match found {
            Some(found) => found,
            None => {
                if let Some(made) = insert(tx, &self.made_of(upsert)?, self.at).await? {
                    return Ok((made, Upserted::Made));
                }
                // Another has made it since.
                named(tx, self.kind, &external, None, &Viewer::Administrator)
                    .await?
                    .ok_or_else(|| StoreError::Failed("a container is there and not".into()))?
            }
        };
        let moves =
            upsert.organization_id.is_some() && upsert.organization_id != found.organization_id;
        if moves {
            return Err(StoreError::Refused(Refusal::OtherOrganization));
        }
        let changes = ContainerChanges {
            slug: upsert.slug.clone(),
            name: upsert.name.clone(),
            external_id: None,
            is_active: upsert.is_active,
        };
        if let Some(changed) = update(tx, &found, &changes, self.at).await? {
            return Ok((changed, Upserted::Changed));
        }
        // As it is now: another may have made it so since.
        let id = ContainerRef::Id(found.id);
        let found = named(tx, self.kind, &id, None, &Viewer::Administrator).await?;
        let found = found.ok_or_else(|| StoreError::Failed("a container is gone".into()))?;
        Ok((found, Upserted::Nothing))
    }

    /// What it is if it is new.
    fn made_of(&self, upsert: &ContainerUpsert) -> Result<NewContainer, StoreError> {
        let missing = |field| StoreError::Refused(Refusal::Incomplete(field));
        if self.kind == ContainerKind::Workspace && upsert.organization_id.is_none() {
            return Err(missing("organization"));
        }
        let slug = upsert.slug.clone().ok_or_else(|| missing("slug"))?;
        let called_so = || slug.as_str().parse().expect("a slug is a name");
        Ok(NewContainer {
            id: upsert.new_id.clone(),
            organization_id: upsert.organization_id.clone(),
            name: upsert.name.clone().unwrap_or_else(called_so),
            slug,
            external_id: Some(upsert.external_id.clone()),
            is_active: upsert.is_active.unwrap_or(true),
        })
    }
}

/// Keeps a new container; `None` if another has its external id.
async fn insert(
    tx: &mut Tx,
    new: &NewContainer,
    at: Timestamp,
) -> Result<Option<Container>, StoreError> {
    let kind = match &new.organization_id {
        None => ContainerKind::Organization,
        Some(id) => {
            check_there(tx, ContainerKind::Organization, id).await?;
            ContainerKind::Workspace
        }
    };
    let query = sqlx::query_as::<Db, ContainerRow>(texts(kind).insert)
        .bind(&new.id)
        .bind(new.slug.as_str())
        .bind(new.name.as_str())
        .bind(new.external_id.as_ref().map(ExternalId::as_str))
        .bind(new.is_active)
        .bind(at.as_micros());
    let query = match &new.organization_id {
        None => query,
        Some(organization_id) => query.bind(organization_id),
    };
    query
        .fetch_optional(&mut **tx)
        .await
        .map_err(|error| super::super::taken(error, FIELDS))?
        .map(Container::try_from)
        .transpose()
}

/// Changes a container; `None` if it is as it shall be.
async fn update(
    tx: &mut Tx,
    container: &Container,
    changes: &ContainerChanges,
    at: Timestamp,
) -> Result<Option<Container>, StoreError> {
    let external_id = changes.external_id.as_ref();
    sqlx::query_as::<Db, ContainerRow>(texts(container.kind()).update)
        .bind(&container.id)
        .bind(changes.slug.as_ref().map(Slug::as_str))
        .bind(changes.name.as_ref().map(DisplayName::as_str))
        .bind(external_id.is_some())
        .bind(external_id.and_then(Option::as_ref).map(ExternalId::as_str))
        .bind(changes.is_active)
        .bind(at.as_micros())
        .fetch_optional(&mut **tx)
        .await
        .map_err(|error| super::super::taken(error, FIELDS))?
        .map(Container::try_from)
        .transpose()
}

/// That a container, which once made is there for ever, is there.
pub(super) async fn check_there(
    tx: &mut Tx,
    kind: ContainerKind,
    id: &str,
) -> Result<(), StoreError> {
    let name = ContainerRef::Id(id.to_owned());
    match named(tx, kind, &name, None, &Viewer::Administrator).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::Refused(match kind {
            ContainerKind::Organization => Refusal::NoOrganization,
            ContainerKind::Workspace => Refusal::NoWorkspace,
        })),
    }
}

fn touched(container: &Container) -> Touched {
    match container.kind() {
        ContainerKind::Organization => Touched::Organization(container.id.clone()),
        ContainerKind::Workspace => Touched::Workspace(container.id.clone()),
    }
}

/// What the audit says of a container that was made or changed: as it then is.
fn described(container: &Container) -> serde_json::Value {
    json!({
        "organization_id": container.organization_id,
        "slug": container.slug.as_str(),
        "name": container.name.as_str(),
        "external_id": container.external_id.as_ref().map(ExternalId::as_str),
        "is_active": container.is_active,
    })
}
