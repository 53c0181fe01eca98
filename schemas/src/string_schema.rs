//! JSON Schemas of types that are written as strings.

/// Implements `JsonSchema` for a type written as a string, with its description and further keywords.
macro_rules! string_schema {
    ($name:ident, $description:expr, {$($keyword:literal: $value:expr),*}) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let description: &str = $description;
                schemars::json_schema!({
                    "description": description.trim(), "type": "string", $($keyword: $value),*
                })
            }
        }
    };
}

pub(crate) use string_schema;
