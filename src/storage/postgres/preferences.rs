//! Setting and deleting preferences.

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

const DELETE: &str = "DELETE FROM preferences WHERE namespace = $1 AND user_id = $2
    AND ($3::text[] IS NULL OR name = ANY ($3::text[]))";

pub(super) struct DeletePreferences<'a> {
    pub(super) namespace: &'a str,
    pub(super) user: &'a UserId,
    /// All, if there are none.
    pub(super) names: Option<&'a [String]>,
}

impl Statement for DeletePreferences<'_> {
    type Answer = u64;

    async fn send(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let names: Option<Vec<String>> =
            self.names.map(|names| names.iter().map(|name| to_stored(name).into_owned()).collect());
        let deleted = sqlx::query(DELETE)
            .bind(self.namespace)
            .bind(self.user.as_str())
            .bind(names)
            .execute(connection)
            .await?;
        Ok(deleted.rows_affected())
    }
}
