//! The users of the broker: what a service does not need is refused by the broker, whoever has its password.

use std::collections::BTreeSet;

use anyhow::Context as _;
use cluster::{BrokerAddress, Cluster, Options, Service};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const EXCHANGES: [&str; 6] = [
    "", // the default exchange: a message to it reaches the queue that it names
    "pydist",
    "pydist.dead_letter",
    "amq.direct",
    "amq.topic",
    "another",
];
const QUEUES: [&str; 3] = ["buy_order", "buy_order.dead_letter", "another"];
const SERVICES: [Service; 3] = [
    Service::Migration,
    Service::CreateBuyOrder,
    Service::ReadModelSync,
];

/// Only `migration`, which has declared everything.
async fn cluster() -> anyhow::Result<Cluster> {
    Cluster::start(Options::only(&[])).await
}

/// The broker, with the user of a service.
fn as_service(cluster: &Cluster, service: Service) -> anyhow::Result<BrokerAddress> {
    let mut environment = cluster.environment(service)?;
    let mut variable = |name: &str| environment.remove(name).context("the service has no user");
    Ok(BrokerAddress {
        user: variable("Q_USER")?,
        password: variable("Q_PWD")?,
        ..cluster.queue().clone()
    })
}

/// Something that a user may or may not do.
#[derive(Debug, Clone, Copy)]
enum Action {
    DeclareExchange,
    DeleteExchange,
    Publish,
    DeclareQueue,
    DeleteQueue,
    Purge,
    Consume,
    Get,
    /// To the exchange of orders.
    Bind,
    /// From the exchange of orders.
    Unbind,
}

impl Action {
    /// Those that take something away come last.
    const ON_EXCHANGES: [Self; 3] = [Self::Publish, Self::DeclareExchange, Self::DeleteExchange];
    const ON_QUEUES: [Self; 7] = [
        Self::Consume,
        Self::Get,
        Self::Bind,
        Self::DeclareQueue,
        Self::Purge,
        Self::Unbind,
        Self::DeleteQueue,
    ];

    async fn attempt(self, channel: &Channel, name: &str) -> lapin::Result<()> {
        let no_arguments = FieldTable::default;
        let (name, exchange) = (ShortString::from(name), ShortString::from("pydist"));
        match self {
            Self::DeclareExchange => {
                let options = ExchangeDeclareOptions::default();
                channel
                    .exchange_declare(name, ExchangeKind::Fanout, options, no_arguments())
                    .await
            }
            Self::DeleteExchange => {
                channel
                    .exchange_delete(name, ExchangeDeleteOptions::default())
                    .await
            }
            Self::Publish => {
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                let publish = channel.basic_publish(name, "buy_order".into(), options, b"forged", properties);
                publish.await?.await.map(drop)
            }
            Self::DeclareQueue => {
                let options = QueueDeclareOptions::default();
                channel
                    .queue_declare(name, options, no_arguments())
                    .await
                    .map(drop)
            }
            Self::DeleteQueue => channel
                .queue_delete(name, QueueDeleteOptions::default())
                .await
                .map(drop),
            Self::Purge => channel
                .queue_purge(name, QueuePurgeOptions::default())
                .await
                .map(drop),
            Self::Consume => {
                let options = BasicConsumeOptions::default();
                channel
                    .basic_consume(name, "".into(), options, no_arguments())
                    .await
                    .map(drop)
            }
            Self::Get => channel
                .basic_get(name, BasicGetOptions::default())
                .await
                .map(drop),
            Self::Bind => {
                let options = QueueBindOptions::default();
                channel
                    .queue_bind(name.clone(), exchange, name, options, no_arguments())
                    .await
            }
            Self::Unbind => {
                channel
                    .queue_unbind(name.clone(), exchange, name, no_arguments())
                    .await
            }
        }
    }
}

/// Whether the broker says that the user has no permission.
fn is_refused(outcome: &lapin::Result<()>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.to_string().contains("ACCESS_REFUSED"))
}

/// All that the user may do with these exchanges and queues. All that is not among it is refused.
async fn permitted(user: &BrokerAddress) -> anyhow::Result<BTreeSet<String>> {
    let connection = Connection::connect(&user.uri(), ConnectionProperties::default()).await?;
    let on_exchanges = Action::ON_EXCHANGES
        .iter()
        .flat_map(|action| EXCHANGES.map(|name| (*action, name)));
    let on_queues = Action::ON_QUEUES
        .iter()
        .flat_map(|action| QUEUES.map(|name| (*action, name)));
    let mut permitted = BTreeSet::new();
    for (action, name) in on_exchanges.chain(on_queues) {
        // A refusal ends the channel.
        let channel = connection.create_channel().await?;
        if !is_refused(&action.attempt(&channel, name).await) {
            permitted.insert(format!("{action:?} {name}"));
        }
        let _ = channel.close(200, "done".into()).await;
    }
    // A queue of its own, under any name.
    let channel = connection.create_channel().await?;
    if !is_refused(&Action::DeclareQueue.attempt(&channel, "").await) {
        permitted.insert("a queue of its own".to_owned());
    }
    connection.close(200, "done".into()).await?;
    Ok(permitted)
}

fn set(actions: &[&str]) -> BTreeSet<String> {
    actions.iter().map(|action| (*action).to_owned()).collect()
}

#[tokio::test]
async fn create_buy_order_may_publish_orders_and_do_nothing_else() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let user = as_service(&cluster, Service::CreateBuyOrder)?;
    assert_eq!(permitted(&user).await?, set(&["Publish pydist"]));
    Ok(())
}

/// Whoever may consume a queue may also purge it.
#[tokio::test]
async fn read_model_sync_may_consume_orders_and_publish_dead_letters_and_do_nothing_else()
-> anyhow::Result<()> {
    let cluster = cluster().await?;
    let user = as_service(&cluster, Service::ReadModelSync)?;
    let consumes = ["Consume buy_order", "Get buy_order", "Purge buy_order"];
    let publishes = ["Publish pydist.dead_letter"];
    assert_eq!(
        permitted(&user).await?,
        set(&[consumes.as_slice(), &publishes].concat())
    );
    Ok(())
}

#[tokio::test]
async fn migration_may_declare_our_exchanges_and_queues_but_neither_publish_orders_nor_read_dead_letters()
-> anyhow::Result<()> {
    let cluster = cluster().await?;
    let user = as_service(&cluster, Service::Migration)?;
    let permitted = permitted(&user).await?;
    let of_others = |action: &&String| action.ends_with("another") || action.contains("amq.");
    assert_eq!(permitted.iter().find(of_others), None);
    for refused in [
        "Publish ",
        "Publish pydist",
        "Consume buy_order.dead_letter",
        "Get buy_order.dead_letter",
        "Purge buy_order.dead_letter",
        "a queue of its own",
    ] {
        assert!(!permitted.contains(refused), "{refused}");
    }
    for needed in [
        "DeclareExchange pydist",
        "DeclareQueue buy_order",
        "Bind buy_order",
    ] {
        assert!(permitted.contains(needed), "{needed}");
    }
    Ok(())
}

#[tokio::test]
async fn no_user_of_a_service_makes_or_reads_anything_over_http() -> anyhow::Result<()> {
    let cluster = cluster().await?;
    let http = cluster.http();
    let mallory = format!("users/mallory_{}", uuid::Uuid::new_v4().simple());
    let administrator = json!({"password": "mallory", "tags": "administrator"});
    let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
    let forged =
        json!({"properties": {}, "routing_key": "buy_order", "payload": "{}", "payload_encoding": "string"});
    let get = json!({"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"});
    let attacks: [(Method, &str, Value); 13] = [
        (Method::GET, "whoami", Value::Null),
        (Method::GET, "users", Value::Null),
        (Method::GET, "definitions", Value::Null),
        (Method::POST, "definitions", json!({"users": []})),
        (Method::PUT, &mallory, administrator.clone()),
        (Method::PUT, "users/{user}", administrator),
        (Method::PUT, "permissions/{vhost}/{user}", all),
        (Method::GET, "connections", Value::Null),
        (
            Method::POST,
            "exchanges/{vhost}/amq.default/publish",
            forged.clone(),
        ),
        (Method::POST, "exchanges/{vhost}/pydist/publish", forged),
        (Method::POST, "queues/{vhost}/buy_order/get", get.clone()),
        (Method::POST, "queues/{vhost}/buy_order.dead_letter/get", get),
        (Method::DELETE, "queues/{vhost}/buy_order", Value::Null),
    ];
    for service in SERVICES {
        let user = as_service(&cluster, service)?;
        for (method, resource, body) in &attacks {
            let request = http
                .request(method.clone(), user.api(resource))
                .basic_auth(&user.user, Some(&user.password));
            let answer = request.json(body).send().await?;
            assert_eq!(
                answer.status(),
                StatusCode::UNAUTHORIZED,
                "{service:?}: {method} {resource}"
            );
        }
    }
    let broker = cluster.queue();
    let made = http.get(broker.api(&mallory));
    let made = made
        .basic_auth(&broker.user, Some(&broker.password))
        .send()
        .await?;
    assert_eq!(made.status(), StatusCode::NOT_FOUND);
    Ok(())
}
