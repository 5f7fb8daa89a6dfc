//! A client that is closed, and one that hears nothing any more.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use token_authority::client::{Client, Options, OwnToken, Question};

use super::{
    authority::{Authority, SOON, active},
    is_active, is_kept,
};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn whose_only_authority_is_silent_goes_on_listening() {
    let authority = Authority::start().await;
    let client = authority.client().await;
    authority.says.pongs.are_sent.store(false, Ordering::SeqCst);
    authority.says.clock.sleep(Duration::from_secs(60));
    let pings = authority.says.pings.load(Ordering::SeqCst);
    until("it pings on", SOON, async || authority.says.pings.load(Ordering::SeqCst) > pings + 2)
        .await;
    assert!(!client.state().is_fresh);
    authority.says.pongs.are_sent.store(true, Ordering::SeqCst);
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    assert_eq!(authority.says.starts.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_nothing_of_one_listens_to_another() {
    let authorities = [Authority::start().await, Authority::start().await];
    let clock = authorities[0].says.clock.clone();
    let endpoints = authorities.each_ref().map(|one| format!("http://{}", one.address));
    let options = Options::new(endpoints, OwnToken::text("own")).clock(Arc::new(clock.clone()));
    let client = Client::start(options).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    let starts = |number: usize| authorities[number].says.starts.lock().unwrap().len();
    let silent = usize::from(starts(0) == 0);
    // It would be the turn of the same again.
    assert!(!is_active(&client, "unknown").await);
    authorities[silent].says.pongs.are_sent.store(false, Ordering::SeqCst);
    clock.sleep(Duration::from_secs(60));
    until("it is fresh again", SOON, async || client.state().is_fresh).await;
    assert_eq!((starts(silent), starts(1 - silent)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_closed_gives_nothing_that_was_kept() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client =
        Client::start(authority.options().stale_if_error(Duration::from_secs(600))).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    assert!(is_active(&client, "good").await && is_kept(&client, "good"));
    client.close().await;
    assert!(!is_kept(&client, "good"));
    assert!(is_active(&client, "good").await && !is_kept(&client, "good"));
    authority.stop();
    assert!(client.verify(Question::new("good")).await.unwrap_err().is_unavailable());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_reported_is_not_lost_to_a_close_which_ends() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let options = authority.options().timeout(Duration::from_mins(5));
    let client = Client::start(options).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    authority.says.takes.forget_permits(usize::MAX);
    assert!(is_active(&client, "good").await && is_active(&client, "good").await);
    let reports = || authority.says.reports.load(Ordering::SeqCst);
    until("it is being reported", SOON, async || reports() == 1).await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    until("it is reported again", SOON, async || reports() == 2).await;
    // Nobody takes it.
    tokio::time::timeout(SOON, closing).await.expect("it ends").unwrap();
    authority.says.takes.add_permits(1 << 20);
    client.close().await;
    let uses = authority.says.uses.lock().unwrap().clone();
    assert!(uses.iter().any(|told| told.token_id == "good"), "{uses:?}");
}
