use std::net::SocketAddr;

use token_authority::proto::v1::{
    CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse,
    RevokePersonalAccessTokenRequest, RevokePersonalAccessTokenResponse, VerifyRequest,
    VerifyResponse, WhoAmIRequest, WhoAmIResponse,
    api_client_authorizations_client::ApiClientAuthorizationsClient,
    directory_client::DirectoryClient, personal_access_tokens_client::PersonalAccessTokensClient,
    verification_client::VerificationClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Presents one token with each call, to whichever server.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    bearer: Bearer,
}

#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub(crate) type As = InterceptedService<Channel, Bearer>;

/// A connection without TLS.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Self {
        Self::over(connect(address).await, token)
    }

    pub(crate) fn over(channel: Channel, token: &str) -> Self {
        Self { channel, bearer: Bearer(format!("Bearer {token}").parse().unwrap()) }
    }

    /// The same connection with another token.
    pub(crate) fn presenting(&self, token: &str) -> Self {
        Self::over(self.channel.clone(), token)
    }

    fn service(&self) -> As {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    pub(crate) fn tokens(&self) -> PersonalAccessTokensClient<As> {
        PersonalAccessTokensClient::new(self.service())
    }

    pub(crate) fn authorizations(&self) -> ApiClientAuthorizationsClient<As> {
        ApiClientAuthorizationsClient::new(self.service())
    }

    pub(crate) fn verification(&self) -> VerificationClient<As> {
        VerificationClient::new(self.service())
    }

    pub(crate) fn directory(&self) -> DirectoryClient<As> {
        DirectoryClient::new(self.service())
    }

    /// A new token of the caller's own.
    pub(crate) async fn create(
        &self,
        name: &str,
    ) -> Result<CreatePersonalAccessTokenResponse, Status> {
        let request =
            CreatePersonalAccessTokenRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.tokens().create_personal_access_token(request).await?.into_inner())
    }

    pub(crate) async fn revoke(
        &self,
        id: &str,
    ) -> Result<RevokePersonalAccessTokenResponse, Status> {
        let request =
            RevokePersonalAccessTokenRequest { id: id.to_owned(), include_descendants: false };
        Ok(self.tokens().revoke_personal_access_token(request).await?.into_inner())
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<VerifyResponse, Status> {
        let request = VerifyRequest { token: token.to_owned(), ..Default::default() };
        Ok(self.verification().verify(request).await?.into_inner())
    }

    pub(crate) async fn who_am_i(&self) -> Result<WhoAmIResponse, Status> {
        Ok(self.verification().who_am_i(WhoAmIRequest {}).await?.into_inner())
    }
}
