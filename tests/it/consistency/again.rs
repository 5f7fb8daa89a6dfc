//! Answers that are not to be kept, since the service has something left to note.

use std::fs;

use token_authority::{
    domain::Pepper,
    proto::v1::{
        BatchVerifyRequest, StreamVerifyRequest, batch_verify_result::Result as InPlace,
        stream_verify_response::Result as Answered,
    },
};

use super::*;
use crate::support::{on_both_stores, wait::until};

on_both_stores![
    answers_by_a_secret_that_is_pending_say_that_it_is_to_be_asked_again,
    answers_by_a_secret_under_an_old_pepper_say_that_it_is_to_be_asked_again,
];

const SOON: Duration = Duration::from_secs(20);

/// So long what is usual may be reused.
const REUSED: &str = "--max-age=60s";

/// For longer than this nobody keeps what is to be noted.
const BRIEFLY: Duration = Duration::from_secs(5);

impl Place {
    /// Has nothing noted of secrets until [`lets_be_noted`](Self::lets_be_noted).
    async fn keeps_from_being_noted(&self) {
        let sql = match &self.database_url {
            Some(_) => {
                "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql \
                 AS 'BEGIN RAISE EXCEPTION ''not yet''; END'; CREATE TRIGGER refused \
                 BEFORE UPDATE OF state, pepper_id ON secrets EXECUTE FUNCTION refused()"
            }
            None => {
                "CREATE TRIGGER refused BEFORE UPDATE OF state, pepper_id ON secrets \
                 BEGIN SELECT RAISE(ABORT, 'not yet'); END"
            }
        };
        self.sql(sql).await;
    }

    async fn lets_be_noted(&self) {
        let on = if self.database_url.is_some() { " ON secrets" } else { "" };
        self.sql(&format!("DROP TRIGGER refused{on}")).await;
    }
}

/// Each way to ask about a token that is good: whether it is to be asked about again.
#[track_caller]
fn asks_again(name: &str, told: &VerifyResponse) -> bool {
    assert!(told.active && !told.stale, "{name}: {told:?}");
    let max_age = told.max_age.map_or(0, |max_age| max_age.seconds);
    assert_eq!(max_age, if told.ask_again { 0 } else { 60 }, "{name}: {told:?}");
    told.ask_again
}

async fn each_way_asks_again(by: &Client, token: &str) -> [bool; 4] {
    // What was read first, and then what is kept of that, if anything is.
    let read = asks_again("read", &by.verify(token).await.unwrap());
    let kept = asks_again("kept", &by.verify(token).await.unwrap());
    let request = BatchVerifyRequest { requests: vec![question(token)], ..Default::default() };
    let mut batch = by.verification().batch_verify(request).await.unwrap().into_inner();
    let Some(InPlace::Response(told)) = batch.results.remove(0).result else {
        panic!("{batch:?}");
    };
    let batch = asks_again("batch", &told);
    let asked = StreamVerifyRequest { id: 1, request: Some(question(token)) };
    let answers = by.verification().stream_verify(tokio_stream::once(asked)).await;
    let told = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(Answered::Response(told)) = told.result else { panic!("{told:?}") };
    [read, kept, batch, asks_again("stream", &told)]
}

async fn answers_by_a_secret_that_is_pending_say_that_it_is_to_be_asked_again(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG, REUSED]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let old = token(&by, &user, &["write:tokens"], None).await;
    assert_eq!(each_way_asks_again(&by, &old.token).await, [false; 4]);
    let rotation = RotatePersonalAccessTokenRequest { id: id_of(&old), ..Default::default() };
    let as_owner = by.presenting(&old.token);
    let new = as_owner.tokens().rotate_personal_access_token(rotation).await.unwrap().into_inner();
    server.place.keeps_from_being_noted().await;
    assert_eq!(each_way_asks_again(&by, &new.token).await, [true; 4]);
    server.place.lets_be_noted().await;
    until("it is promoted", SOON, async || !by.verify(&new.token).await.unwrap().ask_again).await;
    assert_eq!(each_way_asks_again(&by, &new.token).await, [false; 4]);
    server.stop().await;
}

async fn answers_by_a_secret_under_an_old_pepper_say_that_it_is_to_be_asked_again(engine: Engine) {
    let place = Place::new(engine).await;
    let pepper = Pepper::to_file(&[8; 32]);
    fs::write(place.path("pepper-8"), pepper.as_bytes()).unwrap();
    let id = pepper.parse::<Pepper>().unwrap().id().clone();
    let option = format!("--pepper-file={}", place.path("pepper-8").display());
    let settings = [LONG, REUSED, &option];
    let server = TestServer::start_on(place, &settings).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let made = token(&by, &user, &[], None).await.token;
    assert_eq!(each_way_asks_again(&by, &made).await, [false; 4]);
    let place = server.stop().await;
    let promote = format!(
        "UPDATE peppers SET is_current = FALSE WHERE is_current; \
         UPDATE peppers SET is_current = TRUE WHERE id = '{}'",
        id.as_str()
    );
    place.sql(&promote).await;
    let server = TestServer::start_on(place, &settings).await;
    let by = client(&server);
    server.place.keeps_from_being_noted().await;
    assert_eq!(each_way_asks_again(&by, &made).await, [true; 4]);
    server.place.lets_be_noted().await;
    until("it is digested anew", SOON, async || {
        server.clock.sleep(BRIEFLY);
        !by.verify(&made).await.unwrap().ask_again
    })
    .await;
    assert_eq!(each_way_asks_again(&by, &made).await, [false; 4]);
    server.stop().await;
}
