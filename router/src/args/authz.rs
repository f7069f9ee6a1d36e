//! Flags that say who may reach which sandbox.

use std::path::PathBuf;

use agent_sandbox_service::clock::Clock;
use clap::{ArgAction, Args as ClapArgs, ValueEnum};
use kube::Client;

use super::{ArgsError, GoDuration, truthy};
use crate::authz::Authorizer;
use crate::authz::review::{ReviewSettings, Reviews};
use crate::authz::scoped_token::ScopedTokens;
use crate::authz::static_token::StaticToken;

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Authorization")]
/// Who may reach which sandbox.
pub struct AuthzArgs {
    /// How callers are judged; there is no default
    #[arg(long, value_enum)]
    authz_mode: Option<AuthzMode>,
    /// File with the token of mode static
    #[arg(long, default_value = "", value_name = "FILE")]
    authz_static_token_file: String,
    /// The token of mode static
    #[arg(
        long,
        env = "ROUTER_AUTH_TOKEN",
        hide_env_values = true,
        hide = true,
        default_value = ""
    )]
    authz_static_token: String,
    /// Whether the Python router was told to run without a token
    #[arg(
        long,
        env = "ALLOW_UNAUTHENTICATED_ROUTER",
        hide = true,
        default_value = ""
    )]
    allow_unauthenticated_router: String,
    /// Keep answers of the API server for this long
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    authz_tokenreview_ttl: GoDuration,
    /// Keep at most this many answers
    #[arg(long, default_value_t = 2048, value_name = "NUMBER")]
    authz_tokenreview_cache_size: usize,
    /// Refuse requests without a token
    #[arg(long, default_value = "true", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    authz_tokenreview_require_token: bool,
    /// Audiences a token must be meant for, separated by commas; empty for the API server's own
    #[arg(long, default_value = "", value_name = "AUDIENCES")]
    authz_tokenreview_audiences: String,
    /// File with the key that signs scoped tokens, at least 32 bytes
    #[arg(long, default_value = "", value_name = "FILE")]
    authz_scoped_token_secret_file: String,
    /// Files with earlier keys that are still accepted, separated by commas
    #[arg(long, default_value = "", value_name = "FILES")]
    authz_scoped_token_earlier_secret_files: String,
}

/// How callers are judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum AuthzMode {
    /// Everybody reaches every sandbox
    AllowAll,
    /// One shared token opens every sandbox
    Static,
    /// Any token the cluster knows opens every sandbox
    #[value(name = "tokenreview")]
    TokenReview,
    /// The owner of a token must be allowed to `connect` to `sandboxes/proxy`
    AccessReview,
    /// A signed token opens the one sandbox it names
    ScopedToken,
}

/// How callers are judged, checked.
#[derive(Debug)]
pub enum AuthzPlan {
    /// By an authorizer that needs nothing else.
    Local(Box<Authorizer>),
    /// By the cluster.
    Reviews(ReviewSettings),
}

impl AuthzPlan {
    /// Whether the cluster is asked.
    pub fn needs_cluster(&self) -> bool {
        matches!(self, Self::Reviews(_))
    }

    /// Whether callers are judged anew for each sandbox.
    pub fn judges_sandboxes(&self) -> bool {
        match self {
            Self::Local(authorizer) => authorizer.judges_sandboxes(),
            Self::Reviews(settings) => settings.access,
        }
    }

    /// The authorizer; `None` when it needs a cluster and there is none.
    pub fn authorizer(self, client: Option<Client>) -> Option<Authorizer> {
        match self {
            Self::Local(authorizer) => Some(*authorizer),
            Self::Reviews(settings) => {
                client.map(|client| Authorizer::Review(Box::new(Reviews::new(client, settings))))
            }
        }
    }
}

impl AuthzArgs {
    pub(super) fn decide(self) -> Result<AuthzPlan, ArgsError> {
        let Self {
            authz_mode,
            authz_static_token_file,
            authz_static_token,
            allow_unauthenticated_router,
            authz_tokenreview_ttl,
            authz_tokenreview_cache_size,
            authz_tokenreview_require_token,
            authz_tokenreview_audiences,
            authz_scoped_token_secret_file,
            authz_scoped_token_earlier_secret_files,
        } = self;
        let has_token =
            !authz_static_token.trim().is_empty() || !authz_static_token_file.is_empty();
        // The variables of the Python router choose a mode when no flag does.
        let mode = match authz_mode {
            Some(mode) => mode,
            None if has_token => AuthzMode::Static,
            None if truthy(&allow_unauthenticated_router) => AuthzMode::AllowAll,
            None => {
                return Err(ArgsError::value(
                    "authz-mode",
                    "is needed: choose scoped-token, access-review, tokenreview or static, or allow-all to let every caller reach every sandbox",
                ));
            }
        };
        let local = |authorizer| Ok(AuthzPlan::Local(Box::new(authorizer)));
        match mode {
            AuthzMode::AllowAll => local(Authorizer::AllowAll),
            AuthzMode::Static => {
                let flag = "authz-static-token-file";
                let token = if authz_static_token_file.is_empty() {
                    StaticToken::new(&authz_static_token).map_err(|error| {
                        let remedy = "name a file with the token, or set ROUTER_AUTH_TOKEN";
                        ArgsError::value(flag, format!("{error}; {remedy}"))
                    })
                } else {
                    let path = authz_static_token_file.into();
                    StaticToken::from_file(path)
                        .map_err(|error| ArgsError::value(flag, chain(&error)))
                };
                local(Authorizer::Static(token?))
            }
            AuthzMode::ScopedToken => {
                let flag = "authz-scoped-token-secret-file";
                if authz_scoped_token_secret_file.is_empty() {
                    return Err(ArgsError::value(
                        flag,
                        "is needed with --authz-mode=scoped-token",
                    ));
                }
                let mut paths = vec![PathBuf::from(authz_scoped_token_secret_file)];
                paths.extend(list(&authz_scoped_token_earlier_secret_files).map(PathBuf::from));
                let tokens = ScopedTokens::from_files(paths, Clock::system())
                    .map_err(|error| ArgsError::value(flag, chain(&error)))?;
                local(Authorizer::Scoped(tokens))
            }
            AuthzMode::TokenReview | AuthzMode::AccessReview => {
                if authz_tokenreview_ttl.0.is_zero() {
                    return Err(ArgsError::value(
                        "authz-tokenreview-ttl",
                        "must be longer than zero",
                    ));
                }
                if authz_tokenreview_cache_size == 0 {
                    return Err(ArgsError::value(
                        "authz-tokenreview-cache-size",
                        "must be at least 1",
                    ));
                }
                Ok(AuthzPlan::Reviews(ReviewSettings {
                    audiences: list(&authz_tokenreview_audiences)
                        .map(ToOwned::to_owned)
                        .collect(),
                    require_token: authz_tokenreview_require_token,
                    access: mode == AuthzMode::AccessReview,
                    ttl: authz_tokenreview_ttl.0,
                    cache_size: authz_tokenreview_cache_size,
                }))
            }
        }
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
