//! The steps of a copy, in the order that makes it safe to be killed between any two.

use super::{
    error::{CopyError, Occupied},
    table::{PageQuery, Row, TABLES, Table},
};
use crate::storage::{CopiedTo, Database, DatabaseError, Peeked, Stranger, peek};

/// A database of a copy.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its URL with the password.
    pub url: &'a str,
    /// Where it is, in words without secrets that hold for every process.
    pub name: &'a str,
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Each table and how many rows it has.
    pub tables: Vec<(&'static str, u64)>,
    /// The copy had been made before, and the target may have been used since.
    pub before: bool,
}

/// Copies everything of `namespace`, and retires it in the source: a process that opens it there learns where it is.
/// `report` gets how many rows of which table have been copied.
///
/// May be killed at any moment, or dropped, and run again: it goes on. Nothing is changed unless the source belongs to the
/// namespace, no worker uses it, and the target has nothing of it that the source does not have.
pub async fn copy(
    from: Place<'_>,
    to: Place<'_>,
    namespace: &str,
    mut report: impl FnMut(&'static str, u64),
) -> Result<Copied, CopyError> {
    let identity = match look(from, to, namespace).await? {
        Begun::Before => {
            let source = open(from, namespace).await?;
            let completed = source.complete_copy(namespace).await;
            source.close().await;
            completed.map_err(CopyError::of(from.name))?;
            return Ok(Copied { tables: Vec::new(), before: true });
        }
        Begun::Now(identity) => identity,
    };
    let source = open(from, namespace).await?;
    let target = match open(to, namespace).await {
        Ok(target) => target,
        Err(error) => {
            source.close().await;
            return Err(error);
        }
    };
    let copy = Copy { from, to, namespace, source: &source, target: &target };
    let copied = copy.make(&identity, &mut report).await;
    target.close().await;
    source.close().await;
    Ok(Copied { tables: copied?, before: false })
}

async fn open(place: Place<'_>, namespace: &str) -> Result<Database, CopyError> {
    let opened = Database::open_patiently(place.url, namespace).await;
    opened.map_err(|source| database(place, source))
}

fn database(place: Place<'_>, source: DatabaseError) -> CopyError {
    CopyError::Database { place: place.name.to_owned(), source }
}

/// How far a copy is, according to both sides.
enum Begun {
    /// The target has all of it.
    Before,
    /// It is to be made, or to be made whole. The identity of the source.
    Now(String),
}

/// Looks at both and changes nothing.
async fn look(from: Place<'_>, to: Place<'_>, namespace: &str) -> Result<Begun, CopyError> {
    if from.name == to.name {
        return Err(CopyError::SameDatabase(from.name.to_owned()));
    }
    let here = match peek(from.url, namespace).await.map_err(|error| database(from, error))? {
        Peeked::Missing => return Err(CopyError::NoSource(from.name.to_owned())),
        Peeked::Nothing => {
            let (from, namespace) = (from.name.to_owned(), namespace.to_owned());
            return Err(CopyError::NoNamespace { from, namespace });
        }
        Peeked::Identity(identity) => identity,
    };
    let is_ours = match &here.copied {
        None => false,
        Some(copied) if copied.place == to.name => true,
        Some(copied) => {
            let (from, namespace) = (from.name.to_owned(), namespace.to_owned());
            return Err(CopyError::CopiedElsewhere { from, namespace, to: copied.place.clone() });
        }
    };
    match peek(to.url, namespace).await.map_err(|error| database(to, error))? {
        Peeked::Missing | Peeked::Nothing => Ok(Begun::Now(here.id)),
        Peeked::Identity(there) if there.id == here.id && is_ours => Ok(Begun::Before),
        Peeked::Identity(there) if there.id == here.id => {
            Err(occupied(to, namespace, Occupied::SameIdentity))
        }
        Peeked::Identity(_) => Err(occupied(to, namespace, Occupied::OtherIdentity)),
    }
}

fn occupied(to: Place<'_>, namespace: &str, why: Occupied) -> CopyError {
    CopyError::Occupied { to: to.name.to_owned(), namespace: namespace.to_owned(), why }
}

struct Copy<'a> {
    from: Place<'a>,
    to: Place<'a>,
    namespace: &'a str,
    source: &'a Database,
    target: &'a Database,
}

impl Copy<'_> {
    async fn make(
        &self,
        identity: &str,
        report: &mut impl FnMut(&'static str, u64),
    ) -> Result<Vec<(&'static str, u64)>, CopyError> {
        self.refuse_workers().await?;
        for table in TABLES {
            self.refuse_other_rows(table).await?;
        }
        self.retire_source().await?;
        let mut tables = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            tables.push((table.name, self.copy_rows(table, report).await?));
        }
        for (table, rows) in TABLES.into_iter().zip(&mut tables) {
            *rows = (table.name, self.compare_counts(table).await?);
        }
        let there = CopyError::of(self.to.name);
        self.target.take_mark(self.source).await.map_err(&there)?;
        let has = self.target.claim_identity(self.namespace, identity).await.map_err(&there)?;
        if has != identity {
            return Err(occupied(self.to, self.namespace, Occupied::OtherIdentity));
        }
        self.source.complete_copy(self.namespace).await.map_err(CopyError::of(self.from.name))?;
        Ok(tables)
    }

    /// From here on no worker begins with the source: one that is beginning looks for the mark after its first sign of
    /// life, so that either it sees the mark or its sign of life is seen here.
    async fn retire_source(&self) -> Result<(), CopyError> {
        let here = CopyError::of(self.from.name);
        let begun = self.source.begin_copy(self.namespace, self.to.name).await.map_err(&here)?;
        let CopiedTo { place, .. } = begun;
        if place != self.to.name {
            let (from, namespace) = (self.from.name.to_owned(), self.namespace.to_owned());
            return Err(CopyError::CopiedElsewhere { from, namespace, to: place });
        }
        self.refuse_workers().await
    }

    async fn refuse_workers(&self) -> Result<(), CopyError> {
        let workers = self.source.workers(self.namespace).await.map_err(CopyError::of(self.from.name))?;
        let Some(Stranger { worker, seen_ago }) = workers.into_iter().find(|worker| !worker.is_gone()) else {
            return Ok(());
        };
        let (from, seen_s) = (self.from.name.to_owned(), seen_ago.as_secs());
        Err(CopyError::InUse { from, worker, seen_s })
    }

    /// What the target has of the namespace can only be what an earlier run wrote.
    async fn refuse_other_rows(&self, table: &'static Table) -> Result<(), CopyError> {
        let (here, there) = (CopyError::of(self.from.name), CopyError::of(self.to.name));
        let mut last: Option<Row> = None;
        loop {
            let rows = self.target.page(PageQuery::new(table, None, last.as_ref())).await.map_err(&there)?;
            if rows.is_empty() {
                return Ok(());
            }
            let known = self.source.same_keys(table, &rows).await.map_err(&here)?;
            let known: Vec<Row> = known.into_iter().map(|row| self.target.kept(table, row)).collect();
            if known != rows {
                return Err(occupied(self.to, self.namespace, Occupied::OtherRows));
            }
            last = rows.into_iter().last();
        }
    }

    async fn copy_rows(
        &self,
        table: &'static Table,
        report: &mut impl FnMut(&'static str, u64),
    ) -> Result<u64, CopyError> {
        let (here, there) = (CopyError::of(self.from.name), CopyError::of(self.to.name));
        let mut last: Option<Row> = None;
        let mut copied = 0;
        loop {
            let rows = self.source.page(PageQuery::new(table, None, last.as_ref())).await.map_err(&here)?;
            let Some(end) = rows.last().cloned() else { return Ok(copied) };
            let rows: Vec<Row> = rows.into_iter().map(|row| self.target.kept(table, row)).collect();
            self.target.add(table, &rows).await.map_err(&there)?;
            if self.target.same_keys(table, &rows).await.map_err(&there)? != rows {
                return Err(CopyError::Differ { to: self.to.name.to_owned(), table: table.name });
            }
            copied += rows.len() as u64;
            report(table.name, copied);
            last = Some(end);
        }
    }

    async fn compare_counts(&self, table: &'static Table) -> Result<u64, CopyError> {
        let here = self.source.count(table, None).await.map_err(CopyError::of(self.from.name))?;
        let there = self.target.count(table, None).await.map_err(CopyError::of(self.to.name))?;
        if here == there {
            return Ok(there);
        }
        Err(CopyError::Counts { to: self.to.name.to_owned(), table: table.name, there, here })
    }
}
