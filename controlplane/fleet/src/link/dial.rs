//! From a target to a connection: Sentinels are asked, the master is checked.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};
use thiserror::Error;
use tokio::time::timeout;

use super::settings::{Address, Servers, Target, Tls};

/// From the first packet to the end of the handshake, Sentinels included.
pub(super) const DIAL_BOUND: Duration = Duration::from_secs(3);
/// The part of it that a Sentinel has.
const SENTINEL_BOUND: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum DialError {
    #[error("neither etcd nor the configuration has said where it is")]
    Unknown,
    #[error("no answer within {DIAL_BOUND:?}")]
    Late,
    #[error("no sentinel knows a master of the name {service}: {why}")]
    NoMaster { service: String, why: String },
    #[error("the server is a {role}, not a master")]
    NotMaster { role: String },
    #[error("read the authorities {path}: {source}")]
    Authorities {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// A connection to the database `db` of the master.
pub(super) async fn dial(target: &Target, db: i64) -> Result<MultiplexedConnection, DialError> {
    let dialled = timeout(DIAL_BOUND, async {
        let client = client(target, db).await?;
        let mut connection = connect(&client).await?;
        look_at(target, &mut connection).await?;
        Ok(connection)
    });
    dialled.await.map_err(|_| DialError::Late)?
}

/// A connection that hears messages and nothing else.
pub(super) async fn dial_hearing(target: &Target) -> Result<redis::aio::PubSub, DialError> {
    let dialled = timeout(DIAL_BOUND, async {
        let client = client(target, 0).await?;
        Ok(client.get_async_pubsub().await?)
    });
    dialled.await.map_err(|_| DialError::Late)?
}

/// Whether the server answers: one that reads its data does not yet. Behind Sentinels it has to be
/// a master, too; one that was may be a replica now.
pub(super) async fn look_at(
    target: &Target,
    connection: &mut MultiplexedConnection,
) -> Result<(), DialError> {
    if matches!(target.servers, Servers::One(_)) {
        let _: Value = redis::cmd("PING").query_async(connection).await?;
        return Ok(());
    }
    let role: Vec<Value> = redis::cmd("ROLE").query_async(connection).await?;
    let role = role.into_iter().next().unwrap_or(Value::Nil);
    let role: String = redis::from_redis_value(role).unwrap_or_default();
    match role.as_str() {
        "master" => Ok(()),
        _ => Err(DialError::NotMaster { role }),
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    // The bound of a response is kept by the link: a late answer is not a broken connection.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

async fn client(target: &Target, db: i64) -> Result<Client, DialError> {
    let at = match &target.servers {
        Servers::Unknown => return Err(DialError::Unknown),
        Servers::One(address) => address.clone(),
        Servers::Sentinels {
            all,
            service,
            password,
        } => find_master(target, all, service, password.as_deref()).await?,
    };
    let mut login = RedisConnectionInfo::default().set_db(db);
    if let Some(user) = &target.user {
        login = login.set_username(user);
    }
    if let Some(password) = &target.password {
        login = login.set_password(password);
    }
    client_of(&at, target.tls.as_ref(), login).await
}

/// The first Sentinel that knows is believed.
async fn find_master(
    target: &Target,
    all: &[Address],
    service: &str,
    password: Option<&str>,
) -> Result<Address, DialError> {
    let asked = all.iter().map(|at| ask(target, at, service, password));
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut why = String::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => why = "it is not known there".to_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    Err(DialError::NoMaster {
        service: service.to_owned(),
        why,
    })
}

async fn ask(
    target: &Target,
    at: &Address,
    service: &str,
    password: Option<&str>,
) -> Result<Option<Address>, DialError> {
    let asking = timeout(SENTINEL_BOUND, async {
        let shown = password.or(target.password.as_deref());
        let answer = ask_as(target, at, service, shown).await;
        match answer {
            // The password of the server was only a guess.
            Err(DialError::Redis(error))
                if password.is_none()
                    && shown.is_some()
                    && error.kind() == ErrorKind::AuthenticationFailed =>
            {
                ask_as(target, at, service, None).await
            }
            answer => answer,
        }
    });
    asking.await.map_err(|_| DialError::Late)?
}

async fn ask_as(
    target: &Target,
    at: &Address,
    service: &str,
    password: Option<&str>,
) -> Result<Option<Address>, DialError> {
    let mut login = RedisConnectionInfo::default();
    if let Some(password) = password {
        login = login.set_password(password);
    }
    let client = client_of(at, target.tls.as_ref(), login).await?;
    let mut connection = connect(&client).await?;
    let found: Option<(String, u16)> = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(service)
        .query_async(&mut connection)
        .await?;
    Ok(found.map(|(host, port)| Address { host, port }))
}

async fn client_of(
    at: &Address,
    tls: Option<&Tls>,
    login: RedisConnectionInfo,
) -> Result<Client, DialError> {
    let (host, port) = (at.host.clone(), at.port);
    let addr = match tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(tls) => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: !tls.verify,
            tls_params: None,
        },
    };
    let info: ConnectionInfo = addr.into_connection_info()?.set_redis_settings(login);
    let Some(path) = tls.and_then(|tls| tls.ca.clone()) else {
        return Ok(Client::open(info)?);
    };
    let pem = tokio::fs::read(&path).await;
    let pem = pem.map_err(|source| DialError::Authorities { path, source })?;
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(pem),
    };
    Ok(Client::build_with_tls(info, certificates)?)
}
