//! What handlers use.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr};

use super::config::Auth;
use super::issuer::Issuer;
use super::refusal::Refusal;
use super::ring_provider;
use crate::readiness::Readiness;
use crate::service::Lifecycle;

/// The client of requests without a token: the one that the write model is seeded with.
const SEEDED: Client = Client { id: 1 };

/// The client that sent a request. As the first argument of a handler it refuses, before the rest is read, who may not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// `client.id` in the write model. With tokens it is what the issuer says, and may be unknown there.
    pub id: i64,
}

/// Tells who sends a request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Callers {
    /// `None`: nobody is asked for a token.
    issuer: Option<Issuer>,
    /// The scope that a token must have.
    scope: &'static str,
}

impl Callers {
    /// Requests need this scope. With tokens it begins to read the issuer's keys; until it has them, requests are answered `503`.
    ///
    /// # Errors
    /// No HTTP client can be built.
    pub fn start(auth: Auth, scope: &'static str, lifecycle: &Lifecycle) -> anyhow::Result<Self> {
        Refusal::show_metric();
        let issuer = match auth {
            Auth::None => {
                let info = "every request is client 1's; AUTH_MODE=jwt asks for tokens";
                tracing::warn!(event = "clients_not_authenticated", info);
                None
            }
            Auth::Jwt(jwt) => {
                ring_provider::install();
                let (issuer, refresher) = Issuer::new(jwt)?;
                lifecycle.spawn("issuer_keys", refresher.run(lifecycle.stopping()));
                Some(issuer)
            }
        };
        Ok(Self { issuer, scope })
    }

    /// Whether clients are told apart.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.issuer.is_some()
    }

    /// Adds the issuer's keys to what the service needs, if there is an issuer.
    #[must_use]
    pub fn needed_by(&self, readiness: Readiness) -> Readiness {
        match self.issuer.clone() {
            Some(issuer) => readiness.needs("issuer_keys", move || std::future::ready(issuer.has_keys())),
            None => readiness,
        }
    }

    /// Adds to the description of a service that its operations need a token, and how they refuse one, if they do.
    pub fn describe(&self, document: &mut OpenApi) {
        if self.issuer.is_none() {
            return;
        }
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(format!("A token with the scope `{}`", self.scope)))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        let refusals = [
            (
                "401",
                "There is no token, or it is not accepted",
                Refusal::NoToken,
            ),
            (
                "403",
                "The token is good, but not for this",
                Refusal::NoScope(self.scope),
            ),
        ];
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put].into_iter().flatten();
            for operation in operations {
                operation.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
                for (status, description, refusal) in &refusals {
                    let response = RefOr::T(refusal.described(description));
                    operation
                        .responses
                        .responses
                        .insert((*status).to_owned(), response);
                }
            }
        }
    }

    async fn client_of(&self, parts: &Parts) -> Result<Client, Refusal> {
        let Some(issuer) = &self.issuer else {
            return Ok(SEEDED);
        };
        let bearer = issuer.verify(token(parts).ok_or(Refusal::NoToken)?).await?;
        if !bearer.may(self.scope) {
            return Err(Refusal::NoScope(self.scope));
        }
        Ok(Client { id: bearer.client_id })
    }
}

impl<S> FromRequestParts<S> for Client
where
    S: Sync,
    Callers: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let client = Callers::from_ref(state).client_of(parts).await;
        client.inspect_err(Refusal::report)
    }
}

/// The token of the header `Authorization`, which must be there once.
fn token(parts: &Parts) -> Option<&str> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::http::Request;

    use super::*;

    fn token_in(headers: &[&str]) -> Option<String> {
        let mut request = Request::builder();
        for value in headers {
            request = request.header(AUTHORIZATION, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        token(&parts).map(str::to_owned)
    }

    #[test]
    fn a_token_follows_the_scheme_bearer_in_one_header() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c "] {
            assert_eq!(token_in(&[value]).as_deref(), Some("a.b.c"), "{value}");
        }
        for values in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Basic a.b.c"],
            &["a.b.c"],
            &["Bearer a", "Bearer a"],
        ] {
            assert_eq!(token_in(values), None, "{values:?}");
        }
    }
}
