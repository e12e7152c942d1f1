//! The issuer as a service, for compose: it shows its public key, and makes tokens for whoever may run it. For development only.

use std::path::PathBuf;
use std::process::ExitCode;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use cluster::issuer::{self, SigningKey};
use common::endpoints::Listen;
use common::env::Env;
use common::http;
use common::readiness::Readiness;
use common::service::{self, Lifecycle, Outcome};
use utoipa::OpenApi;

const NAME: &str = "issuer";

/// Show the public key of tokens for development, a JWKS, at /jwks.json, or print a token and exit.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// The command to run instead of serving.
    #[command(subcommand)]
    command: Option<Command>,
}

impl service::Arguments for Arguments {}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a token
    Token(Token),
}

#[derive(Debug, clap::Args)]
struct Token {
    /// The client's number, `client.id` in the write model
    #[arg(long, default_value_t = 1)]
    client: i64,
    /// What the bearer may do, separated by spaces
    #[arg(long, default_value = issuer::ALL_SCOPES)]
    scope: String,
    /// How long it is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    lifetime: u64,
}

struct Config {
    listen: Listen,
    key_file: PathBuf,
}

fn key_file(env: &mut Env) -> PathBuf {
    env.string("ISSUER_KEY_FILE").into()
}

fn configure(env: &mut Env) -> Config {
    Config {
        listen: Listen::from_env(env),
        key_file: key_file(env),
    }
}

async fn start(config: Config, lifecycle: Lifecycle) -> anyhow::Result<()> {
    let jwks = issuer::jwks([&SigningKey::kept_in(&config.key_file)?]);
    let show = get(move || std::future::ready(([(CONTENT_TYPE, "application/json")], jwks.clone())));
    let router = Router::new().route("/jwks.json", show);
    let router = http::routes(router, ApiDoc::openapi(), Readiness::default());
    let listener = http::bind(&config.listen).await?;
    lifecycle.spawn("http", http::serve(listener, router, lifecycle.stopping()));
    Ok(())
}

async fn print_token(key_file: PathBuf, token: Token) -> anyhow::Result<Outcome> {
    let claims = issuer::claims(token.client, &token.scope, token.lifetime)?;
    let token = SigningKey::kept_in(&key_file)?.sign(&claims)?;
    service::print(&format!("{token}\n")).await?;
    Ok(Outcome::Done)
}

#[derive(OpenApi)]
#[openapi(info(
    title = "issuer",
    description = "Shows the public key of tokens for development"
))]
struct ApiDoc;

fn main() -> ExitCode {
    service::run_cli(NAME, |arguments: Arguments| match arguments.command {
        None => service::serve(NAME, configure, start),
        Some(Command::Token(token)) => {
            service::run_admin(NAME, key_file, |key_file, _stopping| print_token(key_file, token))
        }
    })
}
