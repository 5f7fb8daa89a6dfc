//! A credential is one thing through every door: made over HTTP, it is the same over gRPC
//! and in every process, and so is its end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use token_authority::proto::v1::{
    CreateApiClientAuthorizationRequest, CreatePersonalAccessTokenRequest, CreateUserRequest,
};
use tonic::Code;

use super::raw::{Answered, send_to};
use crate::support::{
    Engine,
    client::Client,
    on_both_stores,
    process::Process,
    server::{Place, v2},
};

on_both_stores![
    personal_access_token_is_one_thing_through_every_door,
    api_client_authorization_is_one_thing_through_every_door,
];

/// From when on every process knows that a credential is over (DESIGN 7).
const BOUND: Duration = Duration::from_secs(2);
const AUTHORIZATIONS: &str = "/arvados/v1/api_client_authorizations";

struct World {
    place: Place,
    /// Two where the store can have them.
    processes: Vec<Process>,
    admin: String,
    alice: String,
}

/// A credential that was made over HTTP.
struct Made {
    id: String,
    /// The texts that prove it.
    forms: Vec<String>,
    /// Where it is told of itself, and where it is one of its user's.
    itself: String,
    listed: String,
    /// Another of that user's.
    sibling: String,
}

impl World {
    async fn new(engine: Engine) -> Self {
        let place = Place::new(engine).await;
        let mut processes = vec![Process::start(place.arguments()).await];
        if place.database_url.is_some() {
            processes.push(Process::start(place.arguments()).await);
        }
        let admin = place.admin_token();
        let client = Client::connect(processes[0].address, &admin).await;
        let request = CreateUserRequest { handle: "alice".to_owned(), ..Default::default() };
        let user = client.directory().create_user(request).await.unwrap().into_inner().user;
        Self { place, processes, admin, alice: user.unwrap().id }
    }

    fn here(&self) -> &Process {
        &self.processes[0]
    }

    async fn client(&self, process: &Process, token: &str) -> Client {
        Client::connect(process.address, token).await
    }

    /// That it is one thing at each door of a process.
    async fn is_known(&self, process: &Process, made: &Made) {
        let admin = self.client(process, &self.admin).await;
        for form in &made.forms {
            let verified = admin.verify(form).await.unwrap();
            assert!(verified.active, "{}", made.itself);
            assert_eq!((&verified.token_id, &verified.user_id), (&made.id, &self.alice));
            let caller = self.client(process, form).await.who_am_i().await.unwrap();
            assert_eq!(caller.token_id, made.id);
            assert_eq!(introspect(process, &self.admin, form).await["jti"], made.id);
            assert_eq!(call(process, &made.itself, form, "").await.status, 200);
        }
        let listed = call(process, &made.listed, &made.sibling, "").await;
        assert!(listed.text.contains(&made.id));
    }

    /// Whether all of those say that it is over.
    async fn is_over(&self, process: &Process, made: &Made) -> bool {
        let admin = self.client(process, &self.admin).await;
        let mut answers = Vec::new();
        for form in &made.forms {
            answers.push(!admin.verify(form).await.unwrap().active);
            let caller = self.client(process, form).await.who_am_i().await;
            answers.push(caller.is_err_and(|status| status.code() == Code::Unauthenticated));
            answers
                .push(introspect(process, &self.admin, form).await == json!({ "active": false }));
            answers.push(call(process, &made.itself, form, "").await.status == 401);
        }
        let listed = call(process, &made.listed, &made.sibling, "").await;
        answers.push(listed.status == 200 && !listed.text.contains(&made.id));
        answers.iter().all(|is_over| *is_over)
    }

    async fn check(self, made: Made, ended_by: &str) {
        for process in &self.processes {
            self.is_known(process, &made).await;
        }
        let form = ["content-type: application/x-www-form-urlencoded"];
        let token = format!("token={ended_by}");
        let http = self.here().http.unwrap();
        assert_eq!(send_to(http, "POST /oauth2/revoke", &form, token).await.status, 200);
        let acknowledged = Instant::now();
        assert!(self.is_over(self.here(), &made).await, "at once where it was ended");
        for process in &self.processes {
            loop {
                let begun = acknowledged.elapsed();
                if self.is_over(process, &made).await {
                    break;
                }
                assert!(begun <= BOUND, "asked {begun:?} after the end");
            }
        }
        for process in self.processes {
            process.stop().await;
        }
        drop(self.place);
    }
}

async fn call(process: &Process, request_line: &str, token: &str, body: &str) -> Answered {
    let bearer = format!("authorization: Bearer {token}");
    let http = process.http.unwrap();
    send_to(http, request_line, &[&bearer, "content-type: application/json"], body).await
}

async fn introspect(process: &Process, by: &str, token: &str) -> Value {
    let bearer = format!("authorization: Bearer {by}");
    let headers = [&*bearer, "content-type: application/x-www-form-urlencoded"];
    let body = format!("token={token}");
    send_to(process.http.unwrap(), "POST /oauth2/introspect", &headers, body).await.json()
}

async fn personal_access_token_is_one_thing_through_every_door(engine: Engine) {
    let world = World::new(engine).await;
    let request = CreatePersonalAccessTokenRequest {
        name: "own".to_owned(),
        user_id: Some(world.alice.clone()),
        scopes: vec!["read:tokens".to_owned(), "write:tokens".to_owned()],
        ..Default::default()
    };
    let admin = world.client(world.here(), &world.admin).await;
    let own = admin.tokens().create_personal_access_token(request).await.unwrap();
    let sibling = own.into_inner().token;
    let body = r#"{"name":"over HTTP","scopes":["read:tokens"]}"#;
    let made = call(world.here(), "POST /v1/tokens", &sibling, body).await.json();
    let token = made["token"].as_str().unwrap().to_owned();
    let made = Made {
        id: made["pat"]["id"].as_str().unwrap().to_owned(),
        forms: vec![token.clone()],
        itself: "GET /v1/tokens".to_owned(),
        listed: "GET /v1/tokens".to_owned(),
        sibling,
    };
    world.check(made, &token).await;
}

async fn api_client_authorization_is_one_thing_through_every_door(engine: Engine) {
    let world = World::new(engine).await;
    let owner_uuid = Some(world.alice.clone());
    let request = CreateApiClientAuthorizationRequest { owner_uuid, ..Default::default() };
    let admin = world.client(world.here(), &world.admin).await;
    let own = admin.authorizations().create_api_client_authorization(request).await.unwrap();
    let sibling = v2(&own.into_inner().api_client_authorization.unwrap());
    let request_line = format!("POST {AUTHORIZATIONS}");
    let made = call(world.here(), &request_line, &sibling, "{}").await.json();
    let (uuid, secret) = (made["uuid"].as_str().unwrap(), made["api_token"].as_str().unwrap());
    let made = Made {
        id: uuid.to_owned(),
        forms: vec![format!("v2/{uuid}/{secret}"), secret.to_owned()],
        itself: format!("GET {AUTHORIZATIONS}/current"),
        listed: format!("GET {AUTHORIZATIONS}"),
        sibling,
    };
    let secret = made.forms[1].clone();
    world.check(made, &secret).await;
}
