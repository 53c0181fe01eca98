//! Customers, orders and products, each answer serialised once at start.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const BUILT_IN: &str = include_str!("data.json");

/// A data file larger than this is refused, in bytes.
const MAX_DATA_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Why the data set could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file of the data directory could not be read.
    #[error("cannot read {}; the sandbox's data directory needs retail_users.json, retail_orders.json and retail_products.json", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the data directory is too large to hold in memory.
    #[error("{} has {bytes} bytes, more than the {MAX_DATA_FILE_BYTES} that the sandbox loads; use a smaller extract", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file is not a map from ids to records.
    #[error("{} is not a JSON object that maps ids to records", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

type Records = BTreeMap<String, Map<String, Value>>;

#[derive(Deserialize)]
struct Tables {
    users: Records,
    orders: Records,
    products: Records,
}

/// The answers of the data sources, ready to send.
#[derive(Debug)]
pub(super) struct Dataset {
    customers: HashMap<String, Customer>,
    orders: HashMap<String, Bytes>,
    products: HashMap<String, Bytes>,
}

#[derive(Debug)]
struct Customer {
    profile: Bytes,
    orders: Bytes,
}

impl Dataset {
    /// The built-in records, and those of `data_dir` on top of them.
    pub(super) async fn load(data_dir: Option<&Path>) -> Result<Self, DatasetError> {
        let mut tables: Tables = serde_json::from_str(BUILT_IN)
            .map_err(|source| DatasetError::Parse { path: "data.json".into(), source })?;
        if let Some(dir) = data_dir {
            tables.users.extend(read(dir.join("retail_users.json")).await?);
            tables.orders.extend(read(dir.join("retail_orders.json")).await?);
            tables.products.extend(read(dir.join("retail_products.json")).await?);
        }
        Ok(Self::index(tables))
    }

    fn index(tables: Tables) -> Self {
        let Tables { users, orders, products } = tables;
        let customers = users
            .into_iter()
            .map(|(id, user)| {
                let history = json!({ "user_id": id, "orders": newest_first(&user, &orders) });
                let customer =
                    Customer { profile: to_bytes(&profile(&id, user)), orders: to_bytes(&history) };
                (id, customer)
            })
            .collect();
        let orders = orders
            .into_iter()
            .map(|(id, order)| (bare_order_id(&id).to_owned(), to_bytes(&Value::Object(order))))
            .collect();
        let products =
            products.into_iter().map(|(id, product)| (id, to_bytes(&Value::Object(product)))).collect();
        Self { customers, orders, products }
    }

    pub(super) fn profile(&self, user_id: &str) -> Option<Bytes> {
        self.customers.get(user_id).map(|customer| customer.profile.clone())
    }

    pub(super) fn orders_of(&self, user_id: &str) -> Option<Bytes> {
        self.customers.get(user_id).map(|customer| customer.orders.clone())
    }

    pub(super) fn order(&self, order_id: &str) -> Option<Bytes> {
        self.orders.get(bare_order_id(order_id)).cloned()
    }

    /// Product ids are matched as written first, then in capitals: people type `prod-001`.
    pub(super) fn product(&self, product_id: &str) -> Option<Bytes> {
        self.products.get(product_id).or_else(|| self.products.get(&product_id.to_ascii_uppercase())).cloned()
    }

    pub(super) fn user_ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.customers.keys().cloned().collect();
        ids.sort_unstable();
        ids
    }
}

/// `#W2611340` and `W2611340` are the same order.
pub(super) fn bare_order_id(id: &str) -> &str {
    id.strip_prefix('#').unwrap_or(id)
}

/// The record with its id, one string as name, and preferences: the shape that a customer service would answer
/// whichever file the record came from.
fn profile(id: &str, mut user: Map<String, Value>) -> Value {
    user.insert("user_id".to_owned(), id.into());
    if let Some(Value::Object(name)) = user.get("name") {
        let parts = ["first_name", "last_name"].map(|part| name.get(part).and_then(Value::as_str));
        let whole = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
        user.insert("name".to_owned(), whole.into());
    }
    user.entry("preferences").or_insert_with(|| json!({ "language": "en", "tone": "friendly" }));
    Value::Object(user)
}

/// By `placed_at` where orders have one; otherwise the customer's own list is taken as oldest first.
fn newest_first(user: &Map<String, Value>, orders: &Records) -> Vec<Value> {
    let listed = user.get("orders").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<_> = listed
        .iter()
        .rev()
        .filter_map(|id| orders.get(id.as_str()?))
        .map(|order| (order.get("placed_at").and_then(Value::as_str).unwrap_or_default(), order))
        .collect();
    found.sort_by(|(left, _), (right, _)| right.cmp(left));
    found.into_iter().map(|(_, order)| Value::Object(order.clone())).collect()
}

fn to_bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

async fn read(path: PathBuf) -> Result<Records, DatasetError> {
    let text = async {
        let bytes = tokio::fs::metadata(&path).await?.len();
        if bytes > MAX_DATA_FILE_BYTES { Ok(Err(bytes)) } else { tokio::fs::read(&path).await.map(Ok) }
    };
    match text.await {
        Err(source) => Err(DatasetError::Read { path, source }),
        Ok(Err(bytes)) => Err(DatasetError::TooLarge { path, bytes }),
        Ok(Ok(text)) => serde_json::from_slice(&text).map_err(|source| DatasetError::Parse { path, source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn parsed(bytes: Option<Bytes>) -> Value {
        serde_json::from_slice(&bytes.expect("known id")).unwrap()
    }

    #[tokio::test]
    async fn the_built_in_records_refer_to_each_other() {
        let tables: Tables = serde_json::from_str(BUILT_IN).unwrap();
        assert_eq!((tables.users.len(), tables.orders.len(), tables.products.len()), (5, 8, 8));
        for (id, order) in &tables.orders {
            assert_eq!(order["order_id"], id.as_str());
            let owner = &tables.users[order["user_id"].as_str().unwrap()];
            assert!(owner["orders"].as_array().unwrap().contains(&id.as_str().into()), "{id} is not listed");
            for item in order["items"].as_array().unwrap() {
                assert!(tables.products.contains_key(item["product_id"].as_str().unwrap()), "{item}");
            }
        }
        let listed: usize = tables.users.values().map(|u| u["orders"].as_array().unwrap().len()).sum();
        assert_eq!(listed, tables.orders.len());
    }

    #[tokio::test]
    async fn a_customers_orders_come_newest_first() {
        let dataset = Dataset::load(None).await.unwrap();
        let history = parsed(dataset.orders_of("demo"));
        let ids: Vec<_> =
            history["orders"].as_array().unwrap().iter().map(|o| o["order_id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["#W10007", "#W10003"]);
        assert_eq!(history["orders"][0]["status"], "shipped");
        assert_eq!(parsed(dataset.orders_of("dave"))["orders"], json!([]), "no orders is not unknown");
    }

    #[tokio::test]
    async fn ids_are_found_as_people_write_them() {
        let dataset = Dataset::load(None).await.unwrap();
        assert_eq!(dataset.order("#W10007"), dataset.order("W10007"));
        assert_eq!(parsed(dataset.product("prod-001"))["product_id"], "PROD-001");
        assert!(dataset.order("#W99999").is_none() && dataset.profile("nobody").is_none());
    }

    #[tokio::test]
    async fn a_data_directory_adds_to_the_built_in_records_in_the_same_shape() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            (
                "retail_users.json",
                r##"{"noah_1": {"name": {"first_name": "Noah", "last_name": "Brown"}, "orders": ["#W11", "#W12"]}}"##,
            ),
            (
                "retail_orders.json",
                r##"{"#W11": {"order_id": "#W11"}, "#W12": {"order_id": "#W12", "status": "pending"}}"##,
            ),
            ("retail_products.json", r#"{"77": {"name": "T-Shirt", "variants": {}}}"#),
        ];
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let dataset = Dataset::load(Some(dir.path())).await.unwrap();
        let noah = parsed(dataset.profile("noah_1"));
        assert_eq!((&noah["name"], &noah["user_id"]), (&json!("Noah Brown"), &json!("noah_1")));
        assert!(noah["preferences"]["tone"].is_string());
        assert_eq!(
            parsed(dataset.orders_of("noah_1"))["orders"][0]["order_id"],
            "#W12",
            "last listed is newest"
        );
        assert!(dataset.product("77").is_some() && dataset.profile("demo").is_some());

        std::fs::remove_file(dir.path().join("retail_orders.json")).unwrap();
        let missing = Dataset::load(Some(dir.path())).await.unwrap_err();
        assert!(missing.to_string().contains("retail_orders.json"), "{missing}");
    }
}
