//! Tokens of both kinds and of all users, as administrators see them.

use std::sync::Arc;

use crate::{
    caller::Caller,
    domain::{ClusterId, CredentialId},
    error::Error,
    rights,
    store::{Cursor, KeptUse, Store},
};

/// What errors call one.
const CREDENTIAL: &str = "credential";

/// Shows tokens of both kinds and of all users.
pub struct Credentials {
    store: Arc<dyn Store>,
    cluster_id: ClusterId,
}

impl Credentials {
    /// Those of `store`, of the installation `cluster_id`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, cluster_id: ClusterId) -> Self {
        Self { store, cluster_id }
    }

    /// Before which verifiers and from where a credential was used, last use first.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such credential, or the store failed.
    pub async fn uses(
        &self,
        caller: &Caller,
        id: &CredentialId,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<KeptUse>, Error> {
        rights::LIST_USAGE.others(caller)?;
        // No id holds NUL, and PostgreSQL takes no text that does.
        if id.0.contains('\0') {
            return Err(Error::NotFound(CREDENTIAL));
        }
        let uses = self.store.list_uses(id, after, limit).await?;
        let mut uses = uses.ok_or(Error::NotFound(CREDENTIAL))?;
        // The system root token is in no store.
        let root = Some(self.cluster_id.root_id());
        for each in uses.iter_mut().filter(|each| each.verifier_id == root) {
            each.verifier_user_id = Some(self.cluster_id.system_user());
        }
        Ok(uses)
    }
}
