//! Where turns, interactions and preferences are kept: adapters of [`throughline_actors::ports::store`].
//! Tables and columns have the same names in every database.

pub mod sqlite;
