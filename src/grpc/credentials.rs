use tonic::{Request, Response, Status};

use super::{caller, parse::Fields, to_timestamp};
use crate::{
    credentials::Credentials, domain::CredentialId, proto::v1 as proto, rights, store::KeptUse,
};

pub(super) struct Service(pub(super) Credentials);

#[tonic::async_trait]
impl proto::credentials_server::Credentials for Service {
    async fn list_usage(
        &self,
        request: Request<proto::ListUsageRequest>,
    ) -> Result<Response<proto::ListUsageResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let page = fields.page(&rights::LIST_USAGE, &request);
        let id = CredentialId(fields.not_empty("id", request.id));
        fields.check()?;

        let rows = self.0.uses(&caller, &id, page.after.as_ref(), page.limit()).await?;
        let (usage, next_page_token) = page.of(rows, KeptUse::cursor, usage);
        Ok(Response::new(proto::ListUsageResponse { usage, next_page_token }))
    }
}

fn usage(kept: KeptUse) -> proto::Usage {
    proto::Usage {
        verifier_token_id: kept.verifier_id.map(|id| id.0),
        verifier_user_id: kept.verifier_user_id.map(|id| id.to_string()),
        client_ip: kept.ip,
        last_used_at: Some(to_timestamp(kept.last_used_at)),
    }
}
