//! The end of all tokens of something, at the same cost however many: those that
//! were born under an epoch before the present one are dead.

use async_trait::async_trait;
use serde_json::json;

use super::{
    Tx, directory,
    mutation::{self, Audit, Done, Step},
};
use crate::{
    domain::Description,
    store::{Actor, StoreError, TokensOf, Touched},
};

/// Begins another epoch; `None` if there is nothing such.
pub(super) struct RevokeTokens<'a> {
    pub(super) of: &'a TokensOf,
    pub(super) reason: &'a Description,
    pub(super) actor: &'a Actor,
}

#[async_trait]
impl Step for RevokeTokens<'_> {
    type Output = Option<()>;

    /// Afterwards the caller's own token may be among the ended.
    fn needs_standing(&self) -> bool {
        match self.of {
            TokensOf::User(id) => *id != self.actor.user_id,
            TokensOf::Workspace(_) | TokensOf::Organization(_) => true,
            TokensOf::All => false,
        }
    }

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<()>>, StoreError> {
        if !self.needs_standing() {
            directory::lock(tx, &self.actor.user_id, self.actor).await?;
            mutation::check_standing_before(tx, self.actor).await?;
        }
        let (statement, touched) = match self.of {
            TokensOf::User(id) => (
                sqlx::query(
                    "UPDATE users SET token_epoch = token_epoch + 1 \
                     WHERE id = $1 AND deleted_at IS NULL",
                )
                .bind(id.as_str()),
                Touched::User(id.to_string()),
            ),
            TokensOf::Workspace(id) => (
                sqlx::query("UPDATE workspaces SET token_epoch = token_epoch + 1 WHERE id = $1")
                    .bind(id),
                Touched::Workspace(id.clone()),
            ),
            TokensOf::Organization(id) => (
                sqlx::query("UPDATE organizations SET token_epoch = token_epoch + 1 WHERE id = $1")
                    .bind(id),
                Touched::Organization(id.clone()),
            ),
            TokensOf::All => (
                sqlx::query("UPDATE store SET token_epoch = token_epoch + 1 WHERE id = 1"),
                Touched::Everything,
            ),
        };
        if statement.execute(&mut **tx).await?.rows_affected() == 0 {
            return Ok(Done::nothing(None));
        }
        let targets = match self.of {
            TokensOf::User(id) => vec![id.to_string()],
            TokensOf::Workspace(id) | TokensOf::Organization(id) => vec![id.clone()],
            TokensOf::All => Vec::new(),
        };
        let audit = Audit {
            action: "tokens.revoke",
            targets,
            details: json!({ "reason": self.reason.as_str() }),
        };
        Ok(Done { value: Some(()), touched: vec![touched], audit: Some(audit) })
    }
}
