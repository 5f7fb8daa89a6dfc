//! API client authorizations: listed by conditions, and changed.

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::{Encode, Pool, QueryBuilder, Type};
use tokio::sync::Semaphore;

use super::{
    Db, Tx, creation,
    credentials::{self, kept},
    directory, finding,
    mutation::{self, Audit, Done, Step},
    rows::{self, KeptRow, credential_columns, ended},
};
use crate::{
    domain::{
        Attribute, Condition, Credential, Detail, Direction, Kind, Operand, Pattern, Piece,
        Relation, Status, Test, Timestamp,
    },
    store::{
        Actor, AuthorizationQuery, AuthorizationUpdate, Kept, Reach, StoreError, Target, Touched,
        Updated,
    },
};

/// A statement whose text is this program's own, and what is bound to it.
struct Statement(QueryBuilder<Db>);

impl Statement {
    fn new(text: &'static str) -> Self {
        Self(QueryBuilder::new(text))
    }

    /// Only a text that was there before the program ran goes into it.
    fn push(&mut self, text: &'static str) {
        self.0.push(text);
    }

    /// A place in the text, and what goes there when it is run.
    fn bind<'v, T: Encode<'v, Db> + Type<Db>>(&mut self, value: T) {
        self.0.push_bind(value);
    }

    /// Several of them, `between` every two.
    fn push_each<T>(
        &mut self,
        between: &'static str,
        all: impl IntoIterator<Item = T>,
        push: impl Fn(&mut Self, T),
    ) {
        for (place, one) in all.into_iter().enumerate() {
            if place > 0 {
                self.push(between);
            }
            push(self, one);
        }
    }
}

/// From those that are not revoked, with what can be asked of them. The schema binds
/// none to a workspace.
macro_rules! living {
    () => {
        concat!(
            " FROM credentials c CROSS JOIN store t JOIN users u ON u.id = c.user_id \
             LEFT JOIN last_uses l ON l.credential_id = c.id \
             WHERE t.id = 1 AND c.kind = 'api_client_authorization' AND c.revoked_at IS NULL \
             AND NOT ",
            ended!(unbound)
        )
    };
}

pub(super) async fn list(
    pool: &Pool<Db>,
    places: &Semaphore,
    query: &AuthorizationQuery,
) -> Result<(Vec<Kept>, Option<i64>), StoreError> {
    // What it reads may be much, and verifications use the same connections.
    let _place = places.acquire().await.expect("the semaphore is never closed");
    let mut tx = super::super::begin_reading(pool).await?;
    // Each is asked for once, and none shall push the others out of the memory of
    // those that are prepared.
    let mut page = page(query);
    let rows: Vec<KeptRow> = page.0.build_query_as().persistent(false).fetch_all(&mut *tx).await?;
    let available = if query.counts {
        let mut count = count(query);
        Some(count.0.build_query_scalar().persistent(false).fetch_one(&mut *tx).await?)
    } else {
        None
    };
    tx.commit().await?;
    let kept = rows.into_iter().map(Kept::try_from).collect::<Result<_, _>>()?;
    Ok((kept, available))
}

fn page(query: &AuthorizationQuery) -> Statement {
    // What is shown beside them is looked up for those alone that are shown.
    let mut statement =
        Statement::new(concat!(kept!(), "AND c.id IN (SELECT id FROM (SELECT c.id"));
    if query.distinct.is_empty() {
        statement.push(living!());
        push_conditions(&mut statement, query);
        push_order(&mut statement, query);
        push_limit(&mut statement, query);
        statement.push(") AS found)");
        push_order(&mut statement, query);
    } else {
        statement.push(", row_number() OVER (PARTITION BY ");
        push_distinct(&mut statement, query);
        push_order(&mut statement, query);
        statement.push(concat!(") AS place", living!()));
        push_conditions(&mut statement, query);
        statement.push(") AS found WHERE place = 1)");
        push_order(&mut statement, query);
        push_limit(&mut statement, query);
    }
    statement
}

fn push_limit(statement: &mut Statement, query: &AuthorizationQuery) {
    statement.push(" LIMIT ");
    statement.bind(query.limit);
    statement.push(" OFFSET ");
    statement.bind(query.offset);
}

fn count(query: &AuthorizationQuery) -> Statement {
    let mut statement = Statement::new("SELECT count(*) FROM (SELECT ");
    if query.distinct.is_empty() {
        statement.push("1");
    } else {
        statement.push("DISTINCT ");
        push_distinct(&mut statement, query);
    }
    statement.push(living!());
    push_conditions(&mut statement, query);
    statement.push(") AS counted");
    statement
}

fn push_distinct(statement: &mut Statement, query: &AuthorizationQuery) {
    let attributes =
        Attribute::ALL.into_iter().filter(|attribute| query.distinct.contains(attribute));
    statement.push_each(", ", attributes, |statement, attribute| {
        push_column(statement, attribute);
    });
}

/// The order asked for, and then the newest first, until no two can be equal.
fn push_order(statement: &mut Statement, query: &AuthorizationQuery) {
    let newest =
        [(Attribute::CreatedAt, Direction::Descending), (Attribute::Uuid, Direction::Descending)];
    let mut order: Vec<(Attribute, Direction)> = Vec::new();
    for (attribute, direction) in query.order.iter().copied().chain(newest) {
        let is_sorted =
            |(by, _): &(Attribute, Direction)| *by == attribute || *by == Attribute::Uuid;
        if !order.iter().any(is_sorted) {
            order.push((attribute, direction));
        }
    }
    statement.push(" ORDER BY ");
    statement.push_each(", ", order, |statement, (attribute, direction)| {
        push_column(statement, attribute);
        // An index has no such words, which are for what may be unset alone.
        statement.push(match (direction, attribute.may_be_unset()) {
            (Direction::Ascending, false) => " ASC",
            (Direction::Ascending, true) => " ASC NULLS LAST",
            (Direction::Descending, false) => " DESC",
            (Direction::Descending, true) => " DESC NULLS FIRST",
        });
    });
}

fn push_conditions(statement: &mut Statement, query: &AuthorizationQuery) {
    let Reach { owner, workspace_id, spares_administrators } = &query.reach;
    match owner {
        Some(owner) => {
            statement.push(" AND c.user_id = ");
            statement.bind(owner.to_string());
        }
        // The index of everybody's has it, so that it leads no other list.
        None => statement.push(" AND length(c.kind) > 0"),
    }
    if let Some(workspace_id) = workspace_id {
        statement.push(" AND c.workspace_id = ");
        statement.bind(workspace_id.clone());
    }
    if *spares_administrators {
        statement.push(" AND NOT u.is_admin");
    }
    for Condition(alternatives) in &query.conditions {
        statement.push(" AND (");
        statement.push_each(" OR ", alternatives, |statement, (attribute, test)| {
            push_test(statement, *attribute, test);
        });
        statement.push(")");
    }
}

fn push_test(statement: &mut Statement, attribute: Attribute, test: &Test) {
    match test {
        Test::Among { values, null, negated: false } => {
            statement.push("(");
            push_among(statement, attribute, values);
            if *null {
                statement.push(" OR ");
                push_column(statement, attribute);
                statement.push(" IS NULL");
            }
            statement.push(")");
        }
        Test::Among { values, null, negated: true } => {
            // Of what is unset it is not known whether it is among them.
            statement.push("(NOT coalesce(");
            push_among(statement, attribute, values);
            statement.push(", FALSE)");
            if *null {
                statement.push(" AND ");
                push_column(statement, attribute);
                statement.push(" IS NOT NULL");
            }
            statement.push(")");
        }
        Test::Ordered(relation, value) => {
            push_column(statement, attribute);
            statement.push(sign(*relation));
            push_value(statement, value);
        }
        Test::Beside(relation, other) => {
            push_column(statement, attribute);
            statement.push(sign(*relation));
            push_column(statement, *other);
        }
        Test::Like { patterns, .. } if patterns.is_empty() => statement.push("FALSE"),
        Test::Like { patterns, ignores_case } => {
            statement.push_each(" OR ", patterns, |statement, pattern| {
                push_like(statement, attribute, pattern, *ignores_case);
            });
        }
    }
}

fn sign(relation: Relation) -> &'static str {
    match relation {
        Relation::Equal => " = ",
        Relation::Less => " < ",
        Relation::LessOrEqual => " <= ",
        Relation::Greater => " > ",
        Relation::GreaterOrEqual => " >= ",
    }
}

/// Whether an attribute is one of these; unknown where it is unset.
fn push_among(statement: &mut Statement, attribute: Attribute, values: &[Operand]) {
    let Some(first) = values.first() else {
        statement.push("FALSE");
        return;
    };
    let is_secret = attribute == Attribute::ApiToken;
    if is_secret {
        statement.push("c.id IN (SELECT credential_id FROM secrets WHERE digest");
    } else if attribute == Attribute::Scopes {
        statement.push("c.sorted_scopes");
    } else {
        push_column(statement, attribute);
    }
    if values.len() == 1 {
        statement.push(" = ");
        push_value(statement, first);
    } else {
        statement.push(" IN (SELECT ");
        statement.push(match first {
            Operand::Text(_) | Operand::Scopes(_) => "value",
            Operand::Number(_) | Operand::Time(_) => "CAST(value AS BIGINT)",
            Operand::Digest(_) => concat!(bytes!(before), "value", bytes!(after)),
        });
        statement.push(" FROM ");
        statement.push(rows_of!(before));
        statement.bind(values.iter().map(listed).collect::<Value>().to_string());
        statement.push(rows_of!(after));
        statement.push(")");
    }
    if is_secret {
        statement.push(")");
    }
}

/// One of several, which are bound as one: there may be more of them than an engine
/// binds.
fn listed(value: &Operand) -> Value {
    match value {
        Operand::Text(text) => Value::from(text.as_str()),
        Operand::Number(number) => Value::from(*number),
        Operand::Time(time) => Value::from(time.as_micros()),
        Operand::Scopes(sorted) => Value::from(rows::json(sorted)),
        Operand::Digest(digest) => Value::from(finding::digits(digest)),
    }
}

fn push_value(statement: &mut Statement, value: &Operand) {
    match value {
        Operand::Text(text) => statement.bind(text.clone()),
        Operand::Number(number) => statement.bind(*number),
        Operand::Time(time) => statement.bind(time.as_micros()),
        Operand::Scopes(sorted) => statement.bind(rows::json(sorted)),
        Operand::Digest(digest) => statement.bind(digest.as_bytes().to_vec()),
    }
}

fn push_like(
    statement: &mut Statement,
    attribute: Attribute,
    pattern: &Pattern,
    ignores_case: bool,
) {
    let [before, after] = super::super::IS_LIKE;
    if ignores_case {
        statement.push("lower(");
        push_column(statement, attribute);
        statement.push(")");
        statement.push(before);
        statement.bind(super::super::like(&lower(pattern)));
    } else {
        push_column(statement, attribute);
        statement.push(before);
        statement.bind(super::super::like(pattern));
    }
    statement.push(after);
}

/// Both engines' `lower` leaves alone what is not ASCII.
fn lower(Pattern(pieces): &Pattern) -> Pattern {
    let lower = |piece: &Piece| match piece {
        Piece::Literal(character) => Piece::Literal(character.to_ascii_lowercase()),
        Piece::One | Piece::Any => *piece,
    };
    Pattern(pieces.iter().map(lower).collect())
}

/// By what an attribute is sorted and told from others, text byte by byte. No two have
/// the same secret, or are changed alike.
fn push_column(statement: &mut Statement, attribute: Attribute) {
    let (column, is_bytewise) = match attribute {
        Attribute::Uuid | Attribute::ApiToken | Attribute::Etag => ("c.id", true),
        Attribute::ApiClientId => ("c.api_client_id", true),
        Attribute::UserId => ("u.number", true),
        Attribute::CreatedByIpAddress => ("c.created_by_ip", false),
        Attribute::LastUsedByIpAddress => ("l.last_used_ip", false),
        Attribute::LastUsedAt => ("l.last_used_at", true),
        Attribute::ExpiresAt => ("c.expires_at", true),
        Attribute::OwnerUuid => ("c.user_id", true),
        Attribute::Scopes => ("c.scopes", false),
        Attribute::CreatedAt => ("c.created_at", true),
    };
    statement.push(column);
    if !is_bytewise {
        // The columns stay as they were made: another collation of what is selected
        // would spoil the statements that older processes have prepared.
        statement.push(super::super::BYTEWISE);
    }
}

/// Changes what may be changed of one.
pub(super) struct Update<'a> {
    pub(super) target: Target<'a>,
    pub(super) update: &'a AuthorizationUpdate,
    pub(super) actor: &'a Actor,
}

#[async_trait]
impl Step for Update<'_> {
    type Output = Option<Updated>;

    /// Afterwards the caller's own token is not as it was. It is looked at before.
    fn needs_standing(&self) -> bool {
        self.actor.token_id.as_ref().is_none_or(|id| id.0 != self.target.id)
    }

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<Updated>>, StoreError> {
        let user_epoch = self.lock_user(tx).await?;
        if !self.needs_standing() {
            directory::lock(tx, &self.actor.user_id, self.actor).await?;
        }
        sqlx::query(super::super::HOLD_CREDENTIAL).bind(self.target.id).execute(&mut **tx).await?;
        if !self.needs_standing() {
            mutation::check_standing_before(tx, self.actor).await?;
        }
        // As it is under the locks.
        let Some(kept) = self.kept(tx, self.target.reach).await? else {
            return Ok(Done::nothing(None));
        };
        if kept.credential != self.update.before {
            return Ok(Done::nothing(Some(Updated::Stale)));
        }
        let changes = self.changes(&kept.credential);
        if changes.is_empty() {
            return Ok(Done::nothing(Some(Updated::Done(Box::new(kept)))));
        }
        if self.needs_room() {
            let quota = creation::Quota {
                owner: &self.update.user_id,
                kind: Kind::ApiClientAuthorization,
                workspace_id: None,
                at_most: self.update.quota,
            };
            quota.check(tx, self.actor.at).await?;
        }
        self.write(tx, user_epoch).await?;
        // A repeat would get what it could ask for before.
        sqlx::query("DELETE FROM request_ids WHERE caller_id = $1")
            .bind(self.target.id)
            .execute(&mut **tx)
            .await?;
        // It may be beyond the reach by now.
        let kept = self
            .kept(tx, &Reach::default())
            .await?
            .ok_or_else(|| StoreError::Failed("a credential is gone in a transaction".into()))?;
        Ok(Done {
            value: Some(Updated::Done(Box::new(kept))),
            touched: self.touched(),
            audit: Some(Audit {
                action: "credential.update",
                targets: vec![self.target.id.to_owned()],
                details: Value::Object(changes),
            }),
        })
    }
}

impl Update<'_> {
    /// What is given away concerns also those who knew of it as the user's before.
    fn touched(&self) -> Vec<Touched> {
        let before = &self.update.before.user_id;
        let user = self.is_given_away().then(|| Touched::User(before.to_string()));
        user.into_iter().chain([Touched::Credential(self.target.id.to_owned())]).collect()
    }

    fn is_given_away(&self) -> bool {
        self.update.user_id != self.update.before.user_id
    }

    /// Whether its user will have one more that may be used.
    fn needs_room(&self) -> bool {
        let is_over = |end: Option<Timestamp>| end.is_some_and(|end| end <= self.actor.at);
        let was_over = is_over(self.update.before.expires_at);
        (self.is_given_away() || was_over) && !is_over(self.update.expires_at)
    }

    /// Locks the user whose it will be, if that one must have room for it; the epoch
    /// under which it is another's.
    async fn lock_user(&self, tx: &mut Tx) -> Result<Option<i64>, StoreError> {
        if self.is_given_away() {
            // The one before too: what ends all of its tokens ends this one first, or
            // finds it another's.
            let mut users = [&self.update.before.user_id, &self.update.user_id];
            users.sort_by_key(|user| user.as_str());
            for user in users {
                directory::lock(tx, user, self.actor).await?;
            }
            let (_, epoch) = creation::lock_owner(tx, &self.update.user_id).await?;
            return Ok(Some(epoch));
        }
        if self.needs_room() {
            sqlx::query(super::super::LOCK_USER)
                .bind(self.update.user_id.as_str())
                .execute(&mut **tx)
                .await?;
        }
        Ok(None)
    }

    /// It, unless it is revoked.
    async fn kept(&self, tx: &mut Tx, reach: &Reach) -> Result<Option<Kept>, StoreError> {
        let kind = Kind::ApiClientAuthorization;
        let kept = credentials::get(tx, Target { id: self.target.id, kind, reach }).await?;
        Ok(kept.filter(|kept| kept.credential.status(self.actor.at) != Status::Revoked))
    }

    /// What the update sets to something else than it is, by its attributes' names.
    fn changes(&self, before: &Credential) -> serde_json::Map<String, Value> {
        let update = self.update;
        let api_client_id = match &before.detail {
            Detail::ApiClientAuthorization { api_client_id, .. } => *api_client_id,
            Detail::PersonalAccessToken { .. } | Detail::SystemRoot => None,
        };
        let all = [
            (update.user_id != before.user_id, "owner_uuid", json!(update.user_id.as_str())),
            (update.scopes != before.scopes, "scopes", json!(update.scopes)),
            (
                update.expires_at != before.expires_at,
                "expires_at",
                json!(update.expires_at.map(Timestamp::as_micros)),
            ),
            (update.api_client_id != api_client_id, "api_client_id", json!(update.api_client_id)),
        ];
        let changed = all.into_iter().filter(|(differs, ..)| *differs);
        changed.map(|(_, name, value)| (name.to_owned(), value)).collect()
    }

    async fn write(&self, tx: &mut Tx, user_epoch: Option<i64>) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE credentials SET user_id = $2, user_epoch = coalesce($3, user_epoch), \
             scopes = $4, sorted_scopes = $5, expires_at = $6, api_client_id = $7, \
             updated_at = $8 WHERE id = $1",
        )
        .bind(self.target.id)
        .bind(self.update.user_id.as_str())
        .bind(user_epoch)
        .bind(rows::json(&self.update.scopes))
        .bind(rows::sorted_json(&self.update.scopes))
        .bind(self.update.expires_at.map(Timestamp::as_micros))
        .bind(self.update.api_client_id)
        .bind(self.actor.at.as_micros())
        .execute(&mut **tx)
        .await?;
        Ok(())
    }
}
