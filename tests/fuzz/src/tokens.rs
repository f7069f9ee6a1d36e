//! Credentials: nothing opens a sandbox but what was minted for it, to the letter.

use std::time::Duration;

use agent_sandbox_router::authz::scoped_token::{Key, ScopedTokens};
use agent_sandbox_router::authz::static_token::StaticToken;
use agent_sandbox_router::authz::{Authorizer, Subject};
use agent_sandbox_service::clock::Clock;
use futures::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const SECRET: &str = "a-shared-secret";
const NOW: i64 = 1_800_000_000;
const BOX: Subject<'static> = Subject {
    namespace: "ns",
    name: "box",
};

/// The first byte chooses: the rest is a credential, or changes to one that is good.
pub(crate) fn check(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    if choice % 2 == 0 {
        whole(rest);
    } else {
        changed(rest);
    }
}

fn tokens() -> ScopedTokens {
    let now = jiff::Timestamp::from_second(NOW).expect("the time can be written");
    let (clock, _hand) = Clock::manual(now);
    ScopedTokens::new(
        Key::new(KEY).expect("the key is long enough"),
        Vec::new(),
        clock,
    )
}

/// The credentials of a request: one to a line, as it may repeat the field. What is no value of a field
/// is left out.
fn credentials(text: &[u8]) -> impl Iterator<Item = HeaderValue> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
}

/// Whether a request with these credentials passes.
fn passes(authorizer: &Authorizer, text: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    for value in credentials(text) {
        headers.append(AUTHORIZATION, value);
    }
    let judged = authorizer.authorize(&headers, BOX).now_or_never();
    let judged = judged.expect("nobody has to be asked");
    authorizer.admit(&headers).is_ok() && judged.is_ok()
}

fn whole(credential: &[u8]) {
    let shared = StaticToken::new(SECRET).expect("the token is not empty");
    if passes(&Authorizer::Static(shared), credential) {
        let given: Vec<HeaderValue> = credentials(credential).collect();
        assert_eq!(given.len(), 1, "{given:?}");
        for value in given {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let token = text.split_once(' ').map(|(_, token)| token.trim());
            assert_eq!(token, Some(SECRET), "{text:?}");
        }
    }
    // Nobody who does not know the key makes a token, and the seeds have none for this sandbox.
    assert!(!passes(&Authorizer::Scoped(tokens()), credential));
}

/// Pairs of bytes: where a good token is changed, and how.
fn changed(changes: &[u8]) {
    let scoped = tokens();
    let good = scoped.mint(BOX, Duration::from_secs(60));
    let good = good.expect("a token for a minute can be minted");
    let mut token = good.clone().into_bytes();
    for change in changes.chunks_exact(2) {
        if let [place, how] = change {
            let place = usize::from(*place) % token.len();
            if let Some(byte) = token.get_mut(place) {
                *byte ^= how;
            }
        }
    }
    let same = token.trim_ascii() == good.as_bytes();
    let credential = [b"Bearer ".as_slice(), &token].concat();
    let passed = passes(&Authorizer::Scoped(scoped), &credential);
    assert_eq!(passed, same, "{}", String::from_utf8_lossy(&token));
}
