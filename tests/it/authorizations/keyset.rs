use std::{collections::HashSet, sync::Arc};

use token_authority::proto::v1::CountMode;
use tokio::task::JoinSet;

use super::*;
use crate::support::on_both_stores;

on_both_stores![paging_by_key_ends_and_gives_each_token_once_while_more_are_made];

const TOKENS: usize = 2_500;
const PAGE: i32 = 300;

/// All that a user has, as `arvados.util.keyset_list_all` asks for it; and how many
/// pages that took.
async fn keyset_list_all(by: &Holder) -> (Vec<String>, usize) {
    let (mut uuids, mut pages) = (Vec::new(), 0);
    let (mut seen_before, mut seen) = (HashSet::new(), HashSet::new());
    let (mut filters, mut last): (Vec<Filter>, Option<(Json, bool)>) = (Vec::new(), None);
    loop {
        let request = List {
            filters: std::mem::take(&mut filters),
            order: texts(&["created_at asc", "uuid asc"]),
            limit: Some(PAGE),
            count: CountMode::None.into(),
            ..Default::default()
        };
        let items = by.list(request).await.unwrap().items;
        pages += 1;
        let (Some(first_item), Some(last_item)) = (items.first(), items.last()) else {
            match last.take() {
                Some((time, true)) => filters = vec![filter("created_at", ">", time.clone())],
                Some((_, false)) | None => return (uuids, pages),
            }
            continue;
        };
        std::mem::swap(&mut seen_before, &mut seen);
        seen.clear();
        for item in &items {
            if !seen_before.contains(item.uuid()) {
                uuids.push(item.uuid().to_owned());
                seen.insert(item.uuid().to_owned());
            }
        }
        let time = nine_digits(last_item.created_at);
        let is_of_one_time = first_item.created_at == last_item.created_at;
        let (at, beyond) = if is_of_one_time { ("=", ">") } else { (">=", "!=") };
        filters = vec![
            filter("created_at", at, time.clone()),
            filter("uuid", beyond, json!(last_item.uuid())),
        ];
        last = Some((time, is_of_one_time));
    }
}

/// The uuid of a new token, for which it waits as long as others are in the way.
async fn make(by: &Holder) -> String {
    loop {
        match by.create(Create::default()).await {
            Ok(made) => return made.uuid.unwrap(),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    }
}

async fn paging_by_key_ends_and_gives_each_token_once_while_more_are_made(engine: Engine) {
    let quota = "--max-authorizations-per-user=100000";
    let server = TestServer::start_with(engine, &[quota]).await;
    let user = server.user("alice").await;
    let text = server.text_of(&user.id, &["admin:all"]).await;
    let by = Arc::new(holder(&server, &text));
    let mut before = HashSet::new();
    // Of one time: fewer than a page, more than two, and one alone.
    for of_one_time in [100, 700, 1, 299, 900, 300, 200] {
        let mut creates = JoinSet::new();
        for share in 0..8 {
            let by = by.clone();
            let count = (of_one_time + share) / 8;
            creates.spawn(async move {
                let mut uuids = Vec::new();
                for _ in 0..count {
                    uuids.push(make(&by).await);
                }
                uuids
            });
        }
        before.extend(creates.join_all().await.into_iter().flatten());
        server.clock.advance(Duration::from_micros(1));
    }
    let mut expected: Vec<_> = before.iter().cloned().collect();
    expected.sort();
    assert_eq!(expected.len(), TOKENS);
    make(&by).await;

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (others, clock) = (by.clone(), server.clock.clone());
    let more = tokio::spawn(async move {
        let mut stopped = stopped;
        let mut made = 0;
        while stopped.try_recv().is_err() {
            make(&others).await;
            made += 1;
            // As long as there is time to come, the pages do.
            if made % 8 == 0 && made < 80 {
                clock.advance(Duration::from_micros(1));
            }
        }
        made
    });
    for _ in 0..3 {
        let (uuids, pages) = keyset_list_all(&by).await;
        // Of what is made meanwhile, the helper gives the last at the last time twice.
        let mut found: Vec<_> = uuids.into_iter().filter(|uuid| before.contains(uuid)).collect();
        found.sort();
        assert_eq!(found, expected);
        assert!(pages > TOKENS / PAGE as usize);
    }
    stop.send(()).unwrap();
    assert!(more.await.unwrap() > 0);
}
