//! The tables as a stranger reads them, whichever database they are in.

use sqlx::{Connection, PgConnection, SqliteConnection};

const IDS: &str = "SELECT workflow_id FROM interactions ORDER BY workflow_id";
const STATES: &str = "SELECT state, count(*) FROM turns GROUP BY state ORDER BY state";

fn is_file(url: &str) -> bool {
    url.starts_with("sqlite:")
}

async fn file(url: &str) -> SqliteConnection {
    SqliteConnection::connect(&format!("{url}?mode=ro")).await.expect("a database")
}

async fn server(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("a database")
}

/// The workflow id of every row of `interactions`.
pub async fn ids(url: &str) -> Vec<String> {
    let ids: Vec<(String,)> = if is_file(url) {
        sqlx::query_as(IDS).fetch_all(&mut file(url).await).await.expect("rows")
    } else {
        sqlx::query_as(IDS).fetch_all(&mut server(url).await).await.expect("rows")
    };
    ids.into_iter().map(|(id,)| id).collect()
}

/// How many turns there are in each state.
pub async fn turns(url: &str) -> Vec<(String, i64)> {
    if is_file(url) {
        sqlx::query_as(STATES).fetch_all(&mut file(url).await).await.expect("rows")
    } else {
        sqlx::query_as(STATES).fetch_all(&mut server(url).await).await.expect("rows")
    }
}
