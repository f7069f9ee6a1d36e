//! Profiles as pprof reads them.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use prost::Message;
use tower::ServiceExt;

use super::encode::Written;
use super::*;

async fn ask(router: &Router, path: &str) -> (StatusCode, Vec<u8>) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, body.to_vec())
}

/// The names of a sample's frames, innermost first, and its values.
type Sample = (Vec<String>, Vec<i64>);

/// The samples with their frames' names.
fn read(body: &[u8]) -> (Written, Vec<Sample>) {
    let profile = Written::decode(body).unwrap();
    let text = |number: i64| profile.string_table[usize::try_from(number).unwrap()].clone();
    let frame = |id: &u64| {
        let location = profile.location.iter().find(|it| it.id == *id).unwrap();
        let function = location.line[0].function_id;
        let function = profile.function.iter().find(|it| it.id == function);
        text(function.unwrap().name)
    };
    let samples = profile.sample.iter().map(|sample| {
        let frames = sample.location_id.iter().map(frame).collect();
        (frames, sample.value.clone())
    });
    let samples = samples.collect();
    (profile, samples)
}

#[tokio::test]
async fn processor_time_is_told_by_thread() {
    let router = router(Scope::Processor);
    // This thread works while it is watched.
    let profile = ask(&router, "/debug/pprof/profile?seconds=1");
    let mut profile = std::pin::pin!(profile);
    let (status, body) = loop {
        let polled = tokio::time::timeout(Duration::from_millis(1), &mut profile).await;
        match polled {
            Ok(answer) => break answer,
            Err(_) => {
                std::hint::black_box((0..200_000_u64).map(std::hint::black_box).sum::<u64>());
            }
        }
    };
    assert_eq!(status, StatusCode::OK);
    let (profile, samples) = read(&body);
    assert_eq!(profile.string_table[0], "");
    assert_eq!(profile.duration_nanos, 1_000_000_000);
    assert_eq!(profile.sample_type.len(), 2);
    assert!(!samples.is_empty());
    for (frames, values) in &samples {
        assert!(
            ["user", "kernel"].contains(&frames[0].as_str()),
            "{frames:?}"
        );
        assert_eq!((frames.len(), values.len()), (2, 2));
        assert_eq!(values[1], values[0] * profile.period);
    }
}

#[tokio::test(start_paused = true)]
async fn one_profile_at_a_time_and_of_a_sound_length() {
    let router = router(Scope::Everything);
    let first = ask(&router, "/debug/pprof/profile");
    let second = async {
        tokio::task::yield_now().await;
        ask(&router, "/debug/pprof/profile?seconds=1").await
    };
    let (first, second) = futures::join!(first, second);
    assert_eq!(first.0, StatusCode::OK);
    assert_eq!(second.0, StatusCode::INTERNAL_SERVER_ERROR);
    for seconds in ["0", "301", "x", "-1"] {
        let path = format!("/debug/pprof/profile?seconds={seconds}");
        assert_eq!(
            ask(&router, &path).await.0,
            StatusCode::BAD_REQUEST,
            "{seconds}"
        );
    }
}

#[tokio::test]
async fn the_rest_is_served_only_when_asked_for() {
    let everything = router(Scope::Everything);
    let (_, samples) = read(&ask(&everything, "/debug/pprof/heap").await.1);
    let whole: i64 = samples.iter().map(|(_, values)| values[0]).sum();
    assert!(whole > 65_536, "{samples:?}");
    for path in ["", "cmdline", "goroutine"] {
        let path = format!("/debug/pprof/{path}");
        let (status, body) = ask(&everything, &path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(!body.is_empty(), "{path}");
        let (status, _) = ask(&router(Scope::Processor), &path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn the_kernels_texts_are_read() {
    let line = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 5 0 1000";
    let thread = Thread::parse(line).unwrap();
    assert_eq!(
        (thread.name.as_str(), thread.user, thread.kernel),
        ("a) b (c", 30, 12)
    );
    assert_eq!(Thread::parse("7 (a) S 1"), None);
    let text = "55d0-55d1 r-xp 00000000 08:01 42   /usr/bin/a b\nSize: 8 kB\nRss:        8 kB\n\
                7f00-7f01 rw-p 00000000 00:00 0 \nRss:        4 kB\nRss-like: 1 kB\n\
                7f02-7f03 rw-p 00000000 00:00 0    [heap]\nRss:        0 kB\n";
    let expected = [("/usr/bin/a b", 8192), ("anonymous", 4096)];
    let expected = expected.map(|(name, bytes)| (name.to_owned(), bytes));
    assert_eq!(resident(text), BTreeMap::from(expected));
}
