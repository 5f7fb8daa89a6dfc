use std::time::{Duration, Instant};

/// Waits until `condition` holds; panics, saying what was waited for, when it
/// does not hold within `deadline`.
pub(crate) async fn until(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let since = Instant::now();
    while !condition().await {
        assert!(since.elapsed() < deadline, "{what}: not within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
