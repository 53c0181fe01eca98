//! Setting preferences.

use serde_json::{Map, Value};
use sqlx::PgConnection;
use throughline_schemas::UserId;

use super::{
    connection::Statement,
    nul::{json_to_stored, to_stored},
};

const SET: &str = "INSERT INTO preferences (namespace, user_id, name, value, updated_at)
    SELECT $4, $1, q.name, q.value::json, now()
    FROM unnest($2::text[], $3::text[]) AS q(name, value)
    ORDER BY q.name COLLATE \"C\"
    ON CONFLICT (namespace, user_id, name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at";

pub(super) struct SetPreferences<'a> {
    pub(super) namespace: &'a str,
    pub(super) user: &'a UserId,
    pub(super) preferences: &'a Map<String, Value>,
}

impl Statement for SetPreferences<'_> {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let preference = |(name, value): (&String, &Value)| {
            (to_stored(name).into_owned(), json_to_stored(value).to_string())
        };
        let (names, values): (Vec<String>, Vec<String>) = self.preferences.iter().map(preference).unzip();
        sqlx::query(SET)
            .bind(self.user.as_str())
            .bind(names)
            .bind(values)
            .bind(self.namespace)
            .execute(connection)
            .await?;
        Ok(())
    }
}
