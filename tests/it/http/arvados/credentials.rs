//! Where a token may stand (SEEDS 3.3), and who is not yet proved by it.

use http::StatusCode;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use super::{TOKENS, World, parameter};
use crate::{
    http::raw::{send, send_to},
    support::{Engine, on_both_stores, server::unknown_token},
};

on_both_stores![token_in_the_query_counts_only_where_that_is_allowed];

async fn token_in_the_query_counts_only_where_that_is_allowed(engine: Engine) {
    for (setting, is_allowed) in [("--token-in-query", true), ("--token-in-query=false", false)] {
        let world = World::new(engine, &[setting]).await;
        let good = parameter("api_token", &world.token);
        let bad = parameter("api_token", &unknown_token());
        let pat = parameter("api_token", &world.server.admin);
        let bearer = format!("authorization: Bearer {}", world.token);
        for (request, headers, status) in [
            (format!("GET {TOKENS}/current?{good}"), vec![], is_allowed.then_some(200)),
            (format!("GET {TOKENS}?alt=json&{good}&limit=1"), vec![], is_allowed.then_some(200)),
            (format!("POST {TOKENS}?{good}"), vec![], is_allowed.then_some(200)),
            (
                format!("GET {TOKENS}/current?{}", parameter("api_token", &world.secret)),
                vec![],
                is_allowed.then_some(200),
            ),
            // One alone, by which the header is not passed over.
            (format!("GET {TOKENS}/current?{good}&{good}"), vec![], None),
            (format!("GET {TOKENS}/current?{good}&{bad}"), vec![], None),
            (format!("GET {TOKENS}/current?{bad}"), vec![], None),
            (format!("GET {TOKENS}/current?{bad}"), vec![&*bearer], Some(200)),
            (format!("GET {TOKENS}/current?{good}"), vec!["authorization: Bearer x"], None),
            (format!("GET {TOKENS}/current?oauth_{good}"), vec![], None),
            (format!("GET {TOKENS}/current"), vec!["cookie: arvados_api_token=x"], None),
            // Nor does it count where Spatio's tokens do.
            (format!("GET {TOKENS}/current?{pat}"), vec![], None),
            (format!("GET /v1/tokens?{pat}"), vec![], None),
        ] {
            let before = world.count().await;
            let answered = send(&world.server, &request, &headers, "").await;
            let wanted = status.unwrap_or(401);
            assert_eq!(answered.status, wanted, "{setting} {request} {answered:?}");
            let is_made = request.starts_with("POST") && wanted == 200;
            assert_eq!(world.count().await, before + i64::from(is_made), "{request}");
        }
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_salted_token_takes_no_room_from_those_who_show_their_own() {
    // As many as may wait, and one.
    let more = ["--recoverable-api-tokens", "--max-calls=17"];
    let world = World::new(Engine::Postgres, &more).await;
    let url = world.server.place.database_url.as_ref().unwrap();
    let mut holder = PgConnection::connect(url).await.unwrap();
    let hold = "BEGIN; LOCK TABLE credentials, secrets IN ACCESS EXCLUSIVE MODE";
    holder.execute(hold).await.unwrap();

    let address = world.server.http.unwrap();
    let bearer = format!("authorization: Bearer v2/{}/{}", world.uuid, "0".repeat(40));
    let mut flood = JoinSet::new();
    for _ in 0..24 {
        let (bearer, request) = (bearer.clone(), format!("GET {TOKENS}/current?remote=zbbbb"));
        flood.spawn(async move { send_to(address, &request, &[&bearer], "").await });
    }
    for _ in 0..24 - 16 {
        let answered = flood.join_next().await.unwrap().unwrap();
        assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE, "{answered:?}");
    }
    // The others wait for the store, and there is a place for another call.
    let answered = send(&world.server, "GET /discovery/v1/apis/arvados/v1/rest", &[], "").await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    holder.execute("ROLLBACK").await.unwrap();
    for answered in flood.join_all().await {
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE];
        assert!(refused.contains(&answered.status), "{answered:?}");
    }
    assert_eq!(world.ok("GET /current", &json!(null)).await["uuid"], world.uuid);
}
