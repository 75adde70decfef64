//! What is asked, and how the answers are read.

use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Manager, ManagerError};

/// Versions of a Manager.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// Of its API.
    pub version: String,
    /// Of the program.
    pub manager: String,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct User {
    /// Who.
    pub uuid: Uuid,
    /// Address.
    pub email: String,
    /// Domain.
    #[serde(default)]
    pub domain_name: Option<String>,
    /// `user`, `admin`, `superadmin` or `monitor`.
    #[serde(default)]
    pub role: Option<String>,
    /// Whether the account may be used.
    #[serde(default)]
    pub is_active: Option<bool>,
    /// Projects.
    #[serde(default)]
    pub groups: Option<Vec<Group>>,
}

/// A project of a user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Group {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// An access key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Keypair {
    /// The key.
    pub access_key: String,
    /// Address of its user.
    pub user_id: String,
    /// Its user.
    pub user: Uuid,
    /// Whether it may be used.
    pub is_active: bool,
    /// Whether it may administrate.
    pub is_admin: bool,
}

/// Whose a folder is, and what it allows by itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FolderAccess {
    /// Which.
    pub id: Uuid,
    /// `proxy:volume`.
    pub host: String,
    /// Where its quota is counted.
    #[serde(default)]
    pub quota_scope_id: Option<String>,
    /// Its owner, for a user's folder.
    #[serde(default)]
    pub user: Option<Uuid>,
    /// Its project, for a project's folder.
    #[serde(default)]
    pub group: Option<Uuid>,
    /// `ro`, `rw` or `wd`.
    #[serde(default)]
    pub permission: Option<String>,
    /// `user` or `group`.
    #[serde(default)]
    pub ownership_type: Option<String>,
    /// Such as `ready`.
    #[serde(default)]
    pub status: Option<String>,
}

/// A folder in somebody else's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose.
    pub user: Uuid,
    /// Address.
    pub email: String,
    /// `ro`, `rw` or `wd`.
    pub permission: String,
}

impl Manager {
    /// Versions; also says that it is there. Needs no keypair.
    ///
    /// # Errors
    /// See [`ManagerError`].
    pub async fn version(&self) -> Result<Version, ManagerError> {
        read(self.ask(Method::GET, "/", None).await?)
    }

    /// The user of our own keypair.
    ///
    /// # Errors
    /// See [`ManagerError`]; [`ManagerError::Denied`] when the keypair is not right.
    pub async fn who_am_i(&self) -> Result<Keypair, ManagerError> {
        let own = self.settings.access_key.clone();
        self.keypair(&own).await
    }

    /// A keypair by its access key.
    ///
    /// # Errors
    /// See [`ManagerError`].
    pub async fn keypair(&self, access_key: &str) -> Result<Keypair, ManagerError> {
        let query = "query($it: String) { keypair(access_key: $it) { access_key user_id user \
                     is_active is_admin } }";
        self.query(query, "keypair", access_key).await
    }

    /// A user.
    ///
    /// # Errors
    /// See [`ManagerError`].
    pub async fn user(&self, id: Uuid) -> Result<User, ManagerError> {
        let query = "query($it: ID) { user_from_uuid(user_id: $it) { uuid email domain_name role \
                     is_active groups { id name } } }";
        self.query(query, "user_from_uuid", &id.to_string()).await
    }

    /// Whose a folder is.
    ///
    /// # Errors
    /// See [`ManagerError`].
    pub async fn folder(&self, id: Uuid) -> Result<FolderAccess, ManagerError> {
        let query = "query($it: String) { vfolder(id: $it) { id host quota_scope_id user group \
                     permission ownership_type status } }";
        self.query(query, "vfolder", &id.to_string()).await
    }

    /// With whom a folder is shared.
    ///
    /// # Errors
    /// See [`ManagerError`].
    pub async fn shares(&self, folder: Uuid) -> Result<Vec<Share>, ManagerError> {
        #[derive(Deserialize)]
        struct Answer {
            shared: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            shared_to: To,
            perm: String,
        }
        #[derive(Deserialize)]
        struct To {
            uuid: Uuid,
            email: String,
        }
        let path = format!("/folders/_/shared?vfolder_id={folder}");
        let answer: Answer = read(self.ask(Method::GET, &path, None).await?)?;
        let share = |row: Row| Share {
            user: row.shared_to.uuid,
            email: row.shared_to.email,
            permission: row.perm,
        };
        Ok(answer.shared.into_iter().map(share).collect())
    }

    async fn query<T: DeserializeOwned>(
        &self,
        query: &str,
        field: &str,
        it: &str,
    ) -> Result<T, ManagerError> {
        let body = json!({"query": query, "variables": {"it": it}});
        let answer = self.ask(Method::POST, "/admin/gql", Some(&body)).await?;
        let first = answer.pointer("/errors/0/message").and_then(Value::as_str);
        match answer.get("data").and_then(|data| data.get(field)) {
            Some(found) if !found.is_null() => read(found.clone()),
            _ => match first {
                Some(text) => Err(ManagerError::Strange(text.chars().take(200).collect())),
                None => Err(ManagerError::Unknown(format!("{field} {it}"))),
            },
        }
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, ManagerError> {
    serde_json::from_value(value).map_err(|error| ManagerError::Strange(error.to_string()))
}
