//! Who belongs to what.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::Pool;

use super::{
    Connection, Db, Tx, containers, directory,
    mutation::{Audit, Done, Step},
    rows::MembershipRow,
};
use crate::{
    domain::{ContainerKind, Membership, Role, UserId},
    random,
    store::{
        Actor, Cursor, Expects, MembershipChanges, MembershipFilter, MembershipPut,
        OnlyMemberships, Refusal, StoreError, Touched, Unique, Viewer,
    },
};

macro_rules! columns {
    () => {
        "m.id, m.user_id, m.organization_id, m.workspace_id, m.role, m.created_at"
    };
}

/// A page of those that `$1` may see, who is bound to the workspace `$2` of the
/// organization `$3` if those are given. What leads to the rows comes first.
macro_rules! list {
    ($lead:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM memberships m LEFT JOIN workspaces w ON w.id = m.workspace_id WHERE ",
            $lead,
            " AND (CAST($1 AS TEXT) IS NULL OR m.user_id = $1 OR (CAST($2 AS TEXT) IS NULL \
             AND EXISTS (SELECT 1 FROM memberships mine WHERE mine.user_id = $1 \
             AND mine.role IN ('owner', 'admin') \
             AND mine.organization_id = coalesce(m.organization_id, w.organization_id)))) \
             AND (CAST($2 AS TEXT) IS NULL OR m.workspace_id = $2 OR m.organization_id = $3) \
             AND (CAST($4 AS TEXT) IS NULL OR m.user_id = $4) \
             AND (CAST($5 AS TEXT) IS NULL OR m.organization_id = $5) \
             AND (CAST($6 AS TEXT) IS NULL OR m.workspace_id = $6) \
             AND (m.created_at, m.id) < ($7, $8) \
             ORDER BY m.created_at DESC, m.id DESC LIMIT $9"
        )
    };
}

const MEMBERSHIP: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM memberships m WHERE m.user_id = $1 AND (m.organization_id = $2 OR m.workspace_id = $3)"
);
const LIST: &str = list!("TRUE");
const LIST_OF_VIEWER: &str = list!(
    "m.id IN (SELECT id FROM memberships WHERE user_id = $1 UNION \
     SELECT x.id FROM memberships mine JOIN memberships x \
     ON x.organization_id = mine.organization_id \
     WHERE mine.user_id = $1 AND mine.role IN ('owner', 'admin') UNION \
     SELECT x.id FROM memberships mine JOIN workspaces mw \
     ON mw.organization_id = mine.organization_id JOIN memberships x ON x.workspace_id = mw.id \
     WHERE mine.user_id = $1 AND mine.role IN ('owner', 'admin'))"
);
const LIST_OF_USER: &str = list!("m.user_id = $4");
const LIST_OF_ORGANIZATION: &str = list!("m.organization_id = $5");
const LIST_OF_WORKSPACE: &str = list!("m.workspace_id = $6");
const OF_USER: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM memberships m LEFT JOIN workspaces w ON w.id = m.workspace_id WHERE m.user_id = $1 \
     AND (CAST($2 AS TEXT) IS NULL OR coalesce(m.organization_id, w.organization_id) = $2)"
);

pub(super) async fn membership(
    connection: &mut Connection,
    user: &UserId,
    kind: ContainerKind,
    container_id: &str,
) -> Result<Option<Membership>, StoreError> {
    let (organization_id, workspace_id) = columns(kind, container_id);
    sqlx::query_as::<Db, MembershipRow>(MEMBERSHIP)
        .bind(user.as_str())
        .bind(organization_id)
        .bind(workspace_id)
        .fetch_optional(connection)
        .await?
        .map(Membership::try_from)
        .transpose()
}

pub(super) async fn list(
    pool: &Pool<Db>,
    filter: &MembershipFilter,
    viewer: &Viewer,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Vec<Membership>, StoreError> {
    let (viewer, within) = match viewer {
        Viewer::Administrator => (None, None),
        Viewer::User { id, within } => (Some(id.as_str()), within.as_ref()),
    };
    let container = filter.container.as_ref();
    let (organization_id, workspace_id) =
        container.map_or((None, None), |(kind, id)| columns(*kind, id));
    let statement = match (&filter.user, organization_id, workspace_id) {
        (Some(_), _, _) => LIST_OF_USER,
        (None, Some(_), _) => LIST_OF_ORGANIZATION,
        (None, None, Some(_)) => LIST_OF_WORKSPACE,
        (None, None, None) if viewer.is_some() => LIST_OF_VIEWER,
        (None, None, None) => LIST,
    };
    sqlx::query_as::<Db, MembershipRow>(statement)
        .bind(viewer)
        .bind(within.map(|(workspace, _)| workspace.as_str()))
        .bind(within.map(|(_, organization)| organization.as_str()))
        .bind(filter.user.as_ref().map(UserId::as_str))
        .bind(organization_id)
        .bind(workspace_id)
        .bind(after.map_or(i64::MAX, |cursor| cursor.created_at.as_micros()))
        .bind(after.map_or("", |cursor| cursor.id.as_str()))
        .bind(limit)
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(Membership::try_from)
        .collect()
}

/// The values of `organization_id` and `workspace_id`, of which one is set.
fn columns(kind: ContainerKind, id: &str) -> (Option<&str>, Option<&str>) {
    match kind {
        ContainerKind::Organization => (Some(id), None),
        ContainerKind::Workspace => (None, Some(id)),
    }
}

/// Makes, changes and ends memberships. Under the locks of their users, which
/// whoever binds a token takes too, nothing comes in between.
pub(super) struct Change<'a> {
    pub(super) changes: &'a MembershipChanges,
    pub(super) actor: &'a Actor,
}

/// What became of one membership: as what its user belonged, and as what now.
struct Changed {
    user: UserId,
    kind: ContainerKind,
    container_id: String,
    from: Option<Role>,
    to: Option<Role>,
}

#[async_trait]
impl Step for Change<'_> {
    type Output = Vec<Membership>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Vec<Membership>>, StoreError> {
        self.lock_users(tx).await?;
        let (mut put, mut changed) = (Vec::new(), Vec::new());
        for (at, wanted) in self.changes.puts.iter().enumerate() {
            let (membership, change) = self.put(tx, wanted).await.map_err(|error| error.at(at))?;
            put.extend(membership);
            changed.extend(change);
        }
        if let Some(only) = &self.changes.only {
            self.end_others(tx, only, &mut changed).await?;
        }
        let users: BTreeSet<&str> = changed.iter().map(|change| change.user.as_str()).collect();
        let containers = changed.iter().map(|change| change.container_id.as_str());
        let targets: BTreeSet<&str> = users.iter().copied().chain(containers).collect();
        let audit = (!changed.is_empty()).then(|| Audit {
            action: "membership.change",
            targets: targets.into_iter().map(str::to_owned).collect(),
            details: changed.iter().map(Changed::to_json).collect(),
        });
        let touched: BTreeSet<Touched> = changed.iter().map(Changed::touched).collect();
        Ok(Done { value: put, touched: touched.into_iter().collect(), audit })
    }
}

impl Change<'_> {
    async fn lock_users(&self, tx: &mut Tx) -> Result<(), StoreError> {
        // Where there is an only one, the puts are of that user, and name none.
        let one_of_many = self.changes.only.is_none();
        let puts = self.changes.puts.iter().enumerate();
        let puts = puts.map(|(at, put)| (&put.user, one_of_many.then_some(at)));
        let only = self.changes.only.iter().map(|only| (&only.user, None));
        let mut users: Vec<_> = puts.chain(only).collect();
        users.sort_by_key(|(user, _)| user.as_str());
        users.dedup_by_key(|(user, _)| user.as_str());
        for (user, at) in users {
            if !directory::lock(tx, user, self.actor).await? {
                let error = StoreError::Refused(Refusal::NoOwner);
                return Err(match at {
                    Some(at) => error.at(at),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// Makes one membership as it shall be, and says what that changed.
    async fn put(
        &self,
        tx: &mut Tx,
        put: &MembershipPut,
    ) -> Result<(Option<Membership>, Option<Changed>), StoreError> {
        let there = membership(tx, &put.user, put.kind, &put.container_id).await?;
        match (put.expects, &there) {
            (Expects::None, Some(_)) => {
                return Err(StoreError::AlreadyExists(Unique::Membership));
            }
            (Expects::One, None) => return Err(StoreError::Refused(Refusal::NoMembership)),
            (Expects::Either, _) | (Expects::None, None) | (Expects::One, Some(_)) => {}
        }
        let from = there.as_ref().map(|there| there.role);
        if from == put.role {
            return Ok((there, None));
        }
        let after = match (there, put.role) {
            (None, None) => None,
            (None, Some(role)) => Some(self.insert(tx, put, role).await?),
            (Some(there), Some(role)) => Some(self.update(tx, there, role).await?),
            (Some(there), None) => {
                end(tx, &there).await?;
                None
            }
        };
        let changed = Changed {
            user: put.user.clone(),
            kind: put.kind,
            container_id: put.container_id.clone(),
            from,
            to: put.role,
        };
        Ok((after, Some(changed)))
    }

    async fn insert(
        &self,
        tx: &mut Tx,
        put: &MembershipPut,
        role: Role,
    ) -> Result<Membership, StoreError> {
        containers::check_there(tx, put.kind, &put.container_id).await?;
        let made = Membership {
            id: random::id(self.actor.at),
            user_id: put.user.clone(),
            kind: put.kind,
            container_id: put.container_id.clone(),
            role,
            created_at: self.actor.at,
        };
        let (organization_id, workspace_id) = columns(put.kind, &put.container_id);
        sqlx::query(
            "INSERT INTO memberships (id, user_id, organization_id, workspace_id, role, \
             created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $6)",
        )
        .bind(&made.id)
        .bind(made.user_id.as_str())
        .bind(organization_id)
        .bind(workspace_id)
        .bind(role.as_str())
        .bind(self.actor.at.as_micros())
        .execute(&mut **tx)
        .await?;
        Ok(made)
    }

    /// Gives a membership another role. A workspace's new guest gets another id with
    /// it, to which no token is bound.
    async fn update(
        &self,
        tx: &mut Tx,
        there: Membership,
        role: Role,
    ) -> Result<Membership, StoreError> {
        let loses_tokens = there.kind == ContainerKind::Workspace && !role.holds_tokens();
        let id = if loses_tokens { random::id(self.actor.at) } else { there.id.clone() };
        sqlx::query("UPDATE memberships SET id = $2, role = $3, updated_at = $4 WHERE id = $1")
            .bind(&there.id)
            .bind(&id)
            .bind(role.as_str())
            .bind(self.actor.at.as_micros())
            .execute(&mut **tx)
            .await?;
        Ok(Membership { id, role, ..there })
    }

    /// Ends those memberships of a user that are not put.
    async fn end_others(
        &self,
        tx: &mut Tx,
        only: &OnlyMemberships,
        changed: &mut Vec<Changed>,
    ) -> Result<(), StoreError> {
        let rows = sqlx::query_as::<Db, MembershipRow>(OF_USER)
            .bind(only.user.as_str())
            .bind(only.organization_id.as_deref())
            .fetch_all(&mut **tx)
            .await?;
        let stay: BTreeSet<&str> = (self.changes.puts.iter())
            .filter(|put| put.user == only.user)
            .map(|put| put.container_id.as_str())
            .collect();
        for row in rows {
            let there = Membership::try_from(row)?;
            if !stay.contains(there.container_id.as_str()) {
                end(tx, &there).await?;
                changed.push(Changed {
                    user: there.user_id,
                    kind: there.kind,
                    container_id: there.container_id,
                    from: Some(there.role),
                    to: None,
                });
            }
        }
        Ok(())
    }
}

async fn end(tx: &mut Tx, membership: &Membership) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM memberships WHERE id = $1")
        .bind(&membership.id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Changed {
    fn touched(&self) -> Touched {
        let (user_id, id) = (self.user.to_string(), self.container_id.clone());
        match self.kind {
            ContainerKind::Workspace => Touched::Member { user_id, workspace_id: id },
            // No answer says what anybody is there.
            ContainerKind::Organization => Touched::User(user_id),
        }
    }

    fn to_json(&self) -> Value {
        let (organization_id, workspace_id) = columns(self.kind, &self.container_id);
        json!({
            "user_id": self.user.as_str(),
            "organization_id": organization_id,
            "workspace_id": workspace_id,
            "from": self.from.map(Role::as_str),
            "to": self.to.map(Role::as_str),
        })
    }
}
