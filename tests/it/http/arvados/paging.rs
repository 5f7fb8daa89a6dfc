//! Paging by key, as `arvados.util.keyset_list_all` asks for it (SEEDS 8).

use std::collections::HashSet;

use super::*;
use crate::support::on_both_stores;

on_both_stores![paging_by_key_gives_each_token_once_and_ends];

const PAGE: usize = 4;

async fn paging_by_key_gives_each_token_once_and_ends(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let mut expected = vec![world.uuid.clone()];
    // Of one time: fewer than a page, more than two of them, and one alone.
    for of_one_time in [2, 9, 1, 4] {
        world.server.clock.advance(Duration::from_micros(1));
        for _ in 0..of_one_time {
            let made = world.ok("POST ?select=%5B%22uuid%22%5D", &json!({})).await;
            expected.push(made["uuid"].as_str().unwrap().to_owned());
        }
    }
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let (mut filters, mut last): (Value, Option<(Value, bool)>) = (json!([]), None);
    for page in 0.. {
        assert!(page < 20, "it ends");
        let query = [
            parameter("filters", &filters.to_string()),
            parameter("order", r#"["created_at asc","uuid asc"]"#),
            format!("limit={PAGE}&count=none&alt=json"),
        ];
        let list = world.ok(&format!("GET ?{}", query.join("&")), &Value::Null).await;
        let items = list["items"].as_array().unwrap();
        let (Some(first_item), Some(last_item)) = (items.first(), items.last()) else {
            match last.take() {
                Some((time, true)) => filters = json!([["created_at", ">", time]]),
                Some((_, false)) | None => break,
            }
            continue;
        };
        found.extend(uuids(&list).into_iter().filter(|uuid| seen.insert(uuid.clone())));
        let time = last_item["created_at"].clone();
        let is_of_one_time = first_item["created_at"] == time;
        let (at, beyond) = if is_of_one_time { ("=", ">") } else { (">=", "!=") };
        filters = json!([["created_at", at, time], ["uuid", beyond, last_item["uuid"]]]);
        last = Some((time, is_of_one_time));
    }
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
